"""The image's HEALTHCHECK: exit code 0 when the server answers its health path, 1 when it does not.

Takes the port from PID 1's own arguments, so ``docker run IMAGE --port 9000`` is checked where it listens.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Sequence

from .settings import PLAN, ROOT, WARM_PORT, last_port, load


def pid1_arguments() -> list[str]:
    """Return the engine arguments of PID 1: what follows the entrypoint's directory on its command line."""
    with open("/proc/1/cmdline", "rb") as file:
        argv = [os.fsdecode(argument) for argument in file.read().split(b"\0")[:-1]]
    directory = os.path.join(ROOT, "entrypoint")
    return argv[argv.index(directory) + 1 :] if directory in argv else []


def main(_arguments: Sequence[str] = (), plan: str = PLAN) -> int:
    """Ask once and return the exit code."""
    arguments = pid1_arguments()
    if arguments[:1] == ["warm"]:
        if "--once" in arguments:
            print("not asked: --once")
            return 0
        return ask("127.0.0.1", last_port(arguments, ("--port",), WARM_PORT), "/healthz")
    settings = load(arguments, dict(os.environ), "", plan)
    if settings.unprobed:
        print(f"not asked: {settings.unprobed}")
        return 0
    return ask(settings.host, settings.port, settings.engine.health_path)


def ask(host: str, port: int, path: str) -> int:
    """Ask once over HTTP and return the exit code."""
    connection = http.client.HTTPConnection(host, port, timeout=4)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"not answering on port {port}: {error}")
        return 1
    print(f"HTTP {status}")
    return 0 if status == 200 else 1
