"""A bench: its request is checked before anything runs; then the arms run in turn, state after state."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import docker
from docker.models.images import Image

from .. import __version__
from ..docker_api import daemon
from ..docker_api.container_options import Options, check
from ..errors import ConfigError, UsageError
from ..image.read import plan_of
from ..plan import Plan
from . import cleanup, host, page_cache, verdict
from .arms import against, arms_of
from .measure import Starter
from .result import ImageFacts, ModelFacts, Result, Run, State

#: What a file of weights ends in.
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")


@dataclass(frozen=True)
class Request:
    """The request for a bench.

    Attributes:
        image: reference of an image of ours.
        model_dir: directory to mount; ``None`` if the image holds its model.
        arms: as ``arms_of`` reads them.
        other: another image to compare with; empty for none.
        other_arguments: its own arguments; ``None`` for the same as the image's.
        other_port: its TCP port, if warmimage did not build it.
        rounds: runs of each arm in each state.
        states: of the page cache.
        environment: variables of every container.
        arguments: engine arguments.
        host: host address to publish ports on.
        gpus: as ``warmimage run`` takes them.
        timeout: seconds that a start may take.
    """

    image: str
    model_dir: Path | None = None
    arms: str = ""
    other: str = ""
    other_arguments: tuple[str, ...] | None = None
    other_port: int = 8000
    rounds: int = 5
    states: tuple[State, ...] = ("warm", "cold")
    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    gpus: str = ""
    timeout: float = 900.0


@dataclass(frozen=True)
class Step:
    """One start; round 0 warms up and is discarded."""

    state: State
    round: int
    arm: str


class Session:
    """A bench whose request has been checked.

    Args:
        client: client of the Docker daemon.
        request: the request.

    Attributes:
        arms: what is compared.

    Raises:
        UsageError: fewer than two arms, or an arm that the image does not have.
        ConfigError: the image is none of ours, or the model directory is missing.
        EnvironmentLacks: cold starts are requested, but this host cannot measure them.
        WarmimageError: the image does not exist.
    """

    def __init__(self, client: docker.DockerClient, request: Request) -> None:
        self._client = client
        self._request = request
        image, self._plan = self._image(request.image)
        if self._plan is None:
            plan_of(image, request.image)  # raises the error
            raise AssertionError
        check(self._plan, Options(model_dir=request.model_dir, arguments=request.arguments))
        _check_probed(self._plan, request.arguments)
        self.arms = arms_of(request.arms, request.image, self._plan, request.environment, request.arguments)
        self._images: dict[str, tuple[Image, Plan | None]] = {request.image: (image, self._plan)}
        if request.other:
            self._add_other(request)
        if len(self.arms) < 2:
            raise UsageError("a comparison needs two arms", where="--arms", fix="name two arms, or the same one twice")
        if "cold" in request.states:
            page_cache.check(client, [image for image, _ in self._images.values()])

    def _image(self, reference: str) -> tuple[Image, Plan | None]:
        with daemon.api_errors(f"cannot bench {reference}"):
            image = self._client.images.get(reference)
        return image, plan_of(image, reference) if image.labels.get("dev.warmimage.plan") else None

    def _add_other(self, request: Request) -> None:
        assert self._plan  # noqa: S101 - checked before
        image, plan = self._image(request.other)
        if plan:
            check(plan, Options(model_dir=None if plan.weights == "bake" else request.model_dir))
        user = str((image.attrs.get("Config") or {}).get("User") or "").partition(":")[0]
        arguments = request.arguments if request.other_arguments is None else request.other_arguments
        self.arms.append(
            against(
                request.other,
                plan,
                self._plan,
                request.environment,
                arguments,
                request.other_port,
                unprivileged=user not in ("", "0", "root"),
            )
        )
        self._images[request.other] = (image, plan)

    def steps(self) -> Iterator[Step]:
        """Yield every start in order: state after state, a round to warm up, then rounds that each begin one later."""
        for state in self._request.states:
            for number in range(self._request.rounds + 1):
                turn = max(0, number - 1) % len(self.arms)
                for arm in (*self.arms[turn:], *self.arms[:turn]):
                    yield Step(state, number, arm.name)

    def run(self, begun: Callable[[Step], None], ended: Callable[[Step, Run], None]) -> Result:
        """Run it all and return the result.

        Args:
            begun: called before each start.
            ended: called after each start.

        Raises:
            WarmimageError: a start failed.
        """
        request, session = self._request, uuid.uuid4().hex[:12]
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        starter = Starter(
            self._client,
            {name: str(image.id) for name, (image, _) in self._images.items()},
            session,
            request.model_dir,
            request.host,
            request.gpus,
            request.timeout,
            files=self._files() if "cold" in request.states else {},
        )
        by_name = {arm.name: arm for arm in self.arms}
        runs: list[Run] = []
        with cleanup.swept(self._client, session):
            for step in self.steps():
                begun(step)
                run = starter.start(by_name[step.arm], step.state, step.round)
                if step.round:
                    runs.append(run)
                ended(step, run)
        facts = tuple(arm.facts() for arm in self.arms)
        return Result(
            tool_version=__version__,
            date=date,
            host=host.describe(self._client),
            images=self._image_facts(),
            model=self._model(),
            arms=facts,
            states=request.states,
            rounds=request.rounds,
            runs=tuple(runs),
            cells=verdict.cells(runs, request.states, facts),
            comparisons=verdict.comparisons(runs, request.states, facts),
            faults=verdict.faults(runs, facts),
            missing=starter.missing,
        )

    def _files(self) -> dict[str, page_cache.Files]:
        """Return the files of each arm's image and of the model."""
        model = page_cache.model_directories(self._request.model_dir) if self._request.model_dir else []
        of_image = {
            name: page_cache.Files.under([*page_cache.layers(image), *model])
            for name, (image, _) in self._images.items()
        }
        return {arm.name: of_image[arm.image] for arm in self.arms}

    def _image_facts(self) -> tuple[ImageFacts, ...]:
        return tuple(
            ImageFacts(
                reference=reference,
                id=str(image.id),
                digests=tuple(image.attrs.get("RepoDigests") or ()),
                size_bytes=daemon.size_bytes(image),
                engine=plan.engine.name if plan else None,
                engine_version=plan.engine.version if plan else None,
                python_version=plan.base.python_version if plan else None,
                accelerator=plan.accelerator if plan else None,
                method=plan.method if plan else None,
                tiers=plan.tiers if plan else None,
                tool_version=plan.tool_version if plan else None,
            )
            for reference, (image, plan) in self._images.items()
        )

    def _model(self) -> ModelFacts:
        assert self._plan  # noqa: S101 - checked before
        directory = self._request.model_dir
        paths = directory.rglob("*") if directory else ()
        files = [path for path in paths if path.suffix in _WEIGHTS and path.is_file()]
        size = sum(path.stat().st_size for path in files)
        return ModelFacts(name=self._plan.model.name, weight_bytes=size if directory else None)


def _check_probed(plan: Plan, arguments: Sequence[str]) -> None:
    """Refuse arguments that make readiness undetectable."""
    unprobed = {word.partition("=")[0] for word in arguments} & {*plan.engine.unprobed_flags, *plan.engine.quick_flags}
    if unprobed:
        raise UsageError(f"{min(unprobed)} makes readiness undetectable", where="engine arguments")


def check_writable(*files: Path | None) -> None:
    """Check that files can be written, before the runs take hours.

    Raises:
        ConfigError: a file's directory is missing, or a file is a directory.
    """
    for file in files:
        if file and (file.is_dir() or not file.parent.is_dir()):
            raise ConfigError("the file cannot be written", where=str(file), fix=f"mkdir -p {file.parent}")
