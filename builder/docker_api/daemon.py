"""The Docker daemon through its API: connect, pull, push, inspect images.  Builds are in ``buildkit``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.images import Image
from requests.exceptions import RequestException

from ..errors import EnvironmentLacks, WarmimageError

#: API of Docker 20.10, the first one whose BuildKit takes secrets and bind mounts without a syntax line.
OLDEST_API = (1, 41)

#: Parts of the daemon's messages about a registry that does not answer, as Go's network library words them.
_NO_ANSWER = (
    "dial tcp",
    "no such host",
    "timeout",
    "timed out",
    "deadline exceeded",
    "connection re",
    "unreachable",
    "no route",
    "proxyconnect",
    ": eof",
    "unexpected eof",
    "x509",
    "tls:",
    "server misbehaving",
    "temporary failure",
    "bad gateway",
    "service unavailable",
)


class RegistryUnreachable(WarmimageError):
    """A registry gave no answer at all."""


def connect() -> docker.DockerClient:
    """Return a client of the Docker daemon at ``DOCKER_HOST`` or at the default socket.

    Raises:
        EnvironmentLacks: the daemon does not answer or is too old.
    """
    try:
        client = docker.from_env(timeout=600)
        version = client.version()
    except (DockerException, RequestException) as error:
        refused = "ermission denied" in str(error)
        raise EnvironmentLacks(
            "this user may not use the Docker daemon" if refused else "the Docker daemon does not answer",
            got=_short(error),
            fix="sudo usermod -aG docker $USER, then log in again"
            if refused
            else "start it (systemctl start docker), or name it with DOCKER_HOST",
        ) from None
    api = tuple(int(part) for part in version["ApiVersion"].split("."))
    if api < OLDEST_API:
        raise EnvironmentLacks(
            "the Docker daemon is too old",
            got=f"version {version['Version']}, API {version['ApiVersion']}",
            expected="Docker 20.10 (API 1.41) or later",
            fix="update Docker",
        )
    return client


def pull(client: docker.DockerClient, reference: str) -> Image:
    """Return an image of the daemon, which pulls it first if it does not have it.

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
        raise registry_error("pull", reference, _message(error)) from None


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
        raise registry_error("push", reference, _message(error)) from None
    return f"{name}@{digest}"


def registry_error(verb: str, reference: str, message: str) -> WarmimageError:
    """Return the error for a registry's answer."""
    lowered = message.lower()
    first, slash, _ = reference.partition("/")
    login = f"docker login {first}" if slash and ("." in first or ":" in first) else "docker login"
    if any(word in lowered for word in ("toomanyrequests", "too many requests")):
        return WarmimageError(
            "the registry limits the number of pulls", where=reference, got=_short(message), fix=login
        )
    if "repository does not exist or may require" in lowered:
        return WarmimageError(
            f"the registry has no {reference}, or shows it to logged-in users only",
            got=_short(message),
            fix=f"check the name, or {login}",
        )
    if any(word in lowered for word in ("denied", "unauthorized", "no basic auth", "authentication required")):
        return WarmimageError(f"the registry refuses to {verb} {reference}", got=_short(message), fix=login)
    if "not found" in lowered or "manifest unknown" in lowered:
        return WarmimageError(f"the registry has no {reference}", got=_short(message), fix="check the name and the tag")
    if any(word in lowered for word in _NO_ANSWER):
        return RegistryUnreachable(
            f"cannot {verb} {reference}: the registry cannot be reached",
            got=_short(message),
            fix="check the network and the Docker daemon's proxy settings",
        )
    return WarmimageError(f"cannot {verb} {reference}", got=_short(message), fix="docker info; journalctl -u docker")


@contextmanager
def api_errors(what: str) -> Iterator[None]:
    """Turn the daemon's refusals inside the block into one clear error."""
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


def registry_digest(client: docker.DockerClient, image: Image, reference: str) -> str | None:
    """Return the digest under which a registry has an image, or ``None`` where none is known to.

    Docker's classic image store notes a digest when it pulls or pushes.  Its containerd store has one for every image,
    those that were only ever built here included, so there the registry is asked.
    """
    digest = digest_of(image, reference)
    if digest and _is_containerd(client) and not _registry_has(f"{repository(reference)}@{digest}"):
        return None
    return digest


def _is_containerd(client: docker.DockerClient) -> bool:
    return "io.containerd.snapshotter" in str(client.info().get("DriverStatus"))


def _registry_has(reference: str) -> bool:
    try:
        with closing(docker.from_env(timeout=20)) as client:
            client.images.get_registry_data(reference)
    except (DockerException, RequestException):
        return False
    return True


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


def _message(error: Exception) -> str:
    """Return the daemon's message without the request, which holds the image's name."""
    return str(getattr(error, "explanation", None) or error)


def _short(error: object) -> str:
    """Return the last, most telling part of a long message chain, on one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 240 else "..." + text[-237:]
