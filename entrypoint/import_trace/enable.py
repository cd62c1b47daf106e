"""PID 1's side of a trace: whether one is asked for, and the engine's environment with it."""

from __future__ import annotations

import os
from dataclasses import replace

from ..settings import Settings
from ..timeline import Timeline, say

#: Environment variable that asks for a trace, and the one value that it takes.
VARIABLE, IMPORTS = "WARMIMAGE_TRACE", "imports"

#: Tells the engine's processes where to write: PID of the supervisor, a colon, path of the timeline.
TARGET = "WARMIMAGE_TRACE_TARGET"

#: Holds ``sitecustomize.py``.
DIRECTORY = os.path.dirname(os.path.abspath(__file__))


def applied(settings: Settings, timeline: Timeline) -> Settings:
    """Return the settings of a start whose engine is traced, or the same ones if nobody asked for that.

    Args:
        settings: what this start is to do.
        timeline: where the decision goes.
    """
    asked = settings.environment.get(VARIABLE, "")
    if not asked or settings.quick:
        return settings
    reason = None
    if asked != IMPORTS:
        reason = f"{VARIABLE} takes {IMPORTS!r} alone"
    elif not settings.timeline:
        reason = "there is no timeline to write to"
    if reason:
        timeline.event("trace.declined", reason=reason)
        say(f"trace skipped: {reason}")
        return settings
    before = settings.environment.get("PYTHONPATH", "")
    environment = {
        **settings.environment,
        "PYTHONPATH": f"{DIRECTORY}{os.pathsep}{before}" if before else DIRECTORY,
        TARGET: f"{os.getpid()}:{settings.timeline}",
    }
    timeline.event("trace.started", what=IMPORTS)
    return replace(settings, environment=environment)
