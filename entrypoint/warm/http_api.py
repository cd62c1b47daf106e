"""The HTTP API: FastAPI on uvicorn, and prometheus_client, as the engine's environment in the image has them.

Everything else of ``warm`` uses the standard library alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from .metrics import families, status
from .status import WarmStatus

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


def enter_site_packages() -> None:
    """Let this interpreter, which was started without them (``-S``), find installed packages."""
    if sys.flags.no_site:
        import site

        site.main()
        sys.path += [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def absent() -> list[str]:
    """Return which of the packages are not there."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def listen(port: int) -> socket.socket:
    """Return a socket that listens on all addresses, of IPv6 too where there is any.

    Raises:
        OSError: the port is taken, or must not be used.
    """
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # a host without addresses of that kind; a port in use shows below
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def serve(
    listening: socket.socket, state: Callable[[], WarmStatus], alive: Callable[[], bool], failures: Callable[[], int]
) -> None:
    """Answer on a socket until the process ends; the work of a thread.

    Args:
        listening: the socket.
        state: returns what is so at the moment of asking.
        alive: whether the loop still runs.
        failures: returns how often the node's label could not be set.
    """
    import uvicorn

    threading.current_thread().name = "http"
    config = uvicorn.Config(
        application(state, alive, failures),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        log_config=None,
    )
    uvicorn.Server(config).run(sockets=[listening])


def application(state: Callable[[], WarmStatus], alive: Callable[[], bool], failures: Callable[[], int]) -> Any:
    """Return the application with its four paths; the arguments are those of ``serve``."""
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse, PlainTextResponse, Response
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    app = FastAPI(title="warmimage warm", openapi_url=None)

    class States(Collector):
        """Every scrape is of one state, so that its figures fit together."""

        def collect(self) -> Iterator[Any]:
            """Yield the metrics."""
            return families(state(), failures())

        def describe(self) -> list[Any]:
            """Say nothing beforehand: the registry would collect to find out."""
            return []

    registry = CollectorRegistry()
    registry.register(States())

    # None of them waits for anything: they need no threads.
    async def healthz() -> Response:
        return PlainTextResponse("ok\n") if alive() else PlainTextResponse("the loop has ended\n", 500)

    async def readyz() -> Response:
        now = state()
        return PlainTextResponse(now.reason + "\n", 200 if now.ready else 503)

    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def whole() -> Response:
        return JSONResponse(status(state()))

    for path, answer in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics), ("/status", whole)):
        app.add_api_route(path, answer, methods=["GET", "HEAD"], response_class=Response)
    return app
