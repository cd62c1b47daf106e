"""See what a process imports: each module with its begin, its duration, and what it spent itself.

The import system's own lookup, ``importlib._bootstrap._find_and_load``, is called for every module that is not loaded
yet; the interpreter finds it by name at each call.  It is wrapped, so nothing is in the way of an import statement that
is served from ``sys.modules``.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from ..timeline import Timeline

_bootstrap: Any = import_module("importlib._bootstrap")

#: Marks the wrapper, also for a copy of this module under another name.
_MARK = "__warmimage__"


class _Open:
    """An import that has begun on some thread and not ended."""

    __slots__ = ("began", "children", "name")

    def __init__(self, name: str, began: float) -> None:
        self.name = name
        self.began = began
        self.children = 0.0


class ImportTrace:
    """Writes one event ``imports`` for every outermost import of a thread, with all that it brought along.

    Args:
        timeline: where the events go; read at each event, so that a fork may put another in its place.

    Attributes:
        timeline: as given.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self._threads = threading.local()
        self._original: Callable[[str, object], ModuleType] | None = None

    def install(self) -> None:
        """Begin to see imports, unless they are seen already; no effect where the import system looks otherwise."""
        original = getattr(_bootstrap, "_find_and_load", None)
        if original is None or hasattr(original, _MARK):
            return
        self._original = original

        def find_and_load(name: str, import_: object) -> ModuleType:
            return self._load(original, name, import_)

        setattr(find_and_load, _MARK, self)
        _bootstrap._find_and_load = find_and_load

    def remove(self) -> None:
        """See no more imports."""
        if self._original is not None:
            _bootstrap._find_and_load = self._original
            self._original = None

    def _load(self, original: Callable[[str, object], ModuleType], name: str, import_: object) -> ModuleType:
        if name in sys.modules:
            return original(name, import_)  # ``importlib.import_module`` asks for loaded ones, too
        threads = self._threads
        try:
            stack, done = threads.stack, threads.done
        except AttributeError:
            stack, done = threads.stack, threads.done = [], []
        entry = _Open(name, time.monotonic())
        stack.append(entry)
        try:
            return original(name, import_)
        finally:
            stack.pop()
            seconds = time.monotonic() - entry.began
            if name in sys.modules:  # else it was only looked for, as an optional dependency is
                done.append((name, entry.began, seconds, seconds - entry.children, len(stack)))
            if stack:
                stack[-1].children += seconds
            elif done:
                threads.done = []
                self._write(done)

    def _write(self, done: list[tuple[str, float, float, float, int]]) -> None:
        rows = [
            [name, round(began, 6), round(seconds, 6), round(own, 6), depth]
            for name, began, seconds, own, depth in done
        ]
        self.timeline.event("imports", thread=threading.current_thread().name, modules=rows)


__all__ = ["ImportTrace"]
