"""What PID 1 does: check the model volume, start prefetch, climb the ladder."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from .ladder import Ladder
from .prefetch import Prefetch
from .settings import CLOSURE, Settings, initial_environment, load
from .supervisor import Supervisor
from .timeline import DEFAULT_PATH, Timeline, say
from .volume import EXIT_NO_MODEL, VolumeError, check

#: Exit code when the image itself is broken (EX_SOFTWARE of sysexits.h).
EXIT_BROKEN_IMAGE = 70


def main(arguments: Sequence[str]) -> int:
    """Run the container.

    Args:
        arguments: the engine arguments given after the image name.

    Returns:
        The container's exit code: the engine's own, or 66 when there is no model to serve.
    """
    began = time.monotonic()
    environment = initial_environment()
    try:
        settings = load(arguments, environment, DEFAULT_PATH)
    except (OSError, ValueError, KeyError) as error:
        say(f"error: this image's plan cannot be read: {error}; build the image again")
        return EXIT_BROKEN_IMAGE
    timeline = Timeline(settings.timeline, "supervisor", truncate=True)
    timeline.event(
        "started", wall=time.time(), engine=settings.engine["name"], start=settings.start,
        flags=[argument.partition("=")[0] for argument in arguments if argument.startswith("-")],
        uid=os.getuid(), tool=settings.plan["tool_version"],
    )  # fmt: skip
    try:
        code = _serve(settings, timeline, began)
    except VolumeError as error:
        timeline.event("volume.refused", reason=str(error))
        say(f"error: {error}")
        code = EXIT_NO_MODEL
    timeline.event("ended", code=code)
    return code


def _serve(settings: Settings, timeline: Timeline, began: float) -> int:
    weights: list[str] = []
    model = settings.plan["model"]
    if model["mounted"] and not settings.quick:
        weights = check(model["path"])
        timeline.event("volume.checked", files=len(weights), bytes=sum(os.path.getsize(path) for path in weights))
    supervisor = Supervisor(timeline)
    if settings.prefetch and not settings.quick:
        supervisor.helper("prefetch", lambda child: Prefetch(child).run(CLOSURE, weights))
    else:
        timeline.event("prefetch.declined", reason=settings.quick or "WARMIMAGE_PREFETCH=off")
    if supervisor.stop_requested:
        return 128 + 15
    return Ladder(settings, timeline, supervisor).start(began)
