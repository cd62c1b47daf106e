"""Disks: room for the image, and how fast a cold start reads the image and the model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..console import human_bytes
from ..entrypoint import doctor_probe
from ..entrypoint.model.volume import weight_files
from .finding import Observation
from .run import Facts
from .target import Target

#: Less free space than this, in bytes, and containers fail to start.
FULL = 1_000_000_000

#: Free space that is enough without an image, in bytes.
ROOM = 20_000_000_000

#: Bytes per second below which the disk, not the engine, determines the duration of a cold start.
SLOW = 200_000_000

#: Fewer bytes than this are too few to compute a rate from.
_SAMPLE = 16 << 20

#: Smallest share of bytes from storage in a cold read.
_COLD = 0.9


def space(target: Target, facts: Facts) -> Observation:
    """Has the disk of the daemon's images room for another version of the image?"""
    root = target.data_root or Path(facts["docker"]["DockerRootDir"])
    if target.local and root.is_dir():
        free = shutil.disk_usage(root).free
    elif "container" in facts and "free" in facts["container"]["root"]:
        free = facts["container"]["root"]["free"]  # a container's root file system writes to the same disk
    else:
        return Observation("unknown", f"{root} is not visible from here")
    needed = facts["image"].size_bytes if "image" in facts else ROOM
    outcome = "full" if free < FULL else "tight" if free < needed else "enough"
    return Observation(outcome, f"{human_bytes(free)} free at {root}", f"{human_bytes(needed)} or more")


def image_rate(_target: Target, facts: Facts) -> Observation:
    """How fast does the disk read the image's files?"""
    root = str(facts["docker"]["DockerRootDir"])
    rate = facts["container"].get("rate")
    if rate is None:
        return Observation("small", "not measured: the Docker daemon has no image built by warmimage")
    return _rated(rate, root, 0)


def model_rate(target: Target, facts: Facts) -> Observation:
    """How fast does the volume read the model's weights?"""
    directory = str(target.model_dir)
    return _rated(doctor_probe.read_rate(weight_files(directory)), directory, facts["model"])


def _rated(rate: Mapping[str, Any], path: str, total: int) -> Observation:
    if "error" in rate:
        return Observation("small", f"not measured: {rate['error']}")
    read, seconds, fetched = rate["bytes"], rate["seconds"], rate["fetched"]
    sample = f"{human_bytes(read)} in {seconds:.2f} s, one reader"
    if read < _SAMPLE:
        return Observation("small", f"{sample}: too few bytes for a rate")
    speed = read / seconds
    text = f"{human_bytes(int(speed))}/s ({sample})"
    if fetched is None or fetched < read * _COLD:
        share = "an unknown share" if fetched is None else f"{max(0.0, 1 - fetched / read):.0%}"
        return Observation(
            "warm", f"{text}; not cold: {share} came from memory, or the file system is not on a local disk"
        )
    text += ", cold" + (f"; all {human_bytes(total)} take {total / speed:.1f} s" if total > read else "")
    return Observation("fast" if speed >= SLOW else "slow", text, f"{human_bytes(SLOW)}/s or more", {"path": path})
