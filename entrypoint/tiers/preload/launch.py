"""Tier ``preload``, inside the engine's process: prepare what helps its imports, then run the engine's own script.

Command ``launch TIMELINE PROGRAM [ARGUMENT]...``.  The thread that opens libraries touches no Python
state: it calls ``dlopen`` alone, which releases the GIL, on libraries that use no Python themselves.  Nothing is
imported on it, so the main thread's imports cannot race it (that race is why vLLM's #40331 was reverted).
"""

from __future__ import annotations

import builtins
import os
import runpy
import sys
from collections.abc import Sequence

from ...settings import is_interpreter, read_plan
from ...timeline import Timeline, say
from . import libraries, stdlib_forkserver


def main(argv: Sequence[str]) -> int:
    """Preload, then become the engine."""
    path, program, *arguments = argv
    timeline = Timeline(path, "engine")
    del sys.path[0]  # this package's: the engine's own first entry takes its place
    try:
        # First: it starts a process, which must not happen while a thread of ours runs.
        stdlib_forkserver.prepare(read_plan().engine, timeline)
        libraries.preload(timeline)
    except Exception as error:
        timeline.event("preload.failed", reason=repr(error))
        say(f"preload skipped: {error!r}")
    timeline.event("engine.entered")
    run(program, arguments)
    return 0


def run(program: str, arguments: list[str]) -> None:
    """Run a console script, or an interpreter's ``-m MODULE``, as the interpreter itself would have."""
    safe_path = getattr(sys.flags, "safe_path", False)
    if is_interpreter(program):
        module = arguments[arguments.index("-m") + 1]
        sys.argv = [module, *arguments[arguments.index("-m") + 2 :]]
        if not safe_path:
            sys.path.insert(0, os.getcwd())
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    sys.argv = [program, *arguments]
    if not safe_path:
        sys.path.insert(0, os.path.dirname(os.path.realpath(program)))
    main_module = type(sys)("__main__")
    main_module.__dict__.update(__file__=program, __builtins__=builtins, __spec__=None, __cached__=None)
    sys.modules["__main__"] = main_module
    with open(program, "rb") as file:
        code = compile(file.read(), program, "exec", dont_inherit=True)  # not this module's __future__
    exec(code, main_module.__dict__)
