"""The interval covers what it says it covers, also with five runs and noise as starts have it."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable

import pytest
from warmimage.bench.statistics import FEWEST_RUNS, ratio_of_medians, spread

#: How the time of a start is spread about its best: symmetric, with a long upper tail, with a very long one, with
#: a tenth of outliers.
NOISES: dict[str, Callable[[random.Random], float]] = {
    "lognormal": lambda source: math.exp(source.gauss(0, 0.03)),
    "exponential": lambda source: 1 + source.expovariate(25),
    "pareto": lambda source: 1 + 0.03 * (source.paretovariate(2.5) - 1),
    "outliers": lambda source: 1 + abs(source.gauss(0, 0.01)) + (source.random() < 0.1) * source.expovariate(3),
}


@pytest.mark.parametrize("runs", [5, 8])
@pytest.mark.parametrize("truth", [1.0, 1.25])
@pytest.mark.parametrize("noise", NOISES)
def test_the_interval_holds_the_truth_as_often_as_it_says(
    noise: str, truth: float, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """95 % nominally; of 400 repeats 368 is what 95 % would miss once in 300."""
    monkeypatch.setattr("warmimage.bench.statistics._RESAMPLES", 400)
    source = random.Random(f"{noise} {truth} {runs}")  # noqa: S311 - statistics, no secret
    held = 0
    for repeat in range(400):
        other = [NOISES[noise](source) for _ in range(runs)]
        first = [NOISES[noise](source) * truth for _ in range(runs)]
        found = ratio_of_medians(first, other, repeat)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert held >= 368


def test_the_interval_is_not_so_wide_that_it_says_nothing() -> None:
    """Ten per cent are found nearly always where runs spread by two."""
    source = random.Random(1)  # noqa: S311 - statistics, no secret
    found = 0
    for repeat in range(100):
        first = [source.gauss(1, 0.02) for _ in range(5)]
        other = [source.gauss(1.1, 0.02) for _ in range(5)]
        high = ratio_of_medians(first, other, repeat).high
        found += high is not None and high < 1
    assert found >= 95


def test_the_ratio_lies_in_its_interval_and_is_that_of_the_medians() -> None:
    first, other = [4.0, 4.1, 4.2, 5.0, 9.0], [2.0, 2.1, 2.2, 2.3, 2.4]
    found = ratio_of_medians(first, other)
    assert found.ratio == pytest.approx(4.2 / 2.2)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.ratio < found.high


def test_the_same_runs_give_the_same_interval() -> None:
    first, other = [4.0, 4.1, 4.2, 5.0, 9.0], [2.0, 2.1, 2.2, 2.3, 2.4]
    assert ratio_of_medians(first, other) == ratio_of_medians(first, other)


def test_too_few_runs_give_no_interval() -> None:
    few = [1.0] * (FEWEST_RUNS - 1)
    found = ratio_of_medians([2.0] * FEWEST_RUNS, few)
    assert (found.ratio, found.low, found.high) == (2.0, None, None)


def test_spread_is_that_of_the_standard_library() -> None:
    values = [3.0, 1.0, 2.0, 10.0, 4.0]
    found = spread(values)
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    assert (found.runs, found.median, found.minimum, found.maximum) == (5, 3.0, 1.0, 10.0)
    assert found.iqr == quartiles[2] - quartiles[0] == 2.0
    assert spread([7.0]).iqr == 0
