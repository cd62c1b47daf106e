"""Replace a directory atomically."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(directory: Path) -> Iterator[Path]:
    """Yield a path for a new directory, which replaces ``directory`` at the end of the block.

    When the block raises, or the exchange fails, what was there before is there still.

    Args:
        directory: the directory to replace or to create; its parents are created.

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
