"""The Helm chart, as a folder that ``helm`` takes: the one that comes with this version."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from ..errors import ConfigError, WarmimageError
from ..files import replaced

#: The chart's name, and of its folder.
NAME = "warmimage"

#: Of the chart's folder, what is for its tests alone.
_TESTS = ("ci", "__pycache__")


def write(directory: Path) -> Path:
    """Write the chart's folder; it appears whole or not at all, and one written before is kept until then.

    Args:
        directory: where the chart's folder is put.

    Returns:
        The chart's folder.

    Raises:
        ConfigError: something else has its name.
        WarmimageError: it cannot be written.
    """
    target = directory / NAME
    if target.is_symlink() or (target.exists() and not _is_ours(target)):
        raise ConfigError(
            "there is something else than this chart",
            where=str(target),
            got="a file or folder of another kind",
            expected=f"nothing, or the chart {NAME}",
            fix="name another --output-dir, or remove it",
        )
    try:
        with as_file(files("warmimage.templates") / "chart") as folder, replaced(target) as made:
            shutil.copytree(folder, made, ignore=shutil.ignore_patterns(*_TESTS))
    except OSError as error:
        raise WarmimageError(
            f"the chart cannot be written: {error.strerror or error}", where=str(error.filename or directory)
        ) from None
    return target


def _is_ours(folder: Path) -> bool:
    """Return whether a folder is a chart of this name, which another version may have written."""
    try:
        return f"name: {NAME}" in (folder / "Chart.yaml").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
