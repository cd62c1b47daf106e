"""The container command ``warm``: what its process does, from the command line to the exit code."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence

from ..model.volume import EXIT_NO_MODEL
from ..settings import initial_environment
from ..timeline import DEFAULT_PATH, Timeline, say
from . import http_api
from .loop import Warmer
from .node_label import Label
from .options import EXIT_USAGE, Options, UsageError, parse
from .targets import Places

#: Exit code where the HTTP API cannot be had (EX_UNAVAILABLE of sysexits.h).
EXIT_NO_FACE = 69

#: Exit code of a single run after which not everything is resident (EX_TEMPFAIL of sysexits.h).
EXIT_NOT_WARM = 75

_TICK = 0.2

#: Seconds that the end waits for the loop, which may hang in the kernel.
_PATIENCE = 2.0

#: Seconds that the label and the page cache may take at the end.
_LAST = 6.0  # with the loop's, and a little more, below the ten seconds that Docker gives


def main(words: Sequence[str]) -> int:
    """Warm, and return the container's exit code.

    Args:
        words: the command line after ``warm``.

    Returns:
        0, also after a stop signal; 64 for a wrong command line, 66 for a directory that is not there, 69 where the
        HTTP API cannot be had, 75 for a single run after which not everything is resident.
    """
    try:
        options = parse(words)
    except UsageError as error:
        say(f"error: warm: {error}")
        return EXIT_USAGE
    listening = None
    if not options.once:
        try:
            listening = _face(options)
        except _NoFace as error:
            say(f"error: warm: {error}")
            return EXIT_NO_FACE
    return _Process(options, initial_environment()).run(listening)


class _NoFace(Exception):
    """There can be no HTTP API; the message says why."""


def _face(options: Options) -> socket.socket:
    http_api.enter_site_packages()
    absent = http_api.absent()
    if absent:
        raise _NoFace(
            f"this image lacks {', '.join(absent)}, which /readyz and /metrics need: add that to the image, or --once"
        )
    try:
        return http_api.listen(options.port)
    except OSError as error:
        raise _NoFace(f"port {options.port}: {os.strerror(error.errno or 0)}; another one: --port") from None


class _Process:
    """The process of ``warm``: signals and deadline on its first thread, the loop and HTTP on one each."""

    def __init__(self, options: Options, environment: Mapping[str, str]) -> None:
        self._options = options
        self._timeline = Timeline(environment.get("WARMIMAGE_TIMELINE", DEFAULT_PATH), "warm", truncate=True)
        self._stop = threading.Event()
        self._signal = 0
        self._label = Label(options.node_label, environment) if options.node_label else None
        self._labelled = (False, "")
        self._labelling = threading.Lock()
        places = Places(options.directories, dict(environment))
        self._warmer = Warmer(options, places, self._timeline, self._stop, self._tell)
        self._loop = threading.Thread(target=self._warmer.run, name="warm", daemon=True)
        self._gpus(environment)

    def run(self, listening: socket.socket | None) -> int:
        """Warm until all is done or a stop signal comes, and return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)
        self._timeline.event("warm.started", targets=self._options.targets, once=self._options.once, uid=os.getuid())
        absent = self._absent_directory()
        if absent:
            say(f"error: warm: {absent}")
            self._timeline.event("warm.failed", reason=absent)
            return EXIT_NO_MODEL
        self._loop.start()
        if listening:
            arguments = (listening, self._warmer.state, self._loop.is_alive, self._failures)
            self._timeline.event("warm.listening", port=listening.getsockname()[1])
            threading.Thread(target=http_api.serve, args=arguments, name="http", daemon=True).start()
        self._watch()
        return self._end()

    def _watch(self) -> None:
        """Wait for the end of the loop or for a signal, and see to the deadline meanwhile."""
        overdue = False
        while self._loop.is_alive() and not self._signal:
            self._loop.join(_TICK)
            state = self._warmer.state()
            if overdue or state.complete or state.seconds < self._options.patience:
                continue
            overdue = True
            self._timeline.event("warm.overdue", reason=state.reason)
            say(f"warm: {state.reason}")
            if self._options.once:
                return

    def _end(self) -> int:
        """Stop, leave the page cache as it was asked for, and return the exit code."""
        state = self._warmer.state()
        self._stop.set()
        self._loop.join(_PATIENCE)
        last = threading.Thread(target=self._undo, daemon=True)  # API server and volume may hang
        last.start()
        last.join(_LAST)
        code = 0
        if self._options.once and not state.complete:
            say(f"warm: {state.reason}")
            code = 0 if self._options.deadline is not None and not self._signal else EXIT_NOT_WARM
        self._timeline.event("warm.stopped", code=code, signal=self._signal)
        return code

    def _undo(self) -> None:
        self._tell(False)
        if self._options.drop:
            self._warmer.drop()

    def _note(self, number: int, _frame: object) -> None:
        self._signal = number  # no more: what it has interrupted may hold a lock

    def _absent_directory(self) -> str:
        """Return what is wrong with a directory that was given, asked on a thread: a volume may hang."""
        found: list[str] = []

        def look() -> None:
            for directory in self._options.directories:
                if not os.path.isdir(directory):
                    what = "is no directory" if os.path.lexists(directory) else "is not there"
                    found.append(f"--dir {directory} {what}: mount the model there")

        asking = threading.Thread(target=look, daemon=True)
        asking.start()
        asking.join(_PATIENCE)
        return found[0] if found else ""

    def _tell(self, warm: bool) -> None:
        """Have the node's label follow; what has changed is an event."""
        if not self._label:
            return
        with self._labelling:  # what the loop still says must not come after the end's
            self._label.say(warm and not self._stop.is_set())
            now = self._label.present, self._label.failure
            if now != self._labelled:
                self._labelled = now
                self._timeline.event("warm.label", present=now[0], reason=now[1])
                if now[1]:
                    say(f"warm: the node has no label: {now[1]}")

    def _failures(self) -> int:
        return self._label.failures if self._label else 0

    def _gpus(self, environment: Mapping[str, str]) -> None:
        """Say when this container was given GPUs, of which it uses none."""
        visible = environment.get("NVIDIA_VISIBLE_DEVICES", "")
        if visible not in ("", "void", "none") and os.path.exists("/dev/nvidiactl"):
            self._timeline.event("warm.exposed", visible=visible)
            say("warm: this container sees GPUs and needs none: set NVIDIA_VISIBLE_DEVICES=void")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
