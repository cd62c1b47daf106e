"""The colours of a report, in a light and a dark theme; a test computes the contrast of every pair that meets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

#: Phases that have a colour of their own; others share one.
PHASES = ("container", "checks", "restore", "imports", "interpreter", "loading", "health")

#: By name, the light theme's colour and the dark one's.
COLOURS = {
    "page": ("#f5f6f8", "#0e1116"),
    "card": ("#ffffff", "#171b22"),
    "line": ("#dfe3e9", "#2b323d"),
    "ink": ("#1b2330", "#e8ecf2"),
    "quiet": ("#5a6472", "#9aa5b4"),
    "accent": ("#1f5fbf", "#7fb2f5"),
    "on": ("#ffffff", "#0e1116"),
    "container": ("#64707f", "#94a1b2"),
    "checks": ("#8a6110", "#d9ad55"),
    "restore": ("#8c3f72", "#e296c4"),
    "imports": ("#9a4f2a", "#e59a73"),
    "interpreter": ("#7a4f96", "#c49ae0"),
    "loading": ("#2a66a8", "#78aee8"),
    "health": ("#2b7454", "#6cc59b"),
    "other": ("#6f6a5e", "#b0a995"),
    "life": ("#e9eff6", "#202a37"),
    "life-edge": ("#73869c", "#6b7f98"),
    "cpu": ("#5786ba", "#4f82bd"),
    "ready": ("#2b7454", "#6cc59b"),
    "mark": ("#b3472b", "#f0926f"),
    "flame0": ("#2a66a8", "#78aee8"),
    "flame1": ("#9a4f2a", "#e59a73"),
    "flame2": ("#2b7454", "#6cc59b"),
    "flame3": ("#7a4f96", "#c49ae0"),
    "flame4": ("#7d6514", "#d3b557"),
    "flame5": ("#56657a", "#9fb0c6"),
    "curve0": ("#2a66a8", "#78aee8"),
    "curve1": ("#b3472b", "#f0926f"),
    "curve2": ("#2b7454", "#6cc59b"),
    "curve3": ("#7a4f96", "#c49ae0"),
    "curve4": ("#7d6514", "#d3b557"),
    "curve5": ("#56657a", "#9fb0c6"),
}

#: Pairs of text and ground, which want a contrast of 4.5.
TEXT_PAIRS = (
    ("ink", "page"),
    ("ink", "card"),
    ("ink", "life"),
    ("quiet", "page"),
    ("quiet", "card"),
    ("accent", "page"),
    ("accent", "card"),
    ("mark", "card"),
    ("ready", "card"),
    *(("on", name) for name in (*PHASES, "other")),
    *(("on", f"flame{number}") for number in range(6)),
    ("on", "accent"),
)

#: Pairs of a shape and its ground, which want a contrast of 3.
SHAPE_PAIRS = (
    *((name, "card") for name in (*PHASES, "other")),
    *((f"flame{number}", "card") for number in range(6)),
    *((f"curve{number}", "card") for number in range(6)),
    ("life-edge", "card"),
    ("cpu", "card"),
    ("mark", "card"),
    ("mark", "life"),
    ("ready", "card"),
    ("accent", "card"),
    ("accent", "page"),
    ("cpu", "life"),
)


def variables(theme: int) -> str:
    """Return the colours of a theme, 0 for light and 1 for dark, as CSS variables."""
    return "".join(f"--{name}:{pair[theme]};" for name, pair in COLOURS.items())


def of(theme: int) -> Mapping[str, str]:
    """Return the colours of a theme by name."""
    return {name: pair[theme] for name, pair in COLOURS.items()}


def chart_style() -> str:
    """Return the style sheet of the charts, its colours as variables."""
    return (files("warmimage.templates.report") / "report-charts.css").read_text(encoding="utf-8")


def fixed(style: str, theme: int) -> str:
    """Return a style sheet with the colours themselves, for a renderer that knows no variables."""
    return re.sub(r"var\(--([a-z0-9-]+)\)", lambda found: COLOURS[found[1]][theme], style)
