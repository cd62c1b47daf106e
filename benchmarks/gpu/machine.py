"""The machine: whether it has a GPU, its facts, its page cache, and when its GPU is free again."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from warmimage.entrypoint.kernel.gpus import Accelerator

#: MiB of GPU memory below which nobody uses it.
FREE = 2000

_PATIENCE = 60.0


def missing(accelerator: str) -> str:
    """Return why nothing can be measured here, or an empty string."""
    if os.geteuid() != 0:
        return f"user id {os.geteuid()}, not root: capturing and dropping the page cache need it"
    if accelerator == "cuda" and not gpus():
        return "no NVIDIA GPU: nvidia-smi does not name one"
    return ""


def gpus() -> list[str]:
    """Return name and driver of each GPU, none where there is no driver."""
    return _smi("--query-gpu=name,driver_version,memory.total")


def facts() -> dict[str, Any]:
    """Return what figures must be read with."""
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) * 1024
    models = [row for row in Path("/proc/cpuinfo").read_text().splitlines() if row.startswith("model name")]
    return {
        "gpus": gpus(),
        "accelerator": Accelerator.here().to_dict(),
        "kernel": os.uname().release,
        "cpus": os.cpu_count(),
        "cpu": models[0].partition(":")[2].strip() if models else "",
        "memory_bytes": memory,
        "wall": time.time(),
    }


def wait_free() -> float:
    """Wait until nobody uses the GPU's memory, and return the seconds that it took.

    Raises:
        TimeoutError: it stays in use.
    """
    began = time.monotonic()
    while time.monotonic() - began < _PATIENCE:
        used = _smi("--query-gpu=memory.used", units="nounits")
        if all(int(row) < FREE for row in used):
            return time.monotonic() - began
        time.sleep(0.2)
    raise TimeoutError(f"the GPU's memory stays in use: {used} MiB")


def used_memory() -> list[str]:
    """Return the processes that use a GPU, and how much of its memory."""
    return [*_smi("--query-compute-apps=pid,used_memory"), *_smi("--query-gpu=memory.used")]


def drop_page_cache() -> None:
    """Write out what is dirty, and drop the page cache of the whole machine, directories and all."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")


def _smi(query: str, units: str = "nounits") -> list[str]:
    try:
        done = subprocess.run(
            ["nvidia-smi", query, f"--format=csv,noheader,{units}"], capture_output=True, text=True, check=False
        )
    except OSError:
        return []
    return [row.strip() for row in done.stdout.splitlines()] if done.returncode == 0 else []
