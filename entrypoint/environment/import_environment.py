"""The environment at import: which variables were read, and what a process that inherits the imports must put right.

A module may keep what it read.  A process that is forked or restored with everything imported keeps it too, even if the
variable has changed since; a new interpreter would read the new value.  ``variables`` is the table of what happens.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from . import python_locale
from .reapply import HANDLERS, MADE_FROM, READERS, copy_environment
from .reapply_devices import DEVICE_HANDLERS, OF_PROCESSORS

#: Read by native code when a library is loaded or the interpreter starts, where no recording of ours sees it.
NATIVE = frozenset(
    {
        "GOMP_CPU_AFFINITY",
        "KMP_AFFINITY",
        "KMP_BLOCKTIME",
        "LD_PRELOAD",
        "MALLOC_ARENA_MAX",
        "MALLOC_CONF",
        "MKL_NUM_THREADS",
        "OMP_DYNAMIC",
        "OMP_NUM_THREADS",
        "OMP_PLACES",
        "OMP_PROC_BIND",
        "OMP_SCHEDULE",
        "OMP_STACKSIZE",
        "OMP_WAIT_POLICY",
        "OPENBLAS_NUM_THREADS",
        "OPENSSL_CONF",
    }
)

#: Read once, when the C library, the loader or OpenMP is loaded: that a restored process goes on with, as it was.  A
#: process that is forked for an engine is not held to them, since engines set them for their children without need.
_LOADED = frozenset({"GLIBC_TUNABLES"})
_LOADED_BEGIN = ("GOMP_", "KMP_", "LD_", "MALLOC_", "MKL_", "OMP_", "OPENBLAS_")

_LIBRARIES = "LD_LIBRARY_PATH"

#: What the names begin with of variables that the interpreter itself reads at its start.
_INTERPRETER = "PYTHON"

#: Modules that go through the whole environment, and what the names of those variables begin with that they keep.
COPIERS: Mapping[str, tuple[str, ...]] = {
    "gettext": (),  # asks for a language whenever it translates
    "model_hosting_container_standards.common.transforms.defaults_config": ("SAGEMAKER_TRANSFORMS_",),
    "model_hosting_container_standards.sagemaker.config": ("SAGEMAKER_",),
    "networkx.utils.backends": ("NETWORKX_",),
    "platform": (),  # for a program that it runs and waits for
    "subprocess": (),  # looks for a program in PATH whenever it starts one
    "tqdm.utils": ("TQDM_",),
    "wsgiref.handlers": (),  # its copy is renewed: reapply_env.copy_environment
}

#: Stands between the modules that read one variable.
_AND = ", "

#: Modules that read a variable for the one that calls them.
_GO_BETWEENS = frozenset({"_collections_abc", "collections.abc", "genericpath", "getpass", "os", "posixpath"})


class Reads:
    """Records, while the block runs, which variables are read and set through ``os.environ``.

    Attributes:
        names: every variable that was read, with the modules that did, separated by commas.  A name that ends in ``*``
            stands for all variables that begin with the rest of it.
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
                if isinstance(key, str):
                    reads.note(key, _reader())
                value: str = super().__getitem__(key)
                return value

            def __setitem__(self, key: str, value: str) -> None:
                super().__setitem__(key, value)
                reads.written.add(key)

            def __delitem__(self, key: str) -> None:
                super().__delitem__(key)
                reads.written.add(key)

            def __iter__(self) -> Iterator[str]:
                reader = _reader()
                reads.copied_by.add(reader)
                for prefix in COPIERS.get(reader, ()):
                    reads.note(f"{prefix}*", reader)
                return iter(list(super().__iter__()))

        os.environ.__class__ = Recorded  # the object itself is everywhere already
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.environ.__class__ = self._class

    def note(self, name: str, reader: str) -> None:
        """Record that a module has read a variable, unless it went through all of them for others."""
        if not name.startswith(COPIERS.get(reader, "")):
            return
        known = self.names.get(name)
        if known is None:
            self.names[name] = reader
        elif reader not in known.split(_AND):
            self.names[name] = f"{known}{_AND}{reader}"


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
    while frame and (frame.f_globals.get("__name__") in _GO_BETWEENS or frame.f_globals.get("__name__") == __name__):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")) if frame else ""


@dataclass(frozen=True)
class Contract:
    """What the imports took from the environment, and so what a process that inherits them depends on.

    Attributes:
        variables: the environment that the engine was started with, and what the imports have made of it.
        reads: the variables that were read, with the modules that did: ``Reads.names``.
        hidden: variables that had other values during the imports, to keep the accelerator untouched.
        preload: ``LD_PRELOAD`` as the dynamic loader saw it.
        made: variables that the imports themselves have set, or removed (``None``).
        native: variables that native code has set meanwhile, as readline does the terminal's size.
        before: what of ``made`` was set before: OpenCV puts its own directory in front of ``LD_LIBRARY_PATH``.
        cpus: how many processors the process might use: what sizes pools of threads where no variable does.
        utf8_mode: ``sys.flags.utf8_mode``, which the interpreter switches on in the locale ``C``.
    """

    variables: Mapping[str, str]
    reads: Mapping[str, str]
    hidden: Mapping[str, str] = field(default_factory=dict)
    preload: str = ""
    made: Mapping[str, str | None] = field(default_factory=dict)
    native: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    cpus: int = field(default_factory=_processors)
    utf8_mode: int = sys.flags.utf8_mode

    def with_import_effects(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return an environment with what the imports of a new interpreter would make of it."""
        found = dict(variables)
        for name, value in self.made.items():
            if value is None:
                continue
            before = self.before.get(name, "")
            if name == _LIBRARIES and value.endswith(before):  # a directory was put in front of what there was
                added = value[: len(value) - len(before)]
                found[name] = found[name] if found.get(name, "").startswith(added) else added + found.get(name, "")
            elif found.get(name) == self.before.get(name) and not self._differs(MADE_FROM.get(name, ()), variables):
                found[name] = value
        return found

    def conflict(self, variables: Mapping[str, str], *, restored: bool = False) -> str | None:
        """Return which variables a process would get wrong in this environment, and why; ``None`` where none.

        Args:
            variables: its environment.
            restored: whether it is no fork but a restored process, with native code as another container loaded it.

        Returns:
            The reason, for a restored process with what to put into ``warmimage.yaml``, without any variable's value.
        """
        variables = self.with_import_effects(variables)
        reasons = {}
        for name in self._changed(variables):
            if name in self.hidden and name not in DEVICE_HANDLERS:
                continue  # the imports have not seen the value that has changed
            if name in self.native and variables.get(name) in (None, self.native[name]):
                continue
            reason = self._conflict(name, variables, restored)
            if reason:
                reasons[name] = reason
        if not reasons:
            return None
        text = ", ".join(reasons.values())
        return f"{text}; {_fix(list(reasons))}" if restored else text

    def _conflict(self, name: str, variables: Mapping[str, str], restored: bool) -> str | None:
        """Return why a variable that has changed makes a process wrong; ``None`` where it does not."""
        if name in _CHECKED:
            problem = _CHECKED[name](self, variables)
            if problem or name not in READERS:
                return f"{name} {problem}" if problem else None
        if name in DEVICE_HANDLERS:
            return None
        readers = {reader for reader in self._readers(name).split(_AND) if reader} - READERS.get(name, frozenset())
        if name not in READERS and not readers and _is_native(name, restored):
            readers = {"native code"}
        return f"{name} has changed since {_AND.join(sorted(readers))} read it" if readers else None

    def _readers(self, name: str) -> str:
        """Return the modules that read a variable, by its name or with all that begin like it."""
        patterns = (pattern for pattern in self.reads if pattern.endswith("*") and name.startswith(pattern[:-1]))
        return _AND.join(self.reads[key] for key in (name, *patterns) if key in self.reads)

    def reapply(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Put right what modules of this process derived from variables, or a number of processors, that differ now.

        Args:
            variables: the environment, which is in ``os.environ`` already.

        Returns:
            The variables for which that failed, with the reason.
        """
        failed = {}
        changed = self._changed(variables)
        recounted = OF_PROCESSORS if self.cpus != _processors() else ()
        for name in sorted({*changed, *self.hidden, *recounted}):
            if name in DEVICE_HANDLERS and (variables.get(name) != self._seen(name) or name in recounted):
                try:
                    DEVICE_HANDLERS[name](variables.get(name))
                except Exception as error:
                    failed[name] = repr(error)
        for handler in HANDLERS:
            names = [name for name in changed if name in handler.variables]
            try:
                if names:
                    handler.apply()
            except Exception as error:
                failed.update(dict.fromkeys(names, repr(error)))
        if changed:
            copy_environment()
        return failed

    def _seen(self, name: str) -> str | None:
        """Return the value that the imports saw."""
        return self.hidden[name] if name in self.hidden else self.variables.get(name)

    def _changed(self, variables: Mapping[str, str]) -> list[str]:
        return sorted(name for name in {*self.variables, *variables} if self._differs((name,), variables))

    def _differs(self, names: Iterable[str], variables: Mapping[str, str]) -> bool:
        return any(self.variables.get(name) != variables.get(name) for name in names)


def _preload_conflict(contract: Contract, variables: Mapping[str, str]) -> str | None:
    wanted = variables.get("LD_PRELOAD", "").replace(":", " ").split()
    absent = sorted(set(wanted) - set(contract.preload.replace(":", " ").split()))
    return f"names {absent[0]}, which is not loaded" if absent else None


def _libraries_conflict(contract: Contract, variables: Mapping[str, str]) -> str | None:
    """Return why the loader, which reads the variable once, could find another library by the new value."""
    old, new = (
        [path for path in values.get(_LIBRARIES, "").split(":") if path and _has_libraries(path)]
        for values in (contract.variables, variables)
    )
    differing = next((path for path in (*new, *old) if path not in old or path not in new), "")
    if differing:
        return f"names {differing}, where libraries lie, at one time and not at the other"
    same_order = list(dict.fromkeys(old)) == list(dict.fromkeys(new))
    return None if same_order else "names directories of libraries in another order"


def _has_libraries(directory: str) -> bool:
    try:
        return any(".so" in name or name == "glibc-hwcaps" for name in os.listdir(directory))
    except OSError:
        return False  # the loader finds nothing in it either


def _hash_seed_conflict(contract: Contract, variables: Mapping[str, str]) -> str | None:
    """Compare the seeds that were asked for; no value and ``random`` ask for none."""
    old, new = (values.get("PYTHONHASHSEED") or "random" for values in (contract.variables, variables))
    return "has changed since native code read it" if old != new else None


def _locale_conflict(contract: Contract, variables: Mapping[str, str]) -> str | None:
    problem = python_locale.conflict(contract.variables, variables, contract.utf8_mode)
    return f"does not fit: {problem}" if problem else None


def _home_conflict(_contract: Contract, variables: Mapping[str, str]) -> str | None:
    version = "python{}.{}".format(*sys.version_info)
    packages = os.path.join(variables.get("HOME", "/"), ".local/lib", version, "site-packages")
    return f"has packages of its own in {packages}" if os.path.isdir(packages) else None


#: Variables whose values decide: a check returns what is wrong, after the name of the variable.
_CHECKED: Mapping[str, Callable[[Contract, Mapping[str, str]], str | None]] = {
    "HOME": _home_conflict,
    "LD_LIBRARY_PATH": _libraries_conflict,
    "LD_PRELOAD": _preload_conflict,
    "PYTHONHASHSEED": _hash_seed_conflict,
    **dict.fromkeys(python_locale.CHARACTERS, _locale_conflict),
}


def _fix(names: Sequence[str]) -> str:
    """Return what to do to keep the tier; values are left out, for they may be secret."""
    return f'put "env: {{{", ".join(f"{name}: ..." for name in names)}}}" into warmimage.yaml and build again'
