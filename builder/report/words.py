"""Figures and events in words."""

from __future__ import annotations

from ..console import human_bytes
from ..timeline import Event

#: Fields that say when and where, which a chart shows by itself, or that are too long for a line.
_PLACE = {"t", "pid", "process", "event", "wall", "modules", "processes", "child"}


def seconds(value: float) -> str:
    """Return a duration as a person reads it: ``7.69 s``, ``42 ms``, ``0.3 ms``."""
    if abs(value) >= 100:
        return f"{value:.0f} s"
    if abs(value) >= 1:
        return f"{value:.2f} s"
    return f"{value * 1000:.0f} ms" if abs(value) >= 0.01 else f"{value * 1000:.1f} ms"


def size(value: float) -> str:
    """Return a number of bytes as a person reads it."""
    return human_bytes(int(value))


def of_event(event: Event) -> str:
    """Return an event's own fields, one to a line."""
    lines = []
    for key, value in event.items():
        if key in _PLACE or value in ("", [], None):
            continue
        if isinstance(value, list):
            text = ", ".join(str(entry) for entry in value[:8])
        elif key.endswith("bytes") and isinstance(value, int):
            text = size(value)
        elif key.endswith("seconds") and isinstance(value, int | float):
            text = seconds(value)
        else:
            text = str(value)
        lines.append(f"{key.replace('_', ' ')}: {text}")
    return "\n".join(lines)
