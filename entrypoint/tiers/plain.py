"""Tier ``plain``: the engine's own command, nothing else.  It never declines."""

from __future__ import annotations

from ..settings import Settings
from ..supervision.supervisor import Supervisor
from .base import Prepared, Tier


class Plain(Tier):
    """Executes exactly the engine's own command line."""

    name = "plain"
    may_fail = False

    def baked(self, settings: Settings) -> bool:
        """Every image has it, even one whose plan does not name it."""
        return True

    def check(self, settings: Settings, supervisor: Supervisor) -> Prepared:
        """Never decline: this is what the user would have run without warmimage."""
        return Prepared(self, settings.command, settings.environment, settings.directory)
