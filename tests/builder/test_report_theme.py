"""The report's colours: enough contrast wherever two meet, in both themes."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from warmimage.report import theme


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    channels = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("number", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("pair", theme.TEXT_PAIRS, ids="-".join)
def test_text_has_a_contrast_of_4_5(pair: tuple[str, str], number: int) -> None:
    colours = theme.of(number)
    assert contrast(colours[pair[0]], colours[pair[1]]) >= 4.5


@pytest.mark.parametrize("number", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("pair", theme.SHAPE_PAIRS, ids="-".join)
def test_shapes_have_a_contrast_of_3(pair: tuple[str, str], number: int) -> None:
    colours = theme.of(number)
    assert contrast(colours[pair[0]], colours[pair[1]]) >= 3


def test_every_colour_that_is_used_exists_and_is_checked() -> None:
    page = (files("warmimage.templates.report") / "report.css").read_text(encoding="utf-8")
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", page + theme.chart_style()))
    assert used <= set(theme.COLOURS)
    checked = {name for pair in (*theme.TEXT_PAIRS, *theme.SHAPE_PAIRS) for name in pair}
    assert set(theme.COLOURS) - checked == {"line"}, "lines that only divide"


def test_picture_has_the_colours_themselves() -> None:
    assert theme.fixed("a { fill: var(--ink); }", 0) == f"a {{ fill: {theme.COLOURS['ink'][0]}; }}"
    assert "var(" not in theme.fixed(theme.chart_style(), 1)
