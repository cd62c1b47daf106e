"""The command line that process listings show."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
from collections.abc import Sequence

from ...kernel import proc


def keep_writable() -> None:
    """Have ``setproctitle``, where it is installed, find the arguments while the environment still lies behind them.

    It looks for them at its first use and only once; later, changed variables have been moved elsewhere.  It also
    renames the process, which is undone.
    """
    name = ""
    with contextlib.suppress(OSError):
        name = proc.comm()
    with contextlib.suppress(ImportError):
        importlib.import_module("setproctitle").getproctitle()
        with contextlib.suppress(OSError):
            proc.set_comm(name)


def rename(program: str, argv: Sequence[str]) -> None:
    """Have process listings show this process as one that executes ``program`` with a command line.

    Args:
        program: path of what would have been executed.
        argv: the command line.
    """
    write(" ".join(argv))
    with contextlib.suppress(OSError):
        proc.set_comm(os.path.basename(program))


def write(text: str) -> None:
    """Show ``text`` as this process's command line, cut off at the room that the real one has.

    The kernel shows the memory that the arguments were passed in.  If its last byte is not zero, it takes it that the
    process has written a title there, and shows it up to the first zero (``get_mm_proctitle`` in fs/proc/base.c).

    Where ``setproctitle`` is loaded, it does this: it has moved what lay behind the arguments, and would not find them.
    """
    other = sys.modules.get("setproctitle")
    if other:
        other.setproctitle(text)
        return
    try:
        _, fields = proc.stat()
        start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, fields 48 and 49 of proc(5)
    except (OSError, ValueError, IndexError):
        return
    room = end - start
    if not start or room < 2:
        return
    data = text.encode(errors="surrogateescape")[: room - 2]
    ctypes.memset(start, 0, room - 1)
    ctypes.memmove(start, data, len(data))
    ctypes.memset(end - 1, ord("."), 1)
