"""A browser, and a page to look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from warmimage.report import page, read

from .chromium import Browser, chromium, installed
from .screenshots import STARTS


@pytest.fixture(scope="session")
def shared_browser() -> Iterator[Browser]:
    """The browser of all tests."""
    if not installed():
        pytest.skip("chromium and chromedriver are not installed")
    with chromium() as made:
        yield made


@pytest.fixture
def browser(shared_browser: Browser) -> Browser:
    """A browser that has nothing open, and whose logs are empty."""
    shared_browser.driver.get("about:blank")
    shared_browser.requests()
    shared_browser.complaints()
    return shared_browser


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two real starts."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page("Two starts", read(STARTS)), encoding="utf-8")
    return path
