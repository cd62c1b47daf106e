"""Build a context with BuildKit through the docker command: docker-py does not support BuildKit."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..console import console, note
from ..errors import EnvironmentLacks, WarmimageError

Progress = Literal["auto", "plain", "tty", "quiet"]

#: First version of the client without its own BuildKit: it uses the buildx plugin.
_BUILDX_ONLY = 23

_FAILED = re.compile(r"#(\d+) ERROR: ")
_PRINTED = re.compile(r"#(\d+) \d+\.\d+ (.*)")

_STEP = re.compile(r"#\d+ (\[[^\]]+\] .*|exporting .*)")


@dataclass(frozen=True)
class Builder:
    """A docker command that builds with BuildKit.

    Attributes:
        command: the first arguments.
        environment: further environment variables.
    """

    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


def find_builder() -> Builder:
    """Return the first docker command on the PATH that builds with BuildKit.

    A client without the buildx plugin may precede one that works.

    Raises:
        EnvironmentLacks: there is none.
    """
    seen = []
    for directory in os.get_exec_path():
        docker = os.path.join(directory, "docker")
        if not os.access(docker, os.X_OK) or os.path.realpath(docker) in seen:
            continue
        seen.append(os.path.realpath(docker))
        if subprocess.run([docker, "buildx", "version"], capture_output=True, check=False).returncode == 0:
            # Not `buildx build`: that follows `buildx use`, and another builder sees none of the daemon's images.
            return Builder((docker, "build"), (("DOCKER_BUILDKIT", "1"), ("BUILDX_BUILDER", "default")))
        version = subprocess.run([docker, "--version"], capture_output=True, text=True, check=False).stdout
        major = re.search(r"version (\d+)\.", version)
        if major and int(major[1]) < _BUILDX_ONLY:
            return Builder((docker, "build"), (("DOCKER_BUILDKIT", "1"),))
    raise EnvironmentLacks(
        "no docker command can build with BuildKit",
        got=", ".join(seen) or "no docker command on PATH",
        expected="docker with the buildx plugin",
        fix="install docker-buildx (or docker-buildx-plugin)",
    )


def build_command(
    builder: Builder, context: Path, tags: Sequence[str], secrets: Sequence[str], network: str, iid_file: Path
) -> list[str]:
    """Return the command line that builds a context."""
    command = [*builder.command, "--progress", "plain", "--network", network, "--iidfile", str(iid_file)]
    for tag in tags:
        command += ["--tag", tag]
    for secret in secrets:
        command += ["--secret", secret]
    return [*command, str(context)]


def build(
    builder: Builder, context: Path, tags: Sequence[str], secrets: Sequence[str], network: str, progress: Progress
) -> str:
    """Build a context and return the image's id, ``sha256:...``.

    Raises:
        WarmimageError: a step failed; the message names it.
    """
    with tempfile.TemporaryDirectory(prefix="warmimage-") as name:
        iid_file = Path(name) / "iid"
        command = build_command(builder, context, tags, secrets, network, iid_file)
        tail: deque[str] = deque(maxlen=60)
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **dict(builder.environment)},
        ) as process:
            try:
                _show(process, tail, progress)
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            raise _build_error(list(tail))
        return iid_file.read_text(encoding="ascii").strip()


def _show(process: subprocess.Popen[str], tail: deque[str], progress: Progress) -> None:
    """Show a build's output: the current step as a status line, all lines, or nothing."""
    assert process.stdout
    if progress == "auto":
        progress = "tty" if console().is_terminal and not os.environ.get("CI") else "plain"
    status = console().status("building") if progress == "tty" else None
    if status:
        status.start()
    try:
        for line in process.stdout:
            tail.append(line.rstrip())
            step = _STEP.match(line)
            if status and step:
                status.update(f"building {step[1].strip()[:100]}")
            elif progress == "plain":
                note(line.rstrip())
    finally:
        if status:
            status.stop()


def _build_error(tail: Sequence[str]) -> WarmimageError:
    text = "\n".join(tail)
    if "no space left on device" in text.lower():
        return WarmimageError(
            "the Docker daemon has no disk space left", got=_last(tail), fix="docker system prune, or enlarge its disk"
        )
    own = [line.split("warmimage: error: ", 1)[1] for line in tail if "warmimage: error: " in line]
    if own:
        step = "snapshot" if own[0].startswith("snapshot ") else "closure"
        return WarmimageError(own[0], where=f"the image's {step} step", fix="see the steps above, or --progress plain")
    fix = "--progress plain shows all steps; warmimage render --output-dir DIR writes the context for inspection"
    return WarmimageError("the build failed", got=_last(tail), fix=fix)


def _last(tail: Sequence[str]) -> str:
    """Return the last line of the failed step, else the last line with an error."""
    failed = next((match[1] for line in tail if (match := _FAILED.match(line))), None)
    printed = [match[2] for line in tail if (match := _PRINTED.match(line)) and match[1] == failed]
    errors = [line for line in tail if "error" in line.lower() or "failed" in line.lower()]
    lines = [line.strip() for line in printed or errors or tail if line.strip()]
    return lines[-1][-300:] if lines else ""
