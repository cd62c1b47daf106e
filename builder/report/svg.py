"""Drawing on a time scale: SVG whose times are percentages of its width, so that one drawing fits every screen.

Heights and letters are in pixels and stay as they are; a script zooms by making the inner drawing wider.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from math import floor, log10

from .words import seconds

#: Width in pixels that labels are cut for where no script does it: a desktop's page, and the picture.
WIDTH = 1040

#: Width of a letter in the charts, in pixels, on average.
LETTER = 6.2

AXIS = 22


@dataclass
class Chart:
    """A drawing on a time scale.

    Args:
        title: what it shows, in a line; read out by screen readers.
        span: seconds from its left edge to its right one.

    Attributes:
        height: pixels so far.
    """

    title: str
    span: float
    height: int = AXIS
    _parts: list[str] = field(default_factory=list)
    _fixed: list[str] = field(default_factory=list)

    def at(self, time: float) -> str:
        """Return a time as a percentage of the width."""
        return f"{100 * time / self.span:.3f}%".replace(".000%", "%")

    def gap(self, pixels: int) -> None:
        """Leave room below what has been drawn."""
        self.height += pixels

    def label(self, text: str, note: str = "", at: float = 0.0, css: str = "name") -> None:
        """Write a line, by default at the left edge; the note after it is quieter."""
        more = f'<tspan class="note" dx="8">{escape(note)}</tspan>' if note else ""
        room = at > 0.55 * self.span
        place = f'x="{self.at(at)}" text-anchor="end"' if room else f'x="{self.at(at)}"'
        self._parts.append(f'<text class="{css}" {place} y="{self.height + 12}">{escape(text)}{more}</text>')
        self.height += 18

    def bar(
        self,
        began: float,
        ended: float,
        *,
        text: str,
        detail: str,
        css: str,
        top: int,
        height: int,
        short: str = "",
        stop: bool = True,
    ) -> None:
        """Draw a bar with its text inside, and its detail for pointer, keyboard and screen reader.

        Args:
            began: its left edge, in seconds.
            ended: its right edge, in seconds.
            text: what is written inside.
            detail: lines that say more.
            css: its class.
            top: its upper edge, in pixels.
            height: its height, in pixels.
            short: what is written where the text has no room; without it the text is cut.
            stop: whether Tab stops here; else arrow keys lead here.
        """
        width = max(ended - began, 0.0)
        room = WIDTH * width / self.span
        shown = fitting(text, short, room - 10)
        inner = f'<text x="6" y="{height // 2 + 4}">{escape(shown)}</text>' if shown else ""
        index = 0 if stop else -1
        more = f' data-short="{escape(short)}"' if short else ""
        edge = f'<line class="edge" x1="100%" x2="100%" y2="{height}"/>' if room > 5 else ""
        self._parts.append(
            f'<svg class="bar {css}" x="{self.at(began)}" y="{top}" width="{self.at(width)}" height="{height}" '
            f'tabindex="{index}" role="img" data-text="{escape(text)}"{more}><title>{escape(detail)}</title>'
            f'<rect width="100%" height="100%" rx="2"/>{inner}{edge}</svg>'
        )

    def area(self, rows: Sequence[tuple[float, float]], top: int, height: int, limit: float, css: str) -> None:
        """Fill below a step curve: rows of time and value, each value up to the next time."""
        if len(rows) < 2 or limit <= 0:
            return
        points = [f"M{self._unit(rows[0][0])} {height}"]
        for (began, value), (ended, _) in pairwise(rows):
            y = round(height - height * min(value / limit, 1.0), 1)
            points.append(f"L{self._unit(began)} {y}L{self._unit(ended)} {y}")
        points.append(f"L{self._unit(rows[-1][0])} {height}Z")
        self._parts.append(self._stretched(top, height, f'<path class="{css}" d="{"".join(points)}"/>'))

    def curve(self, rows: Sequence[tuple[float, float]], top: int, height: int, limit: float, css: str) -> None:
        """Draw a line through rows of time and value."""
        if len(rows) < 2 or limit <= 0:
            return
        points = [f"{self._unit(time)} {round(height - height * min(value / limit, 1.0), 1)}" for time, value in rows]
        self._parts.append(self._stretched(top, height, f'<path class="{css}" d="M{"L".join(points)}"/>'))

    def mark(self, at: float, detail: str, top: int) -> None:
        """Draw a diamond that can be pointed at."""
        self._parts.append(
            f'<svg class="mark" x="{self.at(at)}" y="{top}" width="13" height="13" overflow="visible" tabindex="0" '
            f'role="img"><title>{escape(detail)}</title><path d="M0 0L6 6.5L0 13L-6 6.5Z"/></svg>'
        )

    def line(self, at: float, css: str, top: int, bottom: int) -> None:
        """Draw a vertical line."""
        self._parts.append(f'<line class="{css}" x1="{self.at(at)}" x2="{self.at(at)}" y1="{top}" y2="{bottom}"/>')

    def rule(self, y: int, text: str = "") -> None:
        """Draw a horizontal line, and what it stands for; a zoom leaves both where they are."""
        self._fixed.append(f'<line class="rule" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        if text:
            self._fixed.append(f'<text class="note" x="0" y="{y - 4}">{escape(text)}</text>')

    def key(self, text: str, note: str, css: str) -> None:
        """Write a line of a key: a sample of a curve, what it stands for, and a note."""
        y = self.height + 10
        self._fixed.append(
            f'<path class="{css}" d="M0 {y - 4}H34"/><text class="name" x="44" y="{y}">{escape(text)}'
            f'<tspan class="note" dx="8">{escape(note)}</tspan></text>'
        )
        self.height += 20

    def svg(self, css: str = "") -> str:
        """Return the drawing with its time axis."""
        ticks = "".join(
            f'<line x1="{self.at(tick)}" x2="{self.at(tick)}" y1="0" y2="{self.height}"/>'
            f'<text x="{self.at(tick)}" dx="4" y="12">{seconds_of_axis(tick)}</text>'
            for tick in ticks_of(self.span)
        )
        return (
            f'<svg class="chart {css}" width="100%" height="{self.height}" data-span="{self.span:.6f}" role="group" '
            f'aria-label="{escape(self.title)}">{"".join(self._fixed)}<svg class="scaler" width="100%" '
            f'height="{self.height}" overflow="visible"><g class="axis" aria-hidden="true">{ticks}</g>'
            f"{''.join(self._parts)}</svg></svg>"
        )

    def _unit(self, time: float) -> float:
        return round(1000 * time / self.span, 2)

    def _stretched(self, top: int, height: int, inner: str) -> str:
        return (
            f'<svg class="plot" y="{top}" width="100%" height="{height}" viewBox="0 0 1000 {height}" '
            f'preserveAspectRatio="none" aria-hidden="true">{inner}</svg>'
        )


def fitting(text: str, short: str, room: float) -> str:
    """Return what a bar has room for: its text, its short one, else the text cut, or nothing."""
    for words in (text, short):
        if words and len(words) * LETTER <= room:
            return words
    return "" if short else cut(text, room)


def cut(text: str, room: float) -> str:
    """Return as much of a text as there is room for, in pixels; nothing where that says nothing."""
    letters = int(room / LETTER)
    if len(text) <= letters:
        return text
    return f"{text[: letters - 1]}…" if letters > 3 else ""


def ticks_of(span: float, most: int = 7) -> list[float]:
    """Return the times that an axis names: multiples of 1, 2 or 5 and a power of ten."""
    raw = span / most
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [round(index * step, 9) for index in range(int(span / step) + 1) if index * step < 0.97 * span]


def seconds_of_axis(value: float) -> str:
    """Return a time as an axis writes it."""
    return f"{value:g} s" if value >= 1 or value == 0 else seconds(value)
