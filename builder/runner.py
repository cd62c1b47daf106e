"""Run an image with the mounts, ports and GPUs of its plan; a user other than root gets no capability."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from . import timeline
from .console import note
from .docker_api import daemon
from .docker_api.container_options import Options, check, create_arguments, needs_of, start, timeline_path
from .image.read import plan_of

#: What PID 1 writes to standard error when the server answers its health path.
READY = b"warmimage: ready in "


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
        WarmimageError: the Docker daemon refuses.
    """
    with daemon.api_errors(f"cannot run {reference}"):
        image = client.images.get(reference)
    plan = plan_of(image, reference)
    check(plan, options)
    words = create_arguments(needs_of(plan, options.arguments), options, {"dev.warmimage.run": "1"})
    with daemon.api_errors(f"cannot create a container of {reference}"):
        container = client.containers.create(reference, **words)
    path = timeline_path(plan, options.environment)
    kept = False
    try:
        output = container.attach(stdout=True, stderr=True, stream=True, logs=True, demux=True)
        start(container)
        with _forwarding(container):
            ready = _follow(container, output, path, until_ready=options.detach)
            kept = options.detach and ready
            code = 0 if kept else int(container.wait()["StatusCode"])
        return Started(code, str(container.id), timeline.fetch(container, path))
    finally:
        if not kept:
            with contextlib.suppress(NotFound):
                container.remove(force=True)


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
