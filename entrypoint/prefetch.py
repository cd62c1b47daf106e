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
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from .pagecache import memory_headroom, read_through, resident_bytes
from .timeline import Timeline

READERS = 4

#: The image's files are recorded largest first; where this many are resident, so are the rest, and looking at
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
        self._reason = "done"

    def run(self, closure: str, weights: Sequence[str]) -> None:
        """Prefetch the hot files that ``closure`` lists, then ``weights``; the work of a helper process.

        Args:
            closure: path of the closure recorded when the image was built; it may be missing.
            weights: paths of the weights in load order.
        """
        signal.signal(signal.SIGTERM, self._end)
        budget = int(memory_headroom() * MEMORY_SHARE)
        if os.path.exists(closure):
            with open(closure, encoding="utf-8") as file:
                files = json.load(file)["files"]
            if all(resident_bytes(path) >= os.path.getsize(path) for path in files[:SAMPLE]):
                reason = f"the {min(SAMPLE, len(files))} largest files are resident"
                self._timeline.event("prefetch.declined", target="image", reason=reason)
            else:
                budget -= self._read("image", files, budget)
        self._read("weights", weights, budget)

    def _end(self, _number: int, _frame: object) -> None:
        self._reason = "server ready or stopping"
        self._stop.set()

    def _read(self, target: str, paths: Sequence[str], budget: int) -> int:
        """Read one target's files and say in one event what came of it; return the bytes that are now resident."""
        began = time.monotonic()
        wanted = resident = read = 0
        queue: SimpleQueue[str] = SimpleQueue()
        failures: list[str] = []
        for path in paths:
            if self._stop.is_set():
                break
            try:
                size, cached = os.path.getsize(path), resident_bytes(path)
            except OSError as error:
                failures.append(f"{path}: {error.strerror}")
                continue
            wanted += size
            resident += cached
            if cached >= size:
                continue
            if wanted > budget:
                self._reason = f"memory window of {budget} bytes"
                break
            queue.put(path)
        results: SimpleQueue[int] = SimpleQueue()
        readers = [
            threading.Thread(target=self._drain, args=(queue, results, failures), daemon=True) for _ in range(READERS)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        while not results.empty():
            read += results.get()
        seconds = time.monotonic() - began
        self._timeline.event(
            "prefetch.ended", target=target, files=len(paths), wanted_bytes=wanted, resident_bytes=resident,
            read_bytes=read, seconds=round(seconds, 3), reason=self._reason, failures=failures[:8],
        )  # fmt: skip
        return resident + read

    def _drain(self, queue: SimpleQueue[str], results: SimpleQueue[int], failures: list[str]) -> None:
        while not self._stop.is_set():
            try:
                path = queue.get_nowait()
            except Empty:
                return
            try:
                results.put(read_through(path, self._stop))
            except OSError as error:
                failures.append(f"{path}: {error.strerror}")
