"""Prepare ``multiprocessing``'s forkserver beside the engine's imports, where the engine accepts it.

The forkserver imports the engine's modules in a process of its own, so they race
nothing; the engine's own processes are then forked from it with everything imported.
"""

from __future__ import annotations

import os
from multiprocessing import forkserver

from ...plan import EnginePlan
from ...timeline import Timeline


def prepare(engine: EnginePlan, timeline: Timeline) -> None:
    """Start a forkserver that imports the engine's modules, or say in an event why not.

    Args:
        engine: the plan's engine: the start methods it accepts, and the variable by which it takes one.
        timeline: gets the decision.
    """
    methods, variable = engine.start_methods, engine.start_method_variable
    chosen = os.environ.get(variable, "") if variable else ""
    if "forkserver" not in methods:
        timeline.event("forkserver.declined", reason=f"{engine.name} accepts {' and '.join(methods) or 'none'}")
        return
    if chosen not in ("", "forkserver"):
        timeline.event("forkserver.declined", reason=f"{variable}={chosen} is the user's own choice")
        return
    if variable:
        os.environ[variable] = "forkserver"
    forkserver.set_forkserver_preload(list(engine.modules))
    forkserver.ensure_running()
    timeline.event("forkserver.prepared", modules=len(engine.modules))
