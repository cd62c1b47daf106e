"""``warmimage snapshot``: build an image with a snapshot on top of an image without one."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import docker
from docker.models.images import Image
from platformdirs import user_cache_path

from .. import __version__
from ..console import note, phase
from ..docker_api import buildkit, daemon, temporary_container
from ..docker_api.buildkit import Builder, Progress
from ..entrypoint.tiers.snapshot.native import native_digest
from ..errors import ConfigError, EnvironmentLacks
from ..image import snapshot_facts
from ..image.read import plan_of
from ..plan import Plan, SnapshotPlan
from ..rendering.dockerfile import snapshot_dockerfile
from . import compile_caches, planner, record_closure


def of_image(
    client: docker.DockerClient,
    reference: str,
    tags: Sequence[str],
    gpus: str,
    progress: Progress,
    model_dir: Path | None = None,
) -> str:
    """Build an image with a snapshot from an image without one, and return the new image's id.

    No container runs, except to fill compile caches.

    Args:
        client: the Docker daemon's.
        reference: the image.
        tags: of the new image.
        gpus: as ``docker run --gpus`` takes them; empty for all, if the image is for CUDA.
        progress: how to show the build's steps.
        model_dir: the model, if the image does not hold it; without it there are no compile caches.

    Raises:
        ConfigError: warmimage did not build the image, or another version did; it has a snapshot, or no tag.
        EnvironmentLacks: no docker command can build, or there are no native files for the image's machine.
        WarmimageError: the engine cannot be captured.
    """
    builder = buildkit.find_builder()
    with daemon.api_errors(f"cannot inspect {reference}"):
        image = client.images.get(reference)
    plan = plan_of(image, reference)
    if snapshot_facts.read(client, reference, plan)[0]:
        raise ConfigError(
            "the image already has a snapshot",
            where=reference,
            fix="use the image that it was built from, or build the image again",
        )
    if plan.tool_version != __version__:
        raise ConfigError(
            "another version of warmimage built the image",
            where=reference,
            got=plan.tool_version,
            expected=__version__,
            fix="build the image again",
        )
    if not image.tags:
        raise ConfigError("the image has no tag", where=reference, fix=f"docker tag {image.short_id[7:]} NAME:TAG")
    plan = planner.with_snapshot(plan, _required(plan))
    with temporary_container.tagged(client) as tag:
        image.tag(tag)
        return _build(client, builder, tag, plan, _variables(image), tags, gpus, progress, model_dir)


def _required(plan: Plan) -> SnapshotPlan:
    """Return the image's snapshot plan, with a failure as an error."""
    if plan.snapshot:
        return replace(plan.snapshot, required=True)
    machine = plan.base.machine
    try:
        level = planner.baseline(machine, plan.engine.name, plan.accelerator)
        return SnapshotPlan(required=True, native=native_digest(machine), baseline=level)
    except LookupError:
        raise EnvironmentLacks("a snapshot cannot be captured on this machine type", got=machine) from None


def _variables(image: Image) -> list[str]:
    """Return the names of an image's variables, which may be more than its plan has."""
    return [entry.partition("=")[0] for entry in image.attrs["Config"].get("Env") or []]


def _build(
    client: docker.DockerClient,
    builder: Builder,
    source: str,
    plan: Plan,
    names: Sequence[str],
    tags: Sequence[str],
    gpus: str,
    progress: Progress,
    model_dir: Path | None,
) -> str:
    """Write the context and build it."""
    cache = user_cache_path("warmimage")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="snapshot-") as name:
        context = Path(name)
        added = False
        if not plan.caches and compile_caches.wanted(plan, model_dir):
            with record_closure.without_caches(), phase("compile caches collected from real starts"):
                caches = record_closure.collect(
                    client, source, plan, model_dir, gpus or record_closure.gpus_of(plan), context / "caches"
                )
                plan, added = replace(plan, caches=caches), True
        elif not plan.caches and plan.engine.caches:
            note("no compile caches in this image: the model is missing (--model DIR)")
        (context / "plan.json").write_text(plan.to_json(indent=1) + "\n", encoding="utf-8")
        (context / "plan.json").chmod(0o644)
        text = snapshot_dockerfile(plan, source, caches=added, names=names)
        (context / "Dockerfile").write_text(text, encoding="utf-8")
        with phase("engine imported and captured", spinner=False):
            return buildkit.build(builder, context, tags, (), "none", progress)
