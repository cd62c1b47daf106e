"""The rungs of the start-up ladder, from the fastest down.  A new rung is a module here and a line in ``TIERS``."""

from __future__ import annotations

from .base import Declined, Tier
from .plain import Plain
from .preload.tier import Preload
from .snapshot.tier import Snapshot
from .zygote.tier import Zygote

TIERS: tuple[Tier, ...] = (Snapshot(), Zygote(), Preload(), Plain())

__all__ = ["TIERS", "Declined", "Plain", "Preload", "Snapshot", "Tier", "Zygote"]
