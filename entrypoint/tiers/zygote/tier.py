"""Tier ``zygote``: the engine's process imports everything once, and its further processes are forked, not started."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ...closure import Closure
from ...settings import Settings
from ...supervision.supervisor import Supervisor
from .. import engine_program
from ..base import Tier

#: The start method of ``multiprocessing`` that the fork server stands in for.
_SPAWN = "spawn"


class Zygote(Tier):
    """Runs the engine's own script in its own interpreter, after ``zygote`` has imported the closure."""

    name = "zygote"
    may_decline_late = True

    def decline(self, settings: Settings, supervisor: Supervisor) -> str:
        """Decline what the user has chosen themselves, a start that ends at once, and an image without a closure."""
        closure = Closure.read()
        if not closure.modules:
            return f"the image has no closure ({closure.reason})"
        return self.choice(settings) or (
            "" if engine_program.find(settings) else engine_program.missing_reason(settings)
        )

    def choice(self, settings: Settings) -> str:
        """Return which argument or variable of the user's decides against this tier, or an empty string."""
        if settings.quick:
            return f"{settings.quick} ends before an import is worth sharing"
        variable = settings.engine.start_method_variable
        method = settings.environment.get(variable, _SPAWN) if variable else _SPAWN
        # The fork server answers every spawn, so that choice changes nothing.
        return "" if method == _SPAWN else f"{variable}={method} is the user's own choice of a start method"

    def command(self, settings: Settings) -> list[str]:
        """Return ``zygote`` in front of the engine's own command line, its program's path resolved."""
        return engine_program.wrap_command("zygote", settings)

    def environment(self, settings: Settings) -> Mapping[str, str]:
        """Return the engine's environment with the libraries that the engine preloads into its processes."""
        preload = Closure.read().preload
        if not preload:
            return settings.environment
        own = settings.environment.get("LD_PRELOAD", "")
        return {**settings.environment, "LD_PRELOAD": os.pathsep.join(filter(None, (preload, own)))}
