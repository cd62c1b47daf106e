"""Tier ``preload``, inside the engine's process: load native libraries on a thread, then run the engine's own script.

Run as a script: ``python launch.py TIMELINE PROGRAM [ARGUMENT]...``.  The thread touches no Python state: it only calls
``dlopen``, through ``ctypes``, which releases the GIL, on libraries that use no Python themselves.  Nothing is imported
on it, so the main thread's imports cannot race it (that race is why vLLM's #40331 was reverted).
"""

from __future__ import annotations

import os
import sys

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    __package__ = "entrypoint"

from . import libraries
from .timeline import Timeline


def is_interpreter(program: str) -> bool:
    """Return whether a program is a Python interpreter rather than a script for one."""
    return os.path.basename(program).startswith("python")


def main() -> None:
    """Preload, then become the engine."""
    path, program, *arguments = sys.argv[1:]
    timeline = Timeline(path, "engine")
    libraries.preload(timeline)
    timeline.event("engine.entered")
    del sys.path[0]  # this package's: the engine's own first entry takes its place
    run(program, arguments)


def run(program: str, arguments: list[str]) -> None:
    """Run a console script, or an interpreter's ``-m MODULE``, as the interpreter itself would have."""
    import runpy

    if is_interpreter(program):
        module = arguments[arguments.index("-m") + 1]
        sys.argv = [module, *arguments[arguments.index("-m") + 2 :]]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    sys.argv = [program, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.realpath(program)))
    main_module = type(sys)("__main__")
    main_module.__dict__.update(__file__=program, __builtins__=__builtins__, __spec__=None, __cached__=None)
    sys.modules["__main__"] = main_module
    with open(program, "rb") as file:
        code = compile(file.read(), program, "exec")
    exec(code, main_module.__dict__)


if __name__ == "__main__":
    main()
