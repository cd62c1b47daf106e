"""The report as a page: one HTML file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby

import jinja2
from markupsafe import Markup, escape

from . import charts, theme
from .start import Start, Table
from .view import View, in_words, views
from .words import seconds

#: Rows of the table of modules, and of packages.
SLOWEST = 12

#: More starts than this are folded, and more than that are rows of a table, not columns: a bench has dozens.
UNFOLDED, SIDE_BY_SIDE = 3, 6

TRACE = "WARMIMAGE_TRACE=imports"


def page(title: str, starts: Sequence[Start], tables: Sequence[Table] = ()) -> str:
    """Return a report as one HTML file.

    Args:
        title: its heading.
        starts: the starts, in the order in which they are shown.
        tables: tables that stand between the summary and the charts.
    """
    seen = views(starts)
    span = charts.scale(seen)
    hues = charts.hues(seen)
    read = charts.bytes_read(seen, span)
    script, style = _part("report.js"), _part("report.css") + theme.chart_style()
    light, dark = theme.variables(0), theme.variables(1)
    style = (
        f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}@media print{{:root{{{light}}}}}{style}"
    )
    text: str = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            tables=tables,
            starts=[_Shown(view, span, cores(seen), hues) for view in seen],
            phases=_markup(charts.phases(seen, span).svg()),
            phase_table=_phase_table(seen),
            decisions=_decisions(seen),
            bytes=_markup(read.svg()) if read else None,
            trace=TRACE,
            folded=len(starts) > UNFOLDED,
            listed=len(starts) > SIDE_BY_SIDE,
            curves=charts.CURVES,
            since=" and ".join(sorted({view.since for view in seen if view.events})),
            cores=cores(seen),
            style=_markup(style),
            script=_markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )
    return text


@cache
def _environment() -> jinja2.Environment:
    """Return the templates' environment; unlike a Dockerfile's, it escapes all that is not marked as HTML."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["breakable"] = _breakable
    made.filters["colour"] = lambda name: charts.css_of(name) if name in charts.ORDER else ""
    return made


def _part(name: str) -> str:
    return (files("warmimage.templates.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what the page's own policy knows a script or a style sheet by: no other one runs."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _markup(text: str) -> Markup:
    """Return what we have drawn or brought ourselves, every word of others in it escaped."""
    return Markup(text)  # noqa: S704


def _breakable(name: str) -> Markup:
    """Return a module's name that may be broken at its dots and underscores."""
    return _markup(str(escape(name)).replace(".", ".<wbr>").replace("_", "_<wbr>"))


def cores(seen: Sequence[View]) -> float:
    """Return the CPUs that the height of a lane stands for: as many as a process had in use, rounded up."""
    most = max((row[2] for view in seen for lane in view.lanes() for row in lane.load()), default=0.0)
    return float(max(1, round(most + 0.3)))


class _Shown:
    """A start as the template shows it."""

    def __init__(self, view: View, span: float, load: float, hues: Mapping[str, int]) -> None:
        self.name = view.name
        self.tier = charts.tier_of(view)
        self.outcome = in_words(view)
        self.figure = seconds(view.ready) if view.ready is not None else "not ready"
        self.figures = view.figures()
        self.declined = len(view.decisions())
        self.events = bool(view.events)
        self.lanes = _markup(charts.processes(view, span, load).svg()) if view.events else None
        traced = [one for one in view.imports() if sum(module.own for module in one.modules) > span / 200]
        self.flames = [
            (
                one.process,
                one.pid,
                one.thread,
                len(one.modules),
                _markup(charts.flame(view, one, span, hues).svg("flame")),
            )
            for one in traced[:6]
        ]
        modules = [(module, one.process) for one in traced for module in one.modules]
        slowest = sorted(modules, key=lambda pair: -pair[0].own)[:SLOWEST]
        self.modules = [(module.name, seconds(module.own), seconds(module.seconds), who) for module, who in slowest]
        self.packages = _packages(view)
        self.several = len({one.process for one in traced}) > 1


def _packages(view: View) -> list[tuple[str, str, str, str]]:
    """Return the packages whose modules took longest: name, modules, own seconds and process."""
    rows = [
        (module.name.partition(".")[0], one.process, module.own) for one in view.imports() for module in one.modules
    ]
    found = []
    for (package, process), group in groupby(sorted(rows), key=lambda row: row[:2]):
        owns = [row[2] for row in group]
        found.append((sum(owns), package, process, len(owns)))
    return [(name, str(count), seconds(own), process) for own, name, process, count in sorted(found)[::-1][:SLOWEST]]


def _phase_table(seen: Sequence[View]) -> Table:
    """Return the phases in figures: a row per phase, a column per start."""
    names: dict[str, None] = {}
    for view in seen:
        names.update(dict.fromkeys(span.name for span in view.phases))
    rows = []
    for name in sorted(names, key=lambda name: charts.ORDER.get(name, len(charts.ORDER))):
        cells = (sum(one.ended - one.began for one in view.phases if one.name == name) for view in seen)
        rows.append((name, *(seconds(cell) if cell else "" for cell in cells)))
    rows.append(("total", *(seconds(view.ready) if view.ready is not None else "not ready" for view in seen)))
    if len(seen) > SIDE_BY_SIDE:
        heads, *columns = zip(("start", *(view.name for view in seen)), *rows, strict=True)
        return Table("Phases in figures", heads, tuple(columns))
    return Table("Phases in figures", ("phase", *(view.name for view in seen)), tuple(rows))


def _decisions(seen: Sequence[View]) -> list[tuple[str, str, str, str]]:
    return [(view.name, seconds(at), what, reason) for view in seen for at, what, reason in view.decisions()]
