"""Containers and tags that are removed at a block's end, even if the command is interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound, NotFound
from docker.models.containers import Container

from . import daemon

#: Repository of temporary tags: no builder can start from an image id.
_REPOSITORY = "warmimage-build"

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Delay signals that end the command until the end of the block, which creates or removes a container.

    The Docker daemon would complete an interrupted request, and leave a container behind.
    """
    received: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, remember) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        os.kill(os.getpid(), received[0])


def remove(container: Container) -> None:
    """Remove a container, without an interruption."""
    with undisturbed(), contextlib.suppress(NotFound):
        container.remove(force=True, v=True)


@contextlib.contextmanager
def created(client: docker.DockerClient, image: str, arguments: Mapping[str, Any], what: str) -> Iterator[Container]:
    """Create a container for the block, and remove it afterwards.

    Args:
        client: the Docker daemon's.
        image: its image.
        arguments: further keyword arguments of ``client.containers.create``.
        what: its description in errors, such as ``a container of the image``.

    Raises:
        WarmimageError: the Docker daemon refuses.
    """
    container: Container | None = None
    try:
        with undisturbed(), daemon.api_errors(f"cannot create {what}"):
            container = client.containers.create(image, **arguments)
        yield container
    finally:
        if container:
            remove(container)


@contextlib.contextmanager
def tagged(client: docker.DockerClient) -> Iterator[str]:
    """Yield a tag for the block.  Afterwards the tag is removed, and the image too if it has no other tag."""
    tag = f"{_REPOSITORY}:{uuid.uuid4().hex}"
    try:
        yield tag
    finally:
        with contextlib.suppress(ImageNotFound, APIError):
            client.images.remove(tag, noprune=True)
