"""The kernel and its page cache, as a container of the image sees them, or without an image this process."""

from __future__ import annotations

import re
from collections.abc import Callable

from .finding import Observation
from .run import Facts
from .target import Target

FIRST_CACHESTAT = (6, 5)


def kernel(_target: Target, facts: Facts) -> Observation:
    """Which kernel is it?  No tier needs a version: the other checks try what a start uses."""
    return Observation("release", facts["container"]["kernel"]["release"])


def _version(release: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def facility(name: str, expected: str) -> Callable[[Target, Facts], Observation]:
    """Return a check of one of the kernel's facilities."""

    def probe(_target: Target, facts: Facts) -> Observation:
        answer = facts["container"]["kernel"][name]
        return Observation("there", "available") if answer is True else Observation("absent", str(answer), expected)

    return probe


def cachestat(_target: Target, facts: Facts) -> Observation:
    """Does ``cachestat`` work?"""
    inside = facts["container"]
    answer = inside["pagecache"]["cachestat"]
    if answer is True:
        return Observation("there", "works")
    release = inside["kernel"]["release"]
    if inside["privileges"]["seccomp"] and _version(release) >= FIRST_CACHESTAT:
        return Observation("hidden", f"hidden by the daemon's seccomp profile; Linux {release} has it")
    return Observation("absent", str(answer), "Linux 6.5 or later")


def others(_target: Target, facts: Facts) -> Observation:
    """How can the image's user learn which of the image's files are cached?  They belong to root."""
    answer = facts["container"]["pagecache"]["others"]
    if facts["container"]["kernel"]["io"] is not True:
        return Observation("unaccounted", f"the kernel does not count reads: {facts['container']['kernel']['io']}")
    if answer is None:
        return Observation("unknown", "not tried: the Docker daemon has no image built by warmimage")
    if answer.get("how") == "asked":
        return Observation("asked", "the kernel reports it")
    if answer.get("how") == "sampled":
        claim = "is right" if answer["mincore_truthful"] else "reports every page as cached"
        return Observation("sampled", f"cachestat is refused, mincore {claim}: sampled by reading")
    return Observation(
        "unknown", answer.get("error") or "not tried: the test file could not be evicted from the page cache"
    )


def nowait(_target: Target, facts: Facts) -> Observation:
    """Do reads with ``RWF_NOWAIT`` work on the image's files?"""
    answer = facts["container"]["pagecache"]["nowait"]
    if answer is None:
        return Observation("no_image", "not tried: the Docker daemon has no image built by warmimage")
    return Observation("there", "works") if answer is True else Observation("absent", str(answer))
