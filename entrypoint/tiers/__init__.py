"""The tiers of the start-up ladder, the fastest first.  A new tier is a module here and an entry in ``TIERS``."""

from __future__ import annotations

from .base import Declined, Prepared, Tier
from .plain import Plain
from .preload.tier import Preload
from .snapshot.tier import Snapshot
from .zygote.tier import Zygote

TIERS: tuple[Tier, ...] = (Snapshot(), Zygote(), Preload(), Plain())

__all__ = ["TIERS", "Declined", "Plain", "Preload", "Prepared", "Snapshot", "Tier", "Zygote"]
