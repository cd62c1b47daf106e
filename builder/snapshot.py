"""The snapshot: run a built image once to capture the imported engine, and add what was captured as one layer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound
from docker.models.containers import Container
from docker.models.images import Image
from platformdirs import user_cache_path
from requests.exceptions import RequestException

from . import buildkit, compiled, containers, docker_engine, host, streams, temporary
from .buildkit import Progress
from .console import human_bytes, note, phase
from .entrypoint.snapshot.capture import EXIT_NOT_PERMITTED
from .entrypoint.snapshot.manifest import NAME as MANIFEST
from .errors import ConfigError, EnvironmentLacks, WarmimageError
from .image import plan_of
from .plan import CachesPlan, Plan, SnapshotPlan
from .render import snapshot_dockerfile

#: Where the image's ``capture`` command writes to, in its container.
DIRECTORY = "/snapshot"

#: Label of the image that a snapshot was captured from, by which it is found again.
SOURCE = "dev.warmimage.snapshot.source"

#: Repository of the tags by which BuildKit is told what to start from: it cannot start from an id.
_REPOSITORY = "warmimage-build"

_PATIENCE = 900.0


@dataclass(frozen=True)
class Captured:
    """An image with a snapshot.

    Attributes:
        reference: its id.
        plan: its plan.
    """

    reference: str
    plan: Plan


@contextlib.contextmanager
def temporary_tag(client: docker.DockerClient) -> Iterator[str]:
    """Give a tag for the block; after it the tag is gone, and with it an image that has no other."""
    tag = f"{_REPOSITORY}:{uuid.uuid4().hex}"
    try:
        yield tag
    finally:
        with contextlib.suppress(ImageNotFound, APIError):
            client.images.remove(tag, noprune=True)


def of_image(
    client: docker.DockerClient, reference: str, tags: Sequence[str], gpus: str, progress: Progress,
    model_dir: Path | None = None,
) -> Captured:  # fmt: skip
    """Capture a snapshot of an image that is there, and return a new image with it.

    Args:
        client: the engine.
        reference: the image.
        tags: of the new image.
        gpus: as ``docker run --gpus`` takes them; empty for none.
        progress: how to show the build's steps.
        model_dir: the model, for compile caches of an image that does not hold it; without, there are none.

    Raises:
        ConfigError: the image is not ours, has a snapshot already, or has no tag.
        EnvironmentLacks: this host cannot capture it.
        WarmimageError: the engine cannot be captured.
    """
    builder = buildkit.find_builder()
    with docker_engine.api_errors(f"cannot look at {reference}"):
        image = client.images.get(reference)
    plan = plan_of(image, reference)
    if plan.snapshot:
        raise ConfigError(
            "the image has a snapshot already, which a second one would only cover", where=reference,
            fix="capture the image that it was made from, or build it again",
        )  # fmt: skip
    if not image.tags:
        raise ConfigError("the image has no tag", where=reference, fix=f"docker tag {image.short_id[7:]} NAME:TAG")
    with temporary_tag(client) as tag:
        image.tag(tag)
        return capture(client, builder, tag, plan, tags, gpus, progress, model_dir)


def capture(
    client: docker.DockerClient, builder: buildkit.Builder, source: str, plan: Plan, tags: Sequence[str], gpus: str,
    progress: Progress, model_dir: Path | None = None,
) -> Captured:  # fmt: skip
    """Run an image, and return a new one: the same with the snapshot as a layer, and with compile caches as another.

    Args:
        client: the engine.
        builder: the docker command that builds.
        source: tag of the image.
        plan: its plan.
        tags: of the new image.
        gpus: as ``docker run --gpus`` takes them; empty for all that the engine names, where the image wants any.
        progress: how to show the build's steps.
        model_dir: the model, for compile caches of an image that does not hold it; without, there are none.

    Raises:
        EnvironmentLacks: this host cannot capture it.
        WarmimageError: the engine cannot be captured.
    """
    info = client.info()
    if not plan.criu:
        raise EnvironmentLacks("the image has no CRIU", fix="build it again, with --snapshot auto or require")
    if plan.accelerator == "cuda" and not gpus:
        if not host.names_gpu(info):
            raise EnvironmentLacks(
                "the image serves on CUDA, and this Docker engine names no NVIDIA runtime",
                fix="warmimage snapshot IMAGE on a machine with a GPU",
            )  # fmt: skip
        gpus = "all"
    cache = user_cache_path("warmimage")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="snapshot-") as name:
        context = Path(name)
        with docker_engine.api_errors(f"cannot look at {source}"):
            image = client.images.get(source)
        with phase("engine imported and captured"):
            _run(client, source, plan, gpus, context / "snapshot")
        found = _read_manifest(context / "snapshot", str(image.id))
        made = with_snapshot(plan, found)
        if compiled.wanted(plan, model_dir):
            caches = _caches(client, source, plan, model_dir, gpus, context / "caches")
            made = made.model_copy(update={"caches": caches})
        elif plan.engine.caches:
            note("no compile caches in this image: the model is not here (--model-dir DIR)")
        (context / "plan.json").write_text(made.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (context / "Dockerfile").write_text(snapshot_dockerfile(made, source), encoding="utf-8")
        with phase(f"snapshot added: {human_bytes(found.bytes)}", spinner=False):
            reference = buildkit.build(builder, context, tags, (), "none", progress)
    return Captured(reference, made)


def _caches(
    client: docker.DockerClient, source: str, plan: Plan, model_dir: Path | None, gpus: str, folder: Path
) -> CachesPlan | None:
    """Collect compile caches; where that fails, say why, leave nothing of them, and return ``None``.

    They save time and decide nothing: a snapshot without them is worth keeping.
    """
    try:
        with phase("compile caches of real starts collected"), docker_engine.api_errors("cannot run the image"):
            return compiled.collect(client, source, plan, model_dir, gpus, folder)
    except WarmimageError as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = " ".join(f"{error.problems[0].what}: {error.problems[0].got}".split()).removesuffix(":")
        note(f"no compile caches in this image: {reason}")
        return None


def find(
    client: docker.DockerClient, source: Image, tags: Sequence[str], model_dir: Path | None = None
) -> Captured | None:
    """Return what an earlier build has captured of the very same image, where this host would restore it.

    One without compile caches is not taken where they can be had: the model may not have been there, or a start failed.

    Args:
        client: the engine.
        source: the image without a snapshot.
        tags: what the image with it is to be called, too.
        model_dir: the model, where it is on this machine.
    """
    for image in client.images.list(filters={"label": f"{SOURCE}={source.id}"}):
        try:
            plan = plan_of(image, str(image.id))
        except ConfigError:
            continue  # of another version
        if SOURCE not in image.history()[0]["CreatedBy"]:
            continue  # derived from the one that is looked for: labels are inherited, the last step is not
        lacking = compiled.wanted(plan, model_dir) and not plan.caches
        if not lacking and not host.snapshot_mismatch(client.info(), plan):
            for tag in tags:
                image.tag(tag)
            return Captured(str(image.id), plan)
    return None


def with_snapshot(plan: Plan, snapshot: SnapshotPlan) -> Plan:
    """Return the plan of the image that has a snapshot, from that of the image that it was captured from."""
    tiers = ("snapshot", *plan.tiers)
    own = {
        "dev.warmimage.tiers": ",".join(tiers), "dev.warmimage.snapshot": snapshot.manifest, SOURCE: snapshot.source,
    }  # fmt: skip
    return plan.model_copy(update={"tiers": tiers, "snapshot": snapshot, "labels": {**plan.labels, **own}})


def _run(client: docker.DockerClient, image: str, plan: Plan, gpus: str, folder: Path) -> None:
    """Run the image's ``capture`` command, and bring what it wrote into a folder."""
    with docker_engine.api_errors(f"cannot look at {image}"):
        own = client.images.get(image).attrs["Config"].get("Env") or []
    words = containers.capture_arguments(plan, gpus, DIRECTORY, [entry.partition("=")[0] for entry in own])
    with temporary.created(client, image, words, "a container that captures") as container:
        containers.start(container)
        try:
            code = int(container.wait(timeout=_PATIENCE)["StatusCode"])
        except RequestException:
            raise WarmimageError(f"the engine was not captured within {_PATIENCE:.0f} s") from None
        if code:
            raise _refusal(container, code)
        streams.fetch(container, DIRECTORY, folder, "the snapshot")


def _refusal(container: Container, code: int) -> WarmimageError:
    """Return the error for a capture that failed: the last line that it said of itself."""
    said = container.logs(stdout=False, tail=20).decode(errors="replace").strip().splitlines()
    own = [line.partition("warmimage: ")[2] for line in said if line.startswith("warmimage: ")]
    reason = (own or said or [f"exit code {code}"])[-1].removeprefix("error: ").removeprefix("not captured: ")[:400]
    kind = EnvironmentLacks if code == EXIT_NOT_PERMITTED else WarmimageError
    return kind("the engine cannot be captured here", got=reason)


def _read_manifest(folder: Path, source: str) -> SnapshotPlan:
    """Return what the plan says of a snapshot.

    Raises:
        WarmimageError: its manifest is not there, or not one of this version.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
        found = json.loads(data)
        return SnapshotPlan(
            manifest=hashlib.sha256(data).hexdigest(), source=source, bytes=found["bytes"], criu=found["criu"],
            kernel=found["kernel"], machine=found["machine"], cpu_features=tuple(found["cpu_features"]),
            modules=found["modules"], driver=found["accelerator"]["driver"],
            gpus=tuple(found["accelerator"]["gpus"]),
        )  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WarmimageError("the capture left no usable manifest", got=repr(error)[:300]) from None
