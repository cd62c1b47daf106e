"""Containers and tags that do not outlive a block, whenever the command is interrupted."""

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

#: Repository of the tags by which a build is given an image to start from: no builder starts from an id.
_REPOSITORY = "warmimage-build"

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put off signals that end the command until the block has run: making or removing a container is not cut short.

    A request that was cut short would go on in the Docker daemon, and leave a container that nobody knows of.
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
def created(client: docker.DockerClient, image: str, words: Mapping[str, Any], what: str) -> Iterator[Container]:
    """Make a container for the block, and remove it after it.

    Args:
        client: the Docker daemon's.
        image: its image.
        words: further arguments of ``client.containers.create``.
        what: what it is, for an error: ``a container of the image``.

    Raises:
        WarmimageError: the Docker daemon refuses.
    """
    container: Container | None = None
    try:
        with undisturbed(), daemon.api_errors(f"cannot create {what}"):
            container = client.containers.create(image, **words)
        yield container
    finally:
        if container:
            remove(container)


@contextlib.contextmanager
def tagged(client: docker.DockerClient) -> Iterator[str]:
    """Give a tag for the block; after it the tag is removed, and with it an image that has no other."""
    tag = f"{_REPOSITORY}:{uuid.uuid4().hex}"
    try:
        yield tag
    finally:
        with contextlib.suppress(ImageNotFound, APIError):
            client.images.remove(tag, noprune=True)
