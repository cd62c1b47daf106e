"""A folder that takes another's place whole, or not at all."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(directory: Path) -> Iterator[Path]:
    """Give a path to make a folder at; at the block's end it takes the place of ``directory``.

    When the block raises, or the exchange fails, what was there before is there still.

    Args:
        directory: the folder to replace or to make; the folders above it are made.

    Raises:
        OSError: it cannot be replaced.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".warmimage-") as name:
        made, before = Path(name) / "made", Path(name) / "before"
        yield made
        if directory.exists():
            directory.rename(before)
        try:
            made.rename(directory)
        except BaseException:
            if before.exists():
                before.rename(directory)
            raise
