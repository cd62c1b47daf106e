"""Tier ``zygote``: the engine's process imports everything once, and its further processes are forked, not started."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .. import program
from ..closure import Closure
from ..settings import Settings
from ..supervisor import Supervisor
from .base import Tier


class Zygote(Tier):
    """Runs the engine's own script in its own interpreter, after ``zygote.py`` has imported the closure."""

    name = "zygote"
    may_decline_late = True

    def decline(self, settings: Settings, supervisor: Supervisor) -> str:
        """Decline a start that ends at once, an image without a closure, and what the user has chosen themselves."""
        if settings.quick:
            return f"{settings.quick} ends before an import is worth sharing"
        closure = Closure.read()
        if not closure.modules:
            return f"the image has no closure ({closure.reason})"
        if not program.find(settings):
            return program.absent(settings)
        variable = settings.engine["start_method_variable"]
        if variable and variable in settings.environment:
            return f"{variable}={settings.environment[variable]} is the user's own choice of a start method"
        return ""

    def command(self, settings: Settings) -> list[str]:
        """Return ``zygote.py`` in front of the engine's own command line, its program's path resolved."""
        return program.behind("zygote.py", settings)

    def environment(self, settings: Settings) -> Mapping[str, str]:
        """Return the engine's environment with the libraries that the engine preloads into its processes."""
        preload = Closure.read().preload
        if not preload:
            return settings.environment
        own = settings.environment.get("LD_PRELOAD", "")
        return {**settings.environment, "LD_PRELOAD": os.pathsep.join(filter(None, (preload, own)))}
