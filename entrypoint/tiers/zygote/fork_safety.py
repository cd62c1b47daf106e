"""May this process be forked?  What a fork would lose or share, and which import brought it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable

from ...kernel import proc

#: How /proc/net/tcp and its kin write the state of a listening socket.
_LISTENING = "0A"


def python_threads() -> list[str]:
    """Return the names of the Python threads besides this one: a fork would lose them with what they hold."""
    return [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]


def native_threads() -> list[str]:
    """Return the names of the threads besides this one that Python does not know, as the kernel calls them."""
    known = {thread.native_id for thread in threading.enumerate()}
    found = []
    for task in os.listdir("/proc/self/task"):
        if int(task) in known:
            continue
        with contextlib.suppress(OSError):  # it has just ended
            found.append(proc.comm(f"self/task/{task}"))
    return found


def accelerator_files() -> list[str]:
    """Return the accelerator devices that are open: a sign of a context, which no fork can use."""
    return [
        target for target in proc.fd_targets().values() if target.startswith(("/dev/nvidia", "/dev/kfd", "/dev/dri/"))
    ]


def cuda_contexts() -> list[str]:
    """Return a word for a CUDA context that PyTorch has made."""
    cuda = sys.modules.get("torch.cuda")
    is_initialized = getattr(cuda, "is_initialized", None)
    return ["torch.cuda"] if is_initialized and is_initialized() else []


def listening_sockets() -> list[str]:
    """Return the sockets that this process listens on."""
    mine = {target for target in proc.fd_targets().values() if target.startswith("socket:[")}
    found = []
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/self/net/{table}", encoding="ascii") as file:
                rows = [row.split() for row in file][1:]
        except OSError:
            continue
        found += [row[1] for row in rows if row[3] == _LISTENING and f"socket:[{row[9]}]" in mine]
    return found


def children() -> list[str]:
    """Return the processes that this one has started."""
    return list(map(str, proc.children()))


#: What must not be there -> how to find it.
_RULES: dict[str, Callable[[], list[str]]] = {
    "Python thread": python_threads,
    "CUDA context": cuda_contexts,
    "accelerator device": accelerator_files,
    "listening socket": listening_sockets,
    "child process": children,
}


class ForkSafety:
    """Sees after each import whether this process can still be forked.

    Attributes:
        offences: what no forkable process may have -> the module whose import brought it.
        threads: native threads that a fork loses -> the module whose import brought them.
    """

    def __init__(self) -> None:
        self.violations: dict[str, str] = {}
        self.threads: dict[str, str] = {}
        self._before = _footprint()
        self._native = len(native_threads())

    def check(self, module: str) -> None:
        """Look again, after the import of ``module``; cheap as long as nothing of it has changed."""
        now = _footprint()
        if now == self._before:
            return
        self._before = now
        for rule, find in _RULES.items():
            for found in find():
                self.violations.setdefault(f"{rule} {found}", module)
        native = native_threads()
        if len(native) > self._native:
            self.threads[module] = ", ".join(native[self._native :])
        self._native = len(native)

    def reason(self) -> str | None:
        """Return why this process cannot be forked, with the modules that brought the reasons; ``None`` if it can."""
        there = [f"{rule} {found}" for rule, find in _RULES.items() for found in find()]
        reasons = [f"{offence} (import of {self.violations.get(offence, 'an unknown module')})" for offence in there]
        return ", ".join(reasons) or None


def _footprint() -> tuple[int, int, int]:
    """Return numbers of which one changes when a thread, an open file or a child comes."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), len(proc.children())
