"""Output for people, on standard error: standard output carries only the command's product."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    """Return the console on standard error; rich honours NO_COLOR, FORCE_COLOR and TERM=dumb."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def note(message: str) -> None:
    """Show one line."""
    console().print(message, markup=False)


def warn(message: str) -> None:
    """Show a warning."""
    console().print(f"warning: {message}", style="yellow", markup=False)


def fail(message: str) -> None:
    """Show an error."""
    console().print(message, style="red", markup=False)


def product(text: str) -> None:
    """Print the command's product on standard output."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


@contextmanager
def phase(message: str, *, spinner: bool = True) -> Iterator[None]:
    """Show a phase and its duration: a spinner on a terminal, one plain line elsewhere.

    ``spinner`` is off for a phase that shows its own progress.
    """
    began = time.monotonic()
    if spinner and console().is_terminal and not os.environ.get("CI"):
        with console().status(message):
            yield
    else:
        yield
    note(f"{message} ({time.monotonic() - began:.1f} s)")


def human_bytes(size: int) -> str:
    """Return a size for people, in decimal units as Docker prints them."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
