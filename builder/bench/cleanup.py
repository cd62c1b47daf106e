"""Remove a bench's containers, even if it is interrupted."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

import docker
from docker.errors import APIError, NotFound

from ..console import warn
from ..docker_api.temporary_container import undisturbed

#: Label of a bench's containers; its value identifies the bench.
LABEL = "dev.warmimage.bench"


@contextlib.contextmanager
def swept(client: docker.DockerClient, session: str) -> Iterator[None]:
    """Remove all remaining containers of this bench at the end of the block, in every case.

    A terminal that goes away ends the block too, unless the user has said that it is not to (``nohup``).
    """
    before = signal.getsignal(signal.SIGHUP)
    if before == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
        with undisturbed():
            try:
                for container in client.containers.list(all=True, filters={"label": f"{LABEL}={session}"}):
                    with contextlib.suppress(NotFound):
                        container.remove(force=True, v=True)
            except APIError as error:
                warn(f"containers with the label {LABEL}={session} may be left: {error.explanation}")
