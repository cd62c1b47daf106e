"""The Helm chart of this version, as a directory for ``helm``."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from ..errors import ConfigError, WarmimageError
from ..files import replaced

#: Name of the chart and of its directory.
NAME = "warmimage"

#: Files of the chart's directory that only its tests use.
_TESTS = ("ci", "__pycache__")


def write(directory: Path) -> Path:
    """Write the chart's directory atomically; an earlier one is replaced.

    Args:
        directory: parent of the chart's directory.

    Returns:
        The chart's directory.

    Raises:
        ConfigError: something else has its name.
        WarmimageError: it cannot be written.
    """
    target = directory / NAME
    if target.is_symlink() or (target.exists() and not _is_ours(target)):
        raise ConfigError(
            "there is something else than this chart",
            where=str(target),
            got="a file, or a directory that is not this chart",
            expected=f"nothing, or the chart {NAME}",
            fix="name another --output-dir, or remove it",
        )
    try:
        with as_file(files("warmimage.templates") / "chart") as source, replaced(target) as made:
            shutil.copytree(source, made, ignore=shutil.ignore_patterns(*_TESTS))
    except OSError as error:
        raise WarmimageError(
            f"the chart cannot be written: {error.strerror or error}", where=str(error.filename or directory)
        ) from None
    return target


def _is_ours(directory: Path) -> bool:
    """Return whether a directory is a chart of this name, of any version."""
    try:
        return f"name: {NAME}" in (directory / "Chart.yaml").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
