"""The environment at import: which variables were read, and what a process that inherits the imports must put right.

A module may keep what it read.  A process that is forked with everything imported keeps it too, even if its requester
has changed the variable since; a new interpreter would read it anew.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from .derived import DERIVED, OF_PROCESSORS

#: Read by native code when a library is loaded or the interpreter starts, where no recording of ours sees it.
NATIVE = frozenset({
    "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_BLOCKTIME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LD_PRELOAD",
    "MALLOC_ARENA_MAX", "MALLOC_CONF", "MKL_NUM_THREADS", "OMP_DYNAMIC", "OMP_NUM_THREADS", "OMP_PLACES",
    "OMP_PROC_BIND", "OMP_SCHEDULE", "OMP_STACKSIZE", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS", "OPENSSL_CONF",
    "TZ",
})  # fmt: skip

#: Read once, when the C library, the loader or OpenMP is loaded: that a restored process goes on with, as it was.  A
#: process that is forked for an engine is not held to them, since engines set them for their children without need.
_LOADED = frozenset({"GLIBC_TUNABLES", "OMP_MAX_ACTIVE_LEVELS", "OMP_NESTED", "OMP_THREAD_LIMIT"})
_LOADED_BEGIN = ("GOMP_", "LD_", "MALLOC_", "MKL_", "OPENBLAS_")

_PRELOAD = "LD_PRELOAD"

#: What the names begin with of variables that the interpreter itself reads at its start.
_INTERPRETER = "PYTHON"


class Reads:
    """Records, while the block runs, which variables are read and set through ``os.environ``.

    Attributes:
        names: every variable that was read, with the module that read it first.
        copied_by: modules that went through the whole environment.
        written: every variable that was set or removed.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.copied_by: set[str] = set()
        self.written: set[str] = set()
        self._class = type(os.environ)

    def __enter__(self) -> Reads:
        reads, base = self, self._class

        class Recorded(base):  # type: ignore[misc, valid-type]
            def __getitem__(self, key: str) -> str:
                if isinstance(key, str) and key not in reads.names:
                    reads.names[key] = _reader()
                value: str = super().__getitem__(key)
                return value

            def __setitem__(self, key: str, value: str) -> None:
                super().__setitem__(key, value)
                reads.written.add(key)

            def __delitem__(self, key: str) -> None:
                super().__delitem__(key)
                reads.written.add(key)

            def __iter__(self) -> Iterator[str]:
                reads.copied_by.add(_reader())
                return iter(list(super().__iter__()))

        os.environ.__class__ = Recorded  # the object itself is everywhere already
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.environ.__class__ = self._class


def _is_native(name: str, restored: bool) -> bool:
    loaded = restored and (name in _LOADED or name.startswith(_LOADED_BEGIN))
    return loaded or name in NATIVE or name.startswith(_INTERPRETER)


def native() -> list[bytes]:
    """Return this process's environment as an ``exec`` takes it over: native code may have set what Python has not."""
    found: list[bytes] = []
    entries = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    while entries and (entry := entries[len(found)]) is not None:
        found.append(entry)
    return found


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _reader() -> str:
    """Return the name of the module that asks, past the standard library's go-betweens."""
    frame: Any = sys._getframe(2)
    while frame and frame.f_globals.get("__name__") in ("os", "collections.abc", "_collections_abc", __name__):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")) if frame else ""


@dataclass(frozen=True)
class Contract:
    """What the imports took from the environment, and so what a process that inherits them depends on.

    Attributes:
        variables: the environment that the engine was started with, and what the imports have made of it.
        reads: the variables that were read, with the module that did.
        hidden: variables that had other values during the imports, to keep the accelerator untouched.
        preload: ``LD_PRELOAD`` as the dynamic loader saw it.
        made: variables that the imports themselves have set, or removed (``None``).
        native: variables that native code has set meanwhile, as readline does the terminal's size.
        before: what of ``made`` was set before: OpenCV puts its own folder in front of ``LD_LIBRARY_PATH``.
        cpus: how many processors the process might use: what sizes pools of threads where no variable does.
    """

    variables: Mapping[str, str]
    reads: Mapping[str, str]
    hidden: Mapping[str, str] = field(default_factory=dict)
    preload: str = ""
    made: Mapping[str, str | None] = field(default_factory=dict)
    native: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    cpus: int = field(default_factory=_processors)

    def completed(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return an environment with what the imports of a new interpreter would make of it."""
        found = dict(variables)
        for name, value in self.made.items():
            if value is not None and found.get(name) == self.before.get(name):
                found[name] = value
        return found

    def broken(self, variables: Mapping[str, str], *, restored: bool = False) -> str:
        """Return which variables a fork would get wrong in this environment, and why, or an empty string.

        Args:
            variables: its environment.
            restored: whether it is no fork but a restored process, with native code as another container loaded it.
        """
        variables = self.completed(variables)
        reasons = []
        for name in self._changed(variables):
            if name in self.hidden and name not in DERIVED:
                continue  # the imports have not seen the value that has changed
            if name in self.native and variables.get(name) in (None, self.native[name]):
                continue
            if name == _PRELOAD:
                absent = set(variables.get(name, "").split(":")) - set(self.preload.split(":")) - {""}
                reasons += [f"{name} names {library}, which is not loaded" for library in sorted(absent)]
            elif (name in self.reads or _is_native(name, restored)) and name not in DERIVED:
                reasons.append(f"{name} has changed since {self.reads.get(name) or 'native code'} read it")
        return ", ".join(reasons)

    def derive(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Put right what modules of this process derived from variables, or a number of processors, that differ now.

        Returns:
            The variables for which that failed, with the reason.
        """
        failed = {}
        recounted = OF_PROCESSORS if self.cpus != _processors() else ()
        for name in sorted({*self._changed(variables), *self.hidden, *recounted}):
            if name in DERIVED and (variables.get(name) != self._seen(name) or name in recounted):
                try:
                    DERIVED[name](variables.get(name))
                except Exception as error:
                    failed[name] = repr(error)
        return failed

    def _seen(self, name: str) -> str | None:
        """Return the value that the imports saw."""
        return self.hidden[name] if name in self.hidden else self.variables.get(name)

    def _changed(self, variables: Mapping[str, str]) -> list[str]:
        names = {*self.variables, *variables}
        return sorted(name for name in names if self.variables.get(name) != variables.get(name))
