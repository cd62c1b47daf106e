"""Inside a traced process of the engine: its name, and its imports in the timeline."""

from __future__ import annotations

import os
import sys

from ..kernel import proc
from ..timeline import Timeline
from .hook import ImportTrace


class NamedTimeline(Timeline):
    """A timeline whose events have the name that the process has when it writes them.

    Args:
        path: the file.
        supervisor: PID of the supervisor, whose child is the engine's first process.
    """

    def __init__(self, path: str, supervisor: int) -> None:
        super().__init__(path, "")
        self._supervisor = supervisor
        self._file = _identity(self._descriptor)

    def event(self, name: str, /, **fields: object) -> None:
        """Append one event; see ``Timeline.event``."""
        if self._file != _identity(self._descriptor):
            # In a fork for which the files were closed that it is not given, the number may be another file's by now.
            super().__init__(self.path, self.process)
            self._file = _identity(self._descriptor)
        self.process = self._name()
        super().event(name, **fields)

    def _name(self) -> str:
        """Return ``engine`` for the engine's first process, else what multiprocessing or the kernel calls this one."""
        if os.getppid() == self._supervisor:
            return "engine"
        multiprocessing = sys.modules.get("multiprocessing.process")  # never imported for our own sake
        current = getattr(multiprocessing, "current_process", None)
        name = current().name if current else "MainProcess"
        if name != "MainProcess":
            return str(name)
        try:
            return proc.comm()
        except OSError:
            return "python"


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def install(target: str) -> None:
    """Begin to write this process's imports, and those of its forks, to the timeline.

    Args:
        target: PID of the supervisor, a colon, path of the timeline.
    """
    supervisor, _, path = target.partition(":")
    timeline = NamedTimeline(path, int(supervisor))
    ImportTrace(timeline).install()
    timeline.event("trace.entered")
    os.register_at_fork(after_in_child=lambda: timeline.event("trace.entered"))
