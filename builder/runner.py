"""Run an image with the mounts, ports and GPUs of its plan; a user other than root gets no capability."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import CancellableStream

from . import timeline
from .console import note
from .docker_api import daemon
from .docker_api.container_options import Options, check, create_arguments, needs_of, start, timeline_path
from .image.read import plan_of

#: Seconds between two readings of the timeline while the server starts.
_INTERVAL = 0.25

#: A part of the standard output and a part of the standard error of a container.
_Chunks = tuple[bytes | None, bytes | None]


@dataclass(frozen=True)
class Started:
    """The outcome of a run.

    Attributes:
        code: the container's exit code; 0 for a detached one that became ready.
        container: its id.
        events: its timeline.
    """

    code: int
    container: str
    events: list[timeline.Event]


def run(client: docker.DockerClient, reference: str, options: Options) -> Started:
    """Run an image, copy its output, forward our signals, and report when the server is ready.

    Raises:
        UsageError: the options do not fit the image.
        EnvironmentLacks: the host has no GPU runtime for the GPUs asked for, or the port is taken.
        WarmimageError: the Docker daemon refuses.
    """
    with daemon.api_errors(f"cannot run {reference}"):
        image = client.images.get(reference)
    plan = plan_of(image, reference)
    check(plan, options)
    arguments = create_arguments(needs_of(plan, options.arguments), options, {"dev.warmimage.run": "1"})
    with daemon.api_errors(f"cannot create a container of {reference}"):
        container = client.containers.create(reference, **arguments)
    path = timeline_path(plan, options.environment)
    kept = False
    try:
        output = container.attach(stdout=True, stderr=True, stream=True, logs=True, demux=True)
        start(container)
        with _forwarding(container):
            kept = _follow(container, output, path, until_ready=options.detach)
            code = 0 if kept else int(container.wait()["StatusCode"])
        return Started(code, str(container.id), timeline.fetch(container, path))
    finally:
        if not kept:
            with contextlib.suppress(NotFound):
                container.remove(force=True)


@contextlib.contextmanager
def _forwarding(container: Container) -> Iterator[None]:
    """Forward SIGINT and SIGTERM to the container while the block runs, as ``docker run`` does."""

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(APIError):  # the container has ended
            container.kill(signal=signal.Signals(number).name)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Copier(threading.Thread):
    """Copies a container's output to ours, until it ends or is closed.

    Args:
        output: chunks of the container's standard output and standard error.
        stdout: where its standard output goes.
    """

    def __init__(self, output: CancellableStream[_Chunks], stdout: TextIO) -> None:
        super().__init__(daemon=True)
        self._output = output
        self._streams = (stdout, sys.stderr)
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            for chunks in self._output:
                for chunk, stream in zip(chunks, self._streams, strict=True):
                    if chunk:
                        stream.buffer.write(chunk)
                        stream.flush()
        except Exception as error:  # such as a pipe that nobody reads any more
            self._error = error

    def close(self) -> None:
        """Stop copying.  A daemon thread that still wrote at the interpreter's end would abort it."""
        self._output.close()
        self.join(1)

    def wait(self) -> None:
        """Wait until the output ends, and raise what went wrong."""
        self.join()
        if self._error:
            raise self._error


def _follow(container: Container, output: CancellableStream[_Chunks], path: str, *, until_ready: bool) -> bool:
    """Copy a container's output to ours until it ends, or until the server is ready.

    Args:
        container: the container, which runs.
        output: chunks of its standard output and standard error.
        path: its timeline, which says when the server is ready; empty if it has none.
        until_ready: return when the server is ready.  Standard output is then kept for the container's id.

    Returns:
        Whether it returned because the server is ready.
    """
    copier = _Copier(output, sys.stderr if until_ready else sys.stdout)
    copier.start()
    while path and copier.is_alive():
        events = timeline.fetch(container, path)
        if not timeline.find(events, "ready"):
            copier.join(_INTERVAL)
            continue
        container.reload()
        _show_phases(timeline.phases(events, timeline.created(container)))
        _show_address(container)
        if until_ready:
            copier.close()
            return True
        break
    copier.wait()
    return False


def _show_address(container: Container) -> None:
    """Show where the server answers on this host."""
    for published in container.ports.values():
        for binding in published or []:
            note(f"  serving on http://{binding['HostIp']}:{binding['HostPort']}")


def _show_phases(phases: Sequence[timeline.Phase]) -> None:
    for phase in phases:
        note(f"  {phase.name:<12} {phase.seconds:6.2f} s  {phase.meaning}")
    note(f"  {'total':<12} {sum(phase.seconds for phase in phases):6.2f} s")
