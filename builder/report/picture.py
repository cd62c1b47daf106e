"""The report as a picture, for a README: the charts of the page, rendered from the same drawing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

from ..errors import EnvironmentLacks
from . import charts, theme
from .page import cores
from .start import Start
from .svg import LETTER, WIDTH
from .view import views

if TYPE_CHECKING:
    from .svg import Chart

_MARGIN, _PAD, _HEAD = 28, 24, 34

#: Pixels of the picture per pixel of the drawing, so that it is sharp on dense screens.
ZOOM = 1.5

_FIX = "pip install 'warmimage[png]'"


def picture(title: str, starts: Sequence[Start], *, dark: bool = False) -> bytes:
    """Return the charts of a report as PNG.

    Args:
        title: its heading.
        starts: the starts, in the order in which they are shown.
        dark: whether to take the dark theme.

    Raises:
        EnvironmentLacks: the renderer is not installed, or this machine has no font to write with.
    """
    render = _renderer()
    return render(drawing(title, starts, dark=dark))


def drawing(title: str, starts: Sequence[Start], *, dark: bool = False) -> str:
    """Return the picture as SVG, with the colours of one theme."""
    seen = views(starts)
    span = charts.scale(seen)
    load = cores(seen)
    parts: list[tuple[str, Chart]] = [("Phases", charts.phases(seen, span))]
    named = {phase.name for view in seen for phase in view.phases}
    parts += [(f"Processes: {view.name}", charts.processes(view, span, load)) for view in seen if view.events]
    read = charts.bytes_read(seen, span)
    parts += [("Bytes read", read)] if read else []
    width = WIDTH + 2 * (_MARGIN + _PAD)
    y = _MARGIN + 42
    cards = []
    for heading, chart in parts:
        height = _PAD + _HEAD + chart.height + _PAD - 8
        cards.append(
            f'<rect class="card" x="{_MARGIN}" y="{y}" width="{width - 2 * _MARGIN}" height="{height}" rx="12"/>'
            f'<text class="section" x="{_MARGIN + _PAD}" y="{y + _PAD + 14}">{escape(heading)}</text>'
            f'<svg x="{_MARGIN + _PAD}" y="{y + _PAD + _HEAD}" width="{WIDTH}" height="{chart.height}">'
            f"{chart.svg()}</svg>"
        )
        y += height + 16
    height = y + _MARGIN - 16
    style = theme.fixed(theme.chart_style() + _STYLE, int(dark))
    head = f'<text class="title" x="{_MARGIN}" y="{_MARGIN + 18}">{escape(title)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" class="chart">'
        f'<style>{style}</style><rect class="ground" width="{width}" height="{height}"/>{head}{"".join(cards)}'
        f"{_key(sorted(named, key=lambda name: charts.ORDER.get(name, len(charts.ORDER))), width)}</svg>"
    )


def _key(phases: Sequence[str], width: int) -> str:
    """Return samples of the phases' colours with their names, right-aligned on the first card's heading."""
    x = width - _MARGIN - _PAD
    parts = []
    for name in reversed(phases):
        x -= round(len(name) * LETTER)
        text = f'<text class="note" x="{x}" y="{_MARGIN + 42 + _PAD + 13}">{escape(name)}</text>'
        x -= 18
        swatch = f'<rect width="11" height="11" x="{x}" y="{_MARGIN + 42 + _PAD + 3}" rx="3"/>'
        parts.append(f'<g class="{charts.css_of(name)}">{swatch}{text}</g>')
        x -= 16
    return "".join(parts)


_STYLE = """
.ground { fill: var(--page); }
.card { fill: var(--card); stroke: var(--line); }
.chart .title { font-size: 24px; font-weight: 600; }
.chart .section { font-size: 17px; font-weight: 600; }
"""


def _renderer() -> Callable[[str], bytes]:
    """Return what makes a PNG of SVG.

    Raises:
        EnvironmentLacks: it is not installed, or there is no font.
    """
    try:
        import resvg_py
    except ImportError:
        raise EnvironmentLacks(
            "a picture needs the package resvg_py", where="--png", fix=f"{_FIX}, or leave --png out"
        ) from None

    def render(svg: str) -> bytes:
        return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=ZOOM))

    def sample(text: str) -> str:  # in the drawing's own style: a font of another family is none
        head = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20" class="chart">'
        return f"{head}<style>{theme.fixed(theme.chart_style(), 0)}</style>{text}</svg>"

    if render(sample('<text y="15">word</text>')) == render(sample("")):
        raise EnvironmentLacks(
            "this machine has no font to write a picture's words with",
            where="--png",
            fix="install one, such as Debian's package fonts-dejavu-core",
        )
    return render
