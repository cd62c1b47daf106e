"""No container is left behind, whenever the bench is interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from ..console import warn

#: Label of the bench's containers; its value is the bench's own.
LABEL = "dev.warmimage.bench"

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put off signals that end the command until the block has run: making or removing a container is not cut short.

    A request that was cut short would go on in the engine, and leave a container that nobody knows of.
    """
    came: list[int] = []

    def note_it(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note_it) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        os.kill(os.getpid(), came[0])


def remove(container: Container) -> None:
    """Remove a container, undisturbed."""
    with undisturbed(), contextlib.suppress(NotFound):
        container.remove(force=True, v=True)


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
