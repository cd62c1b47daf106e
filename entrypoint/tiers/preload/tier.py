"""Tier ``preload``: the engine starts normally, its native libraries loading beside its first imports."""

from __future__ import annotations

import os

from ...settings import CLOSURE, Settings
from ...supervision.supervisor import Supervisor
from .. import engine_program
from ..base import Tier


class Preload(Tier):
    """Runs the engine's own script in its own interpreter, after ``launch`` has started the preload."""

    name = "preload"

    def decline(self, settings: Settings, supervisor: Supervisor) -> str:
        """Decline a start that ends at once, and an image without a recorded closure."""
        if settings.quick:
            return f"{settings.quick} ends before anything is worth preloading"
        if not os.path.exists(CLOSURE):
            return f"the image has no {CLOSURE}"
        return "" if engine_program.find(settings) else engine_program.missing_reason(settings)

    def command(self, settings: Settings) -> list[str]:
        """Return ``launch`` in front of the engine's own command line, its program's path resolved."""
        return engine_program.wrap_command("launch", settings)
