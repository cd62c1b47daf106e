"""The spawn hook: Python processes that this process starts are forked by its fork server, not spawned.

``_posixsubprocess.fork_exec`` is where ``multiprocessing`` (start methods ``spawn`` and ``forkserver``) and
``subprocess`` end when they start a program.  That one function is replaced; everything around it stays as it is: the
pickled process object, the pipes, the sentinel, ``waitpid``.
"""

from __future__ import annotations

import _posixsubprocess
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import context, popen_spawn_posix
from typing import Any

from ...environment import import_environment
from ...timeline import Timeline, say
from . import process_state
from .fork_server import ForkServer, Refused

#: What ends the command line of a process of ``multiprocessing``.
_MULTIPROCESSING = "--multiprocessing-fork"

#: ``fork_exec`` before it is replaced, for a process whose parent has replaced it too.
_fork_exec: Callable[..., int] = _posixsubprocess.fork_exec


class SpawnHook:
    """Has the fork server fork what this process would spawn, and spawns what that one cannot fork.

    Args:
        fork_server: forks the children.
        timeline: gets one event for each child.
        contract: what the imports have read of the environment.
    """

    def __init__(self, fork_server: ForkServer, timeline: Timeline, contract: import_environment.Contract) -> None:
        self._fork_server = fork_server
        self._timeline = timeline
        self._contract = contract
        self._credentials = process_state.credentials()
        self._flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        self._lock = threading.Lock()
        self._asking = 0

    def install(self) -> None:
        """Stand in for ``fork_exec``, and have ``forkserver`` ask for a process just as ``spawn`` does."""

        def fork_exec(*arguments: Any) -> int:
            return self._start(*arguments)

        _posixsubprocess.fork_exec = fork_exec
        subprocess._fork_exec = fork_exec  # type: ignore[attr-defined]
        vars(subprocess)["_USE_POSIX_SPAWN"] = False  # a documented switch: Python 3.13 would go past us
        context.ForkServerProcess._Popen = staticmethod(popen_spawn_posix.Popen)  # type: ignore[method-assign, assignment]

    def _start(self, args: Sequence[Any], executables: Sequence[bytes], *rest: Any) -> int:
        words = [os.fsdecode(word) for word in args]
        target = _target(words, self._flags)
        if os.fsdecode(executables[0]) != sys.executable or not target:
            if words[-1:] == [_MULTIPROCESSING]:
                return self._spawn(f"its parent has it run {words[0]}", args, executables, *rest)
            return _fork_exec(args, executables, *rest)
        try:
            reason = self._declined(rest)
            if not reason:
                return self._fork(words, target, rest)
        except Refused as error:
            reason = str(error)
        except (OSError, LookupError) as error:  # what a kernel does not tell; what a signal's handler raises goes on
            reason = repr(error)
        return self._spawn(reason, args, executables, *rest)

    def _spawn(self, reason: str, *arguments: Any) -> int:
        pid = _fork_exec(*arguments)
        self._timeline.event(
            "zygote.fallback",
            child=pid,
            reason=reason,
            preload=os.environ.get("LD_PRELOAD", ""),
        )
        say(f"spawned a new interpreter instead of forking: {reason}")
        return pid

    def _declined(self, rest: Sequence[Any]) -> str | None:
        """Return why the fork server must not be asked; ``None`` if it may be."""
        if self._fork_server.ended:
            return "the fork server is gone"
        if not self._fork_server.mine:
            return "its parent is itself a fork, which has no fork server"
        close_others, _files, _directory, variables, *_ = rest
        # From Python 3.11 on: the process group, and at the end whether vfork may be used.
        wishes = rest[14:-1] if sys.version_info >= (3, 11) else rest[14:]
        new_session = rest[13]
        if not close_others or new_session or any(wish not in (None, -1) for wish in wishes):
            return "it is to have a user, session, umask or open files of its own"
        if process_state.credentials() != self._credentials:
            return "its parent has changed its user, permissions, session or namespaces"
        return self._contract.conflict(_decoded(_pairs(variables)))

    def _fork(self, words: list[str], target: tuple[str, str], rest: Sequence[Any]) -> int:
        _close, passed, directory, variables, stdin, _, _, stdout, _, stderr = rest[:10]
        error_pipe = rest[11]
        wanted = {number: number for number in map(int, passed) if number != error_pipe and _is_open(number)}
        for number, wish in enumerate((stdin, stdout, stderr)):
            if wish != -1:
                wanted[number] = wish
            elif _is_open(number) and os.get_inheritable(number):  # else the number is some other file's by now
                wanted[number] = number
        state = process_state.capture()
        if directory is not None:
            state["directory"] = os.path.join(state["directory"], os.fsencode(directory))
            if not os.path.isdir(state["directory"]):
                raise Refused("its working directory does not exist")
        request = {
            "target": target,
            "words": words,
            "environment": _pairs(variables),
            "files": list(wanted),
            "state": state,
        }
        if self._asking == threading.get_ident():
            raise Refused("a signal's handler asks while its parent does")
        with self._lock:
            if self._fork_server.ended:
                raise Refused("the fork server is gone")
            self._asking = threading.get_ident()
            try:
                pid = self._fork_server.fork(request, list(wanted.values()))
            finally:
                self._asking = 0
        self._timeline.event("zygote.forked", child=pid, target=target[1] if target[0] == "-m" else "multiprocessing")
        return pid


def _target(words: list[str], flags: list[str]) -> tuple[str, str] | None:
    """Return ``-c`` or ``-m`` and what follows it, if a command line starts what a fork of this process can be.

    That is a process of ``multiprocessing``, or a module of a package that is imported already.
    """
    head = 1 + len(flags)
    if words[1:head] != flags or len(words) < head + 2:
        return None
    option, value = words[head : head + 2]
    if option == "-c" and words[-1] == _MULTIPROCESSING:
        return option, value
    if option == "-m" and value.partition(".")[0] in sys.modules and "." in value:
        return option, value
    return None


def _pairs(variables: Sequence[bytes] | None) -> dict[bytes, bytes]:
    """Return an environment: one given to ``fork_exec``, or that of this process as an ``exec`` takes it over."""
    if variables is None:
        variables = import_environment.native()
    found: dict[bytes, bytes] = {}
    for name, _, value in (entry.partition(b"=") for entry in variables):
        if name:
            found.setdefault(name, value)  # of two with one name, the first counts
    return found


def _decoded(variables: Mapping[bytes, bytes]) -> dict[str, str]:
    return {os.fsdecode(name): os.fsdecode(value) for name, value in variables.items()}


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
