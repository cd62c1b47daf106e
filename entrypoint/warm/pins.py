"""Pinning: files that are resident stay so, because they are mapped and locked in memory (``mlock``)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterable

from ..pagecache.syscalls import mapped, unmap
from .tracker import TrackedFile

#: Bytes that one call locks: it reads what is not there, and cannot be stopped.
STEP = 64 << 20

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Pins:
    """Locked files.  What they lock is charged to this container, and is let go when its process ends."""

    def __init__(self) -> None:
        self._locked: dict[str, tuple[int, int, tuple[int, int]]] = {}
        self._begun = 0  # bytes of the file that is being locked
        self.refused = ""

    @property
    def size(self) -> int:
        """Bytes that are locked."""
        return self._begun + sum(length for _, length, _ in list(self._locked.values()))

    def keep(self, files: Iterable[TrackedFile], go: Callable[[], bool] = lambda: True) -> None:
        """Lock the share of these files, and let go of all others; ends where the kernel allows no more.

        Args:
            files: resident, for what of them is missing would be read.
            go: asked again and again whether to go on.
        """
        wanted = {file.path: file for file in files if file.share}
        for path in [path for path in self._locked if path not in wanted]:
            self._let_go(path)
        self.refused = ""
        for path, file in wanted.items():
            try:
                if not self._lock(path, file.share, go):
                    return
            except OSError as error:
                self.refused = f"{path}: {error.strerror}"
                return

    def _lock(self, path: str, length: int, go: Callable[[], bool]) -> bool:
        """Lock a file, unless it is; return false where it was told not to go on."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            length, identity = min(length, status.st_size), (status.st_dev, status.st_ino)
            if path in self._locked:
                if self._locked[path][1:] == (length, identity):
                    return True
                self._let_go(path)
            if not length:
                return True
            address = mapped(descriptor, 0, length)
        finally:
            os.close(descriptor)
        try:
            for self._begun in range(0, length, STEP):
                if not go():
                    unmap(address, length)
                    return False
                if _LIBC.mlock(address + self._begun, min(STEP, length - self._begun)):
                    failure = _error()
                    unmap(address, length)
                    raise failure
            self._locked[path] = (address, length, identity)
        finally:
            self._begun = 0
        return True

    def _let_go(self, path: str) -> None:
        address, length, _ = self._locked.pop(path)
        unmap(address, length)


def drop(files: Iterable[TrackedFile]) -> None:
    """Have files dropped from the page cache, but for what other processes have mapped."""
    for file in files:
        with contextlib.suppress(OSError):  # it is gone, and so are its pages
            descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _error() -> OSError:
    number = ctypes.get_errno()
    reasons = {1: "not permitted", 12: "more than RLIMIT_MEMLOCK or memory allow", 11: "memory is short"}
    return OSError(number, reasons.get(number, os.strerror(number)))
