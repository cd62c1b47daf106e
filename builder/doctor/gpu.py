"""GPUs: the host's driver, what the daemon gives containers, and the CUDA that the image was built for.

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
from .finding import Seen
from .probe import Facts
from .table import ITEMS
from .target import Subject

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


def driver(subject: Subject, facts: Facts) -> Seen:
    """Is an NVIDIA driver loaded?  The fact is its version."""
    wanted = "image" in facts and facts["image"].plan.accelerator == "cuda"
    if not subject.local:
        return Seen("remote", "not visible: the daemon is on another host")
    path = subject.proc / "driver" / "nvidia" / "version"
    if not path.exists() and subject.proc == Path("/proc") and shutil.which("nvidia-smi"):
        return _asked()  # under WSL the driver is Windows', and /proc does not tell of it
    if not path.exists():
        reason = "none" if wanted else "none; nothing here needs one"
        return Seen("needed" if wanted else "none", reason, "an NVIDIA driver" if wanted else "")
    match = _DRIVER.search(path.read_text(encoding="utf-8"))
    if not match:
        return Seen("unreadable", f"{path} names no version")
    folders = sorted((path.parent / "gpus").glob("*/information"))
    models = [found[1] for found in (_MODEL.search(entry.read_text(encoding="utf-8")) for entry in folders) if found]
    return _loaded(match[1], models)


def _asked() -> Seen:
    command = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4, check=False)
    rows = [row.split(", ", 1) for row in done.stdout.splitlines() if ", " in row]
    if done.returncode or not rows:
        return Seen("unreadable", f"nvidia-smi: {(done.stdout or done.stderr).strip()[:200]}")
    return _loaded(rows[0][0], [name for _, name in rows])


def _loaded(version: str, models: list[str]) -> Seen:
    gpus = ", ".join(f"{models.count(name)} x {name}" for name in dict.fromkeys(models)) or "no GPU"
    return Seen("loaded", f"{version}, {gpus}", fact=_version(version))


def cuda(_subject: Subject, facts: Facts) -> Seen:
    """Does the driver run the CUDA that the image was built for?"""
    report = facts["image"]
    if report.plan.accelerator != "cuda":
        return Seen("no_cuda", f"none: the image is for {report.plan.accelerator}")
    inside = facts["container"]["cuda"] if "container" in facts else {}
    text, source = _cuda_of(report.environment, inside)
    if not text:
        return Seen("unknown", "the image does not say for which CUDA it was built")
    if "gpu.driver" not in facts:
        return Seen("no_driver", f"CUDA {text} ({source}); no driver to compare with")
    here: Version = facts["gpu.driver"]
    wanted = _version(text)
    own = DRIVER_CUDA.get(max((branch for branch in DRIVER_CUDA if branch <= here[0]), default=0), (0,))
    found = f"CUDA {text} ({source}), driver {_text(here)}, which brings CUDA {_text(own)}"
    first = min((branch for branch, brought in DRIVER_CUDA.items() if brought >= wanted), default=0)
    words = {"driver": str(first or f"one that brings CUDA {text}")}
    if own >= wanted[:2]:
        return Seen("covered", found)
    required = re.search(r"cuda>=(\d+\.\d+)", report.environment.get("NVIDIA_REQUIRE_CUDA", ""))
    disabled = report.environment.get("NVIDIA_DISABLE_REQUIRE", "").lower() in ("1", "true")
    if wanted[0] in MINIMUM_DRIVER and here >= MINIMUM_DRIVER[wanted[0]]:
        if required and own < _version(required[1]) and not disabled:
            return Seen("refused", f"{found}; NVIDIA_REQUIRE_CUDA asks for {required[1]}", words=words)
        return Seen("minor", found, words=words)
    words = {"driver": _text(MINIMUM_DRIVER.get(wanted[0], ())) or words["driver"]}
    expected = f"driver {words['driver']} or later"
    return Seen("forward" if inside.get("compatibility") else "old", found, expected, words)


def _cuda_of(environment: dict[str, str], inside: dict[str, Any]) -> tuple[str, str]:
    """Return the CUDA that an image was built for, and what says so; torch's own word counts first."""
    if inside.get("torch"):
        return str(inside["torch"]), "torch"
    if environment.get("CUDA_VERSION"):
        return environment["CUDA_VERSION"], "CUDA_VERSION"
    required = re.search(r"cuda>=(\d+\.\d+)", environment.get("NVIDIA_REQUIRE_CUDA", ""))
    return (required[1], "NVIDIA_REQUIRE_CUDA") if required else ("", "")


def runtime(_subject: Subject, facts: Facts) -> Seen:
    """Does the daemon name an NVIDIA runtime, or a device of the container device interface?"""
    if names_gpu(facts["docker"]):
        return Seen("named", "an NVIDIA runtime or device")
    wanted = "image" in facts and facts["image"].plan.accelerator == "cuda"
    return Seen("needed" if wanted else "none", "no NVIDIA runtime or device is named")


def container(subject: Subject, facts: Facts) -> Seen | None:
    """Does a container get the GPUs that were asked for?"""
    if not subject.gpus:
        return None
    if "image" not in facts:
        return Seen("skipped", f"not looked at: needs {ITEMS['image'].title}")
    plan = facts["image"].plan
    request = device_request(subject.gpus)
    with closing(subject.client()) as client:
        try:
            options: dict[str, Any] = {"cap_drop": ["ALL"] if plan.user else [], "device_requests": [request]}
            found = ask(client, subject, str(subject.image), plan, [], **options)
        except (ContainerFails, APIError) as error:
            return Seen("not_given", str(error), f"--gpus {subject.gpus}")
    devices = found["cuda"]["devices"]
    return Seen("given" if devices else "not_given", ", ".join(devices) or "no GPU inside", f"--gpus {subject.gpus}")


def _version(text: str) -> Version:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _text(version: Version) -> str:
    return ".".join(str(part) for part in version)
