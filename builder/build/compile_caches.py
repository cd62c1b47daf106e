"""Compile caches: what a first start of an image compiles, or finds out, on this host, brought into the image."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import cast

from docker.models.containers import Container

from .. import engines
from ..docker_api import archive as streams
from ..docker_api import daemon
from ..entrypoint.startup.compile_caches import DIRECTORY_NAME
from ..entrypoint.startup.compile_caches import NAME as MANIFEST
from ..errors import WarmimageError
from ..plan import CachesPlan, Plan

#: Where the image's ``collect`` command writes to in its container: a directory that every user may write.
DIRECTORY = "/run/warmimage/caches"


def wanted(plan: Plan, model_dir: Path | None) -> bool:
    """Return whether an image's engine keeps compile caches, and can be started here with its model."""
    return bool(plan.engine.caches) and (not plan.model.mounted or model_dir is not None)


def starts(plan: Plan) -> int:
    """Return how many starts it takes to fill all compile caches; 0 if the engine keeps none."""
    return engines.get(plan.engine.name).cache_starts.get(plan.accelerator, 1) if plan.engine.caches else 0


def collect(container: Container, plan: Plan, directory: Path) -> CachesPlan:
    """Copy the compile caches of a container whose server is ready into a directory of this machine.

    Args:
        container: the container.
        plan: its image's plan.
        directory: is made; gets the caches and their manifest.

    Raises:
        WarmimageError: the engine has left no cache; the message says why.
    """
    command = [plan.python, "-I", "-S", f"{plan.folders.root}/entrypoint", "collect", DIRECTORY]
    with daemon.api_errors("the compile caches cannot be collected"):
        result = container.exec_run(command)
    if result.exit_code:
        output = cast(bytes, result.output).decode(errors="replace")
        raise WarmimageError("no compile cache was collected", got=" ".join(output.split())[-300:])
    streams.fetch(container, DIRECTORY, directory, "the compile caches")
    return read_manifest(directory)


def put(container: Container, plan: Plan, directory: Path) -> None:
    """Put compile caches into a container that has not started, at their place in an image.

    Args:
        container: the container.
        plan: its image's plan.
        directory: holds the caches, as ``collect`` left them.

    Raises:
        WarmimageError: the Docker daemon refuses.
    """
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add(directory, DIRECTORY_NAME)
    with daemon.api_errors("the compile caches cannot be put into a container"):
        container.put_archive(plan.folders.root, data.getvalue())


def read_manifest(directory: Path) -> CachesPlan:
    """Return the plan's part for the compile caches in a directory.

    Raises:
        WarmimageError: their manifest is missing or damaged.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        accelerator = manifest["accelerator"]
        return CachesPlan(
            files=manifest["files"],
            bytes=manifest["bytes"],
            driver=accelerator["driver"],
            gpus=tuple(accelerator["gpus"]),
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WarmimageError("the start left no usable manifest of its caches", got=repr(error)[:300]) from None
