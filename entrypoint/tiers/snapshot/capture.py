"""The image's ``capture`` command: import the engine in a process of its own, and keep that process as a snapshot.

Runs as a step of the image's build, or in a container of the image; it needs no privilege.  As root it imports as the
image's user, and the files become root's: the server's user must not change what it will run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...closure import Closure
from ...environment.import_environment import Contract
from ...imports import Imports
from ...kernel.gpus import Accelerator
from ...settings import CLOSURE, IMPORTS, SCRIPT
from ...timeline import say
from .. import engine_program
from . import integrity, native
from .captured_process import EXIT_NOT_CAPTURED, FACTS, TIMELINE
from .cpu_baseline import for_loader, required
from .identity import content, sampled
from .manifest import DECLINED, MEMORY, NAME, Manifest, cpu_features
from .memory_file import NotCaptured

#: The option that makes a capture that fails an error.
REQUIRE = "--require"

#: Variables that a container or a shell sets by itself.
_OF_THE_CONTAINER = ("HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_", "TERM")

#: Variables that hold no secret, and by which a process finds its files, its language and its GPUs.
_ALWAYS = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TZ")
_ALWAYS_BEGIN = ("LC_", "NVIDIA_", "PYTHON")

#: Bytes of command line that process listings will have room for.
_ROOM = 4000

#: Where imports leave files that no image is to keep.
_TEMPORARY = "/tmp"  # noqa: S108 - of this container alone

#: Seconds that importing and writing may take.
_LONGEST = 1800.0


def main(arguments: Sequence[str]) -> int:
    """Capture into a directory, and return the exit code.

    Args:
        arguments: the directory, which is made; ``--require`` where a capture that fails is to be an error; names of
            variables that the imports may see beside the image's own.
    """
    directory, *names = [word for word in arguments if word != REQUIRE]
    require = REQUIRE in arguments
    try:
        os.makedirs(directory, exist_ok=True)
        _clear(directory)
        manifest = _capture(directory, names)
    except (NotCaptured, OSError, ValueError, LookupError, subprocess.SubprocessError) as error:
        reason = str(error) if isinstance(error, NotCaptured) else repr(error)
        say(f"{'error: ' if require else ''}snapshot not captured: {reason}")
        with contextlib.suppress(OSError):  # it is said already
            _clear(directory)
        if require:
            return EXIT_NOT_CAPTURED
        with contextlib.suppress(OSError), open(os.path.join(directory, DECLINED), "w", encoding="utf-8") as file:
            file.write(f"{reason}\n")
        return 0
    say(f"captured {manifest.modules} modules, {manifest.bytes >> 20} MiB")
    return 0


def _capture(directory: str, names: Sequence[str]) -> Manifest:
    with open(IMPORTS, encoding="utf-8") as file:
        imports = Imports.from_json(file.read())
    machine = os.uname().machine
    if machine not in native.RESTORES:
        raise NotCaptured(f"restoring is not tested on {machine}")
    accelerator = Accelerator.here()
    if imports.accelerator == "cuda" and not accelerator.driver:
        raise NotCaptured("the image serves on CUDA, and no NVIDIA driver is here: capture it on a machine with a GPU")
    found = engine_program.locate(imports.command, imports.python, os.environ.get("PATH"))
    if not found:
        raise NotCaptured(f"{imports.command[0]} is neither a Python script on PATH nor an interpreter with -m")
    closure = Closure.read()
    if not closure.modules:
        raise NotCaptured(f"the image has no closure ({closure.reason})")
    environment = images_own(os.environ, {*imports.environment, *closure.variables, *names})
    os.chmod(directory, 0o755)  # noqa: S103 - every user reads it
    work = os.path.join(directory, ".capturing")
    os.mkdir(work, 0o755)
    with _nothing_left([_TEMPORARY, environment.get("HOME", "")]):
        facts = _run(found.interpreter, imports.user, work, for_loader(imports.baseline, environment))
    _keep(os.path.join(work, MEMORY), os.path.join(directory, MEMORY))
    shutil.rmtree(work)
    integrity.record(directory, [*facts["files"], *facts["sources"]])
    with open(os.path.join(directory, MEMORY), "rb") as file:
        tables = zlib.crc32(file.read(facts["tables_bytes"]))
    manifest = Manifest(
        machine=machine,
        baseline=imports.baseline,
        cpu_features=required(imports.baseline, cpu_features()),
        kernel=os.uname().release,
        python=found.interpreter,
        closure=content(CLOSURE),
        native=native.checksum(),
        files=tuple(sampled(path) for path in facts["files"]),
        contract=Contract(**facts["contract"]),
        threads=tuple(facts["threads"]),
        modules=facts["modules"],
        bytes=facts["bytes"],
        tables_bytes=facts["tables_bytes"],
        tables=tables,
        accelerator=accelerator,
    )
    with open(os.path.join(directory, NAME), "w", encoding="utf-8") as file:
        file.write(manifest.to_json())
    for name in (MEMORY, integrity.NAME, NAME):
        os.chmod(os.path.join(directory, name), 0o644)
    return manifest


def images_own(variables: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Return an environment without what this container alone has: on a node that may be tokens, and they would stay.

    Args:
        variables: the container's environment.
        names: of the image's variables.
    """
    return {
        name: value
        for name, value in variables.items()
        if name not in _OF_THE_CONTAINER and (name in names or name in _ALWAYS or name.startswith(_ALWAYS_BEGIN))
    }


def _run(python: str, user: int, work: str, environment: dict[str, str]) -> dict[str, Any]:
    """Run the process that is captured, and return what it wrote down.

    Raises:
        NotCaptured: it ended otherwise; the message has its last words.
    """
    preload = Closure.read().preload
    if preload:
        environment["LD_PRELOAD"] = ":".join(filter(None, (preload, environment.get("LD_PRELOAD"))))
    become = _give_to(user, work)
    with open(os.path.join(work, "output"), "w+b") as output:
        done = subprocess.run(
            [python, SCRIPT, "captured-process", work, " " * _ROOM],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=become,
            check=False,
            timeout=_LONGEST,
        )
        if done.returncode:
            output.seek(0)
            text = output.read().decode(errors="replace").strip().splitlines()
            reason = _last_reason(os.path.join(work, TIMELINE)) or (text or ["it said nothing"])[-1]
            ended = "" if done.returncode == EXIT_NOT_CAPTURED else f" (exit code {done.returncode})"
            raise NotCaptured(f"{reason.removeprefix('not captured: ')[:400]}{ended}")
    with open(os.path.join(work, FACTS), encoding="utf-8") as file:
        facts: dict[str, Any] = json.load(file)
    return facts


def _give_to(user: int, directory: str) -> Callable[[], None] | None:
    """Give a directory to the image's user, and return what makes a process one of that user.

    ``None`` where the process stays this one's user: this is not root, or a root that may give nothing away, such as
    one without capabilities or in a rootless builder that has no such user.
    """
    if os.getuid() != 0 or not user:
        return None
    try:
        os.chown(directory, user, 0)
    except OSError:
        return None

    def become() -> None:
        try:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(user, user, user)
        except PermissionError:
            return  # it may give files away and not become another user: root can write there, too

    return become


def _last_reason(path: str) -> str:
    """Return the reason in a timeline's last event."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(path, encoding="utf-8") as file:
        return str(json.loads(file.readlines()[-1]).get("reason", ""))
    return ""


@contextlib.contextmanager
def _nothing_left(directories: Iterable[str]) -> Iterator[None]:
    """Remove what appears in some directories while the block runs: caches that imports write are not the image's."""
    before = {directory: set(os.listdir(directory)) for directory in directories if os.path.isdir(directory)}
    try:
        yield
    finally:
        for directory, names in before.items():
            for name in set(os.listdir(directory)) - names:
                path = os.path.join(directory, name)
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    os.unlink(path)


def _keep(source: str, target: str) -> None:
    """Move a file that the image's user wrote, and give it to the user of this process."""
    os.replace(source, target)
    if os.getuid() == 0:
        os.chown(target, 0, 0)


def _clear(directory: str) -> None:
    """Remove an earlier capture, the manifest first: without it there is no snapshot."""
    shutil.rmtree(os.path.join(directory, ".capturing"), ignore_errors=True)
    for name in (NAME, integrity.NAME, MEMORY, DECLINED):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name))
