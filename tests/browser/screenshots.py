"""Take the pictures of docs/report.md anew, of two real starts: ``python -m tests.browser.screenshots``."""

from __future__ import annotations

from pathlib import Path

from warmimage.report import page, picture, read

from .chromium import DESKTOP, PHONE, chromium

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"

#: Timelines of real starts, written by ``python -m tests.browser.sample``.
STARTS = [HERE / "starts" / "plain.jsonl", HERE / "starts" / "preload.jsonl"]

TITLE = "transformers serve, plain and preload"


def main() -> None:
    """Write the pictures."""
    starts = read(STARTS)
    file = HERE / "starts" / "report.html"
    file.write_text(page(TITLE, starts), encoding="utf-8")
    try:
        with chromium() as browser:
            for name, size, height, dense in (("desktop", DESKTOP, 2700, 1), ("phone", PHONE, 2560, 1)):
                browser.look(size, dense=dense)
                browser.open(file)
                (DOCS / f"report-{name}.png").write_bytes(browser.picture(height))
    finally:
        file.unlink()
    (DOCS / "report-charts.png").write_bytes(picture(TITLE, starts))


if __name__ == "__main__":
    main()
