"""Starts read from files: timelines as containers write them, and results of ``warmimage bench``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import timeline
from ..errors import ConfigError
from .start import Start


def read(paths: Sequence[Path]) -> list[Start]:
    """Return the starts that files hold, in order: one of a timeline, those of all runs of a bench's result.

    Raises:
        ConfigError: a file cannot be read, or holds no event of a timeline.
    """
    found = [start for path in paths for start in _read(path)]
    names = [start.name for start in found]
    return [
        start if names.count(start.name) == 1 else Start(f"{start.name} ({index})", start.events, start.created)
        for index, start in enumerate(found, 1)
    ]


def _read(path: Path) -> list[Start]:
    if path.is_dir():
        raise ConfigError(
            "this is a directory",
            where=str(path),
            expected="a timeline, or the JSON of warmimage bench",
            fix=f"warmimage report {path}/*.jsonl",
        )
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(
            f"the timeline cannot be read: {error.strerror}",
            where=str(path),
            fix="docker cp CONTAINER:/run/warmimage/timeline.jsonl .",
        ) from None
    runs = _runs(text)
    if runs is None:
        starts = [Start(path.name.removesuffix(".jsonl"), _events(timeline.parse(text.splitlines())))]
    else:
        starts = [_of_run(run) for run in runs if isinstance(run, dict)]
    if not any(start.events for start in starts):
        got = "no JSON line" if not timeline.parse(text.splitlines()) and runs is None else "no event"
        raise ConfigError(
            "the file holds no timeline",
            where=str(path),
            got=got if text.strip() else "an empty file",
            expected="lines of JSON as a container writes them, or the JSON of warmimage bench",
            fix="docker cp CONTAINER:/run/warmimage/timeline.jsonl .",
        )
    return starts


def _runs(text: str) -> list[Any] | None:
    """Return the runs of a bench's result, ``None`` of a file that is none."""
    try:
        result = json.loads(text)
    except ValueError:
        return None
    runs = result.get("runs") if isinstance(result, dict) else None
    return runs if isinstance(runs, list) else None


def _of_run(run: dict[str, Any]) -> Start:
    """Return a bench's run as a start; the fields are those of ``warmimage.bench.result.Run``."""
    words = [str(run[key]) for key in ("arm", "state") if run.get(key)]
    words += [f"run {run['round']}"] if run.get("round") else []
    asked, created = run.get("asked"), run.get("created")
    known = isinstance(asked, int | float) and isinstance(created, int | float)
    events = run.get("events")
    return Start(
        ", ".join(words) or "run",
        _events(events if isinstance(events, list) else []),
        asked + created if known else None,  # type: ignore[operator]
    )


def _events(entries: Sequence[Any]) -> list[timeline.Event]:
    """Return the entries that are events: the rest of a report relies on their name, time and process."""
    return [
        entry
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(entry.get("event"), str)
        and isinstance(entry.get("t"), int | float)
        and isinstance(entry.get("pid", 0), int)
        and isinstance(entry.get("wall", 0.0), int | float)
    ]
