"""An image's snapshot, read from its files.  The container for that is created and never started."""

from __future__ import annotations

from typing import Any

import docker
from pydantic import BaseModel, ConfigDict, ValidationError

from ..docker_api import archive, temporary_container
from ..entrypoint.tiers.snapshot.manifest import DECLINED
from ..entrypoint.tiers.snapshot.manifest import NAME as MANIFEST
from ..errors import WarmimageError
from ..plan import Plan

#: The snapshot's directory below the product's own one.
DIRECTORY = "snapshot"

#: Longest part of a reason to show, in characters.
_REASON = 400


class Captured(BaseModel):
    """A snapshot in an image: the part of its ``manifest.json`` that the builder shows.

    Attributes:
        bytes: its size.
        modules: number of imported modules.
        kernel: release of the kernel that it was captured on.
        machine: the CPU's architecture.
        cpu_features: flags that a CPU must have.
        baseline: the instruction set that it was captured for; empty for the CPU's own.
        python: path of the interpreter.
        environment: what the imports took from the environment; ``reads`` has the variables.
    """

    model_config = ConfigDict(frozen=True)

    bytes: int
    modules: int
    kernel: str
    machine: str
    cpu_features: tuple[str, ...] = ()
    baseline: str = ""
    python: str = ""
    environment: dict[str, Any] = {}

    @property
    def variables(self) -> list[str]:
        """Names of the environment variables that the imports read, sorted."""
        return sorted(self.environment.get("reads", ()))


def directory_of(plan: Plan) -> str:
    """Return where an image keeps its snapshot."""
    return f"{plan.folders.root}/{DIRECTORY}"


def read(client: docker.DockerClient, reference: str, plan: Plan) -> tuple[Captured | None, str]:
    """Return an image's snapshot, or the reason why it has none.

    Args:
        client: the Docker daemon's.
        reference: the image.
        plan: its plan.

    Returns:
        The snapshot and an empty reason, or ``None`` and the reason.

    Raises:
        WarmimageError: the image cannot be read, or its manifest is damaged.
    """
    if not plan.snapshot:
        return None, "the image was built with snapshot: off"
    directory = directory_of(plan)
    arguments = {"command": ["true"], "network_mode": "none"}
    with temporary_container.created(client, reference, arguments, "a container to read from") as container:
        manifest = archive.read(container, f"{directory}/{MANIFEST}")
        reason = b"" if manifest else archive.read(container, f"{directory}/{DECLINED}")
    if manifest:
        return parse(manifest, reference), ""
    text = " ".join((reason or b"").decode(errors="replace").split())
    return None, text[:_REASON] or "its build left neither a snapshot nor a reason"


def parse(manifest: bytes, where: str) -> Captured:
    """Return the snapshot that the bytes of a file ``manifest.json`` describe.

    Args:
        manifest: the file's content.
        where: whose it is, for an error.

    Raises:
        WarmimageError: it is not a manifest that this version can read.
    """
    try:
        return Captured.model_validate_json(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise WarmimageError(
            "the manifest of the snapshot cannot be read",
            where=where,
            got=f"{key}: {first['msg']}".removeprefix(": "),
            expected="a manifest that this version wrote",
            fix="build the image again",
        ) from None
