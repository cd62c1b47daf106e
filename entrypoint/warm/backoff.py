"""Backing off: reading pauses while others wait for memory or for storage.

Our own reading makes pressure too, on storage most of all, and the kernel does not tell whose it is.  So for storage
the readers are held for a moment again and again, and what pressure there is without them is that of others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .pressure import RESOURCES, Pressure
from .rate_limit import RateLimiter

#: Share of time, 0 to 1, that others may wait for a resource before reading pauses.
LIMITS = {"memory": 0.1, "io": 0.3}

#: Seconds of reading from one look at the pressure to the next, and without readers to see that of others.
CHECK, QUIET = 2.0, 0.1

#: Seconds of the first pause, and of the longest: each is twice as long as the one before.
FIRST, LONGEST = 1.0, 30.0

#: Seconds that a reader may take to end its block before the pressure is measured all the same.
_PATIENCE = 2.0


@dataclass(frozen=True)
class Pause:
    """A pause that has begun or ended.

    Attributes:
        resource: what others waited for.
        share: the share of time in which they did, 0 to 1.
        seconds: how long reading has paused, 0 at the begin.
    """

    resource: str
    share: float
    seconds: float = 0.0


class BackOff:
    """Holds the readers while there is pressure.

    Args:
        rate: the readers' gate.
        stop: ends all waiting when set.
        tell: called when a pause begins and when it ends.
        pressures: by resource.
    """

    def __init__(
        self,
        rate_limiter: RateLimiter,
        stop: threading.Event,
        tell: Callable[[Pause], None],
        pressures: dict[str, Pressure] | None = None,
    ) -> None:
        self._rate_limiter = rate_limiter
        self._stop = stop
        self._tell = tell
        self._pressures = pressures or {resource: Pressure(resource) for resource in RESOURCES}
        self._checked = time.monotonic()
        self.count = dict.fromkeys(RESOURCES, 0)
        self.seconds = 0.0
        self.share = dict.fromkeys(RESOURCES, 0.0)
        self.holding = ""

    @property
    def known(self) -> bool:
        """Whether the kernel tells any pressure."""
        return any(pressure.known for pressure in self._pressures.values())

    def begin(self) -> None:
        """Measure from now on: reading begins."""
        self._checked = time.monotonic()
        self._pressures["memory"].share()

    def step(self) -> None:
        """Look at the pressure where it is time to, and come back when reading may go on."""
        if time.monotonic() - self._checked < CHECK or not self.known:
            return
        memory = self._measure("memory")
        resource = "memory" if memory > LIMITS["memory"] else ""
        if not resource:
            self._rate_limiter.pause(_PATIENCE)
            self._pressures["io"].share()
            self._stop.wait(QUIET)
            if self._measure("io") > LIMITS["io"]:
                resource = "io"
        if resource:
            self._pause(resource)
        self._rate_limiter.release()
        self.begin()

    def _pause(self, resource: str) -> None:
        """Hold the readers until nobody waits any more.

        For storage no longer than the longest pause: on a host that is always busy reading goes on at a trickle.
        """
        began = time.monotonic()
        self.holding = resource
        self.count[resource] += 1
        self._tell(Pause(resource, self.share[resource]))
        self._rate_limiter.pause(_PATIENCE)
        length = FIRST
        while not self._stop.is_set():
            for each in RESOURCES:
                self._pressures[each].share()
            self._stop.wait(length)
            over = [each for each in RESOURCES if self._measure(each) > LIMITS[each]]
            if not over or (over == ["io"] and length >= LONGEST):
                break
            length = min(2 * length, LONGEST)
        seconds = time.monotonic() - began
        self.seconds += seconds
        self.holding = ""
        self._tell(Pause(resource, self.share[resource], seconds))

    def _measure(self, resource: str) -> float:
        self.share[resource] = self._pressures[resource].share()
        return self.share[resource]
