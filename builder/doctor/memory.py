"""Memory: a container's limits, and its shared memory."""

from __future__ import annotations

from pathlib import Path

from ..console import human_bytes
from .finding import Observation
from .run import Facts
from .target import Target

#: Parent cgroups of containers: of the driver cgroupfs, of the driver systemd.
_PARENTS = ("docker", "system.slice")

#: A limit of this many bytes or more means no limit.
_NO_LIMIT = 1 << 60


def cgroup(_target: Target, facts: Facts) -> Observation:
    """Which version of cgroups limits a container?"""
    version = facts["container"]["memory"]["cgroup"]
    return Observation(f"v{version}", f"version {version}")


def daemon(target: Target, facts: Facts) -> Observation:
    """Is there one memory limit for all containers of the daemon?"""
    if not target.local:
        return Observation("unknown", "unknown: the Docker daemon is on another host")
    limits = {}
    for parent in _PARENTS if facts["docker"].get("CgroupDriver") == "cgroupfs" else _PARENTS[1:]:
        for path in (
            target.cgroups / parent / "memory.max",
            target.cgroups / "memory" / parent / "memory.limit_in_bytes",
        ):
            limit = _limit(path)
            if limit:
                limits[path] = limit
    if not limits:
        return Observation("unknown", "the cgroup of containers is not visible here")
    path = min(limits, key=lambda path: limits[path])
    if limits[path] >= _NO_LIMIT:
        return Observation("none", "none")
    return Observation("limited", human_bytes(limits[path]), "", {"group": str(path.parent)})


def _limit(path: Path) -> int:
    """Return the limit in a file in bytes; 0 if there is no such file."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else _NO_LIMIT


def container(_target: Target, facts: Facts) -> Observation:
    """Can a container hold the files that a start reads, weights included, in memory?"""
    memory = facts["container"]["memory"]
    limit, available = memory["limit"], memory["available"]
    bound = f"limit {human_bytes(limit)}" if limit else "no limit"
    weights = facts.get("model", 0)
    closure = facts["container"]["closure"].get("bytes", 0)
    needed = weights + closure
    parts = [f"{human_bytes(closure)} of hot files"] if closure else []
    parts += [f"{human_bytes(weights)} of weights"] if weights else []
    short = min(limit or available, available) < needed
    text = f"{bound}; {human_bytes(available)} available of {human_bytes(memory['total'])}"
    return Observation("short" if short else "enough", text, " + ".join(parts))


def shared(_target: Target, facts: Facts) -> Observation:
    """Does a container get by default the shared memory that the image's engine needs?"""
    wanted = facts["image"].plan.engine.shared_memory
    given = facts["container"]["memory"]["shared"]
    if not wanted:
        return Observation("enough", f"{human_bytes(given)} by default; the engine needs none")
    short = given < wanted
    return Observation(
        "default_short" if short else "enough",
        f"{human_bytes(given)} by default",
        human_bytes(wanted),
        {"size": str(wanted)},
    )
