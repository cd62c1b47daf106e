"""Prefetch: a helper of PID 1 that reads what the start will need into the page cache while Python imports.

First the image's hot files, which the imports wait for, then the weights in load order.  Once per container, never
more than memory can hold, and no longer than until the server is ready.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue

from .pagecache import STRIDE, memory_headroom, read_through, resident_bytes, sampled_bytes
from .timeline import Timeline

READERS = 4

#: The image's files are recorded in load order; where this many are resident, so are the rest, and looking at
#: thousands of small ones would cost more than it brings (measured: 0.16 s for 3,400 files).
SAMPLE = 64

#: Share of the free memory that prefetch may fill; the rest is for the server to come up in.
MEMORY_SHARE = 0.7


class Prefetch:
    """Reads files into the page cache until all are there, or until told to stop.

    Args:
        timeline: where its events go.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._stop = threading.Event()
        self._ended = ""

    def run(self, closure: str, weights: Sequence[str]) -> None:
        """Prefetch the hot files that ``closure`` lists, then ``weights``; the work of a helper process.

        Args:
            closure: path of the closure recorded when the image was built; it may be missing.  An empty string where
                the image's files will not be read.
            weights: paths of the weights in load order.
        """
        signal.signal(signal.SIGTERM, self._end)
        budget = int(memory_headroom() * MEMORY_SHARE)
        if not closure:
            self._timeline.event("prefetch.declined", target="image", reason="this start imports nothing")
        elif os.path.exists(closure):
            try:
                budget -= self._read_image(closure, budget)
            except (OSError, ValueError, KeyError, TypeError) as error:  # a damaged closure must not cost the weights
                self._timeline.event("prefetch.declined", target="image", reason=repr(error))
        self._read("weights", weights, budget, volume_bytes)

    def _read_image(self, closure: str, budget: int) -> int:
        """Read the image's hot files unless they are there; return the bytes that they want in memory."""
        with open(closure, encoding="utf-8") as file:
            files = json.load(file)["files"]
        if not all(layer_bytes(path) >= os.path.getsize(path) for path in files[:SAMPLE] if os.path.exists(path)):
            return self._read("image", files, budget, layer_bytes)
        reason = f"the first {min(SAMPLE, len(files))} files are resident"
        self._timeline.event("prefetch.declined", target="image", reason=reason)
        return 0

    def _end(self, _number: int, _frame: object) -> None:
        self._ended = "server ready or stopping"
        self._stop.set()

    def _read(self, target: str, paths: Sequence[str], budget: int, look: Callable[[str], int]) -> int:
        """Read one target's files and say in one event what came of it; return the bytes that it wants in memory.

        ``look`` tells how many bytes of a file are resident.
        """
        began = time.monotonic()
        work = _Work(SimpleQueue(), self._stop)
        readers = [threading.Thread(target=work.drain, daemon=True) for _ in range(READERS)]
        for reader in readers:
            reader.start()
        wanted = resident = 0
        reason = "done"
        for path in paths:
            if self._stop.is_set():
                break
            try:
                size = os.path.getsize(path)
                cached = look(path) if size > STRIDE else 0  # a small file is read sooner than looked at
            except OSError as error:
                work.failures.append(f"{path}: {error.strerror}")
                continue
            if wanted + size > budget:
                reason = f"memory window of {budget} bytes"
                break
            wanted += size
            resident += cached
            if cached < size:
                work.queue.put(path)
        for _ in readers:
            work.queue.put(None)
        for reader in readers:
            reader.join()
        self._timeline.event(
            "prefetch.ended", target=target, files=len(paths), wanted_bytes=wanted, resident_bytes=resident,
            read_bytes=sum(work.done), seconds=round(time.monotonic() - began, 3), reason=self._ended or reason,
            failures=work.failures[:8],
        )  # fmt: skip
        return wanted


def layer_bytes(path: str) -> int:
    """Return how many bytes of an image's file are resident, by samples where the kernel does not tell."""
    try:
        return resident_bytes(path)
    except PermissionError:
        return sampled_bytes(path)


def volume_bytes(path: str) -> int:
    """Return how many bytes of a volume's file are resident, 0 where the kernel does not tell.

    Samples would not do: on a file system that accounts no reads all would look resident, and nothing be prefetched.
    """
    try:
        return resident_bytes(path)
    except PermissionError:
        return 0


@dataclass(frozen=True)
class _Work:
    """Files to read, and what came of them; several readers share it."""

    queue: SimpleQueue[str | None]
    stop: threading.Event
    done: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def drain(self) -> None:
        """Read files until there are no more."""
        while not self.stop.is_set():
            path = self.queue.get()
            if path is None:
                return
            try:
                self.done.append(read_through(path, self.stop))
            except OSError as error:
                self.failures.append(f"{path}: {error.strerror}")
