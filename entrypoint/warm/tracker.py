"""The account of what is wanted, resident, read and evicted.  Several threads write it, and read it as one state."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..pagecache.residency import SAMPLED, UNKNOWN

#: A sampled file smaller than this many bytes is read once whatever its samples say: a few say little of a file that
#: somebody has in memory in part, as a library that is mapped.
FEW_SAMPLES = 16 << 20

#: The kernel takes back single pages at any time; one in so many costs a start nothing to speak of.
SLACK = 100


@dataclass
class TrackedFile:
    """A file of a target.

    Attributes:
        path: where it is.
        size: its bytes.
        share: its first bytes that are to be resident: all, or what the budget leaves.
        resident: how many of these are, as far as it is known.
        known: how it is known: ``exact``, ``sampled``, ``unknown``; empty before the first look.
        parts: while it is read and its state is known exactly, how much of each of its spans is resident.
        read: bytes of it that were read in the current pass.
        warmed: whether all of its share was there once.
        confirmed: whether all of its share was read once.
        problem: why it cannot be warmed, or an empty string.  Stays until it is seen that it can be.
        unreadable: whether it could not even be looked at.
    """

    path: str
    size: int
    share: int = 0
    resident: int = 0
    known: str = ""
    parts: list[int] = field(default_factory=list)
    read: int = 0
    warmed: bool = False
    confirmed: bool = False
    problem: str = ""
    unreadable: bool = False

    @property
    def missing(self) -> int:
        """Bytes to read: of a file that the kernel tells nothing of all, until they have been read once."""
        if self.known == UNKNOWN:
            return 0 if self.warmed else self.share
        return self.share - self.resident


@dataclass
class Target:
    """The files of a target, and what became of them since the start.

    Attributes:
        files: in the order in which they are read.
        problems: one line for each file that is not among ``files`` and should be, and why.
        declined: why there are no files, or an empty string.
        read_bytes: what was read.
        evicted_bytes: what was seen to be gone after it had been resident.
        owed: whether bytes that were evicted have yet to be read again.
        rewarms: how often evicted bytes were read again.
        warm_after: seconds from the start until all was resident for the first time, ``None`` before.
    """

    files: list[TrackedFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    declined: str = ""
    read_bytes: int = 0
    evicted_bytes: int = 0
    owed: bool = False
    rewarms: int = 0
    warm_after: float | None = None


@dataclass(frozen=True)
class TargetTotals:
    """A target at one moment, in bytes: ``wanted`` is ``resident + unknown + missing + over_budget``.

    Attributes:
        files: how many it has.
        wanted: the size of all of them.
        over_budget: what the budget leaves out.
        resident: what is in the page cache.
        sampled: of ``resident``, what is an estimate from samples.
        unknown: what the kernel tells nothing of.
        unread: of ``unknown``, what was not read yet.
        missing: what is to be read.
        read: what was read since the start.
        evicted: what was gone after it had been resident, since the start.
        rewarms: how often evicted bytes were read again.
        warm_after: seconds until all was resident for the first time.
        problems: files that cannot be warmed, and why.
        declined: why there are no files.
    """

    files: int
    wanted: int
    over_budget: int
    resident: int
    sampled: int
    unknown: int
    unread: int
    missing: int
    read: int
    evicted: int
    rewarms: int
    warm_after: float | None
    problems: tuple[str, ...]
    declined: str

    @property
    def warm(self) -> bool:
        """Whether all that the budget allows is resident, as far as it is known, but for a hundredth."""
        planned = self.wanted - self.over_budget
        return not self.problems and self.missing + self.unread <= planned // SLACK


class Tracker:
    """The account.

    Args:
        names: the targets, in the order in which they are warmed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.lock = threading.RLock()  # held over several calls, they are one change
        self._targets = {name: Target() for name in names}
        self.began = self.moved = time.monotonic()
        self.current = ""
        self._span: tuple[float, int] = (self.began, 0)
        self._rate = 0.0

    @property
    def names(self) -> list[str]:
        """The targets, in the order in which they are warmed."""
        return list(self._targets)

    def set_files(self, name: str, files: Sequence[tuple[str, int]], problems: Iterable[str], declined: str) -> None:
        """Say which files a target has now, keeping what is known of those that it had before.

        Args:
            name: the target.
            files: paths and sizes.
            problems: what cannot be warmed, and why.
            declined: why there are no files.
        """
        with self.lock:
            target = self._targets[name]
            before = {(file.path, file.size): file for file in target.files}
            target.files = [before.get((path, size)) or TrackedFile(path, size) for path, size in files]
            target.problems, target.declined = list(problems), declined

    def files(self, name: str) -> list[TrackedFile]:
        """Return a target's files."""
        return self._targets[name].files

    def set_budget(self, budget: int) -> int:
        """Share a budget out, in order, and return how many bytes of it are wanted."""
        with self.lock:
            left = budget
            for target in self._targets.values():
                for file in target.files:
                    share = min(file.size, left)
                    left -= share
                    if share > file.share:
                        file.warmed = file.confirmed = False  # more of it is to be read than before
                    file.share, file.resident = share, min(file.resident, share)
            return budget - left

    def looked(self, name: str, file: TrackedFile, resident: int, known: str) -> int:
        """Note what was seen of a file, and return how many bytes of it are gone since it was warm."""
        with self.lock:
            self.moved = time.monotonic()
            if known == SAMPLED and not file.confirmed and file.share < FEW_SAMPLES:
                resident = 0
            gone = max(0, file.share - resident) if file.warmed and known != UNKNOWN else 0
            file.known, file.resident, file.read = known, resident, 0
            if known != UNKNOWN:
                file.warmed = resident >= file.share
            if file.unreadable or file.missing <= file.share // SLACK:  # what could not be read may still be missing
                file.problem, file.unreadable = "", False
            target = self._targets[name]
            target.evicted_bytes += gone
            target.owed = target.owed or gone > 0
            return gone

    def add_read(self, name: str, file: TrackedFile, count: int) -> None:
        """Note that a part of a file was read: ``count`` bytes.

        The first after an eviction is one rewarming: who sees the target warm again has to see that counted, too.
        """
        with self.lock:
            self.moved = time.monotonic()
            target = self._targets[name]
            target.read_bytes += count
            target.rewarms += target.owed
            target.owed = False
            file.read += count
            file.confirmed = file.confirmed or file.read >= file.share
            if file.known == SAMPLED:
                file.resident = min(file.share, max(file.resident, file.read))
            elif file.known == UNKNOWN and file.read >= file.share:
                file.warmed = True

    def recount(self, file: TrackedFile, span: int, resident: int) -> None:
        """Note how much of a span of a file is resident, by reading or by the kernel's readahead."""
        with self.lock:
            file.parts[span] = resident
            file.resident = min(file.share, sum(file.parts))

    def failed(self, file: TrackedFile, reason: str | None, *, unreadable: bool = False) -> None:
        """Note that a file cannot be warmed, and why; and whether it could not even be looked at."""
        with self.lock:
            file.problem, file.unreadable = f"{file.path}: {reason}", file.unreadable or unreadable

    def totals(self) -> Mapping[str, TargetTotals]:
        """Return all targets as they are at one moment; of those that are warm for the first time, when that was."""
        with self.lock:
            for target in self._targets.values():
                if target.warm_after is None and target.files and self._total(target).warm:
                    target.warm_after = time.monotonic() - self.began
            return {name: self._total(target) for name, target in self._targets.items()}

    def rate(self) -> float:
        """Return the bytes per second that were read in the last seconds."""
        with self.lock:
            now = time.monotonic()
            read = sum(target.read_bytes for target in self._targets.values())
            moment, before = self._span
            if now - moment >= 1:
                self._rate = (read - before) / (now - moment)
                self._span = (now, read)
            return self._rate

    @staticmethod
    def _total(target: Target) -> TargetTotals:
        known = [file for file in target.files if file.known != UNKNOWN]
        blind = [file for file in target.files if file.known == UNKNOWN]
        wanted = sum(file.size for file in target.files)
        planned = sum(file.share for file in target.files)
        unknown = sum(file.share for file in blind)
        resident = sum(file.resident for file in known)
        own = (file.problem for file in target.files if file.problem)
        return TargetTotals(
            files=len(target.files),
            wanted=wanted,
            over_budget=wanted - planned,
            resident=resident,
            sampled=sum(file.resident for file in known if file.known == SAMPLED),
            unknown=unknown,
            unread=sum(file.missing for file in blind),
            missing=planned - unknown - resident,
            read=target.read_bytes,
            evicted=target.evicted_bytes,
            rewarms=target.rewarms,
            warm_after=target.warm_after,
            problems=(*target.problems, *own),
            declined=target.declined,
        )
