"""A result for people: tables for a terminal and for the HTML report."""

from __future__ import annotations

from dataclasses import dataclass

from ..console import human_bytes
from . import verdict
from .measure import PHASES
from .result import FIGURES, Comparison, Result, Run, Spread

_TITLES = {
    "ready": "ready",
    "first_token": "first token",
    "cpu": "CPU",
    "read": "read",
    "machine_read": "read by machine",
    "rss": "peak RSS",
    "pss": "PSS",
    "memory": "peak memory",
}


@dataclass(frozen=True)
class Grid:
    """A table: its title, the heads of its columns, and its rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def grids(result: Result) -> list[Grid]:
    """Return the result's tables."""
    return [times(result), resources(result), phases(result)]


def times(result: Result) -> Grid:
    """Return the times to ready and to the first token, and how the first arm compares with each other one."""
    rows = []
    for cell in result.cells:
        against = next(
            (
                entry
                for entry in result.comparisons
                if (entry.state, entry.other, entry.figure) == (cell.state, cell.arm, "first_token")
            ),
            None,
        )
        rows.append(
            (
                cell.state,
                cell.arm,
                _amount("ready", cell.figures["ready"]),
                _amount("first_token", cell.figures["first_token"]),
                *_range(cell.figures["first_token"]),
                *_ratio(against),
            )
        )
    first = result.arms[0].name
    return Grid(
        f"Time from the request for the container, medians of {result.rounds}",
        ("state", "arm", "ready", "first token", "min to max", "quartiles", f"{first} / arm", "95 %", "verdict"),
        tuple(rows),
    )


def _range(found: Spread) -> tuple[str, str]:
    return f"{found.minimum:.2f} to {found.maximum:.2f} s", f"{found.iqr:.2f} s apart"


def _ratio(entry: Comparison | None) -> tuple[str, str, str]:
    if entry is None:
        return "", "", ""
    interval = "none" if entry.low is None else f"{entry.low:.3f} to {entry.high:.3f}"
    return f"{entry.ratio:.3f}", interval, entry.verdict.partition(":")[0]


def resources(result: Result) -> Grid:
    """Return the resource usage of the starts."""
    names = [name for name in FIGURES if name not in ("ready", "first_token")]
    rows = []
    for cell in result.cells:
        shown = [_amount(name, cell.figures[name]) if name in cell.figures else "none" for name in names]
        rows.append((cell.state, cell.arm, *shown))
    return Grid(
        "Used up to the first token, medians", ("state", "arm", *(_TITLES[name] for name in names)), tuple(rows)
    )


def _amount(name: str, found: Spread) -> str:
    return f"{found.median:.2f} s" if FIGURES[name][0] == "s" else human_bytes(int(found.median))


def phases(result: Result) -> Grid:
    """Return the medians of the phases, in seconds."""
    names = sorted({span.name for cell in result.cells for span in cell.phases}, key=PHASES.index)
    rows = []
    for cell in result.cells:
        seconds = {span.name: f"{span.seconds:.2f}" for span in cell.phases}
        rows.append((cell.state, cell.arm, *(seconds.get(name, "") for name in names)))
    return Grid("Phases, medians in seconds", ("state", "arm", *names), tuple(rows))


def as_text(result: Result, width: int) -> str:
    """Return the tables for a terminal, with the notes on the figures below."""
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=StringIO(), width=width, highlight=False, emoji=False)
    for grid in grids(result):
        table = Table(title=Text(grid.title), title_justify="left")
        for column in grid.columns:
            table.add_column(Text(column), overflow="fold")
        for row in grid.rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
    for line in notes(result):
        console.print(Text(line), soft_wrap=True)
    file = console.file
    assert isinstance(file, StringIO)  # noqa: S101 - made above
    return file.getvalue()


def notes(result: Result) -> list[str]:
    """Return the notes on the figures, one line each."""
    lines = [f"INVALID: {fault}" for fault in result.faults]
    for entry in result.comparisons:
        if entry.figure == "first_token" and not entry.conclusive:
            lines.append(f"{entry.state}, {entry.first} / {entry.other}: {entry.verdict}")
    lines += [f"{_TITLES.get(name, name)}: {reason}" for name, reason in sorted(result.missing.items())]
    left = [run.cold for run in result.runs if run.cold]
    if left:
        worst = max(left, key=lambda cold: cold.share)
        lines.append(
            f"cold: {worst.files} files of {human_bytes(worst.total_bytes)} dropped before each start, "
            f"at most {worst.share:.2%} stayed cached"
        )
    return lines


def report(result: Result) -> str:
    """Return the HTML report: the median run of each arm in each state, and the tables."""
    from ..report import Start, Table, page

    starts = []
    for cell in result.cells:
        run = verdict.median_run(result.runs_of(cell.state, cell.arm))
        if run.events:
            starts.append(Start(f"{cell.arm}, {cell.state}", list(run.events), _created(run)))
    tables = [Table(grid.title, grid.columns, grid.rows) for grid in grids(result)]
    facts = Table("What to know", ("",), tuple((line,) for line in (*notes(result), _machine(result))))
    return page(f"Starts of {result.images[0].reference}", starts, [*tables, facts])


def _created(run: Run) -> float | None:
    return None if run.created is None else run.asked + run.created


def _machine(result: Result) -> str:
    host = result.host
    return ", ".join(
        (
            result.date,
            f"warmimage {result.tool_version}",
            f"{host.cpus} CPUs ({host.cpu})",
            human_bytes(host.memory_bytes),
            f"Linux {host.kernel}",
            host.docker,
            *host.gpus,
        )
    )
