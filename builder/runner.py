"""Run an image as it wants to be run: mounts, ports, GPUs and privileges from its plan."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest

from . import docker_engine, timeline
from .console import note
from .entrypoint.settings import last_port
from .errors import ConfigError, EnvironmentLacks, UsageError, WarmimageError
from .image import plan_of
from .plan import Plan

#: What PID 1 writes to standard error when the server answers its health path.
READY = b"warmimage: ready in "


@dataclass(frozen=True)
class Options:
    """How to run an image.

    Attributes:
        model_dir: directory to mount at the plan's model path.
        port: host port to publish the server on, 0 for one that is free; ``None`` takes the server's own.
        host: host address to publish it on.
        gpus: ``all``, a number, or ``device=ID,ID``; empty for none.
        environment: variables of the container.
        arguments: engine arguments.
        detach: return when the server is ready and leave it running.
        name: the container's name.
    """

    model_dir: Path | None = None
    port: int | None = None
    host: str = "127.0.0.1"
    gpus: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    detach: bool = False
    name: str | None = None


@dataclass(frozen=True)
class Started:
    """What came of a run.

    Attributes:
        code: the container's exit code; 0 for a detached one that became ready.
        container: its id.
        events: its timeline.
    """

    code: int
    container: str
    events: list[timeline.Event]


def run(client: docker.DockerClient, reference: str, options: Options) -> Started:
    """Run an image, pass its output and our signals on, and say when the server is ready.

    Raises:
        UsageError: a model directory is needed and not given, or the reverse.
        EnvironmentLacks: the host has no GPU runtime for the GPUs asked for, or the port is taken.
        WarmimageError: the engine refuses.
    """
    with docker_engine.api_errors(f"cannot run {reference}"):
        image = client.images.get(reference)
    plan = plan_of(image, reference)
    _check(plan, options)
    with docker_engine.api_errors(f"cannot create a container of {reference}"):
        container = client.containers.create(reference, **_create_arguments(plan, options))
    kept = False
    try:
        output = container.attach(stdout=True, stderr=True, stream=True, logs=True, demux=True)
        _start(container, options, _ports(plan, options))
        with _forwarding(container):
            ready = _follow(container, output, _timeline_path(plan, options), until_ready=options.detach)
            kept = options.detach and ready
            code = 0 if kept else int(container.wait()["StatusCode"])
        return Started(code, str(container.id), timeline.fetch(container, _timeline_path(plan, options)))
    finally:
        if not kept:
            with contextlib.suppress(NotFound):
                container.remove(force=True)


def _check(plan: Plan, options: Options) -> None:
    if plan.model.mounted and not options.model_dir and not set(options.arguments) & set(plan.engine.quick_flags):
        raise UsageError("the image serves a mounted model", fix="--model-dir DIR")
    if options.model_dir and plan.weights == "bake":
        raise UsageError("the image holds its model itself (weights: bake)", fix="remove --model-dir")
    if options.model_dir and not options.model_dir.is_dir():
        raise ConfigError("the model directory is missing", where="--model-dir", got=str(options.model_dir))
    unseen = set(options.arguments) & set(plan.engine.unprobed_flags)
    if options.detach and unseen:
        raise UsageError(
            f"with {min(unseen)} nobody sees when the server is ready", where="--detach", fix="run without --detach"
        )


def _ports(plan: Plan, options: Options) -> tuple[int, int]:
    """Return the container's port and the host's."""
    command = [*plan.engine.command, *plan.engine.args, *options.arguments]
    inside = last_port(command, plan.engine.port_flags, plan.engine.port)
    return inside, inside if options.port is None else options.port


def _create_arguments(plan: Plan, options: Options) -> dict[str, Any]:
    inside, outside = _ports(plan, options)
    words: dict[str, Any] = {
        "command": list(options.arguments),
        "name": options.name,
        "environment": options.environment,
        "ports": {f"{inside}/tcp": (options.host, outside or None)},
        # No tier of this version needs any; root without them could not even read other users' files.
        "cap_drop": ["ALL"] if plan.user else [],
        "shm_size": plan.engine.shared_memory or None,
        "labels": {"dev.warmimage.run": "1"},
    }
    if options.model_dir:
        source = str(options.model_dir.resolve())
        mode = "rw" if plan.weights == "download" else "ro"
        words["volumes"] = {source: {"bind": plan.model.path, "mode": mode}}
    if options.gpus:
        words["device_requests"] = [_device_request(options.gpus)]
    return words


def _device_request(gpus: str) -> DeviceRequest:
    """Return what ``docker run --gpus`` would ask for.

    Raises:
        UsageError: ``gpus`` is in none of its forms.
    """
    capabilities = [["gpu"]]
    if gpus == "all":
        return DeviceRequest(count=-1, capabilities=capabilities)
    if gpus.isdigit() and int(gpus):
        return DeviceRequest(count=int(gpus), capabilities=capabilities)
    if gpus.startswith("device=") and gpus != "device=":
        return DeviceRequest(device_ids=gpus.removeprefix("device=").split(","), capabilities=capabilities)
    raise UsageError("no such GPUs", where="--gpus", got=gpus, expected="all, a number, or device=ID,ID")


def _start(container: Container, options: Options, ports: tuple[int, int]) -> None:
    try:
        container.start()
    except APIError as error:
        message = str(error)
        if "port is already allocated" in message or "address already in use" in message:
            raise EnvironmentLacks(
                f"port {ports[1]} is in use on this host", where="--port", fix=f"--port {ports[1] + 1}"
            ) from None
        if "could not select device driver" in message:
            raise EnvironmentLacks(
                "this Docker engine gives containers no GPU", where="--gpus", got=str(error.explanation)[:200],
                fix="install the NVIDIA container toolkit, then restart Docker",
            ) from None  # fmt: skip
        raise WarmimageError("the container does not start", got=str(error.explanation or error)[:300]) from None


@contextlib.contextmanager
def _forwarding(container: Container) -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to the container while the block runs, as ``docker run`` does."""

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(APIError):  # it has ended meanwhile
            container.kill(signal=signal.Signals(number).name)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _timeline_path(plan: Plan, options: Options) -> str:
    """Return where the container keeps its timeline."""
    return {**plan.environment, **options.environment}.get("WARMIMAGE_TIMELINE", timeline.DEFAULT_PATH)


def _follow(
    container: Container, output: Iterator[tuple[bytes | None, bytes | None]], path: str, *, until_ready: bool
) -> bool:
    """Copy a container's output to ours until it ends, or until the server is ready; return whether it became so.

    Of a run that ends at ready, standard output carries the container's id alone.
    """
    ready = False
    seen = b""
    for out, err in output:
        for part, stream in ((out, sys.stderr if until_ready else sys.stdout), (err, sys.stderr)):
            if part:
                stream.buffer.write(part)
                stream.flush()
        if err and not ready:
            seen = (seen + err)[-4096:]
            ready = READY in seen
            if ready:
                container.reload()
                _show_phases(timeline.phases(timeline.fetch(container, path), timeline.created(container)))
                _show_address(container)
                if until_ready:
                    break
    return ready


def _show_address(container: Container) -> None:
    """Say where the server answers on this host."""
    for published in container.ports.values():
        for binding in published or []:
            note(f"  serving on http://{binding['HostIp']}:{binding['HostPort']}")


def _show_phases(found: Sequence[timeline.Phase]) -> None:
    for entry in found:
        note(f"  {entry.name:<12} {entry.seconds:6.2f} s  {entry.meaning}")
    note(f"  {'total':<12} {sum(entry.seconds for entry in found):6.2f} s")
