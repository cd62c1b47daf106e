"""The page cache: how much of a file is resident, and how to make it so.

Stands alone: ``warmimage doctor`` takes this file into containers of images that have none of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os

#: Bytes per read: large enough for network file systems to stream, small enough to stop soon.
BLOCK = 16 << 20

#: Distance of two samples, in bytes: a sample costs some 10 microseconds, so a gigabyte costs 5 ms.
STRIDE = 2 << 20

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
_LIBC.readahead.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_size_t]
_LIBC.readahead.restype = ctypes.c_ssize_t

_SYS_CACHESTAT = 451  # the number on every architecture; Linux 6.5 and later
_MADV_POPULATE_READ = 22  # Linux 5.14 and later


class _Range(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class _CacheStat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")]


def resident_bytes(path: str) -> int:
    """Return how many bytes of a file are in the page cache.

    Raises:
        PermissionError: the kernel does not tell of this file, see ``resident_range``.
        OSError: the file cannot be opened, or neither call is allowed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return resident_range(descriptor, 0, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def resident_range(descriptor: int, offset: int, length: int) -> int:
    """Return how many bytes of a part of an open file are in the page cache.

    Asks ``cachestat`` (Linux 6.5), else ``mincore`` on a mapping of the part.  The kernel answers neither for files of
    others that we may only read, as an image's are to its user: the first fails, the second would call every page
    resident (``can_do_mincore``).

    Args:
        descriptor: the open file.
        offset: where the part begins, in bytes: a multiple of the page size.
        length: its bytes.

    Raises:
        PermissionError: it is such a file.
        OSError: neither call is allowed.
    """
    if length <= 0:
        return 0
    try:
        return min(length, cachestat(descriptor, offset, length) * mmap.PAGESIZE)
    except OSError as error:
        if error.errno == errno.EPERM:
            refused: OSError | None = error
        else:
            refused = None  # an older kernel, or a filter that forbids the call
    link = f"/proc/self/fd/{descriptor}"
    if os.fstat(descriptor).st_uid == os.geteuid() or os.access(link, os.W_OK):
        return min(length, mincore(descriptor, length, offset) * mmap.PAGESIZE)
    raise refused or PermissionError(errno.EPERM, os.strerror(errno.EPERM), link)


def cachestat(descriptor: int, offset: int = 0, length: int = 0) -> int:
    """Return the number of resident pages of an open file, or of a part of it, as ``cachestat`` tells it.

    Raises:
        OSError: the kernel is older than Linux 6.5, or does not tell of this file, or a filter forbids the call.
    """
    part, result = _Range(offset, length), _CacheStat()
    if _LIBC.syscall(_SYS_CACHESTAT, descriptor, ctypes.byref(part), ctypes.byref(result), 0):
        raise _failed()
    return int(result.cache)


def fetched_bytes() -> int:
    """Return how many bytes this thread has had fetched from storage.

    That holds for block devices, so for an image's layers; some network and FUSE file systems charge nobody.

    Raises:
        OSError: this kernel keeps no account of reads.
    """
    with open("/proc/thread-self/io", encoding="ascii") as file:
        for row in file:
            if row.startswith("read_bytes:"):
                return int(row.split()[1])
    raise OSError(errno.ENOTSUP, "no account of reads", "/proc/thread-self/io")


def mincore(descriptor: int, size: int, offset: int = 0) -> int:
    """Return the number of resident pages in ``size`` bytes of an open file from ``offset``."""
    vector = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    address = mapped(descriptor, offset, size)
    try:
        if _LIBC.mincore(address, size, vector):
            raise _failed()
    finally:
        unmap(address, size)
    return sum(entry & 1 for entry in vector)


def populate(descriptor: int, offset: int, length: int, *advice: int) -> None:
    """Make a part of an open file resident by mapping it for a moment; nothing is copied.

    Raises:
        OSError: the kernel is older than Linux 5.14, or the part cannot be read, such as behind the file's end.
    """
    address = mapped(descriptor, offset, length)
    try:
        for hint in advice:
            _LIBC.madvise(address, length, hint)  # a kernel that does not know it reads all the same
        if _LIBC.madvise(address, length, _MADV_POPULATE_READ):
            raise _failed()
    finally:
        unmap(address, length)


def readahead(descriptor: int, offset: int, length: int) -> None:
    """Ask the kernel to read a part of an open file; it may read less, and returns before it is there.

    Raises:
        OSError: the file system has no page cache, or the descriptor is no file's.
    """
    if _LIBC.readahead(descriptor, offset, length):
        raise _failed()


def fetch_range(descriptor: int, offset: int, length: int) -> int:
    """Make a part of an open file resident, in the way that was measured to be the best (docs/prefetch.md).

    Args:
        descriptor: the open file.
        offset: where the part begins, in bytes: a multiple of the page size.
        length: its bytes.

    Returns:
        How many bytes there were: fewer where the file has become shorter.

    Raises:
        OSError: it cannot be read.
    """
    if length > STRIDE:  # for less, making a mapping costs more than a copy
        # Reading tells better what is wrong: no such call before Linux 5.14, no mapping of this file, no such page.
        with contextlib.suppress(OSError):
            populate(descriptor, offset, length, mmap.MADV_HUGEPAGE)
            return length
    buffer = bytearray(min(length, STRIDE))
    done = 0
    while done < length:
        with memoryview(buffer) as view:
            count = os.preadv(descriptor, [view[: length - done]], offset + done)  # releases the GIL
        if count == 0:
            break
        done += count
    return done


def mapped(descriptor: int, offset: int, length: int) -> int:
    """Map a part of an open file for reading, and return the address; no page is touched."""
    address = _LIBC.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, offset)
    if address in (None, ctypes.c_void_p(-1).value):
        raise _failed()
    return int(address)


def unmap(address: int, length: int) -> None:
    """Undo ``mapped``."""
    _LIBC.munmap(address, length)


def _failed() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
