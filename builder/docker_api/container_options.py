"""Options of containers: mounts, ports and GPUs from an image's plan, and no privilege."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker.errors import APIError
from docker.models.containers import Container
from docker.types import DeviceRequest

from .. import timeline
from ..entrypoint.settings import last_port
from ..errors import ConfigError, EnvironmentLacks, UsageError, WarmimageError
from ..plan import Plan


@dataclass(frozen=True)
class Options:
    """How to run an image.

    Attributes:
        model_dir: directory to mount at the plan's model path.
        port: host port to publish the server on, 0 for a free one; ``None`` for the server's own.
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
class Needs:
    """What an image's containers need of the host.

    Attributes:
        port: TCP port that the server listens on in the container.
        model_path: where the model is mounted.
        writable: whether the container writes there.
        shared_memory: bytes of ``/dev/shm``; 0 for the daemon's default.
        unprivileged: whether every capability may be dropped: the image's user is not root.
    """

    port: int
    model_path: str
    writable: bool
    shared_memory: int
    unprivileged: bool


def needs_of(plan: Plan, arguments: Sequence[str]) -> Needs:
    """Return the needs of an image's containers, when they start with these engine arguments."""
    command = [*plan.engine.command, *plan.engine.args, *arguments]
    return Needs(
        port=last_port(command, plan.engine.port_flags, plan.engine.port),
        model_path=plan.model.path,
        writable=plan.weights == "download",
        shared_memory=plan.engine.shared_memory,
        # Root without them could not even read other users' files.
        unprivileged=bool(plan.user),
    )


def check(plan: Plan, options: Options) -> None:
    """Check that the options fit an image.

    Raises:
        UsageError: the image needs a model directory, or must have none; or --detach cannot return.
        ConfigError: the model directory is missing.
    """
    if plan.model.mounted and not options.model_dir and not set(options.arguments) & set(plan.engine.quick_flags):
        raise UsageError("the image needs a mounted model", fix="--model DIR")
    if options.model_dir and plan.weights == "bake":
        raise UsageError("the image contains its model (weights: bake)", fix="remove --model")
    if options.model_dir and not options.model_dir.is_dir():
        raise ConfigError("the model directory is missing", where="--model", got=str(options.model_dir))
    if not options.detach:
        return
    unprobed = set(options.arguments) & set(plan.engine.unprobed_flags)
    if unprobed:
        raise UsageError(
            f"{min(unprobed)} makes readiness undetectable, so --detach cannot return",
            where="--detach",
            fix="run without --detach",
        )
    if not timeline_path(plan, options.environment):
        raise UsageError(
            "without a timeline readiness is unknown, so --detach cannot return",
            where="WARMIMAGE_TIMELINE",
            fix="set it to a path, or run without --detach",
        )


def create_arguments(needs: Needs, options: Options, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the keyword arguments of ``client.containers.create``.

    Args:
        needs: what the image's containers need.
        options: how to run the image.
        labels: of the container.

    Raises:
        UsageError: ``gpus`` has none of its forms.
    """
    outside = needs.port if options.port is None else options.port
    arguments: dict[str, Any] = {
        "command": list(options.arguments),
        "name": options.name,
        "environment": options.environment,
        "ports": {f"{needs.port}/tcp": (options.host, outside or None)},
        "cap_drop": ["ALL"] if needs.unprivileged else [],
        "shm_size": needs.shared_memory or None,
        "labels": dict(labels),
    }
    if options.model_dir:
        source = str(options.model_dir.resolve())
        arguments["volumes"] = {source: {"bind": needs.model_path, "mode": "rw" if needs.writable else "ro"}}
    if options.gpus:
        arguments["device_requests"] = [device_request(options.gpus)]
    return arguments


def device_request(gpus: str) -> DeviceRequest:
    """Return the device request of ``docker run --gpus``.

    Raises:
        UsageError: ``gpus`` has none of its forms.
    """
    capabilities = [["gpu"]]
    if gpus == "all":
        return DeviceRequest(count=-1, capabilities=capabilities)
    if gpus.isdigit() and int(gpus):
        return DeviceRequest(count=int(gpus), capabilities=capabilities)
    if gpus.startswith("device=") and gpus != "device=":
        return DeviceRequest(device_ids=gpus.removeprefix("device=").split(","), capabilities=capabilities)
    raise UsageError("not a valid GPU request", where="--gpus", got=gpus, expected="all, a number, or device=ID,ID")


def start(container: Container) -> None:
    """Start a container that was created with ``create_arguments``.

    Raises:
        EnvironmentLacks: the host has no GPU runtime, or the port is in use.
        WarmimageError: the Docker daemon refuses.
    """
    try:
        container.start()
    except APIError as error:
        message = str(error)
        if "port is already allocated" in message or "address already in use" in message:
            port = _host_port(container)
            raise EnvironmentLacks(
                f"port {port} is in use on this host", where="--port", fix=f"--port {port + 1}"
            ) from None
        if "could not select device driver" in message:
            raise EnvironmentLacks(
                "this Docker daemon cannot give containers a GPU",
                where="--gpus",
                got=str(error.explanation)[:200],
                fix="install the NVIDIA container toolkit, then restart Docker",
            ) from None
        raise WarmimageError("the container does not start", got=str(error.explanation or error)[:300]) from None


def _host_port(container: Container) -> int:
    """Return the host port that a container was created to publish; 0 if the daemon chooses one."""
    for bindings in (container.attrs["HostConfig"]["PortBindings"] or {}).values():
        return int(bindings[0]["HostPort"] or 0)
    return 0


def timeline_path(plan: Plan, environment: Mapping[str, str]) -> str:
    """Return the path of a container's timeline; empty if it has none."""
    return {**plan.environment, **environment}.get("WARMIMAGE_TIMELINE", timeline.DEFAULT_PATH)
