"""Whether a snapshot is whole, and what was imported still what the image has: seen by a process beside the restore.

CRIU takes the content of a page image as it is, so a flipped bit would become one of the engine's; and modules that
came out of a snapshot hide files that a derived image has replaced.  To look at all of that takes as long as the
restore itself, so it is done meanwhile, and the restored process goes on only when nothing was found.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
import time
import zlib
from collections.abc import Iterable, Iterator

from . import criu
from .manifest import identity, unchanged

NAME = "checks.json"

#: Bytes that have one checksum.
BLOCK = 8 << 20

#: Bytes per read: what was just read is still in the CPU's cache when its checksum is made.
_PIECE = 1 << 20

#: Threads that read: storage wants more than one request at a time.
_READERS = 2

#: Files of a dump's folder that are no part of the dump.
_BESIDE = (NAME, "manifest.json")


def record(directory: str, sources: Iterable[str]) -> None:
    """Write down what is to be found again at a restore.

    Args:
        directory: folder of the dump; gets ``checks.json``.
        sources: files that modules were imported from.

    Raises:
        OSError: the dump cannot be read.
    """
    images = {}
    for name in sorted(set(os.listdir(directory)) - set(_BESIDE)):
        path = os.path.join(directory, name)
        size = os.path.getsize(path)
        images[name] = {"bytes": size, "crc32": [_checksum(path, start) for start in range(0, size, BLOCK)]}
    found = [identity(path) for path in sorted(set(sources)) if os.path.isfile(path)]
    with open(os.path.join(directory, NAME), "w", encoding="utf-8") as file:
        json.dump({"images": images, "sources": found}, file)


def problem(directory: str) -> str:
    """Return what is not as it was at the capture, or an empty string."""
    try:
        with open(os.path.join(directory, NAME), encoding="utf-8") as file:
            checks = json.load(file)
        damaged = _damaged(directory, checks["images"])
        if damaged:
            return f"{damaged} in {directory} is damaged"
        for path, size, moment in checks["sources"]:
            if not unchanged(path, size, moment):
                return f"{path} is not the file that was imported at the capture"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be verified: {error!r}"
    return ""


class Verification:
    """A process that looks for a problem.

    Args:
        directory: folder of the dump.

    Raises:
        OSError: no process can be made.
    """

    def __init__(self, directory: str) -> None:
        self._said = b""
        self._found: str | None = None
        self._pipe, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self._pipe)
            os.close(write_end)
            raise
        if self._pid == 0:
            try:
                signal.set_wakeup_fd(-1)  # the supervisor's
                os.write(write_end, f"+{problem(directory)}".encode(errors="backslashreplace")[:4096])
            finally:
                os._exit(0)
        os.close(write_end)

    def answer(self, seconds: float = 0.0) -> str | None:
        """Return the answer, an empty string where there is no problem; ``None`` while there is none.

        Args:
            seconds: how long to wait for it.
        """
        deadline = time.monotonic() + seconds
        while self._found is None and select.select([self._pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            block = os.read(self._pipe, 4096)
            self._said += block
            if not block:
                said = self._said.decode()
                self._found = said.removeprefix("+") if said else "what verifies it has ended"
        return self._found

    def close(self) -> None:
        """End the process, whatever it is at."""
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
        criu.reap([self._pid])  # it may hang in the kernel, reading from a volume
        os.close(self._pipe)


def _damaged(directory: str, images: dict[str, dict[str, object]]) -> str:
    """Return the name of an image file with another content, or an empty string."""
    for name, image in images.items():
        if os.path.getsize(os.path.join(directory, name)) != image["bytes"]:
            return name
    found: list[str] = []
    blocks = iter(list(_blocks(directory, images)))
    lock = threading.Lock()

    def look() -> None:
        while not found:
            with lock:
                name, path, start, checksum = next(blocks, ("", "", 0, 0))
            if not name:
                return
            try:
                same = _checksum(path, start) == checksum
            except OSError:
                same = False
            if not same:
                found.append(name)

    readers = [threading.Thread(target=look) for _ in range(_READERS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return found[0] if found else ""


def _blocks(directory: str, images: dict[str, dict[str, object]]) -> Iterator[tuple[str, str, int, int]]:
    """Yield name, path, offset and checksum of each block."""
    for name, image in images.items():
        checksums = image["crc32"]
        if not isinstance(checksums, list):
            raise TypeError(f"no checksums of {name}")
        for index, checksum in enumerate(checksums):
            yield name, os.path.join(directory, name), index * BLOCK, checksum


def _checksum(path: str, start: int) -> int:
    """Return the checksum of one block of a file, both reading and reckoning without the GIL."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        buffer = memoryview(bytearray(_PIECE))
        checksum, offset = 0, start
        while offset < start + BLOCK:
            count = os.preadv(descriptor, [buffer], offset)
            if not count:
                break
            checksum = zlib.crc32(buffer[:count], checksum)
            offset += count
        return checksum
    finally:
        os.close(descriptor)
