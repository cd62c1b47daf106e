"""The timeline: every phase and every decision of a start, one JSON line each, on one monotonic clock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

DEFAULT_PATH = "/run/warmimage/timeline.jsonl"


class Timeline:
    """Appends events to a JSON-lines file that several processes share.

    A line is written with one ``write`` on a descriptor opened for append, so lines of different processes never mix.
    A file that cannot be written costs the container nothing but a line on standard error.

    Args:
        path: the file; its directory must exist.  An empty string keeps no file.
        process: the name of this process in the events, such as ``supervisor``.

    Attributes:
        path: the file, or an empty string when it cannot be written.
    """

    def __init__(self, path: str, process: str, *, truncate: bool = False) -> None:
        self.path = path
        self.process = process
        self._descriptor = -1
        if not path:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (os.O_TRUNC if truncate else 0)
        try:
            self._descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            self.path = ""  # for whoever is handed it: said once is enough
            say(f"timeline not written: {error.strerror}: {path}")

    def event(self, name: str, /, **fields: object) -> None:
        """Append one event.

        Args:
            name: what happened, such as ``tier.started``.
            fields: what belongs to it, JSON values only; durations in seconds, sizes in bytes.
        """
        if self._descriptor < 0:
            return
        line = {"t": round(time.monotonic(), 6), "pid": os.getpid(), "process": self.process, "event": name, **fields}
        try:
            os.write(self._descriptor, (json.dumps(line) + "\n").encode())
        except OSError as error:
            self._descriptor = -1
            say(f"timeline ends here: {error.strerror}: {self.path}")

    @classmethod
    def onto(cls, descriptor: int, process: str) -> Timeline:
        """Return a timeline that is written to an open file, such as standard output."""
        made = cls("", process)
        made._descriptor = descriptor
        return made

    @property
    def descriptor(self) -> int:
        """The number of its open file, -1 for none."""
        return self._descriptor

    def renumber(self, move: Callable[[int], int]) -> None:
        """Have its open file moved to another number.

        Args:
            move: moves an open file of this process and returns its new number.
        """
        if self._descriptor >= 0:
            self._descriptor = move(self._descriptor)

    def close(self) -> None:
        """Write no more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fork(self, process: str) -> Timeline:
        """Return a timeline of another name on the same file, for a forked child."""
        child = Timeline("", process)
        child.path = self.path
        child._descriptor = self._descriptor
        return child


def say(message: str) -> None:
    """Write one line to standard error, where ``docker logs`` shows it beside the engine's own output."""
    try:
        os.write(2, f"warmimage: {message}\n".encode(errors="backslashreplace"))  # paths may be no valid UTF-8
    except OSError:
        return  # Standard error is closed: there is nowhere left to say so, and the server must start all the same.
