"""Open files of the captured process that only it can have: told apart from others, and made again after a restore.

CUDA's driver, once it is loaded, keeps pipes, an event counter and an epoll instance for a thread of its own.  That
thread is lost, as in every fork, but the numbers must not become those of other files.
"""

from __future__ import annotations

import os
import select
from collections.abc import Mapping

from ...kernel import proc
from ..zygote import fd_passing
from .memory_file import NotCaptured

_EVENT, _POLL, _PIPE = "anon_inode:[eventfd]", "anon_inode:[eventpoll]", "pipe:["


def find() -> dict[int, str]:
    """Return the targets of this process's open files beyond the standard streams, by number.

    Raises:
        NotCaptured: another process could not be given one; the message names it.
    """
    found = proc.fd_targets()
    targets = list(found.values())
    for number, target in sorted(found.items()):
        has_both_ends = target.startswith(_PIPE) and targets.count(target) == 2
        if number > 2 and target not in (_EVENT, _POLL) and not has_both_ends:
            raise NotCaptured(f"it has {target} open")
    return {number: target for number, target in found.items() if number > 2}


def make_again(files: Mapping[int, str]) -> None:
    """Open files of the same kinds at the same numbers.

    Args:
        files: as ``find`` returned them.
    """
    made: dict[int, int] = {}
    pipes: dict[str, int] = {}
    for number, target in sorted(files.items()):
        if target == _EVENT:
            fd = os.eventfd(0)
        elif target == _POLL:
            with select.epoll() as poll:
                fd = os.dup(poll.fileno())
        elif target in pipes:
            fd = pipes.pop(target)
        else:
            fd, write_end = os.pipe()
            pipes[target] = fd_passing.move_high(write_end, files)
        made[number] = fd_passing.move_high(fd, files)  # out of the way of the numbers that are to come
    for number, fd in made.items():
        os.dup2(fd, number, inheritable=False)
        os.close(fd)
