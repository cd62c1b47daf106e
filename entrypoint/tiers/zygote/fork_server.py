"""The fork server: a clean copy of a process, kept beside it, from which its children are forked.

A process that has imported the engine, and has done nothing else yet, forks its fork server and goes on.  Nothing it
does later (threads, sockets, a CUDA context) affects the fork server, which stays single-threaded and cheap to fork.

Asked for a child, the fork server forks twice, and the process in the middle ends.  The kernel then gives the child to
its nearest ancestor that adopts orphans.  That is the process that asked: it adopts orphans for as long as it asks.  So
the child is a real child of its parent, which waits for it, signals it, and sees it in process listings as if it had
spawned it.  The child first forks a fork server of its own, so the same holds at every depth.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ...kernel import proc
from . import fd_passing

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 1, 36, 37

#: Seconds that a fork server may take to fork a child.  It does nothing else, so only a machine at a standstill does.
PATIENCE = 20.0

#: What the kernel calls a fork server.
_NAME = "fork-server"

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class ForkRequest:
    """What a forked child is to become.

    Attributes:
        request: the parent's message.
        files: the open files that came with it, by the numbers that they have here.
    """

    request: dict[str, Any]
    files: list[int] = field(default_factory=list)


class Refused(Exception):
    """The fork server cannot fork this child."""


class ForkServer:
    """The parent's side.

    Args:
        pid: the fork server's process.
        channel: the descriptor of the socket that it answers on.

    Attributes:
        pid: as given.
        ended: whether it has been ended, by ``end`` or because it did not answer.
    """

    def __init__(self, pid: int, channel: int) -> None:
        self.pid = pid
        self.ended = channel < 0
        self._channel = channel
        self._identity = (0, 0) if self.ended else _identity(channel)
        self._owner = os.getpid()
        self._children: set[int] = set()

    @classmethod
    def missing(cls) -> ForkServer:
        """Return the stand-in for a fork server that could not be made."""
        return cls(0, -1)

    @property
    def mine(self) -> bool:
        """Whether this process forked the fork server, and is not another fork of it."""
        return os.getpid() == self._owner

    def fork(self, request: dict[str, Any], files: list[int]) -> int:
        """Have a child forked, and return its PID: a child of this process, already its own.

        Args:
            request: what ``ForkRequest.request`` will be, of values that ``marshal`` knows.
            files: open files to hand over.

        Raises:
            Refused: there will be no such child; the reason is the message.
        """
        if len(files) > fd_passing.MOST:
            raise Refused(f"it is to have {len(files)} open files, of which {fd_passing.MOST} can be handed over")
        adopts = ctypes.c_int()
        _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(adopts))
        if not adopts.value:
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        try:
            answer = self._ask(request, files)
            if isinstance(answer, int):
                self._children.add(answer)
        finally:
            if not adopts.value:
                _prctl(_PR_SET_CHILD_SUBREAPER, 0)
                self._reap_strays()
        if isinstance(answer, str):
            raise Refused(answer)
        return answer

    def end(self) -> None:
        """End the fork server, and leave no zombie."""
        self.ended = True
        with contextlib.suppress(OSError):
            if self._channel_is_there():
                os.close(self._channel)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _ask(self, request: dict[str, Any], files: list[int]) -> int | str:
        """Return the fork server's answer: a PID, or why there is none."""
        if not self._channel_is_there():
            self.end()
            raise Refused("its parent has closed the fork server's channel")
        channel = socket.socket(fileno=self._channel)
        channel.settimeout(PATIENCE)
        try:
            fd_passing.send(channel, request, files)
            answer: int | str = fd_passing.receive(channel)[0]
        except BaseException as error:  # a signal's handler may raise what it likes
            self.end()  # a late answer must not be taken for that to the next question
            if isinstance(error, (OSError, EOFError)):
                raise Refused(f"the fork server does not answer: {error!r}") from None
            raise
        finally:
            channel.detach()  # a socket object that lives on would be a ResourceWarning at this process's end
        return answer

    def _channel_is_there(self) -> bool:
        """Whether the channel's number is still the channel's: a program may close all that it does not know."""
        try:
            return _identity(self._channel) == self._identity
        except OSError:
            return False

    def _reap_strays(self) -> None:
        """Wait for fork servers whose parent has ended just now: they became this process's children, not PID 1's."""
        for pid in set(proc.children(f"self/task/{self._owner}")) - self._children - {self.pid}:
            deadline = time.monotonic() + 0.05  # it has been killed already
            with contextlib.suppress(OSError):
                while (
                    proc.comm(str(pid)) == _NAME and os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline
                ):
                    time.sleep(0.001)


def start_fork_server(fork_request: ForkRequest | None, inherited: Iterable[int] = ()) -> ForkServer | ForkRequest:
    """Fork this process's fork server.

    Args:
        fork_request: what this process was forked for, if a fork server forked it; its open files are closed there.
        inherited: open files that this process was started with; they are closed there, too.

    Returns:
        In this process the fork server; in every process that the fork server forks later, its request.

    Raises:
        OSError: no process can be made.
    """
    taken = fork_request.request["files"] if fork_request else []
    mine, its = (
        fd_passing.move_high(end.detach(), taken) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    )
    parent = os.getpid()
    pid = fork()
    if pid:
        os.close(its)
        return ForkServer(pid, mine)
    try:
        os.close(mine)
        fd_passing.close([*inherited, *(fork_request.files if fork_request else [])])
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)  # it ended before it could be told of
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # from a terminal, no traceback
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # an import may have ignored it, and so our own children
        with contextlib.suppress(OSError):
            proc.set_comm(_NAME)
        channel = socket.socket(fileno=its)
        channel.settimeout(None)  # whatever an import has made the default
        return _answer(channel)
    except BaseException:
        os._exit(1)  # its parent finds out when it asks; a fork server must never run on as the engine


def _answer(channel: socket.socket) -> ForkRequest:
    """Answer requests until the parent is gone; return only in a forked child."""
    while True:
        try:
            request, files = fd_passing.receive(channel)
        except (OSError, EOFError):
            os._exit(0)
        if len(files) != len(request.get("files", files)):  # the kernel gives no more than this process may have open
            fd_passing.close(files)
            fd_passing.send(channel, "its open files cannot all be handed over")
            continue
        reader, writer = os.pipe()
        try:
            middle = fork()
        except OSError as error:
            fd_passing.close([*files, reader, writer])
            fd_passing.send(channel, f"fork failed: {error.strerror}")
            continue
        if middle == 0:
            os.close(reader)
            if _fork_and_tell(writer):
                os._exit(0)
            os.close(writer)
            channel.close()
            return ForkRequest(request, files)
        fd_passing.close([*files, writer])
        with open(reader, "rb") as told:
            pid = told.read()
        os.waitpid(middle, 0)  # its end comes after its child has been given to the parent
        fd_passing.send(channel, int(pid) if pid else "fork failed in the second step")


def _fork_and_tell(writer: int) -> int:
    """Fork once more; return the child's PID here, 0 in the child."""
    try:
        middle, pid = os.getpid(), fork()
    except OSError:
        os._exit(1)
    if pid:
        os.write(writer, str(pid).encode())
    while not pid and os.getppid() == middle:  # until it has ended, the parent is not the one that is to be seen
        time.sleep(0.0005)
    return pid


def fork() -> int:
    """Fork, without Python 3.12's warning of threads: native ones that imports left are named in an event."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl refused")


__all__ = ["ForkRequest", "ForkServer", "Refused", "fork", "start_fork_server"]
