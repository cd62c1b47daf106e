"""How fast is read: a rate that is not exceeded, a gate that holds all readers, and the lowest priority of all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import threading
import time
from collections.abc import Iterator

_SYS_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IOPRIO_WHO_PROCESS, _IOPRIO_IDLE = 1, 3 << 13
_NICEST = 19

#: Bytes of a read: each reader has a buffer of that size, which counts for the container's memory as the files do.
BLOCK = 4 << 20

#: Smallest read, in bytes, to which a low rate is cut.
_SMALLEST = 64 << 10


class RateLimiter:
    """Lets readers read.

    Args:
        rate: bytes per second at most, ``None`` for any.
        stop: ends all waiting when set.
    """

    def __init__(self, rate: int | None, stop: threading.Event) -> None:
        self._rate = rate
        self._stop = stop
        self._changed = threading.Condition()
        self._held = False
        self._reading = 0
        self._free_at = time.monotonic()

    @property
    def block(self) -> int:
        """Bytes to read at once: four reads a second where a rate is low."""
        return BLOCK if self._rate is None else max(_SMALLEST, min(BLOCK, self._rate // 4 // _SMALLEST * _SMALLEST))

    @contextlib.contextmanager
    def acquire(self, size: int) -> Iterator[bool]:
        """Wait until ``size`` bytes may be read, and give the turn back after the block; false says to stop."""
        with self._changed:
            while True:
                wait = self._free_at - time.monotonic() if self._rate else 0.0
                if self._stop.is_set():
                    break
                if not self._held and wait <= 0:
                    break
                self._changed.wait(0.2 if self._held else min(wait, 0.2))
            if self._rate:
                self._free_at = max(self._free_at, time.monotonic()) + size / self._rate
            self._reading += 1
        try:
            yield not self._stop.is_set()
        finally:
            with self._changed:
                self._reading -= 1
                self._changed.notify_all()

    def pause(self, seconds: float) -> bool:
        """Let nobody begin to read any more, and return whether all have ended within ``seconds``."""
        with self._changed:
            self._held = True
            return self._changed.wait_for(lambda: not self._reading, seconds)

    def release(self) -> None:
        """Let readers go on."""
        with self._changed:
            self._held = False
            self._changed.notify_all()


def lower_priority() -> None:
    """Give this thread the lowest priority for the processor, and the idle class for storage.

    Needs no privilege.  What a kernel or a filter refuses is left as it is: there the rate and the pressure remain.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICEST)
    number = _SYS_IOPRIO_SET.get(platform.machine())
    if number:
        ctypes.CDLL(None).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)
