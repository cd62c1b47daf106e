"""Parts of an image that do not work on this host, found before a start."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import docker

from ..entrypoint.tiers.snapshot.manifest import cpu_features
from ..plan import SNAPSHOT, Plan
from .snapshot_facts import Captured


@dataclass(frozen=True)
class Declined:
    """A part of an image that does not work here.

    Attributes:
        what: a tier's name, or ``engine``.
        reason: the reason.
    """

    what: str
    reason: str


def declined(client: docker.DockerClient, plan: Plan, captured: Captured | None, absent: str) -> list[Declined]:
    """Return the parts of an image that do not work on this host.

    Tiers ``zygote``, ``preload`` and ``plain`` need nothing that the engine does not need.

    Args:
        client: the Docker daemon's.
        plan: the image's plan.
        captured: the image's snapshot; ``None`` for none.
        absent: why the image has no snapshot; empty if it has one.
    """
    found = []
    info = client.info()
    if plan.accelerator == "cuda" and not names_gpu(info):
        found.append(Declined("engine", "the image serves on CUDA, and this Docker daemon has no NVIDIA runtime"))
    machine = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
    if plan.base.machine != machine.get(str(info["Architecture"]), info["Architecture"]):
        found.append(Declined("engine", f"the image is for {plan.base.machine}, this host is {info['Architecture']}"))
    if SNAPSHOT in plan.tiers:
        mismatch = snapshot_mismatch(info, captured, cpu_features()) if captured else absent
        if mismatch:
            found.append(Declined(SNAPSHOT, mismatch))
    if plan.start in plan.tiers:
        skipped = plan.tiers[: plan.tiers.index(plan.start)]
        found += [Declined(tier, f"the plan starts at {plan.start}") for tier in skipped]
    return found


def snapshot_mismatch(info: dict[str, Any], captured: Captured, here: Iterable[str]) -> str:
    """Return why a daemon's host cannot restore a snapshot, as far as that is visible outside a container.

    Args:
        info: the daemon's answer to ``docker info``.
        captured: the snapshot.
        here: flags of this machine's CPU.

    Returns:
        The reason, or an empty string.
    """
    if str(info["KernelVersion"]) != os.uname().release:
        return ""  # the daemon is on another machine, and the API does not describe that machine's CPU
    absent = sorted(set(captured.cpu_features) - set(here))
    if not absent:
        return ""
    return f"this CPU lacks {', '.join(absent[:5])}{' and others' if len(absent) > 5 else ''}"


def names_gpu(info: dict[str, Any]) -> bool:
    """Return whether a Docker daemon lists an NVIDIA runtime, or a device of the container device interface.

    A hint, not a proof: a daemon may add GPUs with a hook that it does not list.
    """
    devices = info.get("DiscoveredDevices") or []
    return "nvidia" in (info.get("Runtimes") or {}) or any("nvidia.com" in str(device) for device in devices)
