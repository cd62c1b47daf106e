"""Conclusions from the runs: cells, comparisons, noise, and the gate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Literal

from ..errors import GateMissed, Problem
from .measure import PHASES
from .result import FIGURES, ArmFacts, Cell, Comparison, Result, Run, Span, State
from .statistics import FEWEST_RUNS, ratio_of_medians, spread

#: Largest share of all CPUs for other processes, as the median over the runs of a comparison.
OTHERS_LIMIT = 0.10

#: Largest distance of an arm's quartiles, as a share of its median.
SPREAD_LIMIT = 0.15

_TIMES: tuple[Literal["ready", "first_token"], ...] = ("ready", "first_token")


def cells(runs: Sequence[Run], states: Sequence[State], arms: Sequence[ArmFacts]) -> tuple[Cell, ...]:
    """Return the runs of each arm in each state, summed up."""
    return tuple(
        _cell([run for run in runs if (run.state, run.arm) == (state, arm.name)], state, arm.name)
        for state, arm in product(states, arms)
    )


def _cell(runs: Sequence[Run], state: State, arm: str) -> Cell:
    figures = {}
    for name in FIGURES:
        values = [value for run in runs if (value := run.figures.get(name)) is not None]
        if values:
            figures[name] = spread(values)
    names = sorted({span.name for run in runs for span in run.phases}, key=PHASES.index)
    seconds = [{span.name: span.seconds for span in run.phases} for run in runs]
    spans = tuple(
        Span(name=name, seconds=spread([of_run.get(name, 0.0) for of_run in seconds]).median) for name in names
    )
    return Cell(state=state, arm=arm, figures=figures, phases=spans)


def median_run(runs: Sequence[Run]) -> Run:
    """Return the run whose time to the first token is the median, the faster one of two."""
    return sorted(runs, key=lambda run: run.figure("first_token"))[(len(runs) - 1) // 2]


def comparisons(runs: Sequence[Run], states: Sequence[State], arms: Sequence[ArmFacts]) -> tuple[Comparison, ...]:
    """Return the first arm against each other one, in each state."""
    first, *others = arms
    return tuple(
        _compare(
            [run for run in runs if (run.state, run.arm) == (state, first.name)],
            [run for run in runs if (run.state, run.arm) == (state, other.name)],
            figure,
        )
        for state, other, figure in product(states, others, _TIMES)
    )


def _compare(first: Sequence[Run], other: Sequence[Run], figure: Literal["ready", "first_token"]) -> Comparison:
    found = ratio_of_medians([run.figure(figure) for run in first], [run.figure(figure) for run in other])
    noise = tuple(_noise(first, other, figure))
    return Comparison(
        state=first[0].state,
        first=first[0].arm,
        other=other[0].arm,
        figure=figure,
        ratio=found.ratio,
        low=found.low,
        high=found.high,
        noise=noise,
        verdict=_words(found.ratio, found.low, found.high, len(first), noise),
    )


def _noise(first: Sequence[Run], other: Sequence[Run], figure: str) -> Iterator[str]:
    """Yield the reasons why these runs are too noisy for a conclusion."""
    runs = [*first, *other]
    for when, shares in (
        ("before", [run.others_before for run in runs if run.others_before is not None]),
        ("during", [run.others_during for run in runs if run.others_during is not None]),
    ):
        share = spread(shares).median if shares else 0.0
        if share > OTHERS_LIMIT:
            yield f"other processes used {share:.0%} of the CPUs {when} the runs (limit {OTHERS_LIMIT:.0%})"
    for arm in (first, other):
        found = spread([run.figure(figure) for run in arm])
        if found.iqr > SPREAD_LIMIT * found.median:
            share = found.iqr / found.median
            yield f"the quartiles of {arm[0].arm} lie {share:.0%} of its median apart (limit {SPREAD_LIMIT:.0%})"


def _words(ratio: float, low: float | None, high: float | None, runs: int, noise: Sequence[str]) -> str:
    """Return the verdict of a comparison."""
    if noise:
        return "no conclusion: " + "; ".join(noise)
    if low is None or high is None:
        return f"no conclusion: {runs} run{'s' * (runs != 1)} of an arm give no interval; it takes {FEWEST_RUNS}"
    if low <= 1 <= high:
        return f"no conclusion: the interval, {low:.3f} to {high:.3f}, holds 1"
    return "faster" if ratio > 1 else "slower"


def faults(runs: Sequence[Run], arms: Sequence[ArmFacts]) -> tuple[str, ...]:
    """Return the faults that make the comparison invalid, each once."""
    found = []
    tiers = {arm.name: arm.tier for arm in arms}
    for run in runs:
        if not run.tier_right:
            came = f"tier {run.tier}" if run.tier else "no known tier"
            found.append(f"{run.arm}, {run.state}: {came} came up, not {tiers[run.arm]}")
    first = runs[0]
    for run in runs:
        if run.completion_sha256 != first.completion_sha256:
            found.append(
                f"the completion of {run.arm} differs from that of {first.arm}: {run.completion[:60]!r}, "
                f"not {first.completion[:60]!r}"
            )
    return tuple(dict.fromkeys(found))


def check_gate(result: Result, least: float) -> None:
    """Check that the last arm is at least ``least`` times as fast as the first, in every state.

    The time to the first token counts.  The machine must have been quiet enough, the completions the same and the
    tiers the arms' own.  A gate above 1 also needs an interval that lies above 1.

    Raises:
        GateMissed: it is not so.
    """
    found = [Problem("the comparison is invalid", where="--gate", got=fault) for fault in result.faults]
    last = result.arms[-1].name
    for entry in _gated(result.comparisons, last):
        where = f"{entry.state}: {entry.first} / {last}"
        if entry.noise or (least > 1 and not entry.conclusive):
            found.append(
                Problem("the gate cannot be decided", where=where, got=entry.verdict, fix="-n 9, a quiet host")
            )
        elif entry.ratio < least:
            found.append(Problem("the gate is missed", where=where, got=f"{entry.ratio:.3f}", expected=f"{least:.3f}"))
    if found:
        raise GateMissed(found)


def _gated(entries: Iterable[Comparison], last: str) -> Iterator[Comparison]:
    return (entry for entry in entries if entry.other == last and entry.figure == "first_token")
