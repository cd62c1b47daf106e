"""Pressure: the share of time in which somebody waited for memory or for storage, as the kernel accounts it (PSI)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..pagecache.headroom import text_of

#: Where it is told: for the whole host, and for this container where cgroups are of version 2.
SCOPES = {
    "host": "/proc/pressure/{resource}",
    "cgroup": "/sys/fs/cgroup/{resource}.pressure",
}

RESOURCES = ("memory", "io")


class Pressure:
    """The pressure on one resource since it was last asked for.

    The kernel's own averages are over ten seconds and more; the sum beside them is as new as the reading.

    Args:
        resource: ``memory`` or ``io``.
        read: returns a file's text, ``None`` where it cannot be read.
    """

    def __init__(self, resource: str, read: Callable[[str], str | None] | None = None) -> None:
        self._read = read or text_of
        self._paths = [path.format(resource=resource) for path in SCOPES.values()]
        self._before = [stalled(self._read(path)) for path in self._paths]
        self._moment = time.monotonic()

    @property
    def known(self) -> bool:
        """Whether the kernel tells it to this container."""
        return any(seconds is not None for seconds in self._before)

    def share(self) -> float:
        """Return the share of time since the last call, 0 to 1, in which at least one task waited.

        The highest of host and container; 0 where the kernel does not tell.
        """
        now = time.monotonic()
        elapsed, self._moment = now - self._moment, now
        after = [stalled(self._read(path)) for path in self._paths]
        shares = [
            min(1.0, (new - old) / elapsed)
            for old, new in zip(self._before, after, strict=True)
            if old is not None and new is not None and elapsed > 0
        ]
        self._before = after
        return max(shares, default=0.0)


def stalled(text: str | None) -> float | None:
    """Return the seconds in which at least one task waited, from the text of a pressure file."""
    for row in (text or "").splitlines():
        words: Sequence[str] = row.split()
        if words[:1] == ["some"] and words[-1].startswith("total="):
            return int(words[-1][len("total=") :]) / 1e6
    return None
