"""The engine's program: which interpreter runs it, and how another script may run it in its own process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from ..settings import SCRIPT, Settings, is_interpreter
from .base import Declined

#: Exit code by which a script that runs the engine in its own process says that it cannot after all (EX_TEMPFAIL of
#: sysexits.h): it has written the reason to the timeline, and done nothing of the engine's.
EXIT_DECLINED = 75


@dataclass(frozen=True)
class Program:
    """The engine's program, found.

    Attributes:
        interpreter: path of the Python interpreter that runs it.
        path: path of its script, or of the interpreter where the command line has ``-m``.
    """

    interpreter: str
    path: str


def find(settings: Settings) -> Program:
    """Return the engine's program.

    Raises:
        Declined: it is neither an interpreter with ``-m`` nor a Python script.
    """
    program = locate(settings.command, settings.plan.python, settings.environment.get("PATH"))
    if not program:
        raise Declined(f"{settings.command[0]} is neither a Python script on PATH nor an interpreter with -m")
    return program


def locate(command: Sequence[str], python: str, search_path: str | None) -> Program | None:
    """Return a command's program if it is an interpreter with ``-m`` or a Python script, else ``None``.

    Args:
        command: the command line.
        python: the interpreter of a script that does not name its own.
        search_path: where to look for it, as the variable ``PATH``.
    """
    path = shutil.which(command[0], path=search_path) or ""
    if not path:
        return None
    if is_interpreter(path):
        return Program(path, path) if list(command[1:2]) == ["-m"] else None
    try:
        with open(path, "rb") as file:
            first = file.readline()
    except OSError:
        return None  # executable, not readable: no script of ours to run
    interpreter = os.fsdecode(first.removeprefix(b"#!")).split()
    if not first.startswith(b"#!") or b"python" not in first:
        return None
    # The script's own interpreter by its own name, which is what the engine would see as sys.executable.
    own = interpreter[0] if len(interpreter) == 1 and os.access(interpreter[0], os.X_OK) else python
    return Program(own, path)


def command_line(interpreter: str, program: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line with which the kernel would have started the engine's program.

    Args:
        interpreter: path of the interpreter.
        program: path of the script, or of the interpreter where the arguments begin with ``-m``.
        arguments: what follows it.
    """
    return [interpreter, *arguments] if is_interpreter(program) else [interpreter, program, *arguments]


def wrap_command(command: str, settings: Settings, program: Program) -> list[str]:
    """Return the command line by which a command of this package runs the engine's own program in its process.

    Args:
        command: it takes the path of the timeline, the path of the program, and the arguments of the program.
        settings: this start.
        program: the engine's.
    """
    return [program.interpreter, SCRIPT, command, settings.timeline, program.path, *settings.command[1:]]
