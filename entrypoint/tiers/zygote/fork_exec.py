"""The arguments of ``_posixsubprocess.fork_exec`` by name: a private function, whose signature differs by version."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple


class UnknownSignature(Exception):
    """This Python calls ``fork_exec`` with a number of arguments that is not known here."""


class ForkExec310(NamedTuple):
    """What follows the arguments and the executables in Python 3.10 (Modules/_posixsubprocess.c)."""

    close_fds: bool
    pass_fds: tuple[int, ...]
    cwd: bytes | str | None
    env: list[bytes] | None
    stdin_read: int
    stdin_write: int
    stdout_read: int
    stdout_write: int
    stderr_read: int
    stderr_write: int
    error_pipe_read: int
    error_pipe_write: int
    restore_signals: bool
    new_session: bool
    gid: int | None
    extra_groups: Sequence[int] | None
    uid: int | None
    umask: int
    preexec_fn: Any


class ForkExec311(NamedTuple):
    """The same in Python 3.11 to 3.13, with a process group and whether ``vfork`` may be used."""

    close_fds: bool
    pass_fds: tuple[int, ...]
    cwd: bytes | str | None
    env: list[bytes] | None
    stdin_read: int
    stdin_write: int
    stdout_read: int
    stdout_write: int
    stderr_read: int
    stderr_write: int
    error_pipe_read: int
    error_pipe_write: int
    restore_signals: bool
    new_session: bool
    process_group: int
    gid: int | None
    extra_groups: Sequence[int] | None
    uid: int | None
    umask: int
    preexec_fn: Any
    allow_vfork: bool


ForkExec = ForkExec310 | ForkExec311

_SIGNATURES: tuple[type[ForkExec310] | type[ForkExec311], ...] = (ForkExec310, ForkExec311)

#: What a child may be given of its own, beside a session; ``None`` and -1 stand for nothing.
_OWN = ("process_group", "gid", "extra_groups", "uid", "umask", "preexec_fn")


def parse(rest: Sequence[Any]) -> ForkExec:
    """Return the arguments of a call by name.

    Args:
        rest: what follows the arguments and the executables.

    Raises:
        UnknownSignature: there are more or fewer than a supported version of Python passes.
    """
    for signature in _SIGNATURES:
        if len(signature._fields) == len(rest):
            return signature(*rest)
    version = "{}.{}".format(*sys.version_info)
    raise UnknownSignature(f"fork_exec of Python {version} has {len(rest)} arguments, which no known signature has")


def is_plain(call: ForkExec) -> bool:
    """Return whether a child gets nothing of its own that a fork cannot give: user, session, umask, open files."""
    own = (getattr(call, name, None) for name in _OWN)
    return bool(call.close_fds) and not call.new_session and all(wish in (None, -1) for wish in own)
