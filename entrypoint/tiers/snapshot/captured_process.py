"""The process that is captured: it imports everything, forks, and writes the fork's memory to a file.

Command ``captured-process DIRECTORY [ROOM]``, run by ``capture``.  DIRECTORY gets the file ``memory`` and
the facts about it, ``facts.json``.  ROOM is an argument as long as any command line that process listings are to show
later.

What is captured is the fork: one thread, locks and thread lists put right by ``fork`` itself and by Python's hooks, as
in every process that a fork server starts.  Restored, it learns from the restorer what it is to become, and goes on as
the engine's process of tier ``zygote``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...closure import Closure
from ...environment.import_environment import Contract
from ...imports import Imports
from ...settings import IMPORTS
from ...timeline import Timeline
from ..engine_program import command_line
from ..zygote import fork_safety, process, process_state, proctitle, specialize
from ..zygote.fork_server import ForkRequest, fork
from . import cpu_baseline, native, open_files
from .handover import Handover, show_environment
from .manifest import MEMORY
from .memory_file import MemoryFile, NotCaptured
from .protocol import OWN_PRELOAD, RESTORED

#: Names of the files in the directory, beside the snapshot file.
FACTS, TIMELINE = "facts.json", "timeline.jsonl"

#: Exit code: the process cannot be captured (EX_SOFTWARE of sysexits.h).
EXIT_NOT_CAPTURED = 70

#: Native threads that imports may leave: CUDA's driver and jemalloc leave one each, and work without it.
_MOST_THREADS = 3

_PR_SET_PDEATHSIG = 1


class _ArenaAllocator(ctypes.Structure):
    """``PyObjectArenaAllocator`` (Include/cpython/objimpl.h)."""

    _fields_ = (("context", ctypes.c_void_p), ("allocate", ctypes.c_void_p), ("free", ctypes.c_void_p))


def main(arguments: Sequence[str]) -> int:
    """Import, fork, write the fork to a file; or, restored, become the engine.  Return the exit code."""
    try:
        _capture_or_resume(arguments[0])
    except NotCaptured as error:
        print(f"not captured: {error}", file=sys.stderr)
        return EXIT_NOT_CAPTURED
    return 0


def _capture_or_resume(directory: str) -> None:
    del sys.path[0]  # this package's
    path = list(sys.path)
    point = ctypes.PyDLL(native.path(native.POINT))
    _place_arenas(point)
    proctitle.keep_writable()
    with open(IMPORTS, encoding="utf-8") as file:
        imports = Imports.from_json(file.read())
    own = cpu_baseline.without_loaders(imports.baseline, os.environ)
    os.environ.clear()
    os.environ.update(own)
    hidden = {**cpu_baseline.variables(imports.baseline), **imports.import_environment}
    timeline = Timeline(os.path.join(directory, TIMELINE), "capture", truncate=True)
    contract = process.import_engine(Closure.read().whole(), hidden, timeline)
    timeline.close()
    threads, files = _threads(), open_files.find()
    with contextlib.suppress(AttributeError):  # glibc's own: memory that the imports have freed is not to be written
        ctypes.CDLL(None).malloc_trim(0)
    pid = fork()
    if pid:
        facts = _write(pid, point, directory)
        facts |= {"contract": asdict(contract), "modules": len(sys.modules), "sources": sources(), "threads": threads}
        with open(os.path.join(directory, FACTS), "w", encoding="utf-8") as file:
            json.dump(facts, file)
        return
    cpu_baseline.forget_processor()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    address = _stop(point)
    handover = Handover.take(address)
    report, *arguments = map(os.fsdecode, handover.arguments)
    os.write(int(report), RESTORED)
    os.close(int(report))
    open_files.make_again(files)
    _resume(handover, arguments, contract, path, threads)


def _place_arenas(point: ctypes.PyDLL) -> None:
    """Have Python take its arenas from a range of their own, which a snapshot may map (``point.c``)."""
    allocator = _ArenaAllocator(
        None, ctypes.cast(point.arena_allocate, ctypes.c_void_p), ctypes.cast(point.arena_free, ctypes.c_void_p)
    )
    ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(allocator))


def _threads() -> list[str]:
    """Return the names of native threads, which a restored process will lack.

    Raises:
        NotCaptured: there are more than an engine has been seen to do without.
    """
    found = fork_safety.native_threads()
    if len(found) > _MOST_THREADS:
        raise NotCaptured(f"imports have left {len(found)} native threads: {', '.join(found)}")
    return found


def _stop(point: ctypes.PyDLL) -> int:
    """Stop at the snapshot point; return, in the restored process, the address of what it is handed over."""
    offset = 0
    with contextlib.suppress(ValueError):  # a C library that registers no rseq area (glibc before 2.35, musl)
        libc = ctypes.CDLL(None)
        if ctypes.c_uint.in_dll(libc, "__rseq_size").value:
            offset = ctypes.c_ssize_t.in_dll(libc, "__rseq_offset").value
    point.snapshot_point.argtypes, point.snapshot_point.restype = [ctypes.c_int64], ctypes.c_uint64
    address: int = point.snapshot_point(offset)
    return address


def _malloc_is_glibcs() -> bool:
    """Return whether the ``brk`` heap is glibc's: a malloc that was preloaded may take its memory from there, too.

    The effect tells: glibc's statistics count what was allocated.  The address of ``malloc`` tells nothing: in an
    interpreter that is no PIE it is that of the executable's own jump.
    """

    class Statistics(ctypes.Structure):
        """``struct mallinfo2`` (malloc.h, glibc 2.33)."""

        _fields_ = tuple((f"field{number}", ctypes.c_size_t) for number in range(10))

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return False
    libc.mallinfo2.restype = Statistics
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    size = 100_000  # neither from a thread's cache nor by mmap
    before = libc.mallinfo2().field7  # uordblks: bytes in use
    block = libc.malloc(size)
    counted = libc.mallinfo2().field7 - before
    libc.free(block)
    return bool(counted >= size)


def _write(pid: int, point: ctypes.PyDLL, directory: str) -> dict[str, Any]:
    """Write the stopped fork's memory, and end it; return what is to be said of the file."""
    try:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise NotCaptured(f"the fork ended with wait status {status}")
        point.snapshot_state.restype = ctypes.c_uint64
        resume = ctypes.cast(point.snapshot_resume, ctypes.c_void_p).value or 0
        memory = MemoryFile(pid, may_map_heap=_malloc_is_glibcs())
        return asdict(memory.write(os.path.join(directory, MEMORY), resume, point.snapshot_state()))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _resume(handover: Handover, argv: Sequence[str], contract: Contract, path: list[str], threads: list[str]) -> None:
    """Go on as what PID 1 has executed: ``TIMELINE PROGRAM [ARGUMENT]...``."""
    timeline_path, program, *arguments = argv
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]
    timeline = Timeline(timeline_path, "engine")
    timeline.event(
        "snapshot.restored",
        seconds=round(time.monotonic() - handover.began, 4),
        mapped_seconds=round(handover.mapped - handover.began, 4),
        lost_threads=threads,
    )
    variables = _environment(handover.variables)
    request = {
        "target": [specialize.PROGRAM, program],
        "argv": command_line(sys.executable, program, arguments),
        "environment": variables,
        "files": [0, 1, 2],
        "state": {**process_state.capture(), "ignored": [], "blocked": []},
    }
    with show_environment(variables):
        process.resume_restored(contract, path, timeline, ForkRequest(request, [0, 1, 2]))


def _environment(variables: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the container's environment, without what PID 1 has put in for the restorer."""
    own = {name: value for name, value in variables.items() if name not in (b"LD_PRELOAD", OWN_PRELOAD.encode())}
    if OWN_PRELOAD.encode() in variables:
        own[b"LD_PRELOAD"] = variables[OWN_PRELOAD.encode()]
    return own


def sources() -> list[str]:
    """Return the files that all modules were imported from, as far as they were."""
    found = (vars(module).get("__file__") for module in list(sys.modules.values()) if hasattr(module, "__dict__"))
    return sorted({os.path.abspath(path) for path in found if isinstance(path, str)})
