"""What a container has used: the host's counts of its control groups and processes, else the Docker daemon's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker.errors import APIError
from docker.models.containers import Container

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Usage:
    """The usage up to one moment; ``None`` for a figure that is not available.

    Attributes:
        figures: ``cpu`` in seconds, ``read``, ``memory``, ``rss``, ``pss`` in bytes.
        missing: the reason, by the figure's name.
    """

    figures: dict[str, float | None]
    missing: dict[str, str] = field(default_factory=dict)


def local_pid(container: Container) -> int:
    """Return the process id of a container's PID 1 on this host, or 0 if its Docker daemon is on another machine."""
    pid = int(container.attrs["State"].get("Pid") or 0)
    try:
        return pid if str(container.id) in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8") else 0
    except OSError:
        return 0


def read(container: Container) -> Usage:
    """Return the usage of a running container.  Called once, at the first token, because reading takes time."""
    pid = local_pid(container)
    if not pid:
        return _counts_of_daemon(container)
    groups = dict(_groups(pid))
    figures: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    readers: dict[str, Callable[[], float | None]] = {
        "cpu": lambda: _cpu(groups),
        "read": lambda: _read_bytes(groups),
        "memory": lambda: _memory(groups),
        "rss": lambda: _sum(groups, "status", "VmHWM:"),
        "pss": lambda: _sum(groups, "smaps_rollup", "Pss:"),
    }
    for name, reader in readers.items():
        try:
            figures[name] = reader()
            if figures[name] is None:
                missing[name] = "this kernel has no such counter for the container"
        except OSError as error:
            figures[name] = None
            missing[name] = f"{error.strerror}: {_general(str(error.filename))}"
    return Usage(figures, missing)


def _general(path: str) -> str:
    """Return a path with placeholders for the process id and the container's id, the same for every run."""
    parts = ("PID" if part.isdigit() else part for part in path.split("/"))
    return "/".join("ID" if len(part) >= 64 else part for part in parts)


def _groups(pid: int) -> Iterator[tuple[str, Path]]:
    """Yield the container's control groups by controller; version 2's, with all controllers, under an empty name."""
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller.removeprefix("name="), _CGROUPS / controller.removeprefix("name=") / path.lstrip("/")


def _cpu(groups: dict[str, Path]) -> float | None:
    if "cpuacct" in groups:
        return int((groups["cpuacct"] / "cpuacct.usage").read_text(encoding="ascii")) / 1e9
    fields = dict(line.split() for line in (groups[""] / "cpu.stat").read_text(encoding="ascii").splitlines())
    return int(fields["usage_usec"]) / 1e6 if "usage_usec" in fields else None


def _read_bytes(groups: dict[str, Path]) -> float | None:
    by_device: dict[str, int] = {}
    if "blkio" in groups:
        text = (groups["blkio"] / "blkio.throttle.io_service_bytes_recursive").read_text(encoding="ascii")
        for line in text.splitlines():
            fields = line.split()
            if len(fields) == 3 and fields[1] == "Read":
                by_device[fields[0]] = int(fields[2])
    else:
        for line in (groups[""] / "io.stat").read_text(encoding="ascii").splitlines():
            device, *fields = line.split()
            counts = dict(field.split("=", 1) for field in fields if "=" in field)
            by_device[device] = int(counts.get("rbytes", 0))
    # A device on top of others (LVM, encryption) counts the same bytes again.
    if not by_device:
        return None  # version 1 has the file, but counts only while reads are throttled
    return float(sum(count for device, count in by_device.items() if not _below(device) & set(by_device)))


def _below(device: str) -> set[str]:
    """Return the numbers of the devices below a block device."""
    directory = Path(f"/sys/dev/block/{device}/slaves")
    try:
        return {(entry / "dev").read_text(encoding="ascii").strip() for entry in directory.iterdir()}
    except OSError:
        return set()


def _memory(groups: dict[str, Path]) -> float | None:
    file = groups["memory"] / "memory.max_usage_in_bytes" if "memory" in groups else groups[""] / "memory.peak"
    return float(file.read_text(encoding="ascii"))


def _sum(groups: dict[str, Path], file: str, key: str) -> float | None:
    """Return the sum over the container's processes of one line, in bytes, of their files in ``/proc``."""
    group = groups.get("memory") or groups.get("pids") or groups[""]
    pids = [pid for procs in group.rglob("cgroup.procs") for pid in procs.read_text(encoding="ascii").split()]
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(key))
    return float(total * 1024) if total else None


def _counts_of_daemon(container: Container) -> Usage:
    """Return the Docker daemon's own counts, for a daemon on another machine."""
    elsewhere = "the Docker daemon runs on another machine"
    missing = {"rss": elsewhere, "pss": elsewhere}
    figures: dict[str, float | None] = {"rss": None, "pss": None, "cpu": None, "read": None, "memory": None}
    try:
        stats: dict[str, Any] = container.stats(stream=False, one_shot=True)  # type: ignore[assignment]  # no stream
    except APIError as error:
        return Usage(figures, missing | dict.fromkeys(("cpu", "read", "memory"), str(error.explanation)[:200]))
    figures["cpu"] = stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    entries = stats["blkio_stats"].get("io_service_bytes_recursive")
    if entries is None:
        missing["read"] = "the Docker daemon's machine counts no reads"
    else:
        figures["read"] = float(sum(entry["value"] for entry in entries if entry["op"].lower() == "read"))
    figures["memory"] = stats["memory_stats"].get("max_usage")
    if figures["memory"] is None:
        missing["memory"] = "the Docker daemon counts no peak"
    return Usage(figures, missing)
