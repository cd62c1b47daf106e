"""Tier ``preload``: the engine starts normally, its native libraries loading beside its first imports."""

from __future__ import annotations

import os

from .. import program
from ..settings import CLOSURE, Settings
from ..supervisor import Supervisor
from .base import Tier


class Preload(Tier):
    """Runs the engine's own script in its own interpreter, after ``launch.py`` has started the preload."""

    name = "preload"

    def decline(self, settings: Settings, supervisor: Supervisor) -> str:
        """Decline a start that ends at once, and an image without a recorded closure."""
        if settings.quick:
            return f"{settings.quick} ends before anything is worth preloading"
        if not os.path.exists(CLOSURE):
            return f"the image has no {CLOSURE}"
        return "" if program.find(settings) else program.absent(settings)

    def command(self, settings: Settings) -> list[str]:
        """Return ``launch.py`` in front of the engine's own command line, its program's path resolved."""
        return program.behind("launch.py", settings)
