"""The kernel and its page cache, as a container of the image finds them; without an image, as this process does."""

from __future__ import annotations

import re
from collections.abc import Callable

from .finding import Seen
from .probe import Facts
from .target import Subject

FIRST_CACHESTAT = (6, 5)


def kernel(_subject: Subject, facts: Facts) -> Seen:
    """Which kernel is it?  No tier asks for a version: the other checks try what a start uses."""
    return Seen("release", facts["container"]["kernel"]["release"])


def _version(release: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def facility(name: str, expected: str) -> Callable[[Subject, Facts], Seen]:
    """Return a check of one of the kernel's facilities."""

    def look(_subject: Subject, facts: Facts) -> Seen:
        found = facts["container"]["kernel"][name]
        return Seen("there", "there") if found is True else Seen("absent", str(found), expected)

    return look


def cachestat(_subject: Subject, facts: Facts) -> Seen:
    """Does ``cachestat`` work?"""
    inside = facts["container"]
    found = inside["pagecache"]["cachestat"]
    if found is True:
        return Seen("there", "answers")
    release = inside["kernel"]["release"]
    if inside["privileges"]["seccomp"] and _version(release) >= FIRST_CACHESTAT:
        return Seen("hidden", f"hidden by the daemon's seccomp profile; Linux {release} has it")
    return Seen("absent", str(found), "Linux 6.5 or later")


def others(_subject: Subject, facts: Facts) -> Seen:
    """How can the image's user learn what is resident of the image's files, which are another's?"""
    found = facts["container"]["pagecache"]["others"]
    if facts["container"]["kernel"]["io"] is not True:
        return Seen("unaccounted", f"no account of reads: {facts['container']['kernel']['io']}")
    if found is None:
        return Seen("unknown", "not tried: no image of ours in the daemon")
    if found.get("how") == "asked":
        return Seen("asked", "the kernel answers")
    if found.get("how") == "sampled":
        claim = "tells the truth" if found["mincore_truthful"] else "calls all of it resident"
        return Seen("sampled", f"cachestat does not tell, mincore {claim}: sampled by reading")
    return Seen("unknown", found.get("error") or "could not be told: the file tried did not leave the page cache")


def nowait(_subject: Subject, facts: Facts) -> Seen:
    """Do reads that never wait work on the image's files?"""
    found = facts["container"]["pagecache"]["nowait"]
    if found is None:
        return Seen("no_image", "not tried: no image of ours in the daemon")
    return Seen("there", "works") if found is True else Seen("absent", str(found))
