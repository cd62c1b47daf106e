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
from . import fork_exec, process_state
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

        def replacement(*arguments: Any) -> int:
            return self._start(*arguments)

        _posixsubprocess.fork_exec = replacement
        subprocess._fork_exec = replacement  # type: ignore[attr-defined]
        vars(subprocess)["_USE_POSIX_SPAWN"] = False  # a documented switch: Python 3.13 would go past us
        context.ForkServerProcess._Popen = staticmethod(popen_spawn_posix.Popen)  # type: ignore[method-assign, assignment]

    def _start(self, args: Sequence[Any], executables: Sequence[bytes], *rest: Any) -> int:
        argv = [os.fsdecode(argument) for argument in args]
        target = _target(argv, self._flags)
        if os.fsdecode(executables[0]) != sys.executable or not target:
            if argv[-1:] == [_MULTIPROCESSING]:
                return self._spawn(f"its parent has it run {argv[0]}", args, executables, *rest)
            return _fork_exec(args, executables, *rest)
        try:
            call = fork_exec.parse(rest)
            reason = self._declined(call)
            if not reason:
                return self._fork(argv, target, call)
        except (Refused, fork_exec.UnknownSignature) as error:
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

    def _declined(self, call: fork_exec.ForkExec) -> str | None:
        """Return why the fork server must not be asked; ``None`` if it may be."""
        if self._fork_server.ended:
            return "the fork server is gone"
        if not self._fork_server.mine:
            return "its parent is itself a fork, which has no fork server"
        if not fork_exec.is_plain(call):
            return "it is to have a user, session, umask or open files of its own"
        if process_state.credentials() != self._credentials:
            return "its parent has changed its user, permissions, session or namespaces"
        return self._contract.conflict(_decoded(_pairs(call.env)))

    def _fork(self, argv: list[str], target: tuple[str, str], call: fork_exec.ForkExec) -> int:
        passed = (int(number) for number in call.pass_fds)
        wanted = {number: number for number in passed if number != call.error_pipe_write and _is_open(number)}
        for number, wish in enumerate((call.stdin_read, call.stdout_write, call.stderr_write)):
            if wish != -1:
                wanted[number] = wish
            elif _is_open(number) and os.get_inheritable(number):  # else the number is some other file's by now
                wanted[number] = number
        state = process_state.capture()
        if call.cwd is not None:
            state["directory"] = os.path.join(state["directory"], os.fsencode(call.cwd))
            if not os.path.isdir(state["directory"]):
                raise Refused("its working directory does not exist")
        request = {
            "target": target,
            "argv": argv,
            "environment": _pairs(call.env),
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


def _target(argv: list[str], flags: list[str]) -> tuple[str, str] | None:
    """Return ``-c`` or ``-m`` and what follows it, if a command line starts what a fork of this process can be.

    That is a process of ``multiprocessing``, or a module of a package that is imported already.
    """
    head = 1 + len(flags)
    if argv[1:head] != flags or len(argv) < head + 2:
        return None
    option, value = argv[head : head + 2]
    if option == "-c" and argv[-1] == _MULTIPROCESSING:
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
