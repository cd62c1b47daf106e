"""Readers of ``/proc``, each interface once.  Formats: proc(5) and Documentation/filesystems/proc.rst of the kernel."""

from __future__ import annotations

import os


def children(task: str = "thread-self") -> list[int]:
    """Return the children of a task, none where the kernel has no such list (CONFIG_PROC_CHILDREN).

    Args:
        task: its directory below ``/proc``.
    """
    try:
        with open(f"/proc/{task}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def comm(task: str = "self") -> str:
    """Return the kernel's short name of a process or thread.

    Raises:
        OSError: it has ended, or is hidden from this user.
    """
    with open(f"/proc/{task}/comm", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rstrip("\n")


def set_comm(name: str) -> None:
    """Give this thread a short name, and the threads and processes that it starts.

    Args:
        name: the kernel keeps the first 15 bytes.

    Raises:
        OSError: the kernel refuses.
    """
    with open("/proc/self/comm", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(name)


def stat(pid: int | str = "self") -> tuple[str, list[bytes]]:
    """Return the short name of a process and its other fields; field N of proc(5) has the index N - 3.

    Raises:
        OSError: it has ended, or is hidden from this user.
    """
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        text = file.read()
    # The name may hold spaces and brackets.
    name, _, rest = text.partition(b"(")[2].rpartition(b")")
    return name.decode(errors="replace"), rest.split()


def status(task: str = "thread-self") -> dict[str, str]:
    """Return the rows of a task's ``status`` by name.

    Raises:
        OSError: it has ended, or is hidden from this user.
    """
    with open(f"/proc/{task}/status", encoding="ascii", errors="surrogateescape") as file:
        rows = [row.partition(":") for row in file]
    return {name: value.strip() for name, _, value in rows}


def fd_targets() -> dict[int, str]:
    """Return what this process's fds refer to, by number."""
    targets = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            targets[int(number)] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the listing's own
    return targets
