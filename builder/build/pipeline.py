"""The whole build: configuration to plan, plan to context, context to image."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import docker
from platformdirs import user_cache_path

from ..config.model import Config, parse_size
from ..console import console, human_bytes, note, phase
from ..docker_api import buildkit, daemon, temporary_container
from ..docker_api.buildkit import Progress
from ..errors import EnvironmentLacks, GateMissed, UsageError, WarmimageError
from ..helm import values
from ..image import read
from ..image.read import ImageReport
from ..inputs import wheels
from ..plan import Plan
from . import context, planner, record_closure, warmer_image
from .planner import Inputs

#: Installed wheels take about three times their download.  They are written in the stage that installs them, with the
#: wheel files, and once more as the image's layer; a layer is written again while it is exported.
_WHEEL_GROWTH = 8


def dry_run(config: Config, lock_file: Path) -> str:
    """Return the plan and the build command as JSON, without building."""
    inputs = planner.resolve(config, lock_file)
    plan = planner.make_plan(config, inputs)
    command = buildkit.build_command(
        buildkit.find_builder(), Path("CONTEXT"), config.tags, config.secrets, config.network, Path("IMAGE_ID_FILE")
    )
    return json.dumps({"plan": plan.to_dict(), "command": command}, indent=2)


def build(config: Config, lock_file: Path, *, push: bool, progress: Progress, values_file: Path | None = None) -> str:
    """Build the configured image and return its digest reference.

    Args:
        config: what to build.
        lock_file: the wheels' lock; written when something new was resolved and the build succeeded.
        push: push every tag.
        progress: how to show the build's steps.
        values_file: file for the image's values for the Helm chart; ``None`` for none.

    Raises:
        GateMissed: the image is larger than ``max_size``.  It stays in the daemon and is not pushed.
        WarmimageError: a part of the build failed.
    """
    if push and not config.tags:
        raise UsageError("--push needs a tag", fix="--tag REGISTRY/NAME:TAG")
    if values_file:
        values.check(values_file)
    builder = buildkit.find_builder()
    inputs = planner.resolve(config, lock_file)
    plan = planner.make_plan(config, inputs)
    client = daemon.connect()
    _check_disk(client, plan, inputs)
    cache = user_cache_path("warmimage")
    cache.mkdir(parents=True, exist_ok=True)
    # On the file system of the downloaded wheels, so that the context can hard-link them.
    with tempfile.TemporaryDirectory(dir=cache, prefix="context-") as name:
        directory = Path(name) / "context"

        def make(plan: Plan, inputs: Inputs, tags: Sequence[str]) -> str:
            context.write(plan, inputs, directory, link=True)
            with phase("image built", spinner=False):
                return buildkit.build(builder, directory, tags, config.secrets, config.network, progress)

        plan, inputs = _recorded(client, config, plan, inputs, make)
        reference = make(plan, inputs, config.tags)
    # By a tag, if there is one: not every image store finds an image by BuildKit's id.
    report = read.inspect(client, config.tags[0] if config.tags else reference)
    wheels.write_lock(inputs.wheelset, lock_file)
    _show_sizes(report)
    if plan.snapshot and not report.snapshot:
        note(f"no snapshot in this image: {report.snapshot_absent}")
    lacking = warmer_image.note_missing_packages(client, report.reference, plan)
    if config.max_size and report.size_bytes > parse_size(config.max_size):
        raise GateMissed(
            "the image is larger than allowed",
            where="max_size",
            got=human_bytes(report.size_bytes),
            expected=f"at most {config.max_size}",
            fix="the table above shows what takes the space",
        )
    if push:
        with phase(f"pushed {', '.join(config.tags)}"):
            reference = next(iter([daemon.push(client, tag) for tag in config.tags]))
    if values_file and config.tags:
        built = values.inspect(client, report, reference if push else "", inputs.model.weight_bytes, lacking)
        values.write(values_file, built)
        note(f"values for the Helm chart: {values_file}")
    _show_next(config, plan, config.tags[0] if config.tags else reference)
    return reference


def _recorded(
    client: docker.DockerClient,
    config: Config,
    plan: Plan,
    inputs: Inputs,
    make: Callable[[Plan, Inputs, Sequence[str]], str],
) -> tuple[Plan, Inputs]:
    """Record a real start, and return plan and inputs with its closure and its compile caches.

    Args:
        client: the Docker daemon's.
        config: decides whether to record.
        plan: the plan with the adapter's modules.
        inputs: the inputs, with the model.
        make: builds an image with these tags.

    Returns:
        Plan and inputs; unchanged if nothing is recorded.
    """
    if config.record == "off":
        return plan, inputs
    directory = inputs.model.directory
    recorded = record_closure.cached(plan, directory)
    if not recorded:
        try:
            if plan.model.mounted and not directory:
                raise EnvironmentLacks("the model is not on this machine", fix="--model DIR")
            # Without a snapshot, because the snapshot depends on the closure that this start shows.
            bare = planner.with_snapshot(plan, None)
            with temporary_container.tagged(client) as tag:
                make(bare, inputs, (tag,))
                with phase("closure recorded from a start"), daemon.api_errors("cannot run the new image"):
                    recorded = record_closure.record(client, tag, bare, directory)
        except WarmimageError as error:
            if config.record == "require":
                raise
            note(f"closure not recorded, using the adapter's list: {error.problems[0].what}")
            return plan, inputs
    plan = replace(plan, closure=recorded.closure, caches=recorded.caches)
    return plan, replace(inputs, caches=recorded.directory)


def _check_disk(client: docker.DockerClient, plan: Plan, inputs: Inputs) -> None:
    """Refuse a build that does not fit the Docker daemon's disk.  Skipped if the disk is on another machine."""
    root = Path(client.info()["DockerRootDir"])
    if not root.is_dir():
        return
    needed = (plan.wheels.total_bytes * _WHEEL_GROWTH if plan.wheels else 0) + (
        inputs.model.weight_bytes * 2 if plan.weights == "bake" else 0
    )
    free = shutil.disk_usage(root).free
    if free < needed:
        raise EnvironmentLacks(
            "not enough disk space for the build",
            where=str(root),
            got=f"{human_bytes(free)} free",
            expected=f"about {human_bytes(needed)}",
            fix="docker system prune, or enlarge the disk",
        )


def _show_sizes(report: ImageReport) -> None:
    from rich.table import Table

    table = Table("purpose", "size", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for purpose, size in report.sizes.items():
        if size or purpose in ("base", "wheels", "bytecode", "entrypoint", "weights"):
            table.add_row(purpose, human_bytes(size))
    table.add_section()
    table.add_row("image", human_bytes(report.size_bytes))
    console().print(table)


def _show_next(config: Config, plan: Plan, reference: str) -> None:
    directory = shlex.quote(str(Path(config.model).absolute())) if Path(config.model).is_dir() else "DIR"
    mount = f" -v {directory}:{plan.model.path}:ro" if plan.model.mounted else ""
    gpus = " --gpus all" if plan.accelerator == "cuda" else ""
    model_dir = f" --model {directory}" if plan.model.mounted else ""
    shared = f" --shm-size {plan.engine.shared_memory}" if plan.engine.shared_memory else ""
    port = plan.engine.port
    note("Next:")
    note(f"  warmimage run {reference}{model_dir}{gpus}")
    note(f"  docker run --rm{gpus}{shared} -p {port}:{port}{mount} {reference}")
    note(f"  warmimage inspect {reference}")
