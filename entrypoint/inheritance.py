"""What a process that is started by another takes over from it, besides open files: gathered there, put in place here.

A spawned process gets these from the kernel, by ``fork`` and ``exec``.  One that is forked from a companion gets the
companion's, which are those of its requester at the requester's own birth; the requester may have changed them since.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from typing import Any

_LIMITS = [number for name, number in sorted(vars(resource).items()) if name.startswith("RLIMIT_")]
_OUT_OF_MEMORY = "/proc/self/oom_score_adj"


def credentials() -> list[Any]:
    """Return what a process cannot give itself: its user, groups, session, and control groups."""
    with open("/proc/self/cgroup", encoding="ascii", errors="surrogateescape") as file:
        groups = file.read()
    return [list(os.getresuid()), list(os.getresgid()), os.getgroups(), os.getsid(0), groups]


def gather() -> dict[str, Any]:
    """Return the inheritable state of this process and thread, as values that ``marshal`` knows."""
    mask = os.umask(0o077)
    os.umask(mask)
    return {
        "directory": os.getcwdb(),
        "umask": mask,
        "group": os.getpgid(0),
        "cpus": list(os.sched_getaffinity(0)),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "limits": [list(resource.getrlimit(number)) for number in _LIMITS],
        "oom": _oom_score(),
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "ignored": [
            int(number) for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN
        ],
        "credentials": credentials(),
    }  # fmt: skip


def put(state: dict[str, Any]) -> None:
    """Give this process the state that ``gather`` found in another.

    Raises:
        OSError: the kernel refuses a part of it.
    """
    os.chdir(state["directory"])
    os.umask(state["umask"])
    if os.getpgid(0) != state["group"]:
        os.setpgid(0, state["group"])
    if os.sched_getaffinity(0) != set(state["cpus"]):
        os.sched_setaffinity(0, state["cpus"])
    if os.getpriority(os.PRIO_PROCESS, 0) != state["nice"]:
        os.setpriority(os.PRIO_PROCESS, 0, state["nice"])
    for number, limits in zip(_LIMITS, state["limits"], strict=True):
        if list(resource.getrlimit(number)) != limits:
            resource.setrlimit(number, tuple(limits))
    if _oom_score() != state["oom"]:
        with open(_OUT_OF_MEMORY, "w", encoding="ascii") as file:
            file.write(str(state["oom"]))
    put_signals(state["ignored"], state["blocked"])


def put_signals(ignored: list[int], blocked: list[int]) -> None:
    """Set the dispositions of a new interpreter: what is ignored stays so, all others are the defaults."""
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):  # SIGKILL, SIGSTOP and the C library's own
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    if signal.SIGINT not in ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # as Python itself does at its start
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _oom_score() -> int:
    try:
        with open(_OUT_OF_MEMORY, encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 0
