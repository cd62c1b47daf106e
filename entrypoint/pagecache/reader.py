"""Reading files into the page cache with a few threads, watched by one that touches no file and so can never hang."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from .syscalls import BLOCK, STRIDE, fetch_range, resident_bytes

#: Threads that read.  See docs/prefetch.md for what they were measured against.
READERS = 4

#: Seconds without one byte after which a volume counts as hung.
STALL_SECONDS = 30.0

#: Seconds after which reading ends in any case; a start that takes longer has no use for it.
CAP_SECONDS = 3600.0

#: Seconds between two looks at how much memory there is.
_BUDGET_SECONDS = 0.25

#: Bytes that a reader reads at once as long as it is not known to be fast, and seconds from which it is slow.
_PIECE, _LONG = 4 << 20, 1.0

#: How many failures are kept to be told.
_TOLD = 8

#: Returns how many bytes of a part of a file are resident: path, descriptor, offset, length.
Look = Callable[[str, int, int, int], int]


@dataclass
class Outcome:
    """What came of reading.

    Attributes:
        files: files that were opened.
        wanted: bytes of the parts that were come to.
        resident: of these, bytes that were in the page cache before.
        read: of these, bytes that were made resident.
        seconds: time it took.
        reason: why it ended, ``done`` when nothing was left.
        failures: files that could not be read, and why.
    """

    files: int = 0
    wanted: int = 0
    resident: int = 0
    read: int = 0
    seconds: float = 0.0
    reason: str = "done"
    failures: list[str] = field(default_factory=list)

    @property
    def rate(self) -> int:
        """Bytes per second that were made resident."""
        return round(self.read / self.seconds) if self.seconds > 0 else 0


@dataclass
class _File:
    """A file that is being read.

    Attributes:
        path: its path.
        parts: how many of its parts are not done.
        read: whether a whole block of it was read.
    """

    path: str
    parts: int
    read: bool = False


@dataclass(frozen=True)
class _Part:
    """A part of a file: what one reader reads at a time."""

    file: _File
    offset: int
    length: int
    resident: int | None  # None where that was not looked at yet


class Reading:
    """Makes files resident, in order, until all are or until told to stop.

    Args:
        paths: the files.  Taken from one by one by the readers, so what yields them may wait for a volume.
        look: tells what of a part is resident.
        budget: returns how many bytes may be resident because of this; asked again while it goes on.
        stall: seconds without a byte after which it ends.
        cap: seconds after which it ends.
        readers: how many threads read.
        whole: look at all of a file before any of it is read, for the kernel's readahead brings some of the parts that
            follow, which were not there before.  For a look that reads nothing itself.
    """

    def __init__(
        self,
        paths: Iterable[str],
        look: Look,
        budget: Callable[[], int],
        *,
        stall: float = STALL_SECONDS,
        cap: float = CAP_SECONDS,
        readers: int = READERS,
        whole: bool = False,
    ) -> None:
        self._parts = self._parts_of(paths)
        self._look = look
        self._ask_budget = budget
        self._budget = 0
        self._stall, self._cap = stall, cap
        self._readers = readers
        self._whole = whole
        self._lock = threading.Lock()  # held by whoever takes the next part, which may hang
        self._counts = threading.Lock()  # never held while a file is touched
        self._ended = threading.Event()
        self._kept = False  # whether it was seen that the file system keeps what was read
        self._stop = ""
        self._steps = 0
        self.outcome = Outcome()

    def stop(self, reason: str) -> None:
        """End the reading now; may be called from a signal handler, and before it has begun."""
        self._stop = self._stop or reason  # no event is set: a handler may have interrupted its waiter

    def run(self) -> Outcome:
        """Read, and return what came of it; readers that hang are left behind, and end with the process."""
        self._budget = self._ask_budget()
        began = moved = looked = time.monotonic()
        steps = 0
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._readers)]
        for thread in threads:
            thread.start()
        while not self._stop and not self._ended.wait(0.05) and any(thread.is_alive() for thread in threads):
            now = time.monotonic()
            if steps != self._steps:
                steps, moved = self._steps, now
            if now - moved > self._stall:
                self.stop(f"no byte came for {self._stall:g} s")
            if now - began > self._cap:
                self.stop(f"{self._cap:g} s are over")
            if now - looked > _BUDGET_SECONDS:
                looked, self._budget = now, self._ask_budget()
        with self._counts:
            self.outcome.seconds = time.monotonic() - began
            self.outcome.reason = self._stop or self.outcome.reason
            return self.outcome

    def _work(self) -> None:
        """Read parts until there are no more."""
        opened = _Opened()
        while not self._stop:
            with self._lock:
                part = next(self._parts, None)
            if part is None:
                break
            self._read(part, opened)
        opened.close()
        with self._counts:
            self._readers -= 1
            last = not self._readers
        if last:
            self._ended.set()

    def _parts_of(self, paths: Iterable[str]) -> Iterator[_Part]:
        """Yield the parts of all files, in order, as far as memory holds them."""
        for path in paths:
            try:
                size = os.stat(path).st_size
            except OSError as error:
                self._fail(path, error.strerror)
                continue
            file = _File(path, max(1, -(-size // BLOCK)))
            with self._counts:
                self.outcome.files += 1
            before = self._look_at(path, size) if self._whole and size > BLOCK else {}
            for offset in range(0, max(1, size), BLOCK):
                length = min(BLOCK, size - offset)
                if self.outcome.wanted + length > self._budget:
                    self.outcome.reason = f"memory window of {max(0, self._budget)} bytes"
                    return
                with self._counts:
                    self.outcome.wanted += length
                yield _Part(file, offset, length, before.get(offset))

    def _look_at(self, path: str, size: int) -> dict[int, int]:
        """Return how many bytes of each part of a file are resident; nothing where that cannot be told."""
        opened = _Opened()
        try:
            descriptor = opened.descriptor(path)
            return {at: self._look(path, descriptor, at, min(BLOCK, size - at)) for at in range(0, size, BLOCK)}
        except OSError:
            return {}  # reading says why
        finally:
            opened.close()

    def _read(self, part: _Part, opened: _Opened) -> None:
        """Make one part resident."""
        file = part.file
        try:
            descriptor = opened.descriptor(file.path)
            # A small file is read sooner than looked at.
            small = part.length <= STRIDE and part.offset == 0
            resident = 0 if small else part.resident
            if resident is None:
                resident = self._look(file.path, descriptor, part.offset, part.length)
            missing = part.length - resident
            if missing > 0:
                got = self._fetch(descriptor, part, opened)
                if got < part.length:
                    self._fail(file.path, f"ends {part.length - got} bytes before byte {part.offset + part.length}")
                missing = max(0, missing - (part.length - got))
                file.read = file.read or got == BLOCK
            with self._counts:
                self.outcome.resident += resident
                self.outcome.read += max(0, missing)
                self._steps += 1
        except OSError as error:
            self._fail(file.path, error.strerror)
        with self._counts:
            file.parts -= 1
            last = file.parts == 0
        if last and file.read and not self._kept and not self._stop:
            self._kept = True
            self._see_kept(file)

    def _fetch(self, descriptor: int, part: _Part, opened: _Opened) -> int:
        """Make a part resident, and return how many bytes there were.

        Piece by piece where that takes long: each shows that the volume does not hang.
        """
        done = 0
        while done < part.length:
            size = min(opened.piece, part.length - done)
            began = time.monotonic()
            count = fetch_range(descriptor, part.offset + done, size)
            opened.piece = BLOCK if time.monotonic() - began < _LONG else _PIECE
            done += count
            with self._counts:
                self._steps += 1
            if count < size:
                break
        return done

    def _see_kept(self, file: _File) -> None:
        """Stop where a file that was read is not resident when it is opened again, as the engine will do.

        FUSE file systems may drop a file's pages at every open, or have none: all would be fetched twice.
        """
        try:
            kept = resident_bytes(file.path)
        except OSError:
            return  # the kernel does not tell, or the file is gone: the engine will see
        if kept == 0:
            self.stop("the file system does not keep in the page cache what is read")

    def _fail(self, path: str, reason: str | None) -> None:
        with self._counts:
            self._steps += 1
            if len(self.outcome.failures) < _TOLD:
                self.outcome.failures.append(f"{path}: {reason}")


class _Opened:
    """The file that a reader has open: one of its own, for the kernel's readahead follows each open file by itself.

    Attributes:
        piece: bytes to read of it at once.
    """

    def __init__(self) -> None:
        self._path = ""
        self._descriptor = -1
        self.piece = _PIECE

    def descriptor(self, path: str) -> int:
        """Return the descriptor of a file, opened unless it is open already.

        Raises:
            OSError: it cannot be opened.
        """
        if path != self._path or self._descriptor < 0:
            self.close()
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait
            self._path = path
        return self._descriptor

    def close(self) -> None:
        """Close what is open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
