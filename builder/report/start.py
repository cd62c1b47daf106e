"""The input of a report: the timelines of starts, and tables."""

from __future__ import annotations

from dataclasses import dataclass

from ..timeline import Event


@dataclass(frozen=True)
class Start:
    """One start of a container.

    Attributes:
        name: what it is called in the report, such as a tier or an arm.
        events: its timeline.
        created: wall-clock seconds since 1970 at which the container was made, where that is known.
    """

    name: str
    events: list[Event]
    created: float | None = None


@dataclass(frozen=True)
class Table:
    """A table that stands before the charts.

    Attributes:
        title: its heading.
        columns: the heads of its columns.
        rows: its cells, as text.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
