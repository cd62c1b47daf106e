"""Look at the container's processes while the server starts: which there are, and what they use.

PID 1's event loop calls ``step`` between two questions to the server.  One look is a listing of ``/proc`` and two small
files per process; only this process and what descends from it counts, so a shared PID namespace costs no more.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from ..kernel import proc
from ..timeline import Timeline, say

#: Seconds between two looks.
INTERVAL = 0.25

#: A look may cost at most one part in this many of a CPU's time: where it is slow, the next one comes later.
SHARE = 50

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

#: Words of command lines that say what a process without a name of its own is for.  The rest of a command line is left
#: alone: it may hold secrets.
_PURPOSES = (
    (b"multiprocessing.resource_tracker", "resource tracker"),
    (b"multiprocessing.forkserver", "forkserver"),
    (b"multiprocessing.spawn", "spawned child"),
)


@dataclass
class _Process:
    """What was seen of a process last."""

    name: str
    purpose: str = ""
    looks: int = 0
    cpu: float = 0.0
    waited_cpu: float = 0.0
    memory: int = 0
    read: int | None = None


class Processes:
    """Writes to the timeline when a process begins, is renamed and ends, and what all use together.

    Args:
        timeline: where its events go; one that keeps no file is never written, and nothing is looked at.
        interval: seconds between two looks.
    """

    def __init__(self, timeline: Timeline, interval: float = INTERVAL) -> None:
        self._timeline = timeline
        self._interval = interval
        self._due = 0.0
        self._known: dict[int, _Process] = {}
        self._others: set[int] = set()
        self._cpu = 0.0
        self._read = 0
        self._off = not timeline.path

    def wait(self) -> float:
        """Seconds until the next look is due."""
        return 3600.0 if self._off else max(0.0, self._due - time.monotonic())

    def step(self, *, now: bool = False) -> None:
        """Look if it is time, or at once; a fault here ends the looking and nothing else."""
        moment = time.monotonic()
        if self._off or (moment < self._due and not now):
            return
        began = time.thread_time()  # what the look takes from the engine, not how long this process had to wait for it
        try:
            self._look(moment)
        except Exception as error:
            self._off = True
            self._timeline.event("processes.failed", reason=repr(error))
            say(f"processes no longer looked at: {error!r}")
        self._due = time.monotonic() + max(self._interval, SHARE * (time.thread_time() - began))

    def _look(self, now: float) -> None:
        listed = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        self._others &= listed
        stats = {pid: stat for pid in sorted(listed - self._others) if (stat := _stat(pid))}
        for pid in [pid for pid in self._known if pid not in stats]:
            self._end(pid)
        lag = time.clock_gettime(time.CLOCK_BOOTTIME) - now
        for pid, stat in stats.items():
            if pid in self._known:
                continue
            if not self._is_ours(pid, stats):
                self._others.add(pid)
                continue
            self._known[pid] = _Process(stat.name)
            # The kernel counts from the machine's boot, in hundredths of a second.
            began = min(now, stat.began - lag)
            self._timeline.event(
                "process.started", child=pid, parent=stat.parent, name=stat.name, began=round(began, 3)
            )
        for pid, process in self._known.items():
            self._update(pid, process, stats[pid])
        self._say_usage()

    def _is_ours(self, pid: int, stats: dict[int, _Stat]) -> bool:
        """Return whether a process is this one or descends from it."""
        own = os.getpid()
        while pid in stats:
            if pid == own or pid in self._known:
                return True
            pid = stats[pid].parent
        return False

    def _update(self, pid: int, process: _Process, stat: _Stat) -> None:
        process.cpu, process.waited_cpu, process.memory = stat.cpu, stat.waited_cpu, stat.memory
        process.read = _read_bytes(pid)
        if process.looks < 2:  # a child that was seen between fork and exec still had its parent's command line
            process.looks += 1
            process.purpose = _purpose(pid)
        name = process.purpose if process.purpose and stat.name.startswith("python") else stat.name
        if name != process.name:
            process.name = name
            self._timeline.event("process.renamed", child=pid, name=name)

    def _end(self, pid: int) -> None:
        process = self._known.pop(pid)
        self._timeline.event("process.ended", child=pid, cpu_seconds=round(process.cpu, 2), read_bytes=process.read)

    def _say_usage(self) -> None:
        known = self._known.values()
        told = [process.read for process in known if process.read is not None]
        # A process that was waited for has its figures added to those of its parent, which descends from PID 1 as well:
        # so what lives now has the whole of it, but for processes that have ended and wait to be waited for.
        self._cpu = max(self._cpu, sum(process.cpu + process.waited_cpu for process in known))
        self._read = max(self._read, sum(told))
        self._timeline.event(
            "usage",
            cpu_seconds=round(self._cpu, 2),
            memory_bytes=sum(process.memory for process in known),
            read_bytes=self._read if told else None,
            processes=[
                [pid, round(process.cpu, 2), process.memory, process.read] for pid, process in self._known.items()
            ],
        )


@dataclass(frozen=True)
class _Stat:
    """What ``/proc/PID/stat`` says.

    ``waited_cpu`` is what its children used that it has waited for, ``began`` in seconds since the machine's boot.
    """

    name: str
    parent: int
    cpu: float
    waited_cpu: float
    began: float
    memory: int


def _stat(pid: int) -> _Stat | None:
    """Return what the kernel says of a process, nothing of one that has ended."""
    try:
        name, fields = proc.stat(pid)
    except OSError:
        return None  # it has ended since the listing, or is hidden from this user
    if fields[0] in b"ZX":
        return None
    return _Stat(
        name,
        int(fields[1]),
        (int(fields[11]) + int(fields[12])) / _TICK,
        (int(fields[13]) + int(fields[14])) / _TICK,
        int(fields[19]) / _TICK,
        int(fields[21]) * _PAGE,
    )


def _read_bytes(pid: int) -> int | None:
    """Return the bytes that a process had the kernel read from storage, ``None`` where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/io", "rb", buffering=0) as file:
            for row in file.read().splitlines():
                if row.startswith(b"read_bytes: "):
                    return int(row[12:])
    except OSError:
        return None  # another user's process, or a kernel without this count: documented as null
    return None


def _purpose(pid: int) -> str:
    """Return what a process of Python's own ``multiprocessing`` is for, else an empty string."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            line = file.read(4096)
    except OSError:
        return ""  # it has ended
    return next((purpose for word, purpose in _PURPOSES if word in line), "")
