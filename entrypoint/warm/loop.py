"""The loop: look what is resident, read what is not, look again, wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..pagecache.residency import Residency
from ..timeline import Timeline, say
from . import pins, readiness, sizes
from .backoff import BackOff, Pause
from .budget import Budget, budget
from .options import Options
from .rate_limit import RateLimiter, lower_priority
from .reading import Job, Reading
from .status import WarmStatus
from .targets import Found, Places
from .tracker import TargetTotals, Tracker

#: Seconds from one look at the memory to the next, while it is being filled.
_MEMORY_CHECK = 2.0

#: By how much the time between two looks grows at most where the page cache does not keep what is read.
_STRETCH = 16

#: Passes that a single run makes at most: what is evicted while it reads is read again.
_PASSES = 3


class Warmer:
    """Keeps files resident.

    Args:
        options: what to warm, and how.
        places: where it is.
        timeline: where its events go.
        stop: ends it when set.
        tell: called with whether all is resident, whenever that has been looked at.
        speak: says one line to a person.
    """

    def __init__(
        self,
        options: Options,
        places: Places,
        timeline: Timeline,
        stop: threading.Event,
        tell: Callable[[bool], None] = lambda _warm: None,
        speak: Callable[[str], None] = say,
    ) -> None:
        self._options = options
        self._places = places
        self._timeline = timeline
        self._stop = stop
        self._tell = tell
        self._speak = speak
        self._tracker = Tracker(options.targets)
        self._residency = Residency()
        self._rate_limiter = RateLimiter(options.rate, stop)
        self._backoff = BackOff(self._rate_limiter, stop, self._paused)
        self._reading = Reading(self._tracker, self._rate_limiter, stop)
        self._pins = pins.Pins()
        self._budget = Budget(0, True, "nothing yet")
        self._allotted = 0
        self._checked = 0.0
        self._kept = ""
        self._stretch = 1
        self._cut = ""
        self._arrived: set[str] = set()
        self._looked = self._was_ready = False
        self._declined: dict[str, str] = {}  # by target, what was said last
        self._cause, self._was_complete = "", False
        self.phase = "starting"

    def run(self) -> None:
        """Keep everything resident until told to stop; of a single run, until it is, or cannot be."""
        lower_priority()
        passes = 0
        while not self._stop.is_set():
            try:
                self._pass()
            except Exception as error:  # the next look may find things as they should be
                self._timeline.event("warm.failed", reason=repr(error))
                self._speak(f"{error!r}")
            passes += 1
            self.phase = "waiting"
            if self._options.once and (self.state().complete or self._stuck() or passes >= _PASSES):
                return
            self._stop.wait(0 if self._options.once else self._options.interval * self._stretch)

    def state(self) -> WarmStatus:
        """Return what is so now."""
        totals = self._tracker.totals()
        now = time.monotonic()
        seconds = now - self._tracker.began
        complete = self._was_ready and readiness.complete(totals, self._budget)
        doing = f"{self.phase} {self._tracker.current}" if self.phase in ("looking", "reading") else ""
        why = readiness.reason(
            totals,
            self._budget,
            doing,
            now - self._tracker.moved,
            self._backoff.holding,
            self._kept,
            complete=complete,
            looked=self._looked,
        )
        overdue = seconds >= self._options.patience
        if overdue and not self._was_ready:
            why = f"ready all the same after {self._options.patience:.0f} s: {why}"
        return WarmStatus(
            phase=self.phase,
            complete=complete,
            ready=self._was_ready or overdue,
            reason=why,
            targets=totals,
            budget=self._budget,
            limited=readiness.limited(totals, self._budget),
            locked=self._pins.size,
            refused=self._pins.refused,
            holding=self._backoff.holding,
            rate=self._tracker.rate(),
            backoffs=dict(self._backoff.count),
            backoff_seconds=self._backoff.seconds,
            pressure=dict(self._backoff.share),
            seconds=seconds,
        )

    def files(self) -> list[Job]:
        """Return all files, each with its target."""
        return [(name, file) for name in self._tracker.names for file in self._tracker.files(name)]

    def drop(self) -> None:
        """Have everything dropped from the page cache."""
        files = self.files()
        self._pins.keep(())
        pins.drop(file for _, file in files)
        self._timeline.event("warm.dropped", files=len(files), bytes=sum(file.size for _, file in files))

    def _stuck(self) -> bool:
        state = self.state()
        return bool(state.limited or self._kept or any(each.problems for each in state.targets.values()))

    def _pass(self) -> None:
        self.phase = "looking"
        self._cut = ""
        self._settle()
        evicted = self._look(self.files())
        if self._stop.is_set():
            return  # not all was looked at
        first, self._looked = not self._looked, True
        self._conclude()
        for name, each in self._tracker.totals().items() if first else ():
            self._timeline.event(
                "warm.looked",
                target=name,
                files=each.files,
                wanted_bytes=each.wanted,
                resident_bytes=each.resident,
                unknown_bytes=each.unknown,
                over_budget_bytes=each.over_budget,
            )
        for name, size in evicted.items():
            self._timeline.event("warm.evicted", target=name, bytes=size)
            self._speak(f"{name}: {sizes.format_binary(size)} were evicted")
        jobs = [job for job in self.files() if job[1].missing and not job[1].unreadable]
        if not jobs:
            self._kept, self._stretch = "", 1  # however it came: by somebody else, or with more memory
        self._report()
        if jobs:
            self._read(jobs)
            self._conclude()
        if self._options.lock and not (self._cut or self._stop.is_set()):
            self._pin()
        self._report()

    def _conclude(self) -> None:
        """Let the server start when a whole look has found all to be there; in the midst of one some is not known."""
        if not self._stop.is_set() and readiness.complete(self._tracker.totals(), self._budget):
            self._was_ready = True

    def _settle(self) -> None:
        """Find the targets' files again, and share the budget out among them."""
        seen: set[tuple[int, int]] = set()
        settled = {name: self._find(name, seen) for name in self._tracker.names}
        room = budget(self._options.budget, self._pins.size)
        with self._tracker.lock:  # a new file that has no share yet would count as complete
            for name, (files, found) in settled.items():
                self._tracker.set_files(name, files, found.problems, found.declined)
            self._budget, self._allotted = room, self._tracker.set_budget(room.size)
        for name, (_, found) in settled.items():
            if found.declined and self._declined.get(name) != found.declined:
                self._declined[name] = found.declined
                self._timeline.event("warm.declined", target=name, reason=found.declined)

    def _find(self, name: str, seen: set[tuple[int, int]]) -> tuple[list[tuple[str, int]], Found]:
        """Return a target's files with their sizes: one that stands in several targets is of the first."""
        try:
            found = self._places.find(name)
        except Exception as error:  # what is wrong with one target must not cost the others
            found = Found(problems=(repr(error),))
        files, problems = [], list(found.problems)
        for path in found.paths:
            self._tracker.current = path
            try:
                status = os.stat(path)
            except FileNotFoundError:
                continue  # recorded when the image was built, and not in this one
            except (OSError, ValueError) as error:
                problems.append(f"{path}: {getattr(error, 'strerror', error)}")
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                files.append((path, status.st_size))
        return files, replace(found, problems=tuple(problems))

    def _look(self, jobs: Sequence[Job]) -> dict[str, int]:
        """See what is resident, and return by target how many bytes are gone since they were."""
        evicted: dict[str, int] = {}
        for name, file in jobs:
            if self._stop.is_set():
                break
            self._tracker.current = file.path
            try:
                gone = self._tracker.looked(name, file, *self._residency.of_file(file.path, file.share))
            except OSError as error:
                self._tracker.failed(file, error.strerror, unreadable=True)
                continue
            if gone:
                evicted[name] = evicted.get(name, 0) + gone
        return evicted

    def _read(self, jobs: Sequence[Job]) -> None:
        """Read what is missing, and see whether it stays."""
        self.phase = "reading"
        began, before = time.monotonic(), self._tracker.totals()
        self._backoff.begin()
        self._reading.run(jobs, self._control)
        seconds = time.monotonic() - began
        self._look(jobs)
        after = self._tracker.totals()
        for name in dict.fromkeys(name for name, _ in jobs):
            each = after[name]
            self._timeline.event(
                "warm.ended",
                target=name,
                read_bytes=each.read - before[name].read,
                resident_bytes=each.resident,
                missing_bytes=each.missing,
                seconds=round(seconds, 3),
                reason=self._ended(),
                failures=each.problems[:8],
            )
        if not (self._cut or self._stop.is_set()):
            self._judge(after)

    def _ended(self) -> str:
        return "stopping" if self._stop.is_set() else self._cut or "done"

    def _judge(self, totals: Mapping[str, TargetTotals]) -> None:
        """See whether the page cache keeps what was read; where it does not, look less and less often."""
        missing = sum(each.missing for each in totals.values() if not each.problems)
        planned = sum(each.wanted - each.over_budget for each in totals.values())
        if missing <= planned // 20:
            self._kept, self._stretch = "", 1
            return
        self._stretch = min(2 * self._stretch, _STRETCH)
        self._kept = (
            f"the page cache does not keep it: {sizes.format_binary(missing)} of {sizes.format_binary(planned)} "
            "were evicted right after they were read; the memory limit of the pod is too small, or the file system has "
            "no page cache"
        )

    def _control(self) -> bool:
        """Back off where others wait, and return whether to give up, as memory has become less."""
        self._backoff.step()
        now = time.monotonic()
        if now - self._checked < _MEMORY_CHECK:
            return bool(self._cut)
        self._checked = now
        room = budget(self._options.budget, self._pins.size)
        if room.size < self._allotted * 0.95:
            self._cut = f"memory has become less: {room.bound}"
        return bool(self._cut)

    def _pin(self) -> None:
        """Pin the files that are resident.

        Locking would read what is missing, at any rate, and whoever needs the memory.  So the others wait until they
        have been read.
        """
        files = [file for _, file in self.files() if not (file.missing or file.unreadable)]
        before = self._pins.size, self._pins.refused
        self._backoff.begin()
        self._pins.keep(files, lambda: not (self._control() or self._stop.is_set()))
        if (self._pins.size, self._pins.refused) != before:
            reason = self._pins.refused or self._cut
            self._timeline.event("warm.locked", bytes=self._pins.size, reason=reason)
            if reason:
                self._speak(f"not all is pinned: {reason}")

    def _paused(self, pause: Pause) -> None:
        share = round(pause.share, 3)
        if not pause.seconds:
            self._timeline.event("warm.paused", resource=pause.resource, pressure=share)
            return
        self._timeline.event("warm.resumed", resource=pause.resource, pressure=share, seconds=round(pause.seconds, 3))

    def _report(self) -> None:
        """Say what has changed, and have the node's label follow."""
        state = self.state()
        for name, each in state.targets.items():
            if each.warm_after is not None and name not in self._arrived:
                self._arrived.add(name)
                self._timeline.event("warm.target_ready", target=name, seconds=round(each.warm_after, 3))
        before = self._was_complete
        if state.complete and not before:
            self._timeline.event("warm.ready", reason=state.reason)
        elif before and not state.complete:
            self._timeline.event("warm.no_longer_ready", reason=state.reason)
        cause = "" if state.complete else state.limited or self._kept or self._problem(state)
        if cause and self._cause != cause:
            self._timeline.event("warm.blocked", reason=cause)
            self._speak(cause)
        elif state.complete and not before:
            self._speak(f"{state.reason}, after {state.seconds:.1f} s")
        self._was_complete, self._cause = state.complete, cause
        self._tell(state.complete)

    @staticmethod
    def _problem(state: WarmStatus) -> str:
        return next((f"{name}: {each.problems[0]}" for name, each in state.targets.items() if each.problems), "")
