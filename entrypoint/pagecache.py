"""The page cache: how much of a file is resident, and how to make it so."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import threading
from collections.abc import Callable

BLOCK = 16 << 20  # bytes per read: large enough for network file systems to stream, small enough to stop soon

#: Distance of two samples, in bytes: a sample costs some 10 microseconds, so a gigabyte costs 5 ms.
STRIDE = 2 << 20

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYS_CACHESTAT = 451  # the number on every architecture; Linux 6.5 and later


class _Range(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class _CacheStat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")]


def resident_bytes(path: str) -> int:
    """Return how many bytes of a file are in the page cache.

    Asks ``cachestat`` (Linux 6.5), else ``mincore`` on a mapping of the file.  The kernel answers neither for files of
    others that we may only read, as an image's are to its user: the first fails, the second would call every page
    resident (``can_do_mincore``).

    Raises:
        PermissionError: it is such a file; ``sampled_bytes`` may tell.
        OSError: the file cannot be opened, or neither call is allowed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            return 0
        with contextlib.suppress(OSError):
            return min(size, cachestat(descriptor) * mmap.PAGESIZE)
        if os.fstat(descriptor).st_uid == os.geteuid() or os.access(path, os.W_OK):
            return min(size, mincore(descriptor, size) * mmap.PAGESIZE)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
    finally:
        os.close(descriptor)


def cachestat(descriptor: int) -> int:
    """Return the number of resident pages of an open file, as ``cachestat`` tells it.

    Raises:
        OSError: the kernel is older than Linux 6.5, or does not tell of this file, or a filter forbids the call.
    """
    whole, result = _Range(0, 0), _CacheStat()
    if _LIBC.syscall(_SYS_CACHESTAT, descriptor, ctypes.byref(whole), ctypes.byref(result), 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result.cache)


def sampled_bytes(path: str) -> int:
    """Return about how many bytes of a file are resident, from one page in every ``STRIDE`` bytes.

    Reads each sample and looks whether the kernel charged this thread for fetching it from storage.  That holds for
    block devices, so for an image's layers; some network and FUSE file systems charge nobody, and look resident.

    Raises:
        OSError: the file cannot be read, or this kernel keeps no account of reads.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        page = bytearray(1)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no readahead: a sample fetches its own page alone
        size = os.fstat(descriptor).st_size
        offsets = range(0, size, STRIDE)
        resident = 0
        fetched = fetched_bytes()
        for offset in offsets:
            os.preadv(descriptor, [page], offset)
            before, fetched = fetched, fetched_bytes()
            resident += before == fetched
        return size * resident // len(offsets) if size else 0
    finally:
        os.close(descriptor)


def fetched_bytes() -> int:
    """Return how many bytes this thread has had fetched from storage."""
    with open("/proc/thread-self/io", encoding="ascii") as file:
        for row in file:
            if row.startswith("read_bytes:"):
                return int(row.split()[1])
    raise OSError(errno.ENOTSUP, "no account of reads", "/proc/thread-self/io")


def mincore(descriptor: int, size: int) -> int:
    """Return the number of resident pages of an open file."""
    pages = -(-size // mmap.PAGESIZE)
    vector = (ctypes.c_ubyte * pages)()
    # A private mapping, only so that ctypes can take the address of a file opened for reading; no page is touched.
    with mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapping:
        view = (ctypes.c_char * size).from_buffer(mapping)
        failed = _LIBC.mincore(ctypes.byref(view), ctypes.c_size_t(size), vector)
        number = ctypes.get_errno()
        del view
    if failed:
        raise OSError(number, os.strerror(number))
    return sum(entry & 1 for entry in vector)


def read_through(path: str, stop: threading.Event, limit: int | None = None) -> int:
    """Read a file from start to end so that its pages become resident; keep nothing of it.

    Args:
        path: the file.
        stop: ends the reading after the current block when set.
        limit: bytes to read at most.

    Returns:
        The bytes read.

    Raises:
        OSError: the file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # No larger than the file: most of an image's are small, and a block of zeros costs a millisecond to make.
        buffer = bytearray(min(BLOCK, max(os.fstat(descriptor).st_size, mmap.PAGESIZE)))
        done = 0
        while not stop.is_set() and (limit is None or done < limit):
            count = os.preadv(descriptor, [buffer], done)  # releases the GIL, so readers run side by side
            if count == 0:
                break
            done += count
        return done
    finally:
        os.close(descriptor)


def memory_headroom(read: Callable[[str], str | None] | None = None) -> int:
    """Return how many bytes of page cache this container can hold without pushing out memory in use.

    The host's ``MemAvailable``, or less where a memory cgroup (version 2 or 1) bounds the container: page cache is
    charged to the cgroup that first touches it.
    """
    read = read or _read
    headroom = 1 << 62
    for row in (read("/proc/meminfo") or "").splitlines():
        if row.startswith("MemAvailable:"):
            headroom = int(row.split()[1]) * 1024
    for limit_file, stat_file, anonymous in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", "anon"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.stat", "total_rss"),
    ):
        limit = (read(limit_file) or "").strip()
        if not limit.isdigit():
            continue
        used = [int(row.split()[1]) for row in (read(stat_file) or "").splitlines() if row.split()[0] == anonymous]
        headroom = min(headroom, max(0, int(limit) - sum(used)))
    return headroom


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return None
