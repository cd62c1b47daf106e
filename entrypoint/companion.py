"""The companion: a clean copy of a process, kept beside it, from which its children are forked.

A process that has imported the engine, and has done nothing else yet, forks its companion and goes on.  Whatever it
does then, threads, sockets, a CUDA context, its companion still is what it was: single-threaded, and cheap to fork.
Asked for a child, the companion forks twice and the process in the middle ends, so that the kernel gives the newborn to
the nearest ancestor that adopts orphans: the requester, which is one for as long as it asks.  So the newborn is a real
child of its requester, which waits for it, signals it and sees it in process listings as if it had spawned it.
A newborn first forks a companion of its own, so the same holds at every depth.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
from dataclasses import dataclass, field
from typing import Any

from . import descriptors

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 1, 36, 37

#: Seconds that a companion may take to fork a child: it has nothing else to do, so only a machine at a standstill does.
PATIENCE = 20.0

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Birth:
    """What a newborn is to become.

    Attributes:
        request: the requester's message.
        files: the open files that came with it, by the numbers that they have here.
    """

    request: dict[str, Any]
    files: list[int] = field(default_factory=list)


class Refused(Exception):
    """The companion cannot fork this child."""


class Companion:
    """The requester's side.

    Args:
        pid: the companion's process.
        channel: the socket that it answers on.

    Attributes:
        pid: as given.
    """

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self._channel = channel
        self._owner = os.getpid()

    @property
    def mine(self) -> bool:
        """Whether this process is the one that the companion stands beside, not a fork of it."""
        return os.getpid() == self._owner

    def fork(self, request: dict[str, Any], files: list[int]) -> int:
        """Have a child forked, and return its PID: a child of this process, already its own.

        Args:
            request: what ``Birth.request`` will be, of values that ``marshal`` knows.
            files: open files to hand over.

        Raises:
            Refused: there will be no such child; the reason is the message.
        """
        adopts = ctypes.c_int()
        _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(adopts))
        if not adopts.value:
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        try:
            descriptors.send(self._channel, request, files)
            answer, _ = descriptors.receive(self._channel)
        except (OSError, EOFError) as error:
            self.end()  # a late answer must not be taken for that to the next question
            raise Refused(f"the companion does not answer: {error!r}") from None
        finally:
            if not adopts.value:
                _prctl(_PR_SET_CHILD_SUBREAPER, 0)
        if isinstance(answer, str):
            raise Refused(answer)
        return int(answer)

    def end(self) -> None:
        """End the companion, and leave no zombie."""
        with contextlib.suppress(OSError):
            self._channel.close()
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def accompany(closed: list[int]) -> Companion | Birth:
    """Fork a companion beside this process.

    Args:
        closed: open files of this process that its companion must not hold.

    Returns:
        In this process the companion; in every process that is later forked from the companion, its birth.

    Raises:
        OSError: no process can be made.
    """
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    requester = os.getpid()
    pid = os.fork()
    if pid:
        its.close()
        mine.settimeout(PATIENCE)
        return Companion(pid, _raised(mine))
    mine.close()
    descriptors.close(closed)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != requester:
        os._exit(0)  # it ended before it could be told of
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # from a terminal, no traceback
    return _answer(_raised(its))


def _raised(channel: socket.socket) -> socket.socket:
    """Return the same socket with a number that nobody asks for."""
    timeout = channel.gettimeout()
    raised = socket.socket(fileno=descriptors.raise_above(channel.detach()))
    raised.settimeout(timeout)
    return raised


def _answer(channel: socket.socket) -> Birth:
    """Answer requests until the requester is gone; return only in a newborn."""
    while True:
        try:
            request, files = descriptors.receive(channel)
        except (OSError, EOFError):
            os._exit(0)
        reader, writer = os.pipe()
        try:
            middle = os.fork()
        except OSError as error:
            descriptors.close([*files, reader, writer])
            descriptors.send(channel, f"fork failed: {error.strerror}")
            continue
        if middle == 0:
            os.close(reader)
            if _fork_and_tell(writer):
                os._exit(0)
            os.close(writer)
            channel.close()
            return Birth(request, files)
        descriptors.close([*files, writer])
        with open(reader, "rb") as told:
            pid = told.read()
        os.waitpid(middle, 0)  # its end comes after its child has been given to the requester
        descriptors.send(channel, int(pid) if pid else "fork failed in the second step")


def _fork_and_tell(writer: int) -> int:
    """Fork once more; return the newborn's PID here, 0 in the newborn."""
    try:
        pid = os.fork()
    except OSError:
        os._exit(1)
    if pid:
        os.write(writer, str(pid).encode())
    return pid


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl refused")


__all__ = ["Birth", "Companion", "Refused", "accompany"]
