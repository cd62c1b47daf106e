"""What this start is to do, from the plan in the image, the container's environment and its arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLAN = os.path.join(ROOT, "plan.json")
CLOSURE = os.path.join(ROOT, "closure.json")


@dataclass(frozen=True)
class Settings:
    """One start of the engine.

    Attributes:
        plan: the image's plan, as the builder wrote it.
        arguments: the engine arguments given after the image name.
        environment: the container's environment, byte for byte, which is the engine's too.
        start: the rung asked for, ``auto`` or a tier's name.
        prefetch: whether files are to be read into the page cache beside the start.
        timeline: path of the timeline file.
    """

    plan: Mapping[str, Any]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    start: str
    prefetch: bool
    timeline: str

    @property
    def engine(self) -> Mapping[str, Any]:
        """The plan's engine: command, health path, port and the rest of its adapter's data."""
        engine: Mapping[str, Any] = self.plan["engine"]
        return engine

    @property
    def command(self) -> list[str]:
        """The engine's own command line: its adapter's, then the plan's arguments, then the container's."""
        return [*self.engine["command"], *self.engine["args"], *self.arguments]

    @property
    def directory(self) -> str:
        """The working directory that the engine is started in."""
        return str(self.engine["directory"])

    @property
    def quick(self) -> str:
        """The argument that makes the engine answer and end, such as ``--help``, or an empty string."""
        return next((argument for argument in self.arguments if argument in self.engine["quick_flags"]), "")

    @property
    def port(self) -> int:
        """The TCP port the engine is told to serve on; the last flag wins, as in the engines' own parsers."""
        return last_port(self.command, self.engine["port_flags"], int(self.engine["port"]))

    @property
    def unprobed(self) -> str:
        """Why readiness cannot be seen over plain HTTP on a TCP port, or an empty string."""
        for argument in self.command:
            name = argument.partition("=")[0]
            if name in self.engine["unprobed_flags"]:
                return f"the engine is told {name}"
        return ""


def last_port(command: Sequence[str], flags: Sequence[str], default: int) -> int:
    """Return the port that the last of ``flags`` in ``command`` names, in either spelling, else ``default``."""
    port = default
    for index, argument in enumerate(command):
        name, equals, value = argument.partition("=")
        if name not in flags:
            continue
        if not equals:
            value = command[index + 1] if index + 1 < len(command) else ""
        if value.isdigit():
            port = int(value)
    return port


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


def load(arguments: Sequence[str], environment: Mapping[str, str], timeline: str, plan: str = PLAN) -> Settings:
    """Read the plan and return this start's settings.

    Raises:
        OSError: the plan cannot be read: this is no image of ours.
        ValueError: the plan is not JSON.
    """
    with open(plan, encoding="utf-8") as file:
        data = json.load(file)
    return Settings(
        plan=data,
        arguments=tuple(arguments),
        environment=environment,
        start=environment.get("WARMIMAGE_START", "") or data["start"],
        prefetch=environment.get("WARMIMAGE_PREFETCH", "on") != "off",
        timeline=environment.get("WARMIMAGE_TIMELINE", timeline),
    )
