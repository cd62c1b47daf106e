"""What this start is to do, from the plan in the image, the container's environment and its arguments."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .plan import EnginePlan, Plan

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: The image's only script, for an interpreter whose command line has no ``-I``.
SCRIPT = os.path.join(ROOT, "entrypoint", "__main__.py")
PLAN = os.path.join(ROOT, "plan.json")
CLOSURE = os.path.join(ROOT, "closure.json")
IMPORTS = os.path.join(ROOT, "imports.json")
SNAPSHOT = os.path.join(ROOT, "snapshot")

#: Port of the command ``warm``; here, for the health check asks it and wants no more than this module.
WARM_PORT = 9464


@dataclass(frozen=True)
class Settings:
    """One start of the engine.

    Attributes:
        plan: the image's plan, as the builder wrote it.
        arguments: the engine arguments given after the image name.
        environment: the container's environment, byte for byte, which is the engine's too.
        start: the tier asked for, ``auto`` or a tier's name.
        prefetch: ``off`` where nothing is to be read into the page cache beside the start.
        timeline: path of the timeline file.
    """

    plan: Plan
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    start: str
    prefetch: str
    timeline: str

    @property
    def engine(self) -> EnginePlan:
        """The plan's engine: command, health path, port and the rest of its adapter's data."""
        return self.plan.engine

    @property
    def command(self) -> list[str]:
        """The engine's own command line: its adapter's, then the plan's arguments, then the container's."""
        return [*self.engine.command, *self.engine.args, *self.arguments]

    @property
    def snapshot(self) -> str:
        """The directory of the snapshot to restore: the image's, unless ``WARMIMAGE_SNAPSHOT_DIR`` names another."""
        return self.environment.get("WARMIMAGE_SNAPSHOT_DIR", "") or SNAPSHOT

    @property
    def directory(self) -> str:
        """The working directory that the engine is started in."""
        return self.engine.directory

    @property
    def quick(self) -> str | None:
        """The argument that makes the engine answer and end, such as ``--help``; ``None`` where there is none."""
        return self._first(self.engine.quick_flags)

    @property
    def port(self) -> int:
        """The TCP port the engine is told to serve on; the last flag wins, as in the engines' own parsers."""
        return last_port(self.command, self.engine.port_flags, self.engine.port)

    @property
    def host(self) -> str:
        """The address to ask for health: the one the engine is told to listen on, the loopback's if that is a name."""
        host = last_value(self.command, ("--host",))
        if host == "::":
            return "::1"  # servers that listen on it take no IPv4
        every = host == "0.0.0.0"  # noqa: S104 - compared with, not listened on
        return host if is_address(host) and not every else "127.0.0.1"

    @property
    def unchecked(self) -> str | None:
        """The argument after which the engine does not load the volume's weight files; ``None`` where there is none."""
        return self._first(self.engine.unchecked_flags)

    @property
    def unprobed(self) -> str | None:
        """Why readiness cannot be seen over plain HTTP on a TCP port; ``None`` where it can."""
        flag = self._first(self.engine.unprobed_flags)
        return f"the engine is told {flag}" if flag else None

    def _first(self, flags: Sequence[str]) -> str | None:
        """Return the first of ``flags`` among the engine's arguments, with or without a value; ``None`` for none."""
        names = (argument.partition("=")[0] for argument in (*self.engine.args, *self.arguments))
        return next((name for name in names if name in flags), None)


def is_interpreter(program: str) -> bool:
    """Return whether a program is a Python interpreter rather than a script for one."""
    return os.path.basename(program).startswith("python")


def is_address(host: str) -> bool:
    """Return whether a host is an address in numbers, which no name service need be asked for."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return True
    return False


def last_port(command: Sequence[str], flags: Sequence[str], default: int) -> int:
    """Return the port that the last of ``flags`` in ``command`` names, else ``default``."""
    value = last_value(command, flags)
    valid = value.isascii() and value.isdigit() and len(value) <= 5 and int(value) < 65536
    return int(value) if valid else default  # the engine itself refuses what is no port


def last_value(command: Sequence[str], flags: Sequence[str]) -> str:
    """Return the value of the last of ``flags`` in ``command``, in either spelling, else an empty string."""
    found = ""
    for index, argument in enumerate(command):
        name, equals, value = argument.partition("=")
        if name not in flags:
            continue
        if not equals:
            value = command[index + 1] if index + 1 < len(command) else ""
        found = value
    return found


def initial_environment() -> dict[str, str]:
    """Return the environment that this process was started with.

    Not ``os.environ``: under the C locale Python adds ``LC_CTYPE`` to it (PEP 538), which the engine's own command
    line would not have seen.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return dict(os.environ)
    pairs = (entry.partition(b"=") for entry in entries if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def read_plan(path: str = PLAN) -> Plan:
    """Return the image's plan.

    Args:
        path: its file.

    Raises:
        OSError: the file cannot be read: this is no image of ours.
        ValueError: it is not JSON, or not a plan.
    """
    with open(path, encoding="utf-8") as file:
        return Plan.from_json(file.read())


def load(arguments: Sequence[str], environment: Mapping[str, str], timeline: str, plan: str = PLAN) -> Settings:
    """Read the plan and return this start's settings.

    Raises:
        OSError: the plan cannot be read: this is no image of ours.
        ValueError: the plan is not JSON, or not a plan.
    """
    image = read_plan(plan)
    return Settings(
        plan=image,
        arguments=tuple(arguments),
        environment=environment,
        start=environment.get("WARMIMAGE_START", "") or image.start,
        prefetch=environment.get("WARMIMAGE_PREFETCH", ""),
        timeline=environment.get("WARMIMAGE_TIMELINE", timeline),
    )
