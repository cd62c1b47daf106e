"""What this host would decline of an image: said before a start, not found out by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import docker

from .plan import Plan


@dataclass(frozen=True)
class Declined:
    """Something that would not work here.

    Attributes:
        what: a tier's name, or ``engine``.
        reason: why not.
    """

    what: str
    reason: str


def declined(client: docker.DockerClient, plan: Plan) -> list[Declined]:
    """Return what an image's plan has that this host would not run.

    Tiers ``preload`` and ``plain`` need nothing of a host but what the engine itself needs.
    """
    found = []
    info = client.info()
    if plan.accelerator == "cuda" and not _names_gpu(info):
        found.append(Declined("engine", "the image serves on CUDA, and this Docker engine names no NVIDIA runtime"))
    machine = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
    if plan.base.machine != machine.get(str(info["Architecture"]), info["Architecture"]):
        found.append(Declined("engine", f"the image is for {plan.base.machine}, this host is {info['Architecture']}"))
    if plan.start != "auto":
        skipped = plan.tiers[: plan.tiers.index(plan.start)]
        found += [Declined(tier, f"the plan starts at {plan.start}") for tier in skipped]
    return found


def _names_gpu(info: dict[str, Any]) -> bool:
    """Return whether a Docker engine names an NVIDIA GPU: a runtime, or a device of the container device interface.

    An engine may give GPUs by a hook that it does not name: this tells what to look at, not what must fail.
    """
    devices = info.get("DiscoveredDevices") or []
    return "nvidia" in (info.get("Runtimes") or {}) or any("nvidia.com" in str(device) for device in devices)
