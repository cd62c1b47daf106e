"""An image's root folder laid out on this machine, and containers' first processes started from it."""

from __future__ import annotations

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import warmimage.entrypoint
from warmimage.entrypoint.pagecache.syscalls import resident_bytes

from .plans import make_imports, make_plan

SOURCE = Path(warmimage.entrypoint.__file__).parent

#: Makes the process after it PID 1 of a namespace of its own, as a container's is.
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

#: Seconds after which a container counts as hung: so many that a busy machine, with a test on each worker, takes fewer.
HUNG = 120

#: Takes the capabilities away by which root reads files that it has no permission for.
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")


def interpreters() -> dict[str, str]:
    """Return the supported interpreters on this machine by version: named in ``WARMIMAGE_TEST_PYTHONS``, or found."""
    named = os.environ.get("WARMIMAGE_TEST_PYTHONS")
    if named:
        candidates = named.split(os.pathsep)
    else:
        on_path = [shutil.which(f"python3.{minor}") for minor in range(10, 14)]
        folder = os.environ.get("PYENV_ROOT", "")
        managed = sorted(glob.glob(os.path.join(folder, "versions/3.1[0-3]*/bin/python"))) if folder else []
        candidates = [*(path for path in on_path if path), *managed, sys.executable]
    found: dict[str, str] = {}
    for candidate in candidates:
        asked = subprocess.run(
            [candidate, "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode == 0:  # else a shim of a version manager for a version that is not active
            version, _, executable = asked.stdout.strip().partition(" ")
            found.setdefault(version, executable)
    return dict(sorted(found.items(), key=lambda item: int(item[0].partition(".")[2])))


@cache
def works(*prefix: str) -> bool:
    """Return whether a command may be run behind ``prefix`` here."""
    try:
        return subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@dataclass(frozen=True)
class Ended:
    """A container that has ended."""

    code: int
    out: bytes
    err: bytes
    seconds: float

    @property
    def said(self) -> list[str]:
        """The lines that warmimage itself wrote to standard error, without its name."""
        name = "warmimage: "
        return [row[len(name) :] for row in self.err.decode().splitlines() if row.startswith(name)]


@dataclass(frozen=True)
class Running:
    """A container that runs; ``pid`` is its first process as this machine counts."""

    process: subprocess.Popen[bytes]
    pid: int

    def line(self) -> str:
        """Return the next line of its standard output."""
        assert self.process.stdout
        return self.process.stdout.readline().decode().rstrip("\n")

    def send(self, number: int) -> None:
        """Send a signal, as ``docker kill`` does."""
        os.kill(self.pid, number)

    def end(self) -> int:
        """Wait for its end and return its exit code."""
        return self.process.wait(timeout=HUNG)


class Image:
    """An image: the entrypoint's folder, plan and closure, an engine, and the model that is mounted."""

    def __init__(self, folder: Path, python: str, entrypoint: Path) -> None:
        self.python = python
        self.root = folder / "root"
        self.model = folder / "model"
        self.timeline = folder / "timeline.jsonl"
        self.marker = folder / "marker"
        self.entrypoint = self.root / "entrypoint"
        self.main = str(self.entrypoint / "__main__.py")
        self.bin = self.root / "bin"
        shutil.copytree(entrypoint, self.entrypoint)
        self.bin.mkdir()
        self.engine = self.script("engine", Path(__file__).with_name("engine.py").read_text())
        self.closure({"files": [str(self.engine)], "libraries": []})
        self.model.mkdir()
        (self.model / "config.json").write_text("{}")
        for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
            (self.model / name).write_bytes(b"weights")
        self.plan = make_plan(str(self.model), python, directory=str(folder), port=free_port())
        self.write_plan()

    def write_plan(self, **engine: Any) -> None:
        """Write the plan, with these changes to its engine."""
        self.change_plan(engine=replace(self.plan.engine, **engine))

    def change_plan(self, **changes: Any) -> None:
        """Write the plan with these changes."""
        self.plan = replace(self.plan, **changes)
        (self.root / "plan.json").write_text(self.plan.to_json())

    def move_model(self, path: Path) -> None:
        """Write the plan with the model at another path."""
        self.change_plan(model=replace(self.plan.model, path=str(path)))

    def closure(self, closure: object) -> None:
        """Write the closure."""
        (self.root / "closure.json").write_text(json.dumps(closure))

    def script(self, name: str, text: str) -> Path:
        """Put a console script on the image's ``PATH`` and return its path."""
        path = self.bin / name
        path.write_text(f"#!{self.python}\n{text}")
        path.chmod(0o755)
        return path

    def environment(self, **variables: str) -> dict[str, str]:
        """Return a container's environment with these variables added."""
        path = f"{self.bin}:{os.environ['PATH']}"
        return {"PATH": path, "WARMIMAGE_TIMELINE": str(self.timeline), **variables}

    @contextmanager
    def start(
        self,
        *arguments: str | bytes,
        prefix: Sequence[str] = (),
        env: Mapping[Any, Any] | None = None,
        **variables: str,
    ) -> Iterator[Running]:
        """Start a container, as PID 1 of its namespace where that is permitted, and end it on leaving."""
        namespace = NAMESPACE if works(*NAMESPACE) else ()
        command = [*prefix, self.python, "-I", "-S", str(self.entrypoint), *arguments]
        with subprocess.Popen(
            [*namespace, *command],
            env=env or self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        ) as process:
            try:
                yield Running(process, _only_child(process.pid) if namespace else process.pid)
            finally:
                process.kill()

    def run(self, *arguments: str | bytes, **words: Any) -> Ended:
        """Run a container to its end."""
        began = time.monotonic()
        with self.start(*arguments, **words) as running:
            out, err = running.process.communicate(timeout=HUNG)
        return Ended(running.process.returncode, out, err, time.monotonic() - began)

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Return the timeline's events, all or those of one name."""
        events = [json.loads(row) for row in self.timeline.read_text().splitlines()]
        return [event for event in events if name in ("", event["event"])]

    @property
    def tiers(self) -> list[str]:
        """The tiers that PID 1 has started the engine in."""
        return [event["tier"] for event in self.events("tier.started")]

    @property
    def started(self) -> list[str]:
        """The tiers in which the engine was started, as its word ``mark`` wrote them."""
        return self.marker.read_text().split() if self.marker.exists() else []

    @property
    def mark(self) -> str:
        """The engine's word that leaves proof of its start."""
        return f"mark:{self.marker}"

    @property
    def snapshot(self) -> Path:
        """The directory of the image's snapshot."""
        return self.root / "snapshot"

    def capture(
        self, *words: str, variables: Mapping[str, str] | None = None, **imports: Any
    ) -> subprocess.CompletedProcess[str]:
        """Capture a snapshot as the image's build does.

        Args:
            words: arguments of the command ``capture`` behind the directory.
            variables: what the environment has beside ``PATH``.
            imports: what ``imports.json`` has in another way.
        """
        asked = make_imports(command=self.plan.engine.command, python=self.python)
        (self.root / "imports.json").write_text(replace(asked, **imports).to_json())
        # In a container /tmp is the capture's own, and it removes what appears there meanwhile.  Here it belongs to all
        # processes of this machine, so it is given another directory.
        private = self.root / "tmp"
        private.mkdir(exist_ok=True)
        script = (
            "import sys; sys.path.insert(0, sys.argv[1]); from entrypoint.tiers.snapshot import capture; "
            "capture._TEMPORARY = sys.argv[2]; sys.exit(capture.main(sys.argv[3:]))"
        )
        command = ("-I", "-S", "-c", script, str(self.root), str(private), str(self.snapshot), *words)
        return self.python_run(*command, **(variables or {}))

    def python_run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the image's interpreter, as a build step would."""
        return subprocess.run(
            [self.python, *words],
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def _only_child(pid: int) -> int:
    """Return the one child of a process, as soon as there is one that has become another program."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            children = path.read_text().split()
        except OSError:
            break
        if children:
            return int(children[0])
        time.sleep(0.002)
    return pid  # it has ended already


def free_port() -> int:
    """Return a TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def real_time_signal() -> int:
    """Return a signal that has a number and no name."""
    return signal.SIGRTMIN + 3


def evict(*paths: Path) -> None:
    """Drop files from the page cache; skip where the file system is nothing but page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        if resident_bytes(str(path)):
            pytest.skip("this file system keeps its files in memory")
