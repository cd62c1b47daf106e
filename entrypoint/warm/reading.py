"""Reads what is missing into the page cache: a few readers, block by block, each block once and nothing kept of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..pagecache.residency import EXACT, resident_part
from .rate_limit import RateLimiter, lower_priority
from .tracker import TrackedFile, Tracker

READERS = 4

#: Bytes of one file that one reader reads in a row: so that several work on a large file, and storage sees long runs.
SPAN = 64 << 20

#: After how many bytes it is counted again what of a span is resident.
_COUNTED = 16 << 20

#: Bytes that the kernel's readahead may be ahead of what is read, on volumes that ask for much.
_READAHEAD = 16 << 20

Job = tuple[str, TrackedFile]


class Reading:
    """Reads files with several threads.

    Args:
        tracker: gets what was read.
        rate: lets readers read.
        stop: ends all reading when set, after the block that is being read.
    """

    def __init__(self, tracker: Tracker, rate_limiter: RateLimiter, stop: threading.Event) -> None:
        self._tracker = tracker
        self._rate_limiter = rate_limiter
        self._stop = stop
        self._given_up = threading.Event()

    def run(self, jobs: Sequence[Job], control: Callable[[], bool]) -> None:
        """Read what is missing of files, in order.

        Args:
            jobs: the files, each with its target.
            control: called again and again meanwhile; may hold the readers, and returns whether to give up.

        Returns when all is read, or when told to stop: a reader that hangs in the kernel is left behind.
        """
        self._given_up.clear()
        for _, file in jobs:
            _count_spans(file)
        spans = _Shared(_spans(jobs))
        readers = [threading.Thread(target=self._drain, args=(spans,), daemon=True) for _ in range(READERS)]
        for reader in readers:
            reader.start()
        for reader in readers:
            while reader.is_alive() and not self._stop.is_set():
                reader.join(0.1)
                if control():
                    self._given_up.set()
        patience = time.monotonic() + 1
        for reader in readers:
            reader.join(max(0.0, patience - time.monotonic()))

    def _drain(self, spans: _Shared) -> None:
        lower_priority()
        buffer = bytearray(self._rate_limiter.block)
        while not self._ended:
            span = spans.next()
            if span is None:
                return
            target, file, begin, end = span
            try:
                self._read(target, file, begin, end, buffer)
            except OSError as error:
                self._tracker.failed(file, error.strerror)

    @property
    def _ended(self) -> bool:
        return self._stop.is_set() or self._given_up.is_set()

    def _read(self, target: str, file: TrackedFile, begin: int, end: int, buffer: bytearray) -> None:
        """Read the blocks of a span that are not resident; of a file that the kernel tells nothing of, all."""
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        view = memoryview(buffer)
        first = begin
        try:
            there_before = _whole_blocks(descriptor, begin, end, len(buffer)) if file.parts else set()
            while begin < end and not self._ended:
                size = min(len(buffer), end - begin)
                if begin not in there_before:
                    count = self._block(target, file, descriptor, begin, view[:size])
                    if not count:
                        return
                    size = count
                begin += size
                told = file.parts and (begin >= end or begin % _COUNTED == 0)
                there = resident_part(descriptor, first, end - first) if told else None
                if there is not None:
                    self._tracker.recount(file, first // SPAN, there)
        finally:
            os.close(descriptor)

    def _block(self, target: str, file: TrackedFile, descriptor: int, begin: int, view: memoryview) -> int:
        """Read one block when it may be read, and return its bytes; 0 says to stop."""
        self._tracker.current = file.path
        if file.share < file.size and file.share - begin <= _READAHEAD:  # none beyond the budget
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        with self._rate_limiter.acquire(len(view)) as go:
            if not go:
                return 0
            count = os.preadv(descriptor, [view], begin)
        if count:
            self._tracker.add_read(target, file, count)
        else:
            self._tracker.failed(file, "it got shorter while it was read")
        return count


def _whole_blocks(descriptor: int, begin: int, end: int, block: int) -> set[int]:
    """Return where the blocks of a span begin that are resident.

    Asked before any of it is read: what the kernel's readahead brings meanwhile counts for the rate like the rest.
    """
    return {
        at
        for at in range(begin, end, block)
        if resident_part(descriptor, at, min(block, end - at)) == min(block, end - at)
    }


def _count_spans(file: TrackedFile) -> None:
    """Note how much of each span of a file is resident, where that is known exactly and there are several."""
    file.parts = [file.resident] if file.known == EXACT else []
    if file.parts and file.share > SPAN:
        try:
            descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            file.parts = []  # the reader will say why
            return
        try:
            begins = range(0, file.share, SPAN)
            file.parts = [resident_part(descriptor, at, min(SPAN, file.share - at)) or 0 for at in begins]
        finally:
            os.close(descriptor)


def _spans(jobs: Iterable[Job]) -> Iterator[tuple[str, TrackedFile, int, int]]:
    for target, file in jobs:
        for begin in range(0, file.share, SPAN):
            yield target, file, begin, min(begin + SPAN, file.share)


class _Shared:
    """An iterator that several threads take from."""

    def __init__(self, items: Iterator[tuple[str, TrackedFile, int, int]]) -> None:
        self._items = items
        self._lock = threading.Lock()

    def next(self) -> tuple[str, TrackedFile, int, int] | None:
        """Return the next item, ``None`` at the end."""
        with self._lock:
            return next(self._items, None)
