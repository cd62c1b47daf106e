"""The Docker engine through its API: connect, pull, push, look at images.  Builds are in ``buildkit``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.images import Image
from requests.exceptions import RequestException

from .errors import EnvironmentLacks, WarmimageError

#: API of Docker 20.10, the first engine whose BuildKit takes secrets and bind mounts without a syntax line.
OLDEST_API = (1, 41)


def connect() -> docker.DockerClient:
    """Return a client of the engine that ``DOCKER_HOST`` or the default socket names.

    Raises:
        EnvironmentLacks: none answers, or it is too old.
    """
    try:
        client = docker.from_env(timeout=600)
        version = client.version()
    except (DockerException, RequestException) as error:
        refused = "ermission denied" in str(error)
        raise EnvironmentLacks(
            "the Docker engine may not be used by this user" if refused else "no Docker engine answers",
            got=_short(error),
            fix="sudo usermod -aG docker $USER, then log in again" if refused
            else "start it (systemctl start docker), or name it with DOCKER_HOST",
        ) from None  # fmt: skip
    api = tuple(int(part) for part in version["ApiVersion"].split("."))
    if api < OLDEST_API:
        raise EnvironmentLacks(
            "the Docker engine is too old", got=f"version {version['Version']}, API {version['ApiVersion']}",
            expected="Docker 20.10 (API 1.41) or later", fix="update Docker",
        )  # fmt: skip
    return client


def pull(client: docker.DockerClient, reference: str) -> Image:
    """Return an image that is on the engine, pulling it first where it is not.

    Raises:
        WarmimageError: the registry cannot be reached, or refuses.
    """
    try:
        return client.images.get(reference)
    except ImageNotFound:
        pass
    try:
        name, tag = _split(reference)
        return client.images.pull(name, tag=tag)
    except (APIError, RequestException) as error:
        raise registry_error("pull", reference, str(error)) from None


def push(client: docker.DockerClient, reference: str) -> str:
    """Push an image and return its digest reference, ``REPOSITORY@sha256:...``.

    Raises:
        WarmimageError: the registry cannot be reached, or refuses.
    """
    name, tag = _split(reference)
    digest = ""
    try:
        for line in client.images.push(name, tag=tag, stream=True, decode=True):
            if "error" in line:
                raise registry_error("push", reference, line["error"])
            digest = (line.get("aux") or {}).get("Digest", digest)
    except (APIError, RequestException) as error:
        raise registry_error("push", reference, str(error)) from None
    return f"{name}@{digest}"


def registry_error(verb: str, reference: str, message: str) -> WarmimageError:
    """Return the error for a registry's answer."""
    lowered = message.lower()
    if any(word in lowered for word in ("denied", "unauthorized", "authentication", "no basic auth")):
        host = reference.split("/")[0] if "." in reference.split("/")[0] or ":" in reference.split("/")[0] else ""
        return WarmimageError(
            f"the registry refuses to {verb} {reference}", got=_short(message), fix=f"docker login {host}".strip()
        )
    if "not found" in lowered or "manifest unknown" in lowered:
        return WarmimageError(f"the registry has no {reference}", got=_short(message), fix="check the name and the tag")
    return WarmimageError(
        f"cannot {verb} {reference}: the registry cannot be reached", got=_short(message),
        fix="check the network and the engine's proxy settings",
    )  # fmt: skip


@contextmanager
def api_errors(what: str) -> Iterator[None]:
    """Turn the engine's refusals inside the block into one clear error."""
    try:
        yield
    except ImageNotFound as error:
        raise WarmimageError(
            f"{what}: no such image", got=_short(error), fix="docker images; warmimage build"
        ) from None
    except (APIError, RequestException) as error:
        raise WarmimageError(what, got=_short(error)) from None


def size_bytes(image: Image) -> int:
    """Return the size of an image in bytes."""
    return int(image.attrs["Size"])


def digest_of(image: Image, reference: str) -> str | None:
    """Return the registry digest (``sha256:...``) that an image was pulled by under ``reference``, if any."""
    wanted = repository(reference)
    digests: list[Any] = image.attrs.get("RepoDigests") or []
    for entry in digests:
        name, _, digest = str(entry).partition("@")
        if _familiar(name) == _familiar(wanted):
            return digest
    return None


def _familiar(repository: str) -> str:
    """Return a repository's name without what Docker Hub's full names have before them."""
    return repository.removeprefix("docker.io/").removeprefix("library/")


def repository(reference: str) -> str:
    """Return the repository that a reference names, without its tag and digest."""
    return _split(reference.partition("@")[0])[0]


def _split(reference: str) -> tuple[str, str | None]:
    """Split a reference into its repository and its tag or digest."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, "latest")


def _short(error: object) -> str:
    """Return the last, most telling part of a long message chain, on one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 240 else "..." + text[-237:]
