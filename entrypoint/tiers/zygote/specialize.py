"""A process that was forked from a fork server becomes what its parent asked for, as a new interpreter would."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import io
import logging
import os
import random
import runpy
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing import process, spawn
from typing import Any

from ...environment import import_environment
from ...settings import is_interpreter
from ...timeline import Timeline, say
from ..preload import launch
from . import fd_passing, process_state, proctitle
from .fork_server import ForkRequest

#: What the target of a restored process begins with: the engine's own program.
PROGRAM = "program"

#: With which ``torch`` begins in every process (``default_rng_seed_val`` in c10/core/GeneratorImpl.h).
_TORCH_SEED = 67280421310721


def apply_request(
    fork_request: ForkRequest, contract: import_environment.Contract, path: Sequence[str], timeline: Timeline
) -> None:
    """Apply the parent's request, and replace what no two processes may share.

    Args:
        fork_request: the request, with its open files.
        contract: what the imports have read of the environment.
        path: ``sys.path`` as an interpreter of this installation begins with it.
        timeline: this process's.
    """
    request = fork_request.request
    os.environb.clear()
    os.environb.update(request["environment"])
    failed = process_state.apply(request["state"])  # first, for it has the limit of open files
    timeline.renumber(lambda number: fd_passing.move_high(number, request["files"]))
    kept = fd_passing.open_fds() - {*fork_request.files, 0, 1, 2}
    for number in kept & set(request["files"]):  # a file that an import left open is lost to it
        timeline.event("zygote.fd_conflict", descriptor=number)
    fd_passing.install(dict(zip(request["files"], fork_request.files, strict=True)))
    fd_passing.close([number for number in (0, 1, 2) if number not in request["files"]])
    if failed:
        timeline.event("process_state.failed", failed=failed)
        say(f"a forked process differs from its parent: {', '.join(f'{key}: {failed[key]}' for key in failed)}")
    _open_streams()
    sys.path[:] = path
    sys.orig_argv[:] = request["argv"]
    option, value = request["target"]
    proctitle.rename(value if option == PROGRAM else sys.executable, request["argv"])
    os.environ.update(contract.with_import_effects(os.environ))
    reseed()
    failed_variables = reapply_environment(contract, timeline)
    if failed_variables and option == PROGRAM:  # restored; another tier imports with these variables
        raise RuntimeError(f"not derived again: {', '.join(failed_variables)}")
    _name_after_preparation(timeline)


def run(target: Sequence[str], argv: Sequence[str]) -> None:
    """Run a ``-c`` or ``-m`` command line in this process, as the interpreter itself would have."""
    option, value = target
    if option == PROGRAM:
        launch.run(value, list(argv[1 if is_interpreter(value) else 2 :]))
        return
    rest = list(argv[list(argv).index(value) + 1 :])
    main_module = type(sys)("__main__")
    main_module.__dict__.update(__builtins__=builtins, __spec__=None)
    sys.modules["__main__"] = main_module
    sys.argv = [option, *rest]
    safe_path = getattr(sys.flags, "safe_path", bool(sys.flags.isolated))
    if option == "-c":
        sys.path[:0] = [] if safe_path else [""]
        exec(compile(value, "<string>", "exec", dont_inherit=True), main_module.__dict__)
        return
    sys.path[:0] = [] if safe_path else [os.getcwd()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that the module is imported already is what we are for
        try:
            _name, spec, code = runpy._get_module_details(value, runpy._Error)  # type: ignore[attr-defined]
        except runpy._Error as error:  # type: ignore[attr-defined]
            sys.exit(f"{sys.executable}: {error}")
    sys.argv[0] = spec.origin
    runpy._run_code(code, main_module.__dict__, None, "__main__", spec)  # type: ignore[attr-defined]


def reapply_environment(contract: import_environment.Contract, timeline: Timeline) -> list[str]:
    """Put right what modules derived from variables that have another value here; failures are events.

    Returns:
        The variables for which that failed.
    """
    failed = contract.reapply(dict(os.environ))
    if failed:
        timeline.event("environment.failed", variables=failed)
        say(f"not derived again: {', '.join(failed)}")
    return list(failed)


def invalidate_host_caches() -> None:
    """Drop what a restored process remembers of the machine and the moment of its capture."""
    importlib.invalidate_caches()  # that a directory was not there, for one
    time.tzset()
    platform: Any = sys.modules.get("platform")
    if platform:  # torch's import asks it, and so it knows the host's name
        if hasattr(platform, "_uname_cache"):
            platform._uname_cache = None
        getattr(platform, "_platform_cache", {}).clear()


def reseed() -> None:
    """Give this process random numbers of its own."""
    random.seed()
    # Their generators start over when the PID changes, and a restored process has that of the captured one.
    tempfile: Any = sys.modules.get("tempfile")
    synchronize: Any = sys.modules.get("multiprocessing.synchronize")
    if tempfile:
        tempfile._name_sequence = None
    if tempfile and synchronize:
        synchronize.SemLock._rand = tempfile._RandomNameSequence()
    uuid = sys.modules.get("uuid")
    for name in ("_last_timestamp", "_node"):  # of version 1, the second being the host's address
        if hasattr(uuid, name):
            setattr(uuid, name, None)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random:
        numpy_random.seed()
    torch = sys.modules.get("torch")
    if torch and torch.initial_seed() != _TORCH_SEED:
        torch.default_generator.seed()  # an import has drawn one at random, and would do so again
    process.current_process().authkey = os.urandom(32)
    ssl = sys.modules.get("ssl")
    if ssl:
        ssl.RAND_add(os.urandom(48), 48.0)  # OpenSSL sees a fork by itself, and a restore not
    logging._startTime = time.time_ns() if sys.version_info >= (3, 13) else time.time()  # type: ignore[attr-defined]


def _open_streams() -> None:
    """Open the standard streams again: whether they are terminals decides how they buffer."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        before = getattr(sys, f"__{name}__")
        stream: Any = None
        if before is not None:
            with contextlib.suppress(OSError):
                stream = _stream(number, name, mode, before)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _stream(number: int, name: str, mode: str, before: io.TextIOWrapper) -> io.TextIOWrapper:
    """Make a standard stream as ``create_stdio`` of Python/pylifecycle.c does."""
    unbuffered = before.write_through  # python -u, or its variable
    buffer: Any = open(number, f"{mode}b", buffering=0 if unbuffered and mode == "w" else -1, closefd=False)  # noqa: SIM115
    raw = getattr(buffer, "raw", buffer)
    raw.name = f"<{name}>"
    stream: Any = io.TextIOWrapper(
        buffer,
        encoding=before.encoding,
        errors=before.errors,
        newline="\n",
        line_buffering=not unbuffered and (raw.isatty() or number == 2),
        write_through=unbuffered,
    )
    stream.mode = mode
    return stream  # type: ignore[no-any-return]


def _name_after_preparation(timeline: Timeline) -> None:
    """Call this process in the timeline what ``multiprocessing`` calls it, once it knows."""
    original = spawn.prepare

    def prepare(data: Mapping[str, Any]) -> None:
        spawn.prepare = original
        timeline.process = str(data.get("name", timeline.process))
        timeline.event("child.entered", name=timeline.process)
        original(data)

    spawn.prepare = prepare
