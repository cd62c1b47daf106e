"""No container is left behind, whenever the bench is interrupted."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

import docker
from docker.errors import APIError, NotFound

from ..console import warn
from ..docker_api.temporary_container import undisturbed

#: Label of the bench's containers; its value is the bench's own.
LABEL = "dev.warmimage.bench"


@contextlib.contextmanager
def swept(client: docker.DockerClient, session: str) -> Iterator[None]:
    """Remove whatever containers of this bench are still there when the block ends, however it ends.

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
