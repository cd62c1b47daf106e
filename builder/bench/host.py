"""The machine of the measurement: its facts, and the load of other processes."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker

from .result import Host

#: Programs that Docker runs to create and publish a container.  Every start needs them: they are not "others".
#: Names as the kernel keeps them, fifteen letters at most.
_DOCKER_PROGRAMS = frozenset({"dockerd", "containerd", "containerd-shim", "docker-proxy", "runc", "docker-init"})

_TICKS = os.sysconf("SC_CLK_TCK")


def describe(client: docker.DockerClient) -> Host:
    """Return this machine's facts."""
    version = client.version()
    return Host(
        cpu=_cpu_model(),
        cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        docker=f"Docker {version['Version']}",
        gpus=_gpus(),
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _gpus() -> tuple[str, ...]:
    """Return name and driver of each NVIDIA GPU; empty if there is none."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines()) if done.returncode == 0 else ()


@dataclass(frozen=True)
class Load:
    """The machine's counters so far.

    Attributes:
        at: monotonic time.
        busy: CPU seconds of all processes.
        own: CPU seconds of the measurement's processes, by process.
        disk_bytes: bytes read from all disks.
    """

    at: float
    busy: float
    own: dict[tuple[str, str], float]
    disk_bytes: int

    @classmethod
    def now(cls) -> Load:
        """Read the counters.

        This process, Docker's programs and the kernel's threads count as part of the measurement, because they work for
        it.
        """
        # user, nice, system, idle, iowait, irq, softirq, steal: the hypervisor's time counts as others'.
        fields = [int(word) for word in _first_line("/proc/stat").split()[1:9]]
        busy = (sum(fields) - fields[3] - fields[4]) / _TICKS
        return cls(time.monotonic(), busy, dict(_own_seconds()), _disk_bytes())

    def others_since(self, before: Load, container_seconds: float) -> float:
        """Return the share of all CPUs that other processes used between two readings, 0 to 1."""
        own = sum(seconds - before.own.get(process, 0.0) for process, seconds in self.own.items())
        others = self.busy - before.busy - own - container_seconds
        return min(1.0, max(0.0, others / ((self.at - before.at) * (os.cpu_count() or 1))))


def _own_seconds() -> Iterator[tuple[tuple[str, str], float]]:
    """Yield process id, start time and CPU seconds of the measurement's processes, including ended children."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = _first_line(f"/proc/{entry}/stat")
        except OSError:
            continue  # it has ended
        name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        of_kernel = fields[1] in ("0", "2") and entry != "1"
        if of_kernel or name in _DOCKER_PROGRAMS or entry == str(os.getpid()):
            ticks = sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
            yield (entry, fields[19]), ticks / _TICKS


def _disk_bytes() -> int:
    """Return the bytes read from this machine's disks, without disks that lie on other disks."""
    sectors = 0
    for device in Path("/sys/block").iterdir():
        if not device.name.startswith(("loop", "ram", "zram")) and not any((device / "slaves").glob("*")):
            sectors += int(_first_line(str(device / "stat")).split()[2])
    return sectors * 512


def _first_line(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline()
