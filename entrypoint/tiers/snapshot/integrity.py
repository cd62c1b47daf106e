"""Is a snapshot whole, and are mapped and imported files still what the image has?

A restore maps pages as they are, so a flipped bit would become one of the engine's; and modules that come out of a
snapshot hide files that a derived image has replaced.  Reading all of that takes longer than the restore, so a process
does it beside the engine's start, and the server is not ready before the answer is there.
"""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from collections.abc import Iterable
from dataclasses import astuple

from ...supervision.supervisor import Supervisor
from ...timeline import Timeline
from .identity import Identity, content, has_size_and_time, times_tell, whole
from .manifest import MEMORY

NAME = "checks.json"

#: Bytes that have one checksum.
BLOCK = 8 << 20

#: Bytes per read: what was just read is still in the CPU's cache when its checksum is made.
_PIECE = 1 << 20

#: Threads that read: storage wants more than one request at a time.
_READERS = 2


def record(directory: str, files: Iterable[str]) -> None:
    """Write down what is to be found again after a restore.

    Args:
        directory: the snapshot's; gets ``checks.json``.
        files: those that are mapped, and those that modules were imported from.

    Raises:
        OSError: the snapshot file cannot be read.
    """
    path = os.path.join(directory, MEMORY)
    blocks = [_checksum(path, start) for start in range(0, os.path.getsize(path), BLOCK)]
    identities = [whole(name) for name in sorted(set(files)) if os.path.isfile(name)]
    rows = [astuple(identity) for identity in identities]
    data = {"blocks": blocks, "files": rows, "times_tell": times_tell(identities)}
    with open(os.path.join(directory, NAME), "w", encoding="utf-8") as file:
        json.dump(data, file)


def problem(directory: str) -> str | None:
    """Return what is not as it was at the capture; ``None`` for nothing."""
    try:
        with open(os.path.join(directory, NAME), encoding="utf-8") as file:
            checks = json.load(file)
        path = os.path.join(directory, MEMORY)
        if not _is_whole(path, checks["blocks"]):
            return f"{path} is damaged"
        for identity in (Identity(*row) for row in checks["files"]):
            same = has_size_and_time(identity)
            if same is None or (same and not checks["times_tell"]):
                same = content(identity.path) == identity.checksum
            if not same:
                return f"{identity.path} is not the file of the capture"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be verified: {error!r}"
    return None


class Verification:
    """A process beside the engine's start that looks for a problem.

    Args:
        supervisor: whose helper it becomes.
        directory: the snapshot's.

    Attributes:
        problem: what it has found; ``None`` where it has found nothing, or has not ended.

    Raises:
        OSError: no process can be made.
    """

    def __init__(self, supervisor: Supervisor, directory: str) -> None:
        self.problem: str | None = None
        self._text = b""
        self._ended = False
        self._pipe, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

        def work(timeline: Timeline) -> None:
            began = time.monotonic()
            found = problem(directory)
            timeline.event("snapshot.verified", seconds=round(time.monotonic() - began, 3), problem=found)
            os.write(write_end, f"+{found or ''}".encode(errors="backslashreplace")[:4096])

        try:
            supervisor.helper("verification", work)
        finally:
            os.close(write_end)

    def poll(self) -> bool:
        """Return whether the process has ended; ``problem`` has what it found then."""
        while not self._ended:
            try:
                block = os.read(self._pipe, 4096)
            except BlockingIOError:
                return False
            self._text += block
            if not block:
                os.close(self._pipe)
                killed = "it cannot be verified: that process was killed"
                self.problem = (self._text.decode().removeprefix("+") or None) if self._text else killed
                self._ended = True
        return True


def _is_whole(path: str, blocks: list[int]) -> bool:
    """Return whether a file has the checksums of its blocks."""
    damaged: list[int] = []
    pending = iter(list(enumerate(blocks)))
    lock = threading.Lock()

    def verify() -> None:
        while not damaged:
            with lock:
                index, checksum = next(pending, (-1, 0))
            if index < 0:
                return
            try:
                same = _checksum(path, index * BLOCK) == checksum
            except OSError:
                same = False
            if not same:
                damaged.append(index)

    readers = [threading.Thread(target=verify) for _ in range(_READERS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return not damaged


def _checksum(path: str, start: int) -> int:
    """Return the checksum of one block of a file; both reading and computing release the GIL."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        buffer = memoryview(bytearray(_PIECE))
        checksum, offset = 0, start
        while offset < start + BLOCK:
            count = os.preadv(fd, [buffer], offset)
            if not count:
                break
            checksum = zlib.crc32(buffer[:count], checksum)
            offset += count
        return checksum
    finally:
        os.close(fd)
