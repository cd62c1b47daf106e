"""Read a container's timeline: its events, and the phases between them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from docker.errors import APIError, NotFound
from docker.models.containers import Container

from .entrypoint.timeline import DEFAULT_PATH as DEFAULT_PATH

Event = dict[str, Any]

#: The event that ends each phase of a start.  A phase begins at the end of the one before it.
_PHASES = (
    ("container", "started", "created to PID 1's first line"),
    ("checks", "tier.started", "model volume, prefetch begun, tier chosen"),
    ("restore", "snapshot.restored", "the imported interpreter restored (tier snapshot)"),
    ("imports", "zygote.imported", "the interpreter, and everything imported once (tier zygote)"),
    ("interpreter", "engine.entered", "up to the first line of the engine's own script (all tiers but plain)"),
    ("loading", "engine.listening", "imports, configuration and weights, up to the first accepted connection"),
    ("health", "ready", "up to the first healthy answer"),
)

#: Names of the phases, in order.
PHASE_NAMES = tuple(name for name, _, _ in _PHASES)


@dataclass(frozen=True)
class Phase:
    """A part of a start.

    Attributes:
        name: one word.
        seconds: its duration.
        meaning: its description.
    """

    name: str
    seconds: float
    meaning: str


def parse(lines: Iterable[str]) -> list[Event]:
    """Return the events of a JSON-lines timeline; an incomplete last line is ignored."""
    events = []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def fetch(container: Container, path: str = DEFAULT_PATH) -> list[Event]:
    """Return the timeline of a container, running or ended; empty if it has none."""
    try:
        chunks, _ = container.get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            member = archive.extractfile(archive.getmembers()[0])
            return parse(member.read().decode(errors="replace").splitlines()) if member else []
    except (NotFound, APIError, tarfile.TarError, IndexError):
        return []


def created(container: Container) -> float:
    """Return the wall-clock time in seconds at which the Docker daemon created a container."""
    return wall(str(container.attrs["Created"]))


def wall(text: str) -> float:
    """Return a time in the Docker API's format (``2026-11-24T01:02:03.456789012Z``) as seconds since 1970."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc)
    return moment.timestamp() + float(f"0.{fraction or 0}")


def phases(events: Sequence[Event], created: float | None = None) -> list[Phase]:
    """Return the phases of the start that ended in ``ready``, in order.

    Args:
        events: the timeline.
        created: wall-clock time of the container's creation in seconds, on its host's clock.
    """
    # A failed tier has phases of its own.  Only the phases of the last tier count: those after the failure.
    last = max((index for index, event in enumerate(events) if event["event"] == "tier.failed"), default=-1)
    times = {event["event"]: event["t"] for event in events[:1]}
    for event in events[last + 1 :]:
        times.setdefault(event["event"], event["t"])
    found = []
    first = events[0] if events else {}
    before = first["t"] - (first["wall"] - created) if created and "wall" in first else None
    for name, end, meaning in _PHASES:
        if end not in times:
            continue
        if before is not None:
            found.append(Phase(name, times[end] - before, meaning))
        before = times[end]
    return found


def find(events: Iterable[Event], name: str) -> list[Event]:
    """Return the events called ``name``."""
    return [event for event in events if event["event"] == name]
