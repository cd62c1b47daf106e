"""What tests need to know of the page cache, on machines where others use it too."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warmimage.entrypoint.pagecache.syscalls import resident_bytes

#: Bytes of a file that the kernel may lose right after they were read: on some virtual machines single pages go, after
#: plain ``cat`` too, with no reclaim counted.  A reader that skips something skips far more.
LOST = 64 << 10


def resident(path: Path) -> int:
    """Return how many bytes of a file are resident, as if the kernel had lost none of them (``LOST``).

    Files of up to twice ``LOST`` are counted exactly.
    """
    size, found = os.path.getsize(path), resident_bytes(str(path))
    if size <= 2 * LOST or not found:
        return found
    return size if size - found <= LOST else min(size, -(-found // LOST) * LOST)


def undisturbed(test: Callable[..., None]) -> Callable[..., None]:
    """Skip a test about the page cache that has failed while somebody on this machine dropped all of it."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        before = drops()
        try:
            test(*args, **fixtures)
        except AssertionError:
            if drops() != before:
                pytest.skip("the whole page cache was dropped meanwhile")
            raise

    return run


def drops() -> str:
    """Return how often the page cache was dropped on this machine."""
    rows = Path("/proc/vmstat").read_text().splitlines()
    return next((row for row in rows if row.startswith("drop_pagecache ")), "")
