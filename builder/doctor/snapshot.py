"""Tier ``snapshot``: does the image hold a snapshot, and can a container on this host restore it?"""

from __future__ import annotations

from typing import Any

from ..console import human_bytes
from .finding import Observation
from .run import Facts
from .target import Target

#: Largest number of missing CPU extensions to list.
_LISTED = 5


def image(_target: Target, facts: Facts) -> Observation:
    """Does the image hold a snapshot?  The fact is its manifest."""
    plan = facts["image"].plan
    if "snapshot" not in plan.tiers:
        return Observation("no_tier", "no snapshot tier in this image")
    manifest: dict[str, Any] = facts["container"]["snapshot"]
    if "error" in manifest:
        return Observation("damaged", f"its manifest cannot be read: {manifest['error']}", "a manifest of this version")
    if not manifest["captured"]:
        if manifest["declined"]:
            return Observation("declined", f"none: {manifest['declined']}", "a snapshot")
        return Observation("absent", f"no {plan.folders.root}/snapshot/manifest.json", "a snapshot")
    size = f"{human_bytes(manifest['bytes'])}, {manifest['modules']:,} modules"
    return Observation("captured", f"{size}, captured on Linux {manifest['kernel']}", fact=manifest)


def cpu(_target: Target, facts: Facts) -> Observation:
    """Has this host's CPU the extensions that the captured code uses?"""
    missing = facts["snapshot.image"]["lacking"]
    if not missing:
        return Observation("covered", "has every extension that the snapshot needs")
    rest = f" and {len(missing) - _LISTED} others" if len(missing) > _LISTED else ""
    return Observation(
        "lacks", f"lacks {', '.join(missing[:_LISTED])}{rest}", "every extension that the snapshot needs"
    )


def mm_map(_target: Target, facts: Facts) -> Observation:
    """Does ``PR_SET_MM_MAP`` work in a container?  Restoring an address space needs it."""
    answer = facts["container"]["kernel"]["mm_map"]
    if answer is True:
        return Observation("there", "answers")
    needed = "image" in facts and "snapshot" in facts["image"].plan.tiers
    return Observation("absent_needed" if needed else "absent", str(answer), "PR_SET_MM_MAP answers")
