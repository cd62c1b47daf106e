"""GPUs: the host's driver, the daemon's NVIDIA runtime, and the CUDA version of the image.

Sources of the tables: NVIDIA, CUDA Compatibility, "Minor Version Compatibility"
(https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html), and CUDA Toolkit Release Notes,
"CUDA Toolkit and Corresponding Driver Versions" (https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

from docker.errors import APIError

from ..docker_api.container_options import device_request
from ..image.host_compat import names_gpu
from .containers import ContainerFails, ask
from .finding import Observation
from .run import Facts
from .table import ITEMS
from .target import Target

Version = tuple[int, ...]

#: Oldest Linux driver by CUDA's major version: any of its minor versions runs on it.
MINIMUM_DRIVER: dict[int, Version] = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580,)}

#: The CUDA that a driver's branch brings.
DRIVER_CUDA: dict[int, Version] = {
    450: (11, 0),
    455: (11, 1),
    460: (11, 2),
    465: (11, 3),
    470: (11, 4),
    495: (11, 5),
    510: (11, 6),
    515: (11, 7),
    520: (11, 8),
    525: (12, 0),
    530: (12, 1),
    535: (12, 2),
    545: (12, 3),
    550: (12, 4),
    555: (12, 5),
    560: (12, 6),
    565: (12, 7),
    570: (12, 8),
    575: (12, 9),
    580: (13, 0),
    590: (13, 1),
}

_MODEL = re.compile(r"^Model:\s*(.+)$", re.MULTILINE)
_DRIVER = re.compile(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", re.MULTILINE)


def driver(target: Target, facts: Facts) -> Observation:
    """Is an NVIDIA driver loaded?  The fact is its version."""
    wanted = "image" in facts and facts["image"].plan.accelerator == "cuda"
    if not target.local:
        return Observation("remote", "unknown: the Docker daemon is on another host")
    path = target.proc / "driver" / "nvidia" / "version"
    if not path.exists() and target.proc == Path("/proc") and shutil.which("nvidia-smi"):
        return _from_nvidia_smi()  # under WSL the driver is Windows', and /proc has no entry of it
    if not path.exists():
        reason = "none" if wanted else "none, and none is needed"
        return Observation("needed" if wanted else "none", reason, "an NVIDIA driver" if wanted else "")
    match = _DRIVER.search(path.read_text(encoding="utf-8"))
    if not match:
        return Observation("unreadable", f"{path} names no version")
    entries = sorted((path.parent / "gpus").glob("*/information"))
    models = [match[1] for match in (_MODEL.search(entry.read_text(encoding="utf-8")) for entry in entries) if match]
    return _loaded(match[1], models)


def _from_nvidia_smi() -> Observation:
    command = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4, check=False)
    rows = [row.split(", ", 1) for row in done.stdout.splitlines() if ", " in row]
    if done.returncode or not rows:
        return Observation("unreadable", f"nvidia-smi: {(done.stdout or done.stderr).strip()[:200]}")
    return _loaded(rows[0][0], [name for _, name in rows])


def _loaded(version: str, models: list[str]) -> Observation:
    gpus = ", ".join(f"{models.count(name)} x {name}" for name in dict.fromkeys(models)) or "no GPU"
    return Observation("loaded", f"{version}, {gpus}", fact=_version(version))


def cuda(_target: Target, facts: Facts) -> Observation:
    """Does the driver support the image's CUDA version?"""
    examined = facts["image"]
    if examined.plan.accelerator != "cuda":
        return Observation("no_cuda", f"none: the image is for {examined.plan.accelerator}")
    inside = facts["container"]["cuda"] if "container" in facts else {}
    text, source = _cuda_of(examined.environment, inside)
    if not text:
        return Observation("unknown", "the image does not name its CUDA version")
    if "gpu.driver" not in facts:
        return Observation("no_driver", f"CUDA {text} ({source}); no driver to compare with")
    here: Version = facts["gpu.driver"]
    wanted = _version(text)
    own = DRIVER_CUDA.get(max((branch for branch in DRIVER_CUDA if branch <= here[0]), default=0), (0,))
    summary = f"CUDA {text} ({source}), driver {_text(here)}, which brings CUDA {_text(own)}"
    first = min((branch for branch, brought in DRIVER_CUDA.items() if brought >= wanted), default=0)
    fix_arguments = {"driver": str(first or f"one that brings CUDA {text}")}
    if own >= wanted[:2]:
        return Observation("covered", summary)
    required = re.search(r"cuda>=(\d+\.\d+)", examined.environment.get("NVIDIA_REQUIRE_CUDA", ""))
    disabled = examined.environment.get("NVIDIA_DISABLE_REQUIRE", "").lower() in ("1", "true")
    if wanted[0] in MINIMUM_DRIVER and here >= MINIMUM_DRIVER[wanted[0]]:
        if required and own < _version(required[1]) and not disabled:
            return Observation(
                "refused", f"{summary}; NVIDIA_REQUIRE_CUDA asks for {required[1]}", fix_arguments=fix_arguments
            )
        return Observation("minor", summary, fix_arguments=fix_arguments)
    fix_arguments = {"driver": _text(MINIMUM_DRIVER.get(wanted[0], ())) or fix_arguments["driver"]}
    expected = f"driver {fix_arguments['driver']} or later"
    return Observation("forward" if inside.get("compatibility") else "old", summary, expected, fix_arguments)


def _cuda_of(environment: dict[str, str], inside: dict[str, Any]) -> tuple[str, str]:
    """Return an image's CUDA version, and its source: torch, else a variable of the base image."""
    if inside.get("torch"):
        return str(inside["torch"]), "torch"
    if environment.get("CUDA_VERSION"):
        return environment["CUDA_VERSION"], "CUDA_VERSION"
    required = re.search(r"cuda>=(\d+\.\d+)", environment.get("NVIDIA_REQUIRE_CUDA", ""))
    return (required[1], "NVIDIA_REQUIRE_CUDA") if required else ("", "")


def runtime(_target: Target, facts: Facts) -> Observation:
    """Has the daemon an NVIDIA runtime, or a device of the container device interface?"""
    if names_gpu(facts["docker"]):
        return Observation("named", "an NVIDIA runtime or device")
    wanted = "image" in facts and facts["image"].plan.accelerator == "cuda"
    return Observation("needed" if wanted else "none", "no NVIDIA runtime or device")


def container(target: Target, facts: Facts) -> Observation | None:
    """Does a container get the GPUs of ``--gpus``?"""
    if not target.gpus:
        return None
    if "image" not in facts:
        return Observation("skipped", f"not checked: needs {ITEMS['image'].title}")
    plan = facts["image"].plan
    request = device_request(target.gpus)
    with closing(target.client()) as client:
        try:
            options: dict[str, Any] = {"cap_drop": ["ALL"] if plan.user else [], "device_requests": [request]}
            report = ask(client, target, str(target.image), plan, [], **options)
        except (ContainerFails, APIError) as error:
            return Observation("not_given", str(error), f"--gpus {target.gpus}")
    devices = report["cuda"]["devices"]
    return Observation(
        "given" if devices else "not_given", ", ".join(devices) or "no GPU inside", f"--gpus {target.gpus}"
    )


def _version(text: str) -> Version:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _text(version: Version) -> str:
    return ".".join(str(part) for part in version)
