"""How much may be resident: what was allowed, or what memory can hold; and which limit it is that holds less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..pagecache.headroom import Limit, limits
from . import sizes

#: Share of the memory that a bound leaves for the page cache that may be filled; above it the kernel takes back pages
#: that are in use, and the kubelet counts down to an eviction.
SHARE = 0.9

_HOST = "/proc/meminfo"


@dataclass(frozen=True)
class Budget:
    """How much may be resident.

    Attributes:
        size: bytes.
        given: whether that is what was allowed, and not less.
        bound: what it is bound by, in words.
    """

    size: int
    given: bool
    bound: str


def budget(allowed: int | None, pinned: int = 0, found: Sequence[Limit] | None = None) -> Budget:
    """Return how much may be resident now.

    Args:
        allowed: what ``--budget`` says.
        pinned: bytes that are pinned by ourselves, which the host does not count as available.
        found: the bounds on memory, by default those of this process.
    """
    bounds = limits() if found is None else found
    rooms = [(int((each.room + (pinned if each.source == _HOST else 0)) * SHARE), each) for each in bounds]
    room, tightest = min(rooms, key=lambda pair: pair[0], default=(1 << 62, None))
    if allowed is not None and allowed <= room:
        return Budget(allowed, True, f"the budget of {sizes.format_binary(allowed)}")
    if tightest is None:
        return Budget(room, False, "nothing")
    if tightest.source == _HOST:
        return Budget(room, False, f"this host has {sizes.format_binary(tightest.room)} of memory available")
    return Budget(
        room,
        False,
        f"the container's memory limit of {sizes.format_binary(tightest.limit)} ({tightest.source}) leaves "
        f"{sizes.format_binary(tightest.room)} for the page cache",
    )
