"""The result of a bench: every run, what was made of them, and on which machine.  Frozen, and kept as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ConfigError

#: Version of the format.
SCHEMA_VERSION: Final = 1

State = Literal["warm", "cold"]

#: The figures of a run, each with its unit and what it is: the keys of ``Run.figures``.
FIGURES = {
    "ready": ("s", "asking to the first healthy answer, as the client saw it"),
    "first_token": ("s", "asking to the first token"),
    "cpu": ("s", "CPU time of the container up to the first token"),
    "read": ("bytes", "bytes that the container had read from disk up to the first token"),
    "machine_read": ("bytes", "bytes that the whole machine read from its disks meanwhile"),
    "rss": ("bytes", "sum of the processes' peak resident sizes; shared pages count in each"),
    "pss": ("bytes", "proportional size of all processes, just after the first token"),
    "memory": ("bytes", "peak of the container's memory, page cache included"),
}


class Frozen(BaseModel):
    """A part of the result."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Host(Frozen):
    """The machine of the measurement; ``docker`` is the Docker daemon's version."""

    cpu: str
    cpus: int
    memory_bytes: int
    kernel: str
    docker: str
    gpus: tuple[str, ...]


class ImageFacts(Frozen):
    """An image that was measured; what only a plan tells is ``None`` for an image of others."""

    reference: str
    id: str
    digests: tuple[str, ...]
    size_bytes: int
    engine: str | None
    engine_version: str | None
    python_version: str | None
    accelerator: str | None
    method: str | None
    tiers: tuple[str, ...] | None
    tool_version: str | None


class ModelFacts(Frozen):
    """The served model, without its path on the host.  ``weight_bytes`` is ``None`` for a model without a directory."""

    name: str
    weight_bytes: int | None


class ArmFacts(Frozen):
    """What was compared.

    Attributes:
        name: the arm as the command line names it, with ``#2`` if it comes twice.
        image: the image's reference, one of ``Result.images``.
        tier: the tier that was to come up; ``None`` where any may.
        variables: names of the variables that were set; values may be secret.
        arguments: engine arguments, the values of secrets left out.
    """

    name: str
    image: str
    tier: str | None
    variables: tuple[str, ...]
    arguments: tuple[str, ...]


class Span(Frozen):
    """A phase of a run, in seconds."""

    name: str
    seconds: float


class Cold(Frozen):
    """What was left in the page cache when a cold run began."""

    files: int
    total_bytes: int
    resident_bytes: int

    @property
    def share(self) -> float:
        """The resident share, 0 to 1."""
        return self.resident_bytes / self.total_bytes if self.total_bytes else 0.0


class Run(Frozen):
    """One start.

    Attributes:
        arm: name of its arm.
        state: of the page cache.
        round: number of its round, from 1; each round has every arm once.
        asked: seconds since 1970.
        created: seconds from asking to the container's creation.
        first_byte: seconds from asking to the first line of PID 1.
        tier: the tier that came up.
        tier_right: whether it is the arm's.
        figures: the figures, by the names of ``FIGURES``; ``None`` where one is not to be had.
        phases: the phases, the last one ``unaccounted``; they add up to ``first_token``.
        others_before: share of all CPUs that others used just before the run, 0 to 1.
        others_during: the same during the run.
        cold: what stayed resident, for a cold run.
        completion: the text.
        completion_sha256: its digest.
        events: the timeline.
    """

    arm: str
    state: State
    round: int
    asked: float
    created: float | None
    first_byte: float | None
    tier: str | None
    tier_right: bool
    figures: dict[str, float | None]
    phases: tuple[Span, ...]
    others_before: float | None
    others_during: float | None
    cold: Cold | None
    completion: str
    completion_sha256: str
    events: tuple[dict[str, Any], ...]

    def figure(self, name: str) -> float:
        """Return a figure that every run has: ``ready`` or ``first_token``."""
        value = self.figures[name]
        assert value is not None  # noqa: S101 - a run without them is no run
        return value


class Spread(Frozen):
    """How a figure spread over the runs of a cell; ``iqr`` is the distance of its quartiles."""

    runs: int
    median: float
    minimum: float
    maximum: float
    iqr: float


class Cell(Frozen):
    """The runs of one arm in one state, summed up; figures that no run has are absent."""

    state: State
    arm: str
    figures: dict[str, Spread]
    phases: tuple[Span, ...]


class Comparison(Frozen):
    """The first arm against another, in one state.

    Attributes:
        figure: ``ready`` or ``first_token``.
        ratio: the first arm's median over the other's: above 1 the other arm is faster.
        low: lower end of the interval of 95 %; ``None`` where the runs are too few for one.
        high: its upper end.
        noise: why the machine was too noisy to conclude; empty where it was not.
        verdict: what follows for the other arm: ``faster``, ``slower``, or ``no conclusion: REASON``.
    """

    state: State
    first: str
    other: str
    figure: Literal["ready", "first_token"]
    ratio: float
    low: float | None
    high: float | None
    noise: tuple[str, ...]
    verdict: str

    @property
    def conclusive(self) -> bool:
        """Whether the interval lies on one side of 1 and the machine was quiet."""
        return self.low is not None and self.high is not None and not self.noise and not self.low <= 1 <= self.high


class Result(Frozen):
    """All of it.

    Attributes:
        date: when it began, UTC, as ISO 8601.
        faults: what makes the comparison worthless: another tier came up, completions differ.
        missing: why a figure is not to be had, by its name.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    tool_version: str
    date: str
    host: Host
    images: tuple[ImageFacts, ...]
    model: ModelFacts
    arms: tuple[ArmFacts, ...]
    states: tuple[State, ...]
    rounds: int
    runs: tuple[Run, ...]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    faults: tuple[str, ...]
    missing: dict[str, str]

    def cell(self, state: State, arm: str) -> Cell:
        """Return one arm's cell in one state."""
        return next(cell for cell in self.cells if (cell.state, cell.arm) == (state, arm))

    def runs_of(self, state: State, arm: str) -> list[Run]:
        """Return one arm's runs in one state."""
        return [run for run in self.runs if (run.state, run.arm) == (state, arm)]

    def without_events(self) -> Result:
        """Return the same without the timelines, small enough to be committed."""
        return self.model_copy(update={"runs": tuple(run.model_copy(update={"events": ()}) for run in self.runs)})


def load(path: Path) -> Result:
    """Read a result.

    Raises:
        ConfigError: it is none, or of another version.
    """
    try:
        return Result.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise ConfigError("not a result of this version of bench", where=f"{path}: {at}", got=first["msg"]) from None
