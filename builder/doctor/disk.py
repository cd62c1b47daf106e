"""Disks: room for the image, and how fast a cold start reads the image and the model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..console import human_bytes
from ..entrypoint import doctor_probe
from ..entrypoint.model.volume import weight_files
from .finding import Seen
from .probe import Facts
from .target import Subject

#: Less free space than this, in bytes, and containers fail to start.
FULL = 1_000_000_000

#: Free space that is enough where no image is named, in bytes.
ROOM = 20_000_000_000

#: Bytes per second below which a disk, and not the engine, decides how long a cold start takes.
SLOW = 200_000_000

#: Fewer bytes than this tell no rate.
_TELLING = 16 << 20

#: Share of the bytes read that must have come from storage to call a rate cold.
_COLD = 0.9


def space(subject: Subject, facts: Facts) -> Seen:
    """Has the disk of the daemon's images room for another version of the image?"""
    root = subject.data_root or Path(facts["docker"]["DockerRootDir"])
    if subject.local and root.is_dir():
        free = shutil.disk_usage(root).free
    elif "container" in facts and "free" in facts["container"]["root"]:
        free = facts["container"]["root"]["free"]  # a container's root file system writes to the same disk
    else:
        return Seen("unknown", f"{root} is not visible from here")
    needed = facts["image"].size_bytes if "image" in facts else ROOM
    outcome = "full" if free < FULL else "tight" if free < needed else "enough"
    return Seen(outcome, f"{human_bytes(free)} free at {root}", f"{human_bytes(needed)} or more")


def image_rate(_subject: Subject, facts: Facts) -> Seen:
    """How fast are the image's files read?"""
    root = str(facts["docker"]["DockerRootDir"])
    rate = facts["container"].get("rate")
    if rate is None:
        return Seen("small", "not measured: no image of ours in the daemon")
    return _rated(rate, root, 0)


def model_rate(subject: Subject, facts: Facts) -> Seen:
    """How fast are the model's weights read?"""
    directory = str(subject.model_dir)
    return _rated(doctor_probe.read_rate(weight_files(directory)), directory, facts["model"])


def _rated(rate: Mapping[str, Any], path: str, total: int) -> Seen:
    if "error" in rate:
        return Seen("small", f"not measured: {rate['error']}")
    read, seconds, fetched = rate["bytes"], rate["seconds"], rate["fetched"]
    sample = f"{human_bytes(read)} in {seconds:.2f} s, one reader"
    if read < _TELLING:
        return Seen("small", f"{sample}: too little to tell a rate")
    speed = read / seconds
    text = f"{human_bytes(int(speed))}/s ({sample})"
    if fetched is None or fetched < read * _COLD:
        share = "an unknown share" if fetched is None else f"{max(0.0, 1 - fetched / read):.0%}"
        return Seen("warm", f"{text}; not cold: {share} came from memory, or the file system is no local disk")
    text += ", cold" + (f"; all {human_bytes(total)} take {total / speed:.1f} s" if total > read else "")
    return Seen("fast" if speed >= SLOW else "slow", text, f"{human_bytes(SLOW)}/s or more", {"path": path})
