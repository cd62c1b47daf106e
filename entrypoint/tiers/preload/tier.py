"""Tier ``preload``: the engine starts normally, its native libraries loading during its first imports."""

from __future__ import annotations

import os

from ...settings import CLOSURE, Settings
from ...supervision.supervisor import Supervisor
from .. import engine_program
from ..base import Declined, Prepared, Tier


class Preload(Tier):
    """Runs the engine's own script in its own interpreter, after ``launch`` has started the preload."""

    name = "preload"

    def check(self, settings: Settings, supervisor: Supervisor) -> Prepared:
        """Decline a start that ends at once, and an image without a recorded closure."""
        if settings.quick:
            raise Declined(f"{settings.quick} ends before anything is worth preloading")
        if not os.path.exists(CLOSURE):
            raise Declined(f"the image has no {CLOSURE}")
        command = engine_program.wrap_command("launch", settings, engine_program.find(settings))
        return Prepared(self, command, settings.environment, settings.directory)
