"""Record the two starts that the report's tests and pictures show: ``python -m tests.browser.sample IMAGE MODEL_DIR``.

As root the page cache is dropped before each, so that there is something to read.  Imports shorter than a millisecond
are left out, so that the files stay small; a report of starts this long draws few of them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import docker
from warmimage.timeline import Event, fetch

from tests.support.images import container, wait_for_event, wait_ready

from .screenshots import STARTS

#: Seconds of the shortest import that is kept.
SHORTEST = 0.001


def main() -> None:
    """Write the timelines."""
    image, model = sys.argv[1:]
    client = docker.from_env()
    for path in STARTS:
        environment = {"WARMIMAGE_START": path.stem, "WARMIMAGE_TRACE": "imports"}
        if path.stem == "plain":
            environment["WARMIMAGE_PREFETCH"] = "off"
        drop_caches()
        with container(client, image, model=Path(model).resolve(), environment=environment) as running:
            wait_ready(running)
            wait_for_event(running, "ready")
            path.write_text("".join(json.dumps(event) + "\n" for event in trimmed(fetch(running))), encoding="utf-8")


def drop_caches() -> None:
    """Let every file be read from storage again, where that is permitted."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    except OSError as error:
        print(f"the page cache stays as it is: {error.strerror}")


def trimmed(events: list[Event]) -> list[Event]:
    """Return events without the shortest imports."""
    kept = []
    for event in events:
        rows = [row for row in event.get("modules", []) if row[2] >= SHORTEST]
        if event["event"] != "imports":
            kept.append(event)
        elif rows:
            kept.append({**event, "modules": rows})
    return kept


if __name__ == "__main__":
    main()
