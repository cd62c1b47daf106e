"""The charts of a report: phases, processes, bytes read and imports, all on one time scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .svg import Chart
from .theme import PHASES
from .view import Imports, Lane, Span, View, in_words
from .words import seconds, size

#: The order in which phases are listed; those that are not here come after.
ORDER = {name: rank for rank, name in enumerate(("container", "PID 1", *PHASES[1:]))}

#: Styles of the curves that lie in one chart: told apart by dashes, and by the key below.
CURVES = 6

#: Colours of a flame chart's packages.
HUES = 6

#: Modules drawn per thread, those that took longest, and rows of depth.
MODULES, DEPTH = 700, 22

_BAR, _THIN = 26, 16


def scale(views: Sequence[View]) -> float:
    """Return the seconds that all charts span: the longest start, and room for a word at its end."""
    return max([view.end for view in views if view.events], default=0.0) * 1.02 or 1.0


def phases(views: Sequence[View], span: float) -> Chart:
    """Return the phases of all starts, one bar below the other."""
    chart = Chart("Phases of each start on one time scale", span)
    for view in views:
        chart.gap(8)
        chart.label(view.name, " · ".join(word for word in (in_words(view), tier_of(view)) if word))
        _phase_bars(chart, view.phases, chart.height, _BAR, f"{view.name}, ")
        chart.gap(_BAR + 6)
    return chart


def tier_of(view: View) -> str:
    """Return a start's tier in words."""
    return f"tier {view.tier}" if view.tier and view.tier != view.name else ""


def _phase_bars(chart: Chart, spans: Sequence[Span], top: int, height: int, prefix: str = "") -> None:
    for span in spans:
        took = seconds(span.ended - span.began)
        detail = f"{prefix}{span.name}: {took}\nfrom {seconds(span.began)} to {seconds(span.ended)}\n{span.detail}"
        chart.bar(
            span.began,
            span.ended,
            text=f"{span.name} {took}",
            short=span.name,
            detail=detail,
            css=css_of(span.kind),
            top=top,
            height=height,
        )


def css_of(phase: str) -> str:
    """Return the class of a phase's colour."""
    return f"p-{phase}" if phase in PHASES else "p-other"


def processes(view: View, span: float, cores: float) -> Chart:
    """Return a start's processes as lanes: life, CPUs in use, what they did and said."""
    chart = Chart(f"Processes of {view.name}", span)
    top = chart.height
    chart.gap(4)
    _phase_bars(chart, view.phases, chart.height, _BAR)
    chart.gap(_BAR + 10)
    for lane in view.lanes():
        _lane(chart, lane, cores)
    if view.ready is not None:
        chart.line(view.ready, "ready", top, chart.height)
    return chart


def _lane(chart: Chart, lane: Lane, cores: float) -> None:
    began, ended = max(0.0, lane.began), max(lane.ended, lane.began)
    cpu = f"{lane.usage[-1][1]:.1f} CPU s" if lane.usage else ""
    memory = size(max(row[2] for row in lane.usage)) if lane.usage else ""
    note = " · ".join(word for word in (f"pid {lane.pid}", cpu, memory) if word)
    chart.label(lane.name, note, began)
    height = 24
    end = f"ended at {seconds(ended)}" if lane.left else "ran on"
    facts = [f"{lane.name}, pid {lane.pid}", f"began at {seconds(began)}, {end}"]
    facts += [f"CPU time: {cpu.removesuffix(' CPU s')} s", f"peak memory: {memory}"] if lane.usage else []
    chart.bar(began, ended, text="", detail="\n".join(facts), css="life", top=chart.height, height=height)
    rows = lane.load()
    if rows:
        steps = [(row[0], row[2]) for row in rows] + [(rows[-1][1], 0.0)]
        chart.area(steps, chart.height + 2, height - 2, cores, "cpu")
    for mark in lane.marks:
        if mark.at <= chart.span:
            chart.mark(mark.at, f"{mark.name} at {seconds(mark.at)}\n{mark.detail}".rstrip(), chart.height + 5)
    chart.gap(height + 3)
    for rank, spans in enumerate(rows_of(lane.spans)):
        for one in spans:
            took = seconds(one.ended - one.began)
            detail = f"{one.name}: {took}\nfrom {seconds(one.began)} to {seconds(one.ended)}\n{one.detail}"
            chart.bar(
                one.began,
                one.ended,
                text=f"{one.name} {took}",
                detail=detail,
                css=f"p-{one.kind}",
                top=chart.height + rank * (_THIN + 2),
                height=_THIN,
                short=one.name.partition(": ")[2],
            )
    chart.gap(len(rows_of(lane.spans)) * (_THIN + 2) + 8)


def rows_of(spans: Sequence[Span]) -> list[list[Span]]:
    """Return spans in rows in which none overlaps another."""
    rows: list[list[Span]] = []
    for span in sorted(spans, key=lambda one: one.began):
        row = next((row for row in rows if row[-1].ended <= span.began + 1e-6), None)
        if row is None:
            rows.append([span])
        else:
            row.append(span)
    return rows


def bytes_read(views: Sequence[View], span: float) -> Chart | None:
    """Return the bytes that the starts had read from storage over time, nothing where no timeline tells."""
    told = [
        (view, [(0.0, 0.0), *((row[0], float(row[3])) for row in view.usage if row[3] is not None)]) for view in views
    ]
    told = [(view, rows) for view, rows in told if len(rows) > 1]
    if not told:
        return None
    told = told[:CURVES]  # more could not be told apart
    chart = Chart("Bytes read from storage over time", span)
    most = max(rows[-1][1] for _, rows in told)
    limit = nice(most)
    chart.gap(20)
    top, height = chart.height, 170
    for part in range(5):
        y = top + height - round(height * part / 4)
        chart.rule(y, size(limit * part / 4).replace(".0 ", " ") if part else "")
    for index, (_, rows) in enumerate(told):
        chart.curve([row for row in rows if row[0] <= span], top, height, limit, f"curve c{index % CURVES}")
    chart.gap(height + 8)
    for index, (view, rows) in enumerate(told):
        chart.key(view.name, f"{size(rows[-1][1])} by {seconds(rows[-1][0])}", f"curve c{index % CURVES}")
    return chart


def nice(value: float) -> float:
    """Return the next round number of bytes above a value."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    return next((factor * power for factor in (1, 2, 4, 6, 8, 10) if factor * power >= value), 1.0)


def flame(view: View, imports: Imports, span: float, hues: Mapping[str, int]) -> Chart:
    """Return a thread's imports as a flame chart: time from left to right, importer above imported."""
    thread = "" if imports.thread == "MainThread" else f", thread {imports.thread}"
    chart = Chart(f"Imports of {view.name}, {imports.process}{thread}", span)
    chart.gap(4)
    drawn = [module for module in imports.modules if module.depth < DEPTH and 0 <= module.began <= span]
    drawn = sorted(drawn, key=lambda module: -module.seconds)[:MODULES]
    drawn = [module for module in drawn if module.seconds > span / 6000]
    top = chart.height
    for index, module in enumerate(sorted(drawn, key=lambda module: (module.began, module.depth))):
        package = module.name.partition(".")[0]
        detail = (
            f"{module.name}: {seconds(module.seconds)}\n{seconds(module.own)} of its own\n"
            f"from {seconds(module.began)}, process {imports.process}"
        )
        chart.bar(
            module.began,
            min(module.began + module.seconds, span),
            text=module.name,
            detail=detail,
            css=f"f{hues[package]}",
            top=top + module.depth * (_THIN + 1),
            height=_THIN,
            stop=index == 0,
        )
    depth = max((module.depth for module in drawn), default=-1) + 1
    chart.gap(depth * (_THIN + 1) + 4)
    return chart


def hues(views: Sequence[View]) -> dict[str, int]:
    """Return a colour for each package, the same in all starts; in the order of own time, so the largest differ."""
    own: dict[str, float] = {}
    for module in (module for view in views for one in view.imports() for module in one.modules):
        package = module.name.partition(".")[0]
        own[package] = own.get(package, 0.0) + module.own
    return {package: rank % HUES for rank, package in enumerate(sorted(own, key=lambda name: -own[name]))}
