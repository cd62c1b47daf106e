"""What is so at one moment, for whoever asks: a probe, a scrape, a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .budget import Budget
from .tracker import TargetTotals


@dataclass(frozen=True)
class WarmStatus:
    """What is so at one moment.

    Attributes:
        phase: ``starting``, ``looking``, ``reading``, ``waiting``.
        complete: whether all is resident that should be.
        ready: whether the server may start: all has been resident once, or the deadline has passed.
        reason: one line that says why.
        targets: by name.
        budget: what may be resident.
        limited: which limit keeps a part out of memory, or an empty string.
        locked: bytes that are pinned.
        refused: why no more is pinned, or an empty string.
        holding: the resource for whose pressure reading pauses now, or an empty string.
        rate: bytes per second that were read lately.
        backoffs: how often reading has paused, by resource.
        backoff_seconds: for how long, in all.
        pressure: share of time in which others waited when it was last measured, by resource.
        seconds: since the start.
    """

    phase: str
    complete: bool
    ready: bool
    reason: str
    targets: Mapping[str, TargetTotals]
    budget: Budget
    limited: str
    locked: int
    refused: str
    holding: str
    rate: float
    backoffs: Mapping[str, int]
    backoff_seconds: float
    pressure: Mapping[str, float]
    seconds: float
