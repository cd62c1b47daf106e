"""What PID 1 does: see that the model is there, start prefetch, climb the ladder."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import replace

from ..import_trace.enable import applied
from ..model import download
from ..model.volume import EXIT_NO_MODEL, VolumeError, survey
from ..settings import SCRIPT, Settings, initial_environment, load
from ..supervision import bounded_call
from ..supervision.supervisor import Started, Supervisor, reset_signals
from ..timeline import DEFAULT_PATH, Timeline, say
from . import compile_caches
from .ladder import Ladder

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the kernel's, not a file of ours

_OPTION = re.compile(r"--[a-z][a-z0-9-]*")

#: Seconds that a volume may take to answer; the engine is started all the same.
VOLUME_SECONDS = 10.0

#: The same where the model may have to be downloaded first: without it nothing can be served.
MARKER_SECONDS = 120.0

#: Exit code when the image itself is broken (EX_SOFTWARE of sysexits.h).
EXIT_BROKEN_IMAGE = 70


def main(arguments: Sequence[str]) -> int:
    """Run the container.

    Args:
        arguments: the engine arguments given after the image name.

    Returns:
        The container's exit code: the engine's own, or 66 when there is no model to serve, 69 when it cannot be
        downloaded, 70 when the image is broken.
    """
    began = time.monotonic()
    try:
        settings = load(arguments, initial_environment(), DEFAULT_PATH)
    except (OSError, ValueError) as error:
        say(f"error: this image's plan cannot be read: {error!r}; build the image again")
        return EXIT_BROKEN_IMAGE
    timeline = Timeline(settings.timeline, "supervisor", truncate=True)
    settings = replace(settings, timeline=timeline.path)
    timeline.event(
        "started",
        wall=time.time(),
        engine=settings.engine.name,
        start=settings.start,
        # Names of long options alone: a value may be secret, even one that begins with a dash.
        flags=[name for name in (word.partition("=")[0] for word in arguments) if _OPTION.fullmatch(name)],
        uid=os.getuid(),
        tool=settings.plan.tool_version,
    )
    supervisor = Supervisor(timeline)
    with supervisor.signals():
        try:
            code = _serve(settings, timeline, supervisor, began)
        except VolumeError as error:
            timeline.event("volume.refused", reason=str(error))
            say(f"error: {error}")
            code = EXIT_NO_MODEL
        except Exception as error:
            if supervisor.engine:
                raise  # the engine runs: to start a second one would be worse
            return _fail_open(settings, timeline, error)
        timeline.event("ended", code=code)
        # The exit code is decided: a signal that comes from now on must not replace it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return code


def _serve(settings: Settings, timeline: Timeline, supervisor: Supervisor, began: float) -> int:
    """Make sure of the model, prefetch, and run the engine; return the container's exit code."""
    if not settings.quick:
        code = _provide_model(settings, timeline, supervisor)
        if code:
            return code
        _check_shared_memory(settings, timeline)
    ladder = Ladder(applied(settings, timeline), timeline, supervisor)
    first = ladder.check()
    _start_prefetch(settings, timeline, supervisor, first.prefetched)
    compile_caches.place(settings, timeline)  # prefetch reads meanwhile
    stopped = supervisor.take_signals()
    if stopped:
        return 128 + stopped
    return ladder.start(first, began)


def _provide_model(settings: Settings, timeline: Timeline, supervisor: Supervisor) -> int:
    """Download the model where it is to be downloaded and is not there, and see that there is one to serve.

    Returns:
        0, or the exit code to end with.

    Raises:
        VolumeError: there is no model to serve.
    """
    if settings.plan.weights == "download":
        model = settings.plan.model
        there = bounded_call.ask(
            supervisor, "marker", lambda: download.complete(model.path, model.revision or ""), MARKER_SECONDS
        )
        if there is None:
            return _unanswered(timeline, supervisor, MARKER_SECONDS)
        code = 0 if there else _download(settings, timeline, supervisor)
        if code:
            return code
    return _check_volume(settings, timeline, supervisor)


def _unanswered(timeline: Timeline, supervisor: Supervisor, seconds: float) -> int:
    """Return the exit code after a question that has no answer: that of a signal, or 0 to start all the same."""
    stopped = supervisor.take_signals()
    if stopped:
        return 128 + stopped
    timeline.event("volume.unchecked", reason=f"the volume has not answered for {seconds:g} s")
    return 0


def _check_volume(settings: Settings, timeline: Timeline, supervisor: Supervisor) -> int:
    """See that there is a model to serve, unless the engine's arguments say that it loads another.

    Returns:
        0, or the exit code to end with when a signal has come.

    Raises:
        VolumeError: there is no model to serve.
    """
    if settings.unchecked:
        timeline.event("volume.unchecked", reason=f"the engine is told {settings.unchecked}")
        return 0
    # In a process of its own: a network volume that hangs would hang PID 1, which then took no signal.
    answer = bounded_call.ask(supervisor, "check", lambda: survey(settings.plan.model.path), VOLUME_SECONDS)
    if answer is None:
        return _unanswered(timeline, supervisor, VOLUME_SECONDS)
    timeline.event("volume.checked", **answer)
    return 0


def _check_shared_memory(settings: Settings, timeline: Timeline) -> None:
    """Say when ``/dev/shm`` is smaller than the engine wants: the engine itself may end in a bus error."""
    wanted = settings.engine.shared_memory
    try:
        found = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return  # none is mounted; the engine says so itself
    size = found.f_blocks * found.f_frsize
    if size < wanted:
        timeline.event("shared_memory.small", bytes=size, wanted_bytes=wanted)
        engine = settings.engine.name
        say(f"{_SHARED_MEMORY} has {size >> 20} MiB, {engine} wants {wanted >> 20}: run with --shm-size {wanted}")


def _start_prefetch(settings: Settings, timeline: Timeline, supervisor: Supervisor, hot: str) -> None:
    """Start prefetch, unless this start ends at once or the user has switched it off.

    Args:
        settings: what this start is to do.
        timeline: gets the decision.
        supervisor: whose helper it becomes.
        hot: path of the closure, or of the snapshot, that the first tier reads.
    """
    if settings.quick or settings.prefetch == "off":
        timeline.event("prefetch.declined", reason=settings.quick or "WARMIMAGE_PREFETCH=off")
        return
    if settings.prefetch not in ("", "on"):
        say(f"WARMIMAGE_PREFETCH is {settings.prefetch!r}, neither on nor off: prefetch stays on")

    def work(child: Timeline) -> None:
        from .prefetch import Prefetch  # PID 1 itself does without it, and starts the engine sooner

        Prefetch(child).run(settings, [hot])

    supervisor.helper("prefetch", work)


def _download(settings: Settings, timeline: Timeline, supervisor: Supervisor) -> int:
    """Bring the model onto its volume; return 0 or the exit code to end with."""
    model = settings.plan.model
    command = [settings.plan.python, SCRIPT, "download", model.reference, model.revision or "", model.path]
    timeline.event("download.started", model=model.reference, revision=model.revision)
    outcome = supervisor.run(
        lambda: Started(supervisor.spawn(command, settings.environment, "/")), None, lambda _seconds: None
    )
    timeline.event("download.ended", code=outcome.code, seconds=round(outcome.seconds, 3))
    return outcome.code


def _fail_open(settings: Settings, timeline: Timeline, error: Exception) -> int:
    """Become the engine's own command: a fault of ours must stop no server."""
    timeline.event("supervisor.failed", reason=repr(error))
    say(f"supervisor skipped: {error!r}; starting the engine as it is")
    reset_signals()
    os.chdir(settings.directory)
    os.execvpe(settings.command[0], settings.command, dict(settings.environment))  # noqa: S606
