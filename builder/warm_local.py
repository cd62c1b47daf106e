"""``warmimage warm`` on a workstation: what a container's ``warm`` does, with a bar, and a list at the end."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from .console import console, human_bytes, note
from .entrypoint.pagecache.residency import UNKNOWN
from .entrypoint.timeline import Timeline
from .entrypoint.warm.loop import Warmer
from .entrypoint.warm.metrics import status
from .entrypoint.warm.options import Options
from .entrypoint.warm.status import WarmStatus
from .entrypoint.warm.targets import Places
from .entrypoint.warm.tracker import TrackedFile

#: Files smaller than this many bytes are summed up in the list.
_SMALL = 1_000_000

_TICK = 0.1


@dataclass(frozen=True)
class Warmed:
    """What a run has come to.

    Attributes:
        state: the state at its end.
        files: all files.
    """

    state: WarmStatus
    files: Sequence[TrackedFile]

    def to_json(self) -> str:
        """Return it as JSON."""
        files = [_row(file) for file in self.files]
        return json.dumps({**status(self.state), "files": files}, indent=2)


def warm(directories: Sequence[Path], budget: int | None, rate: int | None) -> Warmed:
    """Read model directories into this machine's page cache, and show how far it has come.

    Args:
        directories: model directories.
        budget: bytes that may be resident, ``None`` for what memory can hold.
        rate: bytes per second to read at most, ``None`` for any.
    """
    paths = tuple(str(directory.absolute()) for directory in directories)
    options = Options(directories=paths, targets=("weights",), budget=budget, rate=rate, once=True)
    stop = threading.Event()
    said: list[str] = []
    warmer = Warmer(options, Places(paths), Timeline("", "warm"), stop, speak=said.append)
    loop = threading.Thread(target=warmer.run, daemon=True)
    loop.start()
    try:
        _follow(warmer, loop)
    finally:
        stop.set()
        loop.join(2)
    return Warmed(warmer.state(), [file for _, file in warmer.files()])


def show(warmed: Warmed) -> None:
    """Show what is resident: large files one by one, small ones in one row."""
    table = Table("file", "size", "resident", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    small = [file for file in warmed.files if file.size < _SMALL]
    for file in warmed.files:
        if file.size >= _SMALL:
            table.add_row(Path(file.path).name, human_bytes(file.size), _resident([file]))
    if small:
        table.add_row(f"{len(small)} smaller", human_bytes(sum(file.size for file in small)), _resident(small))
    if table.row_count:
        console().print(table)
    note(warmed.state.reason)


def _follow(warmer: Warmer, loop: threading.Thread) -> None:
    """Show a bar until the loop ends."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(), transient=True, disable=not console().is_terminal) as progress:
        task = progress.add_task("looking", total=None)
        while loop.is_alive():
            loop.join(_TICK)
            state = warmer.state()
            planned = sum(each.wanted - each.over_budget for each in state.targets.values())
            there = planned - sum(each.missing + each.unread for each in state.targets.values())
            what = f"paused: others wait for {state.holding}" if state.holding else state.phase
            progress.update(task, total=planned or None, completed=there, description=what)


def _resident(files: Sequence[TrackedFile]) -> str:
    """Return in words how much of some files is resident."""
    if any(file.known == UNKNOWN for file in files):
        return "not told to this user"
    size, there = sum(file.size for file in files), sum(file.resident for file in files)
    return "all" if there == size else human_bytes(there)


def _row(file: TrackedFile) -> dict[str, Any]:
    resident = None if file.known == UNKNOWN else file.resident
    return {"path": file.path, "size": file.size, "resident": resident, "known": file.known}
