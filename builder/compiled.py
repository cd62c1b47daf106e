"""Compile caches: what real first starts of an image compile on this host, or find out, brought into the image."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import uuid
from pathlib import Path
from typing import cast

import docker

from . import containers, docker_engine, recording, streams, temporary
from .containers import Options
from .entrypoint.caches import FOLDER_NAME
from .entrypoint.caches import NAME as MANIFEST
from .errors import WarmimageError
from .plan import CachesPlan, Plan

#: Where the image's ``collect`` command writes to in its container: a folder that every user may write.
DIRECTORY = "/run/warmimage/caches"

_ENVIRONMENT = {"WARMIMAGE_START": "zygote"}


def wanted(plan: Plan, model_dir: Path | None) -> bool:
    """Return whether an image's engine keeps compile caches, and can be started here with its model."""
    return bool(plan.engine.caches) and (not plan.model.mounted or model_dir is not None)


def collect(
    client: docker.DockerClient, image: str, plan: Plan, model_dir: Path | None, gpus: str, folder: Path
) -> CachesPlan:
    """Start an image, have it answer, and bring the compile caches that this leaves into a folder.

    Once more where Triton compiles: a start that finds compiled graphs keeps Triton's kernels elsewhere than one that
    has compiled the graphs itself.

    Args:
        client: the engine.
        image: its tag.
        plan: its plan.
        model_dir: the model, where the image does not hold it.
        gpus: as ``docker run --gpus`` takes them.
        folder: is made; gets the caches and their manifest.

    Raises:
        WarmimageError: the server does not come up here, or leaves no cache; the message says why.
    """
    for _ in range(2 if "triton" in plan.engine.caches else 1):
        options = Options(
            model_dir=model_dir if plan.model.mounted else None, port=0, environment=dict(_ENVIRONMENT), gpus=gpus,
            name=f"warmimage-compile-{uuid.uuid4().hex[:12]}",
        )  # fmt: skip
        needs = containers.needs_of(plan, ())
        words = containers.create_arguments(client, needs, options, {"dev.warmimage.compile": "1"})
        with temporary.created(client, image, words, "a container that compiles") as container:
            if folder.exists():
                with docker_engine.api_errors("the compile caches cannot be put into a container"):
                    container.put_archive(plan.folders.root, _packed(folder))
            containers.start(container)
            recording.wait_ready(container, containers.timeline_path(plan, _ENVIRONMENT))
            recording.ask_once(container, plan)
            done = container.exec_run(
                [plan.python, "-I", "-S", f"{plan.folders.root}/entrypoint", "collect", DIRECTORY]
            )
            if done.exit_code:
                said = cast(bytes, done.output).decode(errors="replace")
                raise WarmimageError("no compile cache was collected", got=said[-300:])
            shutil.rmtree(folder, ignore_errors=True)
            streams.fetch(container, DIRECTORY, folder, "the compile caches")
    return _read_manifest(folder)


def _packed(folder: Path) -> bytes:
    """Return a folder as an archive, under the name that it has in an image."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add(folder, FOLDER_NAME)
    return data.getvalue()


def _read_manifest(folder: Path) -> CachesPlan:
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
        accelerator = found["accelerator"]
        return CachesPlan(
            files=found["files"], bytes=found["bytes"], driver=accelerator["driver"], gpus=tuple(accelerator["gpus"])
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WarmimageError("the start left no usable manifest of its caches", got=repr(error)[:300]) from None
