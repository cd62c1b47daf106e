"""The commands that README.md shows, so that tests can check them and run them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"

_FENCE = re.compile(r"^```(?P<info>.*)$")


def fenced_blocks(text: str) -> Iterator[tuple[list[str], int, list[str]]]:
    """Yield every fenced block of a Markdown text: the parts of its info string, its first line's number, its lines."""
    info: list[str] | None = None
    start = 0
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if info is None and fence:
            info, start, lines = fence["info"].split(), number + 1, []
        elif info is not None and fence:
            yield info, start, lines
            info = None
        elif info is not None:
            lines.append(line)


def readme_commands(*, include_norun: bool = False, path: Path = README) -> Iterator[tuple[int, str]]:
    """Yield ``(line_number, command)`` for every command line in the ``sh`` blocks of README.md, from top to bottom.

    Run in this order, with one shell and one working directory that holds the model directory ``my-model``, they all
    succeed on a machine without a GPU.  A line that ends in a backslash is joined with the next; comments are left out.

    Args:
        include_norun: also yield the commands of blocks that say ``sh norun``: set-up, GPU, registry.
        path: another Markdown file.
    """
    for info, start, lines in fenced_blocks(path.read_text(encoding="utf-8")):
        if info[:1] != ["sh"] or ("norun" in info and not include_norun):
            continue
        command, first = "", 0
        for number, line in enumerate(lines, start):
            if not command and (not line.strip() or line.lstrip().startswith("#")):
                continue
            first = first if command else number
            if line.endswith("\\"):
                command += line[:-1].rstrip() + " "
                continue
            yield first, command + line.strip()
            command = ""
