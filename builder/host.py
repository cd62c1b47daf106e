"""What this host would decline of an image: said before a start, not found out by one."""

from __future__ import annotations

from dataclasses import dataclass

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
    if plan.accelerator == "cuda" and not has_gpu_runtime(info):
        found.append(Declined("engine", "the image serves on CUDA, and this Docker engine has no NVIDIA runtime"))
    machine = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
    if plan.base.machine != machine.get(str(info["Architecture"]), info["Architecture"]):
        found.append(Declined("engine", f"the image is for {plan.base.machine}, this host is {info['Architecture']}"))
    if plan.start != "auto":
        skipped = plan.tiers[: plan.tiers.index(plan.start)]
        found += [Declined(tier, f"the plan starts at {plan.start}") for tier in skipped]
    return found


def has_gpu_runtime(info: dict[str, object]) -> bool:
    """Return whether a Docker engine can give containers an NVIDIA GPU: by runtime, or by device specification."""
    runtimes = info.get("Runtimes")
    devices = info.get("DiscoveredDevices") or []
    return "nvidia" in (runtimes if isinstance(runtimes, dict) else {}) or any("nvidia.com" in str(d) for d in devices)  # type: ignore[attr-defined]
