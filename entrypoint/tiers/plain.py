"""Tier ``plain``: the engine's own command, nothing else.  It never declines."""

from __future__ import annotations

from ..settings import Settings
from ..supervision.supervisor import Supervisor
from .base import Tier


class Plain(Tier):
    """Executes exactly the engine's own command line."""

    name = "plain"

    def baked(self, settings: Settings) -> bool:
        """Every image has it, whatever its plan says."""
        return True

    def decline(self, settings: Settings, supervisor: Supervisor) -> str:
        """Never decline: this is what the user would have run without us."""
        return ""

    def command(self, settings: Settings) -> list[str]:
        """Return the engine's own command line."""
        return settings.command
