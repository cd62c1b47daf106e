"""Tier ``zygote``: the engine's process imports everything once, and its further processes are forked, not started."""

from __future__ import annotations

import os

from ...closure import Closure
from ...settings import Settings
from ...supervision.supervisor import Supervisor
from .. import engine_program
from ..base import Declined, Prepared, Tier

#: The start method of ``multiprocessing`` that the fork server stands in for.
_SPAWN = "spawn"


class Zygote(Tier):
    """Runs the engine's own script in its own interpreter, after ``zygote`` has imported the closure."""

    name = "zygote"
    may_decline_late = True

    def check(self, settings: Settings, supervisor: Supervisor) -> Prepared:
        """Decline a start that ends at once, the user's own start method, and an image without a closure."""
        closure = Closure.read()
        if not closure.modules:
            raise Declined(f"the image has no closure ({closure.reason})")
        check_choice(settings)
        command = engine_program.wrap_command("zygote", settings, engine_program.find(settings))
        environment = dict(settings.environment)
        if closure.preload:  # the libraries that the engine preloads into its processes
            own = environment.get("LD_PRELOAD", "")
            environment["LD_PRELOAD"] = os.pathsep.join(filter(None, (closure.preload, own)))
        return Prepared(self, command, environment, settings.directory)


def check_choice(settings: Settings) -> None:
    """See that no argument or variable of the user decides against forked processes.

    Raises:
        Declined: one does; the reason names it.
    """
    if settings.quick:
        raise Declined(f"{settings.quick} ends before an import is worth sharing")
    variable = settings.engine.start_method_variable
    method = settings.environment.get(variable, _SPAWN) if variable else _SPAWN
    if method != _SPAWN:  # the fork server answers every spawn, so that choice changes nothing
        raise Declined(f"{variable}={method} is the user's own choice of a start method")
