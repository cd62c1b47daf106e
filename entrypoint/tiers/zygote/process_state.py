"""What a spawned process takes over from its parent besides open files: captured there, applied in the child.

A spawned process gets this state from the kernel, by ``fork`` and ``exec``.  A child of a fork server gets the fork
server's: the parent's state at the moment when it forked its fork server.  The parent may have changed it since.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

from ...kernel import proc

#: Number and name of each limit; the module has two names for one of them.
_LIMITS = dict(sorted((number, name) for name, number in vars(resource).items() if name.startswith("RLIMIT_")))
_OUT_OF_MEMORY = "/proc/self/oom_score_adj"


#: Rows of /proc/PID/status that say what a process may do; the limits of processors and memory of its control group.
_PERMISSIONS = (
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Mems_allowed",
)


def credentials() -> list[Any]:
    """Return what a process cannot give itself: its user, permissions, session, control groups and namespaces."""
    with open("/proc/thread-self/cgroup", encoding="ascii", errors="surrogateescape") as file:
        groups = file.read()
    status = proc.status()
    directory = "/proc/thread-self/ns"
    namespaces = [os.readlink(os.path.join(directory, name)) for name in sorted(os.listdir(directory))]
    permissions = [status.get(name, "") for name in _PERMISSIONS]
    return [permissions, os.getsid(0), groups, namespaces, os.sched_getscheduler(0)]


def capture() -> dict[str, Any]:
    """Return the inheritable state of this process and thread, as values that ``marshal`` knows.

    Raises:
        OSError: the kernel does not tell, as of a working directory that is gone.
    """
    status = proc.status()
    return {
        "directory": os.getcwdb(),
        "umask": int(status["Umask"], 8) if "Umask" in status else _umask(),
        "group": os.getpgid(0),
        "cpus": list(os.sched_getaffinity(0)),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "limits": [list(resource.getrlimit(number)) for number in _LIMITS],
        "oom": _oom_score(),
        "blocked": _signals(status["SigBlk"]),
        "ignored": _signals(status["SigIgn"]),
    }


def apply(state: dict[str, Any]) -> dict[str, str]:
    """Give this process the state that ``capture`` found in another.

    Returns:
        What the kernel refuses, with the reason.
    """
    failed = {}
    for name, change in _CHANGES.items():
        try:
            change(state[name])
        except OSError as error:
            failed[name] = str(error)
    apply_signals(state["ignored"], state["blocked"])
    return failed


def _apply_group(group: int) -> None:
    if os.getpgid(0) != group:
        os.setpgid(0, group)


def _apply_cpus(cpus: list[int]) -> None:
    if os.sched_getaffinity(0) != set(cpus):
        os.sched_setaffinity(0, cpus)


def _apply_nice(nice: int) -> None:
    if os.getpriority(os.PRIO_PROCESS, 0) != nice:
        os.setpriority(os.PRIO_PROCESS, 0, nice)


def _apply_limits(limits: list[list[int]]) -> None:
    failed = []
    for (number, name), limit in zip(_LIMITS.items(), limits, strict=True):
        if list(resource.getrlimit(number)) != limit:
            try:
                resource.setrlimit(number, (limit[0], limit[1]))
            except (OSError, ValueError) as error:  # the module makes a ValueError of some of the kernel's refusals
                failed.append(f"{name}: {error}")
    if failed:
        raise OSError("; ".join(failed))


def _apply_oom_score(score: int) -> None:
    if _oom_score() != score:
        with open(_OUT_OF_MEMORY, "w", encoding="ascii") as file:
            file.write(str(score))


#: Part of the state -> how this process is given it.
_CHANGES: dict[str, Callable[[Any], object]] = {
    "directory": os.chdir,
    "umask": os.umask,
    "group": _apply_group,
    "cpus": _apply_cpus,
    "nice": _apply_nice,
    "limits": _apply_limits,
    "oom": _apply_oom_score,
}


def apply_signals(ignored: list[int], blocked: list[int]) -> None:
    """Set the dispositions of a new interpreter: what is ignored stays so, all others are the defaults.

    Those that Python does not know of stay: it was told at its start to have them handled by ``faulthandler``.
    """
    for number in signal.valid_signals():
        wanted: Any = signal.SIG_IGN if number in ignored else signal.SIG_DFL
        if number == signal.SIGINT and number not in ignored:
            wanted = signal.default_int_handler
        if number in (signal.SIGPIPE, signal.SIGXFSZ):  # as Python itself does at its start
            wanted = signal.SIG_IGN
        if signal.getsignal(number) not in (None, wanted):
            with contextlib.suppress(OSError, ValueError):  # SIGKILL, SIGSTOP and the C library's own
                signal.signal(number, wanted)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _signals(mask: str) -> list[int]:
    bits = int(mask, 16)
    return [number for number in range(1, 65) if bits >> number - 1 & 1]


def _umask() -> int:
    mask = os.umask(0o077)  # for a moment in all threads; only kernels before 4.7 do not tell it
    os.umask(mask)
    return mask


def _oom_score() -> int:
    try:
        with open(_OUT_OF_MEMORY, encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 0
