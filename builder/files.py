"""Replace a file or a directory as a whole."""

from __future__ import annotations

import contextlib
import os
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


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it appears whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
