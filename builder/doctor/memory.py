"""Memory: the limits that hold for a container, and its shared memory."""

from __future__ import annotations

from pathlib import Path

from ..console import human_bytes
from .finding import Seen
from .probe import Facts
from .target import Subject

#: Where the daemon puts containers: by its own driver of cgroups, by systemd's.
_PARENTS = ("docker", "system.slice")

#: A limit that means none.
_NO_LIMIT = 1 << 60


def cgroup(_subject: Subject, facts: Facts) -> Seen:
    """Which version of cgroups bounds a container?"""
    version = facts["container"]["memory"]["cgroup"]
    return Seen(f"v{version}", f"version {version}")


def daemon(subject: Subject, facts: Facts) -> Seen:
    """Does a limit hold over all containers of the daemon?"""
    if not subject.local:
        return Seen("unknown", "not visible: the daemon is on another host")
    limits = {}
    for parent in _PARENTS if facts["docker"].get("CgroupDriver") == "cgroupfs" else _PARENTS[1:]:
        for path in (
            subject.cgroups / parent / "memory.max",
            subject.cgroups / "memory" / parent / "memory.limit_in_bytes",
        ):
            limit = _limit(path)
            if limit:
                limits[path] = limit
    if not limits:
        return Seen("unknown", "no cgroup of containers is visible here")
    path = min(limits, key=lambda path: limits[path])
    if limits[path] >= _NO_LIMIT:
        return Seen("none", "none")
    return Seen("limited", human_bytes(limits[path]), "", {"group": str(path.parent)})


def _limit(path: Path) -> int:
    """Return the limit in a file in bytes, 0 where there is no such file."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else _NO_LIMIT


def container(_subject: Subject, facts: Facts) -> Seen:
    """Can a container hold the files that a start reads, weights included, in memory?"""
    found = facts["container"]["memory"]
    limit, available = found["limit"], found["available"]
    bound = f"limit {human_bytes(limit)}" if limit else "no limit"
    weights = facts.get("model", 0)
    closure = facts["container"]["closure"].get("bytes", 0)
    needed = weights + closure
    parts = [f"{human_bytes(closure)} of hot files"] if closure else []
    parts += [f"{human_bytes(weights)} of weights"] if weights else []
    short = min(limit or available, available) < needed
    text = f"{bound}; {human_bytes(available)} available of {human_bytes(found['total'])}"
    return Seen("short" if short else "enough", text, " + ".join(parts))


def shared(_subject: Subject, facts: Facts) -> Seen:
    """Does a plain container get the shared memory that the engine of the image wants?"""
    wanted = facts["image"].plan.engine.shared_memory
    given = facts["container"]["memory"]["shared"]
    if not wanted:
        return Seen("enough", f"{human_bytes(given)} by default; the engine wants none")
    short = given < wanted
    return Seen(
        "default_short" if short else "enough",
        f"{human_bytes(given)} by default",
        human_bytes(wanted),
        {"size": str(wanted)},
    )
