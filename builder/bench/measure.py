"""One start, measured: from the request for a container to the first token."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from .. import server_client, timeline
from ..docker_api import container_options, temporary_container
from ..docker_api.container_options import Options
from ..errors import WarmimageError
from . import cleanup, page_cache, usage
from .arms import Arm
from .host import Load
from .result import Cold, Run, Span, State

#: Seconds before each start in which the load of other processes is measured.
_WATCH = 0.5

#: Seconds that PID 1's readiness probe may lag behind the client.
_PROBE_PATIENCE = 10.0

#: The time that no other phase accounts for.
UNACCOUNTED = "unaccounted"

#: All phases in order: the timeline's, with those that only the client sees around them.
PHASES = ("asking", *timeline.PHASE_NAMES, "server", "token", UNACCOUNTED)


@dataclass
class Starter:
    """Starts arms and measures them.

    Attributes:
        client: client of the Docker daemon.
        images: id of each image by its reference, so that a moved tag changes nothing.
        session: value of the label of all containers.
        model_dir: directory to mount; ``None`` if the image holds its model.
        host: host address to publish ports on.
        gpus: as ``warmimage run`` takes them.
        timeout: time limit of a start in seconds.
        files: the files to drop before a cold start, by arm name.
        missing: why figures are not available, by name; filled by the runs.
    """

    client: docker.DockerClient
    images: dict[str, str]
    session: str
    model_dir: Path | None
    host: str
    gpus: str
    timeout: float
    files: dict[str, page_cache.Files] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    _models: dict[str, str] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def start(self, arm: Arm, state: State, number: int) -> Run:
        """Start an arm once, and return the measurement.

        Raises:
            WarmimageError: the Docker daemon refuses, the server ends or does not become ready in time, or the page
                cache stays warm.
        """
        left = page_cache.drop(self.files[arm.name]) if state == "cold" else None
        first = Load.now()
        time.sleep(_WATCH)
        before = Load.now()
        watch = _Watch(before.others_since(first, 0.0), before, left)
        arguments = self._arguments(arm)
        asked, asked_wall = time.monotonic(), time.time()
        with temporary_container.created(
            self.client, self.images[arm.image], arguments, f"a container of {arm.image}"
        ) as container:
            container_options.start(container)
            container.reload()
            return self._follow(arm, state, number, container, watch, asked, asked_wall)

    def _arguments(self, arm: Arm) -> dict[str, Any]:
        """Return the keyword arguments for the creation of an arm's container."""
        mounted = self.model_dir if arm.plan is None or arm.plan.weights != "bake" else None
        options = Options(
            model_dir=mounted,
            port=0,
            host=self.host,
            gpus=self.gpus,
            environment=dict(arm.environment),
            arguments=arm.arguments,
            name=f"warmimage-bench-{self.session}-{next(self._numbers)}",
        )
        return container_options.create_arguments(arm.needs, options, {cleanup.LABEL: self.session})

    def _follow(
        self, arm: Arm, state: State, number: int, container: Container, watch: _Watch, asked: float, asked_wall: float
    ) -> Run:
        deadline = asked + self.timeout
        address = _address(container, arm.needs.port)
        healthy = server_client.wait_healthy(address, arm.health_path, deadline, lambda: _check_alive(container, arm))
        if arm.name not in self._models:
            known = arm.plan.model.name if arm.plan else None
            self._models[arm.name] = known or server_client.served_model(address, arm.needs.model_path)
        counts: list[tuple[usage.Usage, Load]] = []
        answer = server_client.first_token(
            address, self._models[arm.name], deadline, lambda: counts.append((usage.read(container), Load.now()))
        )
        ((used, after),) = counts
        self.missing |= used.missing
        events = self._events(arm, container)
        local = bool(usage.local_pid(container))
        marks = _marks(container, events, asked, asked_wall, healthy, local=local)
        if not local:
            self.missing["phases"] = (
                "the Docker daemon runs on another machine: a run's phases are fitted to the client's clock at ready"
            )
        cpu = used.figures["cpu"]
        up = timeline.find(events, "ready")
        tier = str(up[-1]["tier"]) if up else None
        if arm.plan and not up:
            self.missing["tier"] = "no timeline names the tier"
        figures = {
            "ready": healthy - asked,
            "first_token": answer.first_token - asked,
            **used.figures,
            "machine_read": after.disk_bytes - watch.load.disk_bytes if local else None,
        }
        return Run(
            arm=arm.name,
            state=state,
            round=number,
            asked=asked_wall,
            created=marks.created,
            first_byte=marks.first_byte,
            tier=tier,
            tier_right=arm.tier is None or tier == arm.tier,
            figures=figures,
            phases=_phases(marks.ends, asked, healthy, answer.first_token),
            others_before=watch.before,
            others_during=None if cpu is None or not local else after.others_since(watch.load, cpu),
            cold=watch.left,
            completion=answer.text,
            completion_sha256=hashlib.sha256(answer.text.encode()).hexdigest(),
            events=tuple(events),
        )

    def _events(self, arm: Arm, container: Container) -> list[timeline.Event]:
        """Return the timeline, once it has the event ``ready``."""
        path = container_options.timeline_path(arm.plan, arm.environment) if arm.plan else ""
        if not path:
            return []
        deadline = time.monotonic() + _PROBE_PATIENCE
        while True:
            events = timeline.fetch(container, path)
            if timeline.find(events, "ready") or time.monotonic() > deadline:
                return events
            time.sleep(0.05)


@dataclass(frozen=True)
class _Watch:
    """The measurements before a start: the load of other processes, the counters, and the cached rest."""

    before: float
    load: Load
    left: Cold | None


@dataclass(frozen=True)
class _Marks:
    """Times of a start from the Docker daemon and the timeline, on the client's clock.

    Attributes:
        created: seconds from the request to the container's creation.
        first_byte: seconds from the request to the first line of PID 1.
        ends: name and end of each phase, as monotonic times.
    """

    created: float | None
    first_byte: float | None
    ends: list[tuple[str, float]]


def _marks(
    container: Container,
    events: Sequence[timeline.Event],
    asked: float,
    asked_wall: float,
    healthy: float,
    *,
    local: bool,
) -> _Marks:
    """Return the ends of the phases, as monotonic times.

    On this machine the timeline has our clock.  Another machine's clock is aligned with ours at ready.
    """
    created = timeline.created(container)
    ready = [event["t"] for event in events if event["event"] == "ready"]
    if ready:
        found = timeline.phases(events, created)
        at = (ready[-1] if local else healthy) - sum(phase.seconds for phase in found)
        ends = [("asking", at), *((phase.name, at := at + phase.seconds) for phase in found)]
        return _Marks(ends[0][1] - asked, ends[1][1] - asked, ends)
    if local:
        shift = asked - asked_wall
        begun = timeline.wall(container.attrs["State"]["StartedAt"])
        ends = [("asking", created + shift), ("container", begun + shift), ("server", healthy)]
        return _Marks(created - asked_wall, None, ends)
    return _Marks(None, None, [("server", healthy)])


def _phases(ends: list[tuple[str, float]], asked: float, healthy: float, first_token: float) -> tuple[Span, ...]:
    """Return the phases from the request to the first token, with the unaccounted rest.

    A phase that ends in the container after the client saw readiness ends at that moment for the client.
    """
    spans, before = [], asked
    for name, end in ends:
        end = max(before, min(end, healthy))
        spans.append(Span(name=name, seconds=end - before))
        before = end
    spans.append(Span(name="token", seconds=first_token - healthy))
    spans.append(Span(name=UNACCOUNTED, seconds=first_token - asked - sum(span.seconds for span in spans)))
    return tuple(spans)


def _address(container: Container, port: int) -> tuple[str, int]:
    """Return the host address of a container's published port."""
    _check_running(container)
    for binding in container.ports.get(f"{port}/tcp") or ():
        return binding["HostIp"], int(binding["HostPort"])
    raise WarmimageError("the Docker daemon published no port", got=f"{container.ports}", expected=f"{port}/tcp")


def _check_alive(container: Container, arm: Arm) -> None:
    container.reload()
    _check_running(container, arm.name)


def _check_running(container: Container, name: str = "") -> None:
    """Check that a container has not ended.

    Raises:
        WarmimageError: it has ended; the message has the end of its log.
    """
    state = container.attrs["State"]
    if not state["Running"]:
        log = container.logs(tail=12).decode(errors="replace").strip()
        raise WarmimageError(
            f"the server ended before it was ready: {name}".rstrip(": "),
            got=f"exit code {state['ExitCode']}; the end of its log:\n{log}",
        )
