"""Prefetch: a helper of PID 1 that reads what the start will need into the page cache while Python imports.

First what the imports wait for, then the model in the order in which the engine loads it.  Once per container, never
more than memory can hold, and no longer than until the server is ready.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterable, Sequence

from ..kernel.gpus import Accelerator
from ..model import weights
from ..pagecache.headroom import memory_headroom
from ..pagecache.reader import CAP_SECONDS, STALL_SECONDS, Look, Reading
from ..pagecache.residency import Residency, resident_part
from ..settings import CLOSURE, Settings, initial_environment, load
from ..timeline import Timeline

#: How many of the image's files are looked at: where these are resident, so are the rest.  Looking at thousands of
#: small ones would cost more than it brings (measured: 0.16 s for 3,400 files).
SAMPLE = 64

#: Seconds between two looks for a stop while a model is searched for.
_TICK = 0.05

#: Share of the free memory that prefetch may fill; the rest is for the server to come up in.
MEMORY_SHARE = 0.7

#: GPUs that have no memory of their own: what the page cache takes, they lack.
_UNIFIED = re.compile(r"\b(G[BH](10|200|300)|Orin|Thor|Xavier|Tegra)\b", re.IGNORECASE)


class Prefetch:
    """Reads files into the page cache until all are there, or until told to stop.

    Args:
        timeline: where its events go.
        stall: seconds without a byte after which a volume counts as hung.
        cap: seconds after which it ends in any case.
    """

    def __init__(self, timeline: Timeline, *, stall: float = STALL_SECONDS, cap: float = CAP_SECONDS) -> None:
        self._timeline = timeline
        self._stall, self._cap = stall, cap
        self._readings: list[Reading] = []
        self._stopped = ""
        self._layers = Residency()

    def run(self, settings: Settings, hot: Sequence[str]) -> bool:
        """Prefetch the image's hot files, then the model; the work of a helper process.

        A model on a volume without a block device, as a network's, does not wait for the image: they do not share a
        disk.

        Args:
            settings: what this start is to do.
            hot: where the image's hot files are: the closure, which lists them, or the snapshot's directory.  What is
                missing counts as empty.

        Returns:
            Whether everything is resident now.
        """
        signal.signal(signal.SIGTERM, self._end)
        reason = unified(settings)
        if reason:
            self._timeline.event("prefetch.declined", reason=reason)
            return False
        whole: list[bool] = []
        image = threading.Thread(target=lambda: whole.extend(map(self._hot, hot)), daemon=True)
        image.start()
        model = self._find(settings)
        if not model.apart:
            image.join()  # the disk is one; a signal ends this, for it ends the reading
        if model.declined:
            self._timeline.event("prefetch.declined", target="weights", reason=model.declined)
        else:
            whole.append(self._read("weights", model.files, volume_range, model.size, model.skipped))
        image.join()
        return not model.declined and all(whole)

    def _find(self, settings: Settings) -> weights.Model:
        """Return what to read of the model; the volume may take its time, and signals are taken meanwhile."""
        found: list[weights.Model] = []

        def find() -> None:
            try:
                found.append(weights.find(settings))
            except Exception as error:  # the image is read all the same
                found.append(weights.Model(declined=repr(error)))

        finding = threading.Thread(target=find, daemon=True)
        finding.start()
        deadline = time.monotonic() + self._stall
        while finding.is_alive() and not self._stopped and time.monotonic() < deadline:
            finding.join(_TICK)
        return (
            found[0]
            if found
            else weights.Model(declined=self._stopped or f"the volume has not answered for {self._stall:g} s")
        )

    def _hot(self, hot: str) -> bool:
        """Do the same as ``_image``; a failure is an event."""
        try:
            return self._image(hot)
        except Exception as error:
            self._timeline.event("prefetch.failed", target="image", reason=repr(error))
            return False

    def _image(self, hot: str) -> bool:
        """Read the image's hot files unless they are there; return whether they are now."""
        if os.path.isdir(hot):
            return self._read("snapshot", dump_files(hot), self._layers.of_part)
        if os.path.exists(hot):
            try:
                with open(hot, encoding="utf-8") as file:
                    files = [str(path) for path in json.load(file)["files"]]
            except (OSError, ValueError, KeyError, TypeError) as error:  # a damaged closure must not cost the weights
                self._timeline.event("prefetch.declined", target="image", reason=repr(error))
                return False
            looked = spread(files)
            if not self._are_resident(looked):
                return self._read("image", files, self._layers.of_part)
            reason = f"{len(looked)} of {len(files)} files, spread over all, are resident"
            self._timeline.event("prefetch.declined", target="image", reason=reason)
        return True

    def _are_resident(self, paths: Iterable[str]) -> bool:
        """Return whether files of the image are known to be in the page cache, those that exist."""
        for path in paths:
            try:
                size = os.path.getsize(path)
            except OSError:
                continue  # recorded when the image was built, and not in this one
            try:
                if self._layers.of_file(path, size)[0] < size:
                    return False
            except OSError:
                return False  # reading says why
        return True

    def _end(self, _number: int, _frame: object) -> None:
        self._stopped = "server ready or stopping"  # no event is set: the handler may have interrupted its waiter
        for reading in self._readings:
            reading.stop(self._stopped)

    def _budget(self, reading: Reading) -> int:
        """Return how many bytes one reading may have resident, with what the others want."""
        others = sum(other.outcome.wanted for other in self._readings if other is not reading)
        return int(memory_headroom() * MEMORY_SHARE) - others

    def _read(self, target: str, paths: Sequence[str], look: Look, size: int = 0, skipped: Iterable[str] = ()) -> bool:
        """Read one target's files and say in one event what came of it; return whether all of it is resident.

        ``size`` is that of all files, 0 where only reading them tells.
        """
        reading = Reading(
            paths, look, lambda: self._budget(reading), stall=self._stall, cap=self._cap, whole=look is volume_range
        )
        self._readings.append(reading)
        if self._stopped:
            reading.stop(self._stopped)
        outcome = reading.run()
        failures = [*skipped, *outcome.failures]
        self._timeline.event(
            "prefetch.ended",
            target=target,
            files=len(paths),
            wanted_bytes=size or outcome.wanted,
            resident_bytes=outcome.resident,
            read_bytes=outcome.read,
            seconds=round(outcome.seconds, 3),
            rate=outcome.rate,
            reason=outcome.reason,
            failures=failures[:8],
        )
        return outcome.reason == "done" and not failures


def main(arguments: Sequence[str]) -> int:
    """Prefetch without starting anything: an image's command ``prefetch [ENGINE ARGUMENT]...``.

    Writes the events to standard output.

    Args:
        arguments: the engine arguments of the start to prefetch for.

    Returns:
        0 when everything is resident now, else 1.
    """
    timeline = Timeline.onto(1, "prefetch")
    try:
        settings = load(arguments, initial_environment(), "")
    except (OSError, ValueError) as error:
        timeline.event("prefetch.failed", reason=repr(error))
        return 1
    return 0 if Prefetch(timeline).run(settings, [settings.snapshot, CLOSURE]) else 1


def unified(settings: Settings) -> str | None:
    """Return why nothing is read ahead on this machine's GPU; ``None`` where the GPU does not keep it from that.

    Where CPU and GPU share one memory, the page cache counts as used memory of the GPU: the engine finds less of it for
    its KV cache, or fails to load.  ``WARMIMAGE_PREFETCH=on`` reads all the same.
    """
    if settings.prefetch == "on":
        return None
    names = [name for name in Accelerator.here().gpus if _UNIFIED.search(name)]
    if not names:
        return None
    return f"{names[0]} shares its memory with the page cache; WARMIMAGE_PREFETCH=on reads all the same"


def spread(files: Sequence[str]) -> list[str]:
    """Return up to ``SAMPLE`` of some files, evenly spread, and the last.

    The first would tell nothing: they are what PID 1 imports itself, and what a prefetch that was cut short has read.
    """
    return list(dict.fromkeys([*files[:: max(1, -(-len(files) // SAMPLE))], *files[-1:]]))


def dump_files(directory: str) -> list[str]:
    """Return the files of a snapshot, the largest first: the memory's pages, which the restore waits for."""
    try:
        found = [entry for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False)]
        return [entry.path for entry in sorted(found, key=lambda entry: -entry.stat().st_size)]
    except OSError:
        return []  # the tier itself says what is wrong with it


def volume_range(_path: str, descriptor: int, offset: int, length: int) -> int:
    """Return how many bytes of a part of a volume's file are resident, 0 where the kernel does not tell.

    No samples: each is a request to the volume, and the files of a volume are mostly the user's own.
    """
    return resident_part(descriptor, offset, length) or 0
