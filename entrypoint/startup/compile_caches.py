"""Compile caches: what a real first start has compiled, kept in the image, and put where the engine looks for it.

The engine's own names of the files are its keys, and its own checks decide whether it takes one; here it is only seen
that they were made for this engine, this GPU and this driver.  Files are copied, for the engine writes beside them.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from ..kernel.gpus import Accelerator
from ..plan import EnginePlan
from ..settings import ROOT, Settings, load
from ..timeline import Timeline, say

#: Where they are in an image, and the name of their manifest.
DIRECTORY_NAME, NAME = "caches", "manifest.json"
DIRECTORY = os.path.join(ROOT, DIRECTORY_NAME)

SCHEMA = 1

#: Exit code when there is nothing to collect (EX_SOFTWARE of sysexits.h).
EXIT_NOT_COLLECTED = 70

#: What stands in an adapter's directory for something of the container.
_PLACE = re.compile(r"<(home|cache|user)>")

#: What is only of the start that made it.
_PASSING = (".lock", ".tmp")


@dataclass(frozen=True)
class Manifest:
    """The caches of an image.

    Attributes:
        engine: name and version.
        accelerator: the GPUs and the driver of the machine that they were made on.
        files: how many there are.
        bytes: their size.
    """

    engine: Mapping[str, str]
    accelerator: Accelerator
    files: int
    bytes: int

    @classmethod
    def load(cls, directory: str) -> Manifest:
        """Read a manifest.

        Raises:
            OSError: there is none.
            ValueError, KeyError, TypeError: it is damaged, or of another version.
        """
        with open(os.path.join(directory, NAME), encoding="utf-8") as file:
            data = json.load(file)
        if data["schema"] != SCHEMA:
            raise ValueError("it was written by another version")
        return cls(data["engine"], Accelerator.of(data["accelerator"]), int(data["files"]), int(data["bytes"]))

    def to_json(self) -> str:
        """Return the text of the file ``manifest.json``."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n"

    def mismatch(self, engine: EnginePlan, here: Accelerator) -> str | None:
        """Return why these caches are not for this start; ``None`` where they are."""
        for key, value in (("name", engine.name), ("version", engine.version)):
            if self.engine[key] != value:
                return f"the engine's {key} is {value}, and was {self.engine[key]}"
        return self.accelerator.mismatch(here)


def directories(engine: EnginePlan, variables: Mapping[str, str]) -> dict[str, str]:
    """Return where the engine keeps each of its caches.

    Args:
        engine: the plan's engine; its ``caches`` have for each the variable that moves it, the directory where the
            variable is not set, and a directory below.  ``<home>``, ``<cache>`` (``XDG_CACHE_HOME``) and ``<user>`` are
            filled in.
        variables: the engine's environment.

    Returns:
        The cache's name, which is its directory's in the image, and where it is.
    """
    home = variables.get("HOME") or os.path.expanduser("~")
    values = {
        "home": home,
        "cache": variables.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"),
        "user": next((variables[name] for name in ("LOGNAME", "USER") if variables.get(name)), "") or _user(),
    }
    return {
        name: os.path.join(variables.get(variable) or _PLACE.sub(lambda found: values[found[1]], default), below)
        for name, (variable, default, below) in engine.caches.items()
    }


def place(settings: Settings, timeline: Timeline, directory: str = DIRECTORY) -> None:
    """Put the image's caches where the engine looks for them; a file that is there already is left as it is.

    Args:
        settings: this start.
        timeline: gets what came of it.
        directory: where the image keeps them.
    """
    if not os.path.exists(os.path.join(directory, NAME)):
        return
    try:
        reason = _declined(settings, directory)
        if reason:
            timeline.event("caches.declined", reason=reason)
            say(f"compile caches skipped: {reason}")
            return
        began = time.monotonic()
        files = size = present = 0
        for name, target in directories(settings.engine, settings.environment).items():
            for source, relative in _files(os.path.join(directory, name)):
                path = os.path.join(target, relative)
                if os.path.lexists(path):
                    present += 1
                    continue
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _copy(source, path)
                files, size = files + 1, size + os.path.getsize(path)
        seconds = round(time.monotonic() - began, 3)
        timeline.event("caches.placed", files=files, bytes=size, present=present, seconds=seconds)
    except (OSError, ValueError, LookupError, TypeError) as error:
        timeline.event("caches.declined", reason=repr(error))
        say(f"compile caches skipped: {error!r}; the engine compiles what it misses")


def _declined(settings: Settings, directory: str) -> str | None:
    """Return why this start gets none of them; ``None`` where it gets them."""
    asked = settings.environment.get("WARMIMAGE_CACHES", "")
    if settings.quick:
        return f"{settings.quick} ends before anything is compiled"
    if asked == "off":
        return "WARMIMAGE_CACHES=off"
    if settings.start == "plain" and asked != "on":
        return "WARMIMAGE_START=plain"
    return Manifest.load(directory).mismatch(settings.engine, Accelerator.here())


def main(arguments: Sequence[str]) -> int:
    """Run the command ``collect DIRECTORY``, and return the exit code."""
    return collect(arguments[0])


def collect(directory: str) -> int:
    """Copy the engine's caches, as a start has left them, into a directory with a manifest; return the exit code.

    Run in a container of the image whose server has become ready, as the image's user or root.
    """
    try:
        settings = load((), os.environ, "")
        files = size = 0
        for name, source in directories(settings.engine, settings.environment).items():
            for path, relative in _files(source):
                target = os.path.join(directory, name, relative)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copyfile(path, target)
                os.chmod(target, 0o755 if os.access(path, os.X_OK) else 0o644)
                files, size = files + 1, size + os.path.getsize(target)
        if not files:
            say("error: the engine has left no compile cache")
            return EXIT_NOT_COLLECTED
        engine = {"name": settings.engine.name, "version": settings.engine.version}
        manifest = Manifest(engine, Accelerator.here(), files, size)
        with open(os.path.join(directory, NAME), "w", encoding="utf-8") as file:
            file.write(manifest.to_json())
        say(f"collected {files} files of compile caches, {size >> 20} MiB")
        return 0
    except (OSError, ValueError) as error:
        say(f"error: compile caches not collected: {error!r}")
        return EXIT_NOT_COLLECTED


def _files(directory: str) -> Iterator[tuple[str, str]]:
    """Yield the path of each regular file below a directory, and its path relative to that."""
    for at, names, files in os.walk(directory):
        names.sort()
        for name in sorted(files):
            path = os.path.join(at, name)
            if os.path.isfile(path) and not os.path.islink(path) and not name.endswith(_PASSING):
                yield path, os.path.relpath(path, directory)


def _copy(source: str, path: str) -> None:
    """Copy a file so that it appears whole, with its mode: some of what is compiled is loaded as a library.

    The directory may be a volume that other replicas fill at the same time, each of them as PID 1.
    """
    temporary = os.path.join(os.path.dirname(path), f".{os.urandom(8).hex()}{_PASSING[1]}")
    target = open(temporary, "xb")  # noqa: SIM115 - only what was made is to be removed again
    try:
        with target, open(source, "rb") as content:
            shutil.copyfileobj(content, target)
        shutil.copymode(source, temporary)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _user() -> str:
    """Return the user's name as ``getpass`` finds it, with which PyTorch names its directory."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
