"""Open files on their way from a parent to a process that is forked for it."""

from __future__ import annotations

import array
import contextlib
import fcntl
import marshal
import os
import resource
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any

#: Few processes ever have an open file of this number.
_HIGH = 400

#: Files that one message can carry: the kernel's limit is 253.
MOST = 250

#: Numbers kept free below the limit of open files, where that is low.
_SPARE = 16

_HEADER = struct.Struct("!I")


def send(channel: socket.socket, message: Any, files: Sequence[int] = ()) -> None:
    """Send one message, of values that ``marshal`` knows, with open files.

    Raises:
        OSError: the other end is gone.
    """
    data = marshal.dumps(message)
    head = _HEADER.pack(len(data))
    if files:
        socket.send_fds(channel, [head], list(files))
    else:
        channel.sendall(head)
    channel.sendall(data)


def receive(channel: socket.socket) -> tuple[Any, list[int]]:
    """Return the next message and the open files that came with it, which are not inheritable.

    Raises:
        EOFError: the other end is gone.
        OSError: the channel is broken, or timed out.
    """
    head, ancillary, _flags, _address = channel.recvmsg(
        _HEADER.size, socket.CMSG_LEN(MOST * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
    )
    files = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            files.frombytes(data[: len(data) - len(data) % files.itemsize])
    head += _exactly(channel, _HEADER.size - len(head))
    return marshal.loads(_exactly(channel, *_HEADER.unpack(head))), list(files)  # noqa: S302 - from our own fork


def _exactly(channel: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = channel.recv(size)
        if not part:
            raise EOFError("the other end is gone")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def move_high(descriptor: int, taken: Collection[int] = ()) -> int:
    """Move an open file out of the way of numbers that may be asked for; return its new number, not inheritable.

    Args:
        descriptor: its number.
        taken: numbers that are asked for.

    Raises:
        OSError: this process may have no more open files.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    floor = max([_HIGH, *(number + 1 for number in taken)])
    if most != resource.RLIM_INFINITY:
        floor = max(0, min(floor, most - _SPARE))
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, floor)
    os.close(descriptor)
    return moved


def install(files: Mapping[int, int]) -> None:
    """Give open files the numbers asked for, inheritable as those that an ``exec`` leaves open.

    Args:
        files: the number wanted -> the number that the file has.  Both sets may overlap.
    """
    pending = dict(files)
    while pending:
        wanted, have = pending.popitem()
        for other, number in pending.items():
            if number == wanted:  # it makes room
                pending[other] = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 0)
        if have == wanted:
            os.set_inheritable(have, True)
        else:
            os.dup2(have, wanted, inheritable=True)
            os.close(have)


def close(files: Sequence[int]) -> None:
    """Close open files, those too that are closed already."""
    for number in files:
        with contextlib.suppress(OSError):
            os.close(number)


def open_fds() -> set[int]:
    """Return the numbers of this process's open files."""
    with os.scandir("/proc/self/fd") as entries:
        found = {int(entry.name) for entry in entries}
    return {number for number in found if _is_open(number)}


def _is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False  # the scan's own
    return True
