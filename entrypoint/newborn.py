"""A process that was forked from a companion becomes what its requester asked for, as a new interpreter would."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import runpy
import sys
import time
import warnings
from collections.abc import Sequence
from multiprocessing import spawn
from typing import Any

from . import descriptors, environment, inheritance, title
from .companion import Birth
from .timeline import Timeline, say


def prepare(birth: Birth, contract: environment.Contract, path: Sequence[str], timeline: Timeline) -> None:
    """Put in place what the requester's side sent, and make anew what no two processes may share.

    Args:
        birth: the request, with its open files.
        contract: what the imports have read of the environment.
        path: ``sys.path`` as an interpreter of this installation begins with it.
        timeline: this process's.
    """
    request = birth.request
    os.environb.clear()
    os.environb.update(request["environment"])
    kept = descriptors.opened() - {*birth.files, 0, 1, 2}
    clash = kept & set(request["files"])
    for number in clash:  # a file that an import left open: it moves, for nobody knows it by this number but itself
        timeline.event("zygote.clash", descriptor=number)
    descriptors.place(dict(zip(request["files"], birth.files, strict=True)))
    descriptors.close([number for number in (0, 1, 2) if number not in request["files"]])
    inheritance.put(request["state"])
    _open_streams()
    sys.path[:] = path
    sys.orig_argv[:] = request["words"]
    title.rename(sys.executable, request["words"])
    reseed()
    rederive(contract, timeline)
    _name_after_preparation(timeline)


def run(target: Sequence[str], words: Sequence[str]) -> None:
    """Run a ``-c`` or ``-m`` command line in this process, as the interpreter itself would have."""
    option, value = target
    rest = list(words[list(words).index(value) + 1 :])
    main_module = type(sys)("__main__")
    main_module.__dict__.update(__builtins__=__builtins__, __spec__=None)
    sys.modules["__main__"] = main_module
    sys.argv = [option, *rest]
    if option == "-c":
        sys.path.insert(0, "")
        exec(compile(value, "<string>", "exec", dont_inherit=True), main_module.__dict__)
        return
    sys.path.insert(0, os.getcwd())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that the module is imported already is what we are for
        _name, spec, code = runpy._get_module_details(value)  # type: ignore[attr-defined]
    sys.argv[0] = spec.origin
    runpy._run_code(code, main_module.__dict__, None, "__main__", spec)  # type: ignore[attr-defined]


def rederive(contract: environment.Contract, timeline: Timeline) -> None:
    """Put right what modules derived from variables that have another value here; failures are events."""
    failed = contract.derive(dict(os.environ))
    if failed:
        timeline.event("environment.failed", variables=failed)
        say(f"not derived again: {', '.join(failed)}")


def reseed() -> None:
    """Give this process random numbers of its own; those of ``torch`` begin at a fixed seed in every process."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random:
        numpy_random.seed()
    logging._startTime = time.time_ns() if sys.version_info >= (3, 13) else time.time()  # type: ignore[attr-defined]


def _open_streams() -> None:
    """Make the standard streams anew: whether they are terminals decides how they buffer."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        before = getattr(sys, f"__{name}__")
        stream: Any = None
        if before is not None:
            with contextlib.suppress(OSError):
                stream = _stream(number, mode, before)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _stream(number: int, mode: str, before: io.TextIOWrapper) -> io.TextIOWrapper:
    unbuffered = before.write_through and mode == "w"  # python -u, or its variable
    raw: Any = open(number, f"{mode}b", buffering=0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    terminal = os.isatty(number)
    return io.TextIOWrapper(
        raw, encoding=before.encoding, errors=before.errors, newline="\n" if mode == "w" else None,
        line_buffering=terminal or number == 2, write_through=unbuffered,
    )  # fmt: skip


def _name_after_preparation(timeline: Timeline) -> None:
    """Call this process in the timeline what ``multiprocessing`` calls it, once it knows."""
    original = spawn.prepare

    def prepare(data: dict[str, Any]) -> None:
        spawn.prepare = original
        timeline.process = str(data.get("name", timeline.process))
        timeline.event("child.entered", name=timeline.process)
        original(data)

    spawn.prepare = prepare
