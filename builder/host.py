"""What this host would decline of an image: said before a start, not found out by one."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Any

import docker

from .entrypoint.accelerator import Accelerator
from .entrypoint.snapshot.manifest import cpu_features
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

    Tiers ``zygote``, ``preload`` and ``plain`` need nothing of a host but what the engine itself needs.
    """
    found = []
    info = client.info()
    if plan.accelerator == "cuda" and not names_gpu(info):
        found.append(Declined("engine", "the image serves on CUDA, and this Docker engine names no NVIDIA runtime"))
    machine = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
    if plan.base.machine != machine.get(str(info["Architecture"]), info["Architecture"]):
        found.append(Declined("engine", f"the image is for {plan.base.machine}, this host is {info['Architecture']}"))
    mismatch = snapshot_mismatch(info, plan)
    if mismatch:
        found.append(Declined("snapshot", mismatch))
    if plan.start in plan.tiers:
        skipped = plan.tiers[: plan.tiers.index(plan.start)]
        found += [Declined(tier, f"the plan starts at {plan.start}") for tier in skipped]
    return found


def snapshot_mismatch(info: dict[str, Any], plan: Plan) -> str:
    """Return why an engine's host would not restore an image's snapshot, as far as it can be told from outside.

    What a container is granted decides too: ``warmimage run`` grants it, ``doctor`` tries it.

    Args:
        info: what the engine says of itself.
        plan: the image's plan.

    Returns:
        The reason; empty for an image without a snapshot too.
    """
    made = plan.snapshot
    if not made:
        return ""
    kernel = str(info["KernelVersion"])
    if _version(kernel) < _version(made.kernel):
        return f"kernel {kernel} is older than {made.kernel}, on which it was captured"
    if kernel == os.uname().release:  # the engine is on this machine: its processors and GPUs are seen
        absent = sorted(set(made.cpu_features) - set(cpu_features()))
        if absent:
            return f"this CPU lacks {', '.join(absent[:5])}{' and others' if len(absent) > 5 else ''}"
        here = Accelerator.here()
        seen = tuple(gpu for gpu in here.gpus if gpu in made.gpus)  # a container may be given only some of them
        differs = Accelerator(made.driver, made.gpus).mismatch(replace(here, gpus=seen or here.gpus))
        if differs:
            return differs
    if plan.user and any("no-new-privileges" in option for option in info.get("SecurityOptions") or []):
        return "this Docker engine sets no_new_privs on every container, which keeps CRIU from its capability"
    return ""


def _version(release: str) -> tuple[int, ...]:
    """Return the major and minor version in a kernel's release."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def names_gpu(info: dict[str, Any]) -> bool:
    """Return whether a Docker engine names an NVIDIA GPU: a runtime, or a device of the container device interface.

    An engine may give GPUs by a hook that it does not name: this tells what to look at, not what must fail.
    """
    devices = info.get("DiscoveredDevices") or []
    return "nvidia" in (info.get("Runtimes") or {}) or any("nvidia.com" in str(device) for device in devices)
