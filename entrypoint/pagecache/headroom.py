"""Memory that the page cache may fill: what the host has left, and every memory cgroup above this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

Read = Callable[[str], "str | None"]

_MOUNTS = "/proc/self/mountinfo"
_CGROUPS = "/proc/self/cgroup"
_V1_UNLIMITED = 1 << 60  # version 1 writes "no limit" as the largest number of whole pages

#: What of a cgroup's memory is not given back for page cache: per version, rows of its ``memory.stat``.
_HELD = {2: ("anon", "shmem", "kernel_stack", "pagetables", "slab_unreclaimable"), 1: ("total_rss", "total_shmem")}


@dataclass(frozen=True)
class Limit:
    """One bound on memory.

    Attributes:
        source: the file that sets it.
        limit: bytes that it allows.
        held: bytes below it that cannot be given back for page cache: anonymous and shared memory, the kernel's own.
    """

    source: str
    limit: int
    held: int

    @property
    def room(self) -> int:
        """Bytes of page cache that it leaves."""
        return max(0, self.limit - self.held)


def memory_headroom(read: Read | None = None) -> int:
    """Return how many bytes of page cache this container can hold without pushing out memory in use.

    The host's ``MemAvailable``, or less where a memory cgroup (version 2 or 1) bounds the container or anything above
    it: page cache is charged to the cgroup that first touches it, and to all above.
    """
    return min((limit.room for limit in limits(read)), default=1 << 62)


def limits(read: Read | None = None) -> list[Limit]:
    """Return every bound on this process's page cache, the host's first.

    Args:
        read: returns a file's text, ``None`` where it cannot be read.
    """
    read = read or text_of
    found = [
        Limit("/proc/meminfo", int(row.split()[1]) * 1024, 0)
        for row in (read("/proc/meminfo") or "").splitlines()
        if row.startswith("MemAvailable:")
    ]
    for version, directory in _directories(read):
        found += _limits_of(version, directory, read)
    return found


def _limits_of(version: int, directory: str, read: Read) -> list[Limit]:
    """Return the bounds that one cgroup sets."""
    rows = (row.split() for row in (read(f"{directory}/memory.stat") or "").splitlines())
    stat = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
    held = sum(stat.get(name, 0) for name in _HELD[version])
    if version == 2:
        bounds = {name: (read(f"{directory}/{name}") or "").strip() for name in ("memory.max", "memory.high")}
    else:
        # The tightest of it and of those above, which a container cannot see.
        above = str(stat.get("hierarchical_memory_limit", ""))
        bounds = {
            "memory.limit_in_bytes": (read(f"{directory}/memory.limit_in_bytes") or "").strip(),
            "memory.stat": above,
        }
    return [
        Limit(f"{directory}/{name}", int(text), held)
        for name, text in bounds.items()
        if text.isdigit() and int(text) < _V1_UNLIMITED
    ]


def _directories(read: Read) -> Iterator[tuple[int, str]]:
    """Yield version and directory of the memory cgroups from this process's own up to the top that is visible here."""
    own = _own_cgroups(read)
    for row in (read(_MOUNTS) or "").splitlines():
        left, _, right = row.partition(" - ")
        columns, kind = left.split(), right.split()
        if len(columns) < 5 or len(kind) < 3:
            continue
        root, mount = columns[3], columns[4]
        if kind[0] == "cgroup2":
            version = 2
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            version = 1
        else:
            continue
        # In a namespace of its own, or mounted by a container runtime, the path begins at the mount's root.
        path = own.get(version, "/")
        below = path[len(root.rstrip("/")) :] if f"{path}/".startswith(f"{root.rstrip('/')}/") else ""
        names = [name for name in below.split("/") if name not in ("", "..")]
        for depth in range(len(names), -1, -1):
            yield version, "/".join([mount, *names[:depth]])


def _own_cgroups(read: Read) -> dict[int, str]:
    """Return the path of this process's cgroup by version, as it is seen from here."""
    found = {}
    for row in (read(_CGROUPS) or "").splitlines():
        number, _, rest = row.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found[2] = path
        elif "memory" in controllers.split(","):
            found[1] = path
    return found


def text_of(path: str) -> str | None:
    """Return the text of one of the kernel's files, ``None`` where there is none: not every kernel has each."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return None
