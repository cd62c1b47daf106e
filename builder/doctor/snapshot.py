"""Tier ``snapshot``: is there a snapshot in the image, and would a container on this host restore it?"""

from __future__ import annotations

from typing import Any

from ..console import human_bytes
from .finding import Seen
from .probe import Facts
from .target import Subject

#: Most of a CPU's missing extensions that are named.
_NAMED = 5


def image(_subject: Subject, facts: Facts) -> Seen:
    """Does the image hold a snapshot?  The fact is what its manifest says."""
    plan = facts["image"].plan
    if "snapshot" not in plan.tiers:
        return Seen("no_tier", "no snapshot tier in this image")
    found: dict[str, Any] = facts["container"]["snapshot"]
    if "error" in found:
        return Seen("damaged", f"its manifest cannot be read: {found['error']}", "a manifest of this version")
    if not found["captured"]:
        if found["declined"]:
            return Seen("declined", f"none: {found['declined']}", "a snapshot")
        return Seen("absent", f"no {plan.folders.root}/snapshot/manifest.json", "a snapshot")
    size = f"{human_bytes(found['bytes'])}, {found['modules']:,} modules"
    return Seen("captured", f"{size}, captured on Linux {found['kernel']}", fact=found)


def cpu(_subject: Subject, facts: Facts) -> Seen:
    """Has this host's CPU what the captured code was chosen for?"""
    lacking = facts["snapshot.image"]["lacking"]
    if not lacking:
        return Seen("covered", "has every extension that the snapshot needs")
    rest = f" and {len(lacking) - _NAMED} others" if len(lacking) > _NAMED else ""
    return Seen("lacks", f"lacks {', '.join(lacking[:_NAMED])}{rest}", "every extension that the snapshot needs")


def mm_map(_subject: Subject, facts: Facts) -> Seen:
    """Does a container's kernel have ``PR_SET_MM_MAP``, by which a process takes over a captured address space?"""
    answer = facts["container"]["kernel"]["mm_map"]
    if answer is True:
        return Seen("there", "answers")
    needed = "image" in facts and "snapshot" in facts["image"].plan.tiers
    return Seen("absent_needed" if needed else "absent", str(answer), "PR_SET_MM_MAP answers")
