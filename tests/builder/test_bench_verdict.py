"""What a bench says of its runs: faster, slower, or that nothing follows, and why; and what the gate makes of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from warmimage.bench import tables, verdict
from warmimage.bench.result import Result, load
from warmimage.errors import ConfigError, GateMissed
from warmimage.files import write_whole

from .bench_facts import result, run, runs

PLAIN = [10.0, 10.1, 10.2, 10.3, 10.4]
FAST = [8.0, 8.1, 8.2, 8.3, 8.4]


def verdict_of(found: Result) -> str:
    return next(entry.verdict for entry in found.comparisons if entry.figure == "first_token")


def test_a_clear_difference_is_said_either_way() -> None:
    assert verdict_of(result([*runs("plain", PLAIN), *runs("preload", FAST)])) == "faster"
    assert verdict_of(result([*runs("plain", FAST), *runs("preload", PLAIN)])) == "slower"


@pytest.mark.parametrize(
    ("plain", "preload", "changed", "words"),
    [
        (PLAIN, PLAIN, {}, r"the interval, 0\.9\d\d to 1\.0\d\d, holds 1$"),
        (PLAIN[:4], FAST[:4], {}, r"4 runs of an arm give no interval; it takes 5$"),
        (PLAIN[:1], FAST[:1], {}, r"1 run of an arm give"),
        (PLAIN, FAST, {"others_before": 0.3}, r"other processes used 30% of the CPUs before the runs \(limit 10%\)$"),
        (PLAIN, FAST, {"others_during": 0.12}, r"other processes used 12% of the CPUs during the runs \(limit 10%\)$"),
        (PLAIN, [4, 5, 6, 7, 8], {}, r"the quartiles of preload lie 33% of its median apart \(limit 15%\)$"),
    ],
    ids=["interval", "four", "one", "before", "during", "spread"],
)
def test_where_nothing_follows_the_reason_is_said(
    plain: list[float], preload: list[float], changed: dict[str, Any], words: str
) -> None:
    found = result([*runs("plain", plain, **changed), *runs("preload", preload, **changed)])
    assert re.match(f"no conclusion: {words}", verdict_of(found))
    assert not found.comparisons[0].conclusive
    assert any(verdict_of(found) in note for note in tables.notes(found))


def test_what_the_engine_cannot_tell_is_no_noise() -> None:
    found = result(
        [
            *runs("plain", PLAIN, others_before=None, others_during=None),
            *runs("preload", FAST, others_before=None, others_during=None),
        ]
    )
    assert verdict_of(found) == "faster"


def test_another_tier_and_another_completion_are_faults_said_once() -> None:
    found = result(
        [
            *runs("plain", PLAIN),
            *runs("preload", FAST, tier="plain", tier_right=False),
            *runs("plain#2", PLAIN),
            run("preload", 8.0, 6, completion="goodbye"),
        ]
    )
    assert found.faults == (
        "preload, warm: tier plain came up, not preload",
        "the completion of preload differs from that of plain: 'goodbye', not 'hello'",
    )
    assert tables.as_text(found, 120).count("INVALID: ") == 2


def test_a_figure_that_is_not_to_be_had_is_none_and_never_nothing() -> None:
    found = result([*runs("plain", PLAIN), *runs("preload", FAST)], {"read": "this kernel does not count"})
    assert "read" not in found.cells[0].figures
    assert '"read": null' in found.model_dump_json(indent=1)
    assert "read: this kernel does not count" in tables.notes(found)
    (row, _) = tables.resources(found).rows
    assert row[tables.resources(found).columns.index("read")] == "none"


def test_the_median_run_is_one_that_was() -> None:
    assert verdict.median_run(runs("plain", [5.0, 3.0, 9.0])).figure("first_token") == 5.0
    assert verdict.median_run(runs("plain", [5.0, 3.0])).figure("first_token") == 3.0


def check(found: Result, least: float) -> list[str]:
    """Return what the gate says, nothing where it lets pass."""
    try:
        verdict.check_gate(found, least)
    except GateMissed as error:
        return [problem.what for problem in error.problems]
    return []


def test_a_gate_that_is_missed_has_a_code_of_its_own() -> None:
    with pytest.raises(GateMissed) as caught:
        verdict.check_gate(result([*runs("plain", PLAIN), *runs("preload", FAST)]), 2)
    assert caught.value.exit_code == 5


def test_the_gate_compares_the_last_arm_with_the_first_in_every_state() -> None:
    slow_when_cold = result(
        [
            *runs("plain", PLAIN),
            *runs("preload", FAST),
            *runs("plain", PLAIN, "cold"),
            *runs("preload", PLAIN, "cold"),
        ]
    )
    assert check(slow_when_cold, 0.95) == []
    assert check(slow_when_cold, 1.2) == ["the gate cannot be decided"]
    assert check(result([*runs("plain", PLAIN), *runs("preload", FAST)]), 1.2) == []
    assert check(result([*runs("plain", PLAIN), *runs("preload", FAST)]), 1.3) == ["the gate is missed"]
    between = result([*runs("plain", PLAIN), *runs("preload", FAST), *runs("plain#2", PLAIN)])
    assert check(between, 1.2) == ["the gate cannot be decided"]


def test_the_gate_lets_nothing_pass_that_is_worthless_or_noisy() -> None:
    differing = result([*runs("plain", PLAIN), *runs("preload", FAST, completion="goodbye")])
    assert check(differing, 0.5) == ["the comparison is invalid"]
    fallen = result([*runs("plain", PLAIN), *runs("preload", FAST, tier="plain", tier_right=False)])
    assert check(fallen, 0.5) == ["the comparison is invalid"]
    noisy = result([*runs("plain", PLAIN, others_during=0.5), *runs("preload", FAST, others_during=0.5)])
    assert check(noisy, 0.5) == ["the gate cannot be decided"]


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = result([*runs("plain", PLAIN, events=({"event": "started", "t": 1.5},)), *runs("preload", FAST)])
    write_whole(tmp_path / "r.json", found.model_dump_json())
    assert load(tmp_path / "r.json") == found
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert not any(run.events for run in found.without_events().runs)


def test_a_file_that_is_no_result_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"schema_version": 9}', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "r.json")
    assert caught.value.problems[0].where.startswith(str(tmp_path / "r.json"))


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("before", encoding="utf-8")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "r.json", "\udc80")
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [("r.json", "before")]
