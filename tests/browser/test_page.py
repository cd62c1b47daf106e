"""The report's page in a real browser: it loads nothing, says nothing on the console, and obeys the keyboard."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from warmimage.report import Start, Table, page

from .chromium import DESKTOP, PHONE, Browser

pytestmark = pytest.mark.timeout(120)

FOCUSED = (
    "const node = document.activeElement; return [node.getAttribute('class') || '', node.closest('.flame') != null]"
)
DETAIL = "const node = document.getElementById('detail'); return node.hidden ? '' : node.textContent"


def press(browser: Browser, *keys: str) -> None:
    """Press keys, one after the other."""
    actions = ActionChains(browser.driver)
    for key in keys:
        actions.send_keys(key)
    actions.perform()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_page_loads_nothing_and_the_console_is_silent(
    browser: Browser, report: Path, size: tuple[int, int], dark: bool
) -> None:
    browser.look(size, dark=dark)
    browser.open(report)
    press(browser, *[Keys.TAB] * 6, "+", Keys.ARROW_RIGHT, "0")
    assert browser.requests() == [report.resolve().as_uri()]
    assert browser.complaints() == []
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(14, 17, 22)" if dark else "rgb(245, 246, 248)")


def test_log_of_requests_would_show_one(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("<img src='http://127.0.0.1:9/x.png'>")
    browser.open(file)
    assert "http://127.0.0.1:9/x.png" in browser.requests()
    assert browser.complaints()


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_lies_beyond_a_narrow_screen(browser: Browser, report: Path, width: int) -> None:
    browser.look((width, 844))
    browser.open(report)
    assert browser.run("return document.documentElement.scrollWidth") == width
    script = """
        const beyond = [...document.querySelectorAll("h1,h2,h3,p,li,dl,section,summary,.chart,.zoom,.scroll")];
        const right = (node) => node.getBoundingClientRect().right;
        return beyond.filter((node) => right(node) > innerWidth + 0.5).map((node) => node.tagName)
    """
    assert browser.run(script) == []
    script = """
        const texts = [...document.querySelectorAll(".chart text")];
        return Math.min(...texts.map((text) => parseFloat(getComputedStyle(text).fontSize)))
    """
    assert browser.run(script) >= 11


def test_tab_moves_from_bar_to_bar_and_shows_their_detail(browser: Browser, report: Path) -> None:
    browser.look(DESKTOP)
    browser.open(report)
    seen: list[tuple[str, bool]] = []
    while seen.count(("bar", True)) < 2 and len(seen) < 150:
        press(browser, Keys.TAB)
        css, flame = browser.run(FOCUSED)
        seen.append((css.split(" ")[0], flame))
        if seen[-1][0] in ("bar", "mark"):
            focused = browser.run("return document.activeElement.dataset.detail")
            assert browser.run(DETAIL) == focused
            assert browser.run("return document.activeElement.getAttribute('aria-label')")
    assert seen.count(("bar", False)) >= 12
    assert seen.count(("mark", False)) >= 4
    assert seen.count(("bar", True)) == 2
    first = seen.index(("bar", True))
    assert seen[first + 1] != ("bar", True), "a flame chart is one stop"
    assert not {css for css, _ in seen} - {"", "bar", "mark", "scroll"}


def test_arrow_keys_move_inside_a_flame_chart_and_enter_zooms(browser: Browser, report: Path) -> None:
    browser.look(DESKTOP)
    browser.open(report)
    browser.run("document.querySelector('.flame .bar[tabindex=\"0\"]').focus()")
    name = "return document.activeElement.dataset.text"
    first = browser.run(name)
    press(browser, Keys.ARROW_RIGHT)
    second = browser.run(name)
    press(browser, Keys.ARROW_DOWN)
    third = browser.run(name)
    assert len({first, second, third}) == 3
    assert browser.run("return document.querySelector('.flame').querySelectorAll('[tabindex=\"0\"]').length") == 1
    press(browser, Keys.ENTER)
    width = browser.run("return document.activeElement.getBoundingClientRect().width")
    assert width == pytest.approx(0.9 * browser.run("return document.querySelector('.flame').clientWidth"), rel=0.02)
    press(browser, "0")
    assert browser.run("return document.querySelector('.scaler').getAttribute('width')") == "100%"
    press(browser, Keys.ESCAPE)
    assert browser.run(DETAIL) == ""


def test_pointer_shows_detail_and_buttons_zoom_all_charts_together(browser: Browser, report: Path) -> None:
    browser.look(DESKTOP)
    browser.open(report)
    bar = browser.driver.find_element(By.CSS_SELECTOR, ".bar.p-loading")
    ActionChains(browser.driver).move_to_element(bar).perform()
    assert "loading" in browser.run(DETAIL)
    browser.driver.find_element(By.CSS_SELECTOR, "[data-zoom='2']").click()
    widths = browser.run(
        "return [...new Set([...document.querySelectorAll('.scaler')].map(n => n.getAttribute('width')))]"
    )
    assert widths == ["200%"]
    ticks = browser.run("return [...document.querySelectorAll('.chart .axis')].map(axis => axis.textContent)")
    assert len(set(ticks)) == 1
    browser.driver.find_element(By.CSS_SELECTOR, "[data-zoom='0']").click()
    assert browser.run("return document.querySelector('.scaler').getAttribute('x')") in ("0%", "-0%")


def test_without_a_script_all_is_there(browser: Browser, report: Path) -> None:
    browser.look(PHONE)
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(report)
        size = browser.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        assert size["width"] == PHONE[0]
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    text = report.read_text()
    assert text.count("<title>loading: ") >= 2
    assert "hidden><button" in text, "buttons that would do nothing are not shown"


def test_hostile_words_stay_words(browser: Browser, tmp_path: Path) -> None:
    evil = "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'>\"' onfocus='x"
    events = [
        {"t": 1.0, "pid": 1, "process": evil, "event": "started", "wall": 1.0},
        {"t": 1.1, "pid": 1, "process": evil, "event": "tier.declined", "tier": evil, "reason": evil},
        {
            "t": 2.0,
            "pid": 2,
            "process": evil,
            "event": "imports",
            "thread": evil,
            "modules": [[evil, 1.2, 0.5, 0.5, 0]],
        },
        {"t": 3.0, "pid": 1, "process": evil, "event": "ready", "tier": evil},
    ]
    file = tmp_path / "page.html"
    file.write_text(page("Evil " + evil, [Start(evil, events)], [Table(evil, (evil,), ((evil,),))]), encoding="utf-8")
    browser.look(DESKTOP)
    browser.open(file)
    assert browser.run("return document.title").startswith("Evil </script>")
    assert browser.run("return document.querySelectorAll('script').length") == 1
    assert browser.run("return document.querySelectorAll('img, [onerror], [onfocus]').length") == 0
    assert browser.requests() == [file.resolve().as_uri()]
    assert browser.complaints() == []


def test_page_names_its_parts(browser: Browser, report: Path) -> None:
    browser.open(report)
    levels = browser.run("return [...document.querySelectorAll('h1,h2,h3')].map((node) => Number(node.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert browser.run("return [...document.querySelectorAll('.bar, .mark')].every((node) => node.ariaLabel)")
    assert browser.run("return [...document.querySelectorAll('svg.chart')].every((node) => node.ariaLabel)")
    assert browser.run("return document.documentElement.lang") == "en"
    nameless = (
        "return [...document.querySelectorAll('button')].filter((node) => !(node.ariaLabel || node.textContent).trim())"
    )
    assert browser.run(nameless) == []


def test_paper_shows_every_start_in_light_colours(browser: Browser, report: Path) -> None:
    browser.look(DESKTOP, dark=True)
    browser.open(report)
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        assert browser.run("return getComputedStyle(document.body).color") == "rgb(27, 35, 48)"
        assert browser.run("return getComputedStyle(document.querySelector('.zoom')).display") == "none"
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"]
    assert len(printed) > 20000
