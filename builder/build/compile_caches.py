"""Compile caches: the results of a first start on this host, which later builds bring into the image."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import cast

from docker.models.containers import Container

from .. import engines
from ..docker_api import archive as docker_archive
from ..docker_api import daemon
from ..entrypoint.startup.compile_caches import DIRECTORY_NAME
from ..entrypoint.startup.compile_caches import NAME as MANIFEST
from ..errors import WarmimageError
from ..plan import CachesPlan, Plan

#: Directory in the container for the image's command ``collect``; every user may write there.
DIRECTORY = "/run/warmimage/caches"


def wanted(plan: Plan, model_dir: Path | None) -> bool:
    """Return whether an image's engine keeps compile caches and can start here with its model."""
    return bool(plan.engine.caches) and (not plan.model.mounted or model_dir is not None)


def starts(plan: Plan) -> int:
    """Return how many starts it takes to fill all compile caches; 0 if the engine keeps none."""
    return engines.get(plan.engine.name).cache_starts.get(plan.accelerator, 1) if plan.engine.caches else 0


def collect(container: Container, plan: Plan, directory: Path) -> CachesPlan:
    """Copy the compile caches of a container whose server is ready into a directory of this machine.

    Args:
        container: the container.
        plan: its image's plan.
        directory: is created, with the caches and their manifest.

    Raises:
        WarmimageError: the engine has left no cache; the message has the reason.
    """
    command = [plan.python, "-I", "-S", f"{plan.folders.root}/entrypoint", "collect", DIRECTORY]
    with daemon.api_errors("the compile caches cannot be collected"):
        result = container.exec_run(command)
    if result.exit_code:
        output = cast(bytes, result.output).decode(errors="replace")
        raise WarmimageError("the compile caches could not be collected", got=" ".join(output.split())[-300:])
    docker_archive.fetch(container, DIRECTORY, directory, "the compile caches")
    return read_manifest(directory)


def put(container: Container, plan: Plan, directory: Path) -> None:
    """Copy compile caches to their place in a container that has not started.

    Args:
        container: the container.
        plan: its image's plan.
        directory: the directory that ``collect`` has filled.

    Raises:
        WarmimageError: the Docker daemon refuses.
    """
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add(directory, DIRECTORY_NAME)
    with daemon.api_errors("the compile caches cannot be copied into a container"):
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
        raise WarmimageError("the manifest of the compile caches cannot be read", got=repr(error)[:300]) from None
