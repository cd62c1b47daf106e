"""A headless Chromium for tests and screenshots: Debian's, driven by selenium, that talks to no network by itself."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

PROGRAM, DRIVER = "chromium", "chromedriver"

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

DESKTOP, PHONE = (1280, 900), (390, 844)


def installed() -> bool:
    """Return whether the browser and its driver are on the path."""
    return bool(shutil.which(PROGRAM) and shutil.which(DRIVER))


class Browser:
    """One browser.

    Args:
        driver: selenium's.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def look(self, size: tuple[int, int], *, dark: bool = False, dense: float = 1) -> None:
        """Become a screen of a size in pixels and a theme; ``dense`` is its pixels per pixel of a page."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": dense, "mobile": size[0] < 600},
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, path: Path) -> None:
        """Open a file."""
        self.driver.get(path.resolve().as_uri())

    def run(self, script: str, *words: Any) -> Any:
        """Run a script in the page, and return what it returns."""
        return self.driver.execute_script(script, *words)

    def requests(self) -> list[str]:
        """Return every address that was asked for since the last call."""
        messages = [json.loads(row["message"])["message"] for row in self._log("performance")]
        return [row["params"]["request"]["url"] for row in messages if row["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Return what the console said since the last call."""
        return [f"{row['level']} {row['message']}" for row in self._log("browser")]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]  # selenium's
        return rows

    def picture(self, height: int | None = None) -> bytes:
        """Return the page as PNG, whole or down to a height."""
        width = int(self.run("return innerWidth"))
        whole = int(self.run("return document.documentElement.scrollHeight"))
        clip = {"x": 0, "y": 0, "width": width, "height": min(height or whole, whole), "scale": 1}
        words = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        return base64.b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", words)["data"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which(PROGRAM) or PROGRAM
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which(DRIVER)))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
