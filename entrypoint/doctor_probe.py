"""What a container may do here: kernel, memory, page cache and snapshot, found out by trying, printed as JSON.

Command ``doctor-probe``: ``warmimage doctor`` puts this package into a container and runs it there, as the image's
user.  It changes nothing but the page cache: the pages that it measures with are dropped, then read again.
"""

from __future__ import annotations

import argparse
import ctypes
import glob
import json
import os
import re
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .kernel import proc
from .pagecache import syscalls

#: What a measurement of a disk reads at most.
READ_BYTES = 256 << 20
READ_SECONDS = 1.0

#: Part of a file that residency is tried on, in bytes: enough samples to tell, soon read again.
_TRIED_BYTES = 64 << 20

#: ``prctl`` of ``linux/prctl.h``: PR_SET_MM, and its option that asks for the size of ``struct prctl_mm_map``.
_SET_MM, _MAP_SIZE = 35, 15

#: A cgroup's limit that means none (version 1 writes the largest multiple of a page).
_NO_LIMIT = 1 << 60


def collect(closure: str = "", snapshot: str = "", *, measure: bool = False) -> dict[str, Any]:
    """Return what this process finds; what cannot be found out is ``{"error": REASON}``.

    Args:
        closure: path of the image's ``closure.json``; page cache and disk are tried on its files.
        snapshot: directory of the image's snapshot; empty looks at none.
        measure: also measure how fast the closure's files are read, which takes up to ``READ_SECONDS``.
    """
    try:
        files = by_size(closure_files(closure)) if closure else []
        recorded: dict[str, Any] = {"bytes": sum(os.path.getsize(path) for path in files)}
    except (OSError, ValueError, LookupError) as error:
        files, recorded = [], {"error": _reason(error)}
    finders: dict[str, Callable[[], object]] = {
        "privileges": privileges,
        "kernel": kernel,
        "memory": memory,
        "root": lambda: space("/"),
        "pagecache": lambda: page_cache(files),
        "closure": lambda: recorded,
        "cuda": lambda: cuda(files),
    }
    if measure:
        finders["rate"] = lambda: read_rate(files)
    if snapshot:
        finders["snapshot"] = lambda: captured(snapshot)
    return {name: _tried(finder) for name, finder in finders.items()}


def _tried(finder: Callable[[], object]) -> object:
    try:
        return finder()
    except Exception as error:  # one missing facility must not hide the others
        return {"error": _reason(error)}


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def privileges() -> dict[str, Any]:
    """Return the user's id and the seccomp mode: 0 for none, 2 for a filter."""
    return {"uid": os.getuid(), "seccomp": int(proc.status("self").get("Seccomp", "0"))}


def kernel() -> dict[str, Any]:
    """Return the kernel's release, and for each facility ``True`` or why it is not there."""
    thread = f"/proc/self/task/{os.getpid()}"
    facilities: dict[str, Callable[[], object]] = {
        "children": lambda: _text(f"{thread}/children"),
        "smaps_rollup": lambda: _text("/proc/self/smaps_rollup"),
        "pressure": lambda: _text("/proc/pressure/memory"),
        "io": lambda: _text("/proc/thread-self/io"),
        "pidfd": lambda: os.close(os.pidfd_open(os.getpid())),
        "mm_map": _mm_map,
    }
    found: dict[str, Any] = {"release": os.uname().release}
    for name, attempt in facilities.items():
        found[name] = _works(attempt)
    return found


def _mm_map() -> None:
    """Ask for the size of ``struct prctl_mm_map``: a kernel that restores no process does not know the option."""
    size = ctypes.c_uint()
    library = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if library.prctl(ctypes.c_int(_SET_MM), ctypes.c_ulong(_MAP_SIZE), ctypes.byref(size), zero, zero):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _works(attempt: Callable[[], object]) -> bool | str:
    """Return ``True``, or why an attempt failed."""
    try:
        attempt()
    except (OSError, AttributeError) as error:
        return _reason(error)
    return True


def memory() -> dict[str, Any]:
    """Return cgroup version, memory limit (``None`` without one), available memory and ``/dev/shm``, in bytes."""
    version = 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1
    limits = []
    if version == 2 and os.path.exists("/sys/fs/cgroup/memory.max"):
        limits = [_text("/sys/fs/cgroup/memory.max").strip()]
    elif os.path.exists("/sys/fs/cgroup/memory/memory.stat"):
        stat = _text("/sys/fs/cgroup/memory/memory.stat")  # what holds over this cgroup, from wherever above
        limits = [row.split()[1] for row in stat.splitlines() if row.startswith("hierarchical_memory_limit ")]
    numbers = [int(limit) for limit in limits if limit.isdigit() and int(limit) < _NO_LIMIT]
    info = {row.split(":")[0]: int(row.split()[1]) * 1024 for row in _text("/proc/meminfo").splitlines()}
    shared = os.statvfs("/dev/shm")  # noqa: S108 - asked for its size
    return {
        "cgroup": version,
        "limit": min(numbers, default=None),
        "total": info["MemTotal"],
        "available": info["MemAvailable"],
        "shared": shared.f_frsize * shared.f_blocks,
    }


def space(path: str) -> dict[str, Any]:
    """Return the file system that a path is on, and its free bytes for this user."""
    status = os.statvfs(path)
    mounts = [row.split() for row in _text("/proc/self/mounts").splitlines()]
    kinds = [row[2] for row in mounts if row[1] == path]
    return {"filesystem": kinds[-1] if kinds else "unknown", "free": status.f_frsize * status.f_bavail}


def closure_files(closure: str) -> Iterator[str]:
    """Yield the files that a closure names."""
    with open(closure, encoding="utf-8") as file:
        recorded = json.load(file)
    yield from recorded["files"]
    yield from recorded["libraries"]


def by_size(paths: Iterable[str]) -> list[str]:
    """Return the regular files among paths, the largest first."""
    sizes = {path: os.path.getsize(path) for path in paths if os.path.isfile(path)}
    return sorted(sizes, key=lambda path: -sizes[path])


def page_cache(files: Sequence[str]) -> dict[str, Any]:
    """Return what the kernel tells this process about the page cache.

    ``cachestat`` is tried on memory of our own; ``others`` says how residency can be told of the first file: ``asked``
    (the kernel answers), ``sampled`` (it does not, and ``mincore`` would call everything resident), or why neither.
    ``nowait`` is a read that takes what is resident and never waits.
    """
    found: dict[str, Any] = {"cachestat": _works(_cachestat_of_own)}
    if not files:
        return {**found, "others": None, "nowait": None}
    found["nowait"] = _works(lambda: _read_nowait(files[0]))
    found["others"] = _tried(lambda: _residency_of(files[0]))
    return found


def _cachestat_of_own() -> None:
    descriptor = os.memfd_create("warmimage")
    try:
        os.write(descriptor, bytes(resource.getpagesize()))
        syscalls.cachestat(descriptor)
    finally:
        os.close(descriptor)


def _read_nowait(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return  # not resident, and it said so
    finally:
        os.close(descriptor)


def _residency_of(path: str) -> dict[str, Any]:
    try:
        return {"how": "asked", "resident": syscalls.resident_bytes(path)}
    except PermissionError:
        pass  # a file of another owner: mincore would answer, but does it tell the truth?
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = min(os.fstat(descriptor).st_size, _TRIED_BYTES)
        os.posix_fadvise(descriptor, 0, size, os.POSIX_FADV_DONTNEED)
        claimed = syscalls.mincore(descriptor, size)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        before = syscalls.fetched_bytes()
        for offset in range(0, size, syscalls.STRIDE):
            os.preadv(descriptor, [bytearray(1)], offset)
        fetched = syscalls.fetched_bytes() - before
    finally:
        os.close(descriptor)
    pages = -(-size // resource.getpagesize())
    how = "sampled" if fetched else "unknown"  # nothing came from storage: nothing was learnt about mincore
    return {"how": how, "mincore_truthful": None if not fetched else claimed < pages}


def read_rate(
    files: Sequence[str], limit_bytes: int = READ_BYTES, limit_seconds: float = READ_SECONDS
) -> dict[str, Any]:
    """Read files from their start, one reader, after dropping what is to be read from the page cache.

    Returns:
        ``bytes`` read, ``seconds`` it took, and of these bytes ``fetched`` from storage, as the kernel accounts it for
        block devices (``None`` without that account).
    """
    buffer = bytearray(syscalls.BLOCK)
    done, seconds = 0, 0.0
    before = _fetched()
    for path in files:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = min(os.fstat(descriptor).st_size, limit_bytes - done)
            os.posix_fadvise(descriptor, 0, size, os.POSIX_FADV_DONTNEED)
            began = time.monotonic()
            offset = 0
            while offset < size and seconds + time.monotonic() - began < limit_seconds:
                offset += os.preadv(descriptor, [memoryview(buffer)[: size - offset]], offset) or size
            done += offset
            seconds += time.monotonic() - began
        finally:
            os.close(descriptor)
        if done >= limit_bytes or seconds >= limit_seconds:
            break
    after = _fetched()
    fetched = None if before is None or after is None else after - before
    return {"bytes": done, "seconds": seconds, "fetched": fetched}


def _fetched() -> int | None:
    try:
        return syscalls.fetched_bytes()
    except OSError:
        return None


def cuda(files: Sequence[str]) -> dict[str, Any]:
    """Return the CUDA that the closure's torch was built for, whether CUDA's compatibility libraries are here, GPUs."""
    # A directory above the package may be called torch too: the version file tells.
    packages = {path[: match.end()] for path in files for match in re.finditer("/torch(?=/)", path)}
    versions = [f"{package}/version.py" for package in sorted(packages) if os.path.exists(f"{package}/version.py")]
    found = re.search(r"^cuda\b.*= *'([\d.]+)'", _text(versions[0]), flags=re.MULTILINE) if versions else None
    return {
        "torch": found[1] if found else None,
        "compatibility": bool(glob.glob("/usr/local/cuda*/compat/libcuda.so*")),
        "devices": sorted(glob.glob("/dev/nvidia[0-9]*")),
    }


def captured(directory: str) -> dict[str, Any]:
    """Return what an image's snapshot says of itself, and which of its CPU's extensions this host lacks.

    Args:
        directory: where the image keeps it.

    Returns:
        ``captured``; where that is true, the manifest's ``kernel``, ``machine``, ``modules`` and ``bytes``, and
        ``lacking``, else ``declined``: the reason that the build left, empty where it left none.

    Raises:
        OSError, ValueError, LookupError, TypeError: the manifest is damaged.
    """
    try:
        manifest = json.loads(_text(os.path.join(directory, "manifest.json")))
    except FileNotFoundError:
        try:
            reason = " ".join(_text(os.path.join(directory, "declined")).split())
        except FileNotFoundError:
            reason = ""
        return {"captured": False, "declined": reason}
    found = {name: manifest[name] for name in ("kernel", "machine", "modules", "bytes")}
    lacking = sorted(set(manifest["cpu_features"]) - cpu_flags(_text("/proc/cpuinfo")))
    return {"captured": True, **found, "lacking": lacking}


def cpu_flags(cpuinfo: str) -> set[str]:
    """Return the first CPU's extensions as a text of ``/proc/cpuinfo`` names them, of x86 and of arm64."""
    row = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, flags=re.MULTILINE)
    return set(row[1].split()) if row else set()


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def main(arguments: Sequence[str]) -> int:
    """Print what was found and return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--closure", default="")
    parser.add_argument("--snapshot", default="")
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args(arguments)
    print(json.dumps(collect(options.closure, options.snapshot, measure=options.measure)))
    return 0
