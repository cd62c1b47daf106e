"""A start as a person sees it: its phases, processes, figures and decisions, in seconds from its own begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .. import timeline
from ..timeline import Event
from .start import Start
from .words import of_event, seconds, size


@dataclass(frozen=True)
class Span:
    """Something that took time; ``kind`` names its colour."""

    name: str
    began: float
    ended: float
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Mark:
    """Something that happened."""

    name: str
    at: float
    detail: str = ""


@dataclass
class Lane:
    """A process.

    Attributes:
        pid: as the container numbers it.
        name: what it is called.
        began: when.
        ended: when, as far as was seen.
        left: whether it ended within the start.
        usage: rows of time, CPU seconds, bytes of memory, bytes read.
        spans: what it did.
        marks: what it said.
    """

    pid: int
    name: str
    began: float
    ended: float
    left: bool = False
    usage: list[tuple[float, float, float, float]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    def load(self) -> list[tuple[float, float, float]]:
        """Return rows of begin, end and CPUs in use between two looks."""
        rows = [(self.began, 0.0), *((row[0], row[1]) for row in self.usage)]
        return [
            (before[0], after[0], max(0.0, after[1] - before[1]) / (after[0] - before[0]))
            for before, after in pairwise(rows)
            if after[0] > before[0]
        ]


@dataclass(frozen=True)
class Module:
    """An imported module; depth 0 is an outermost import."""

    name: str
    began: float
    seconds: float
    own: float
    depth: int


@dataclass(frozen=True)
class Imports:
    """What one thread of a process imported."""

    process: str
    pid: int
    thread: str
    modules: tuple[Module, ...]


class View:
    """A start, its times counted from its own begin.

    Args:
        start: the start.
        created: whether to count from the container's creation, where that is known.

    Attributes:
        name: its name.
        events: its timeline.
        zero: the begin, on the clock of the timeline.
        since: what the begin is, in words.
        ready: seconds to readiness, ``None`` if it never came.
        end: seconds to the end of what is drawn.
        tier: the tier that came up, or was tried last.
    """

    def __init__(self, start: Start, *, created: bool = True) -> None:
        self.name = start.name
        self.events: list[Event] = start.events
        self._made = start.created if created else None
        first = self.events[0] if self.events else {"t": 0.0}
        begins = [event["began"] for event in timeline.find(self.events, "process.started") if "began" in event]
        self.zero = min([first["t"], *begins])
        self.since = "PID 1's begin"
        if self._made is not None and "wall" in first:
            self.zero = min(self.zero, first["t"] - (first["wall"] - self._made))
            self.since = "the container's creation"
        ready = timeline.find(self.events, "ready")
        self.ready: float | None = ready[0]["t"] - self.zero if ready else None
        last = max((event["t"] for event in self.events), default=0.0) - self.zero
        self.end: float = self.ready if self.ready is not None else last
        tiers = [event["tier"] for event in self.events if event["event"] in ("tier.started", "ready")]
        self.tier = str(tiers[-1]) if tiers else ""

    @property
    def phases(self) -> list[Span]:
        """The phases, end to end; what lies before the first one is named too."""
        found = timeline.phases(self.events, self._made)
        first = self.events[0] if self.events else {"t": 0.0}
        counted = self._made is not None and "wall" in first
        at = 0.0 if counted else first["t"] - self.zero
        spans = []
        if at > 0.0005 and found:
            spans.append(Span("PID 1", 0.0, at, "other", "the supervisor's interpreter, up to its own first line"))
        for phase in found:
            spans.append(Span(phase.name, at, at + phase.seconds, phase.name, phase.meaning))
            at += phase.seconds
        return spans

    @property
    def usage(self) -> list[tuple[float, float, float, float | None]]:
        """Rows of time, CPU seconds, bytes of memory and bytes read, of all processes together."""
        return [
            (event["t"] - self.zero, event.get("cpu_seconds", 0.0), event.get("memory_bytes", 0), event["read_bytes"])
            for event in timeline.find(self.events, "usage")
            if "read_bytes" in event
        ]

    def figures(self) -> list[tuple[str, str]]:
        """Return what the start used, as words and figures."""
        found = []
        usage = self.usage
        if usage:
            found.append(("CPU time", f"{usage[-1][1]:.1f} s"))
            if usage[-1][3] is not None:
                found.append(("read from storage", size(usage[-1][3])))
            found.append(("peak memory", size(max(row[2] for row in usage))))
            found.append(("processes", str(len(self.lanes()))))
        return found

    def decisions(self) -> list[tuple[float, str, str]]:
        """Return when and what was declined or failed, and why."""
        found = []
        for event in self.events:
            if not event["event"].endswith((".declined", ".failed", ".refused", ".unchecked", ".small", ".cleared")):
                continue
            what, _, how = event["event"].partition(".")
            about = str(event.get("tier") or event.get("target") or what)
            reason = str(event.get("reason") or of_event(event))
            found.append((event["t"] - self.zero, f"{about} {how}", reason))
        return found

    def lanes(self) -> list[Lane]:
        """Return the processes in the order of their begin, PID 1 first."""
        lanes: dict[int, Lane] = {}
        for event in self.events:
            at, name = event["t"] - self.zero, event["event"]
            if at > self.end + 0.5:
                break
            pid = event.get("child") if name.startswith("process.") else event.get("pid", 0)
            if not isinstance(pid, int):
                continue
            lane = lanes.setdefault(pid, Lane(pid, str(event.get("name") or "python"), at, self.end))
            if name == "process.started":
                lane.began = event.get("began", event["t"]) - self.zero
            elif name == "process.renamed":
                lane.name = str(event["name"])
            elif name == "process.ended":
                lane.ended, lane.left = at, True
            elif name == "usage":
                self._add_usage(event, lanes)
            else:
                self._add(event, at, lane)
        names = {event["pid"]: event["process"] for event in self.events if event.get("process") and "pid" in event}
        for pid, process in names.items():
            if pid in lanes:
                lanes[pid].name = process
        for one in self.imports():
            if one.pid in lanes:
                lanes[one.pid].spans += [
                    Span(module.name, module.began, module.began + module.seconds, "other", "an outermost import")
                    for module in one.modules
                    if module.depth == 0 and module.seconds > self.end / 100 and module.began < self.end
                ]
        return sorted(lanes.values(), key=lambda lane: (lane.name != "supervisor", lane.began, lane.pid))

    def _add_usage(self, event: Event, lanes: dict[int, Lane]) -> None:
        for pid, cpu, memory, read in event.get("processes", []):
            if pid in lanes:
                lanes[pid].usage.append((event["t"] - self.zero, cpu, memory, read or 0))

    def _add(self, event: Event, at: float, lane: Lane) -> None:
        """Add an event to its process: a span if it says how long something took, else a mark."""
        name = event["event"]
        if name == "imports":
            return
        took = event.get("seconds")
        if name != "ready" and isinstance(took, int | float):
            subject = str(event.get("target") or name.partition(".")[0])
            label = f"{name.partition('.')[0]}: {subject}" if event.get("target") else subject
            kind = {"image": "interpreter", "weights": "loading"}.get(subject, "checks")
            lane.spans.append(Span(label, max(0.0, at - took), at, kind, of_event(event)))
        else:
            lane.marks.append(Mark(name, at, of_event(event)))

    def imports(self) -> list[Imports]:
        """Return the imports of each thread, that of most modules' time first."""
        found: dict[tuple[int, str], list[Module]] = {}
        names: dict[int, str] = {}
        for event in timeline.find(self.events, "imports"):
            key = (event.get("pid", 0), str(event.get("thread", "")))
            names[key[0]] = str(event.get("process", ""))
            rows: list[Any] = event.get("modules", [])
            found.setdefault(key, []).extend(
                Module(str(row[0]), row[1] - self.zero, row[2], row[3], row[4]) for row in rows if len(row) == 5
            )
        all_of = [
            Imports(names[pid], pid, thread, tuple(sorted(modules, key=lambda module: (module.began, module.depth))))
            for (pid, thread), modules in found.items()
        ]
        return sorted(all_of, key=lambda one: -sum(module.own for module in one.modules))


def views(starts: Sequence[Start]) -> list[View]:
    """Return the starts as views with one meaning of zero: creation counts only if it is known of all of them."""
    known = all(start.created is not None for start in starts if start.events)
    return [View(start, created=known) for start in starts]


def in_words(view: View) -> str:
    """Return in one line how a start went."""
    if not view.events:
        return "no timeline"
    if view.ready is None:
        return f"not ready after {seconds(view.end)}"
    return f"ready after {seconds(view.ready)}"
