"""The doctor: how findings come about, how they are judged and shown.  Planted faults of a daemon: tests/docker."""

from __future__ import annotations

import ast
import json
import re
import threading
from pathlib import Path

import pytest
import warmimage.doctor
from warmimage.doctor import finding, report, table
from warmimage.doctor.checks import CHECKS
from warmimage.doctor.finding import Finding, Observation
from warmimage.doctor.run import Check, Facts, run_checks
from warmimage.doctor.target import Target

from tests.docs.readme import ROOT
from tests.support.images import warmimage as command


@pytest.fixture(autouse=True)
def items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the checks of these tests a place in the table."""
    item = table.Item("kernel", "planted", {"good": ("ok", ""), "bad": ("missing", "replace {part}")})
    monkeypatch.setattr(table, "ITEMS", {**table.ITEMS, "one": item, "two": item, "three": item})
    monkeypatch.setattr("warmimage.doctor.run.ITEMS", table.ITEMS)


def good(_target: Target, _facts: Facts) -> Observation:
    return Observation("good", "as it should be", fact="a fact")


def by_id(findings: list[Finding]) -> dict[str, Finding]:
    return {entry.id: entry for entry in findings}


def test_the_table_decides_what_an_outcome_means() -> None:
    bad = Check("one", lambda _target, _facts: Observation("bad", "a  crack\nin it", "none", {"part": "the lid"}))
    (found,) = run_checks([bad], Target())
    assert found == Finding("one", "kernel", "planted", "missing", "a crack in it", "none", "replace the lid")


def test_a_check_that_breaks_is_a_finding_and_no_other_changes() -> None:
    def breaks(_target: Target, facts: Facts) -> Observation:
        raise LookupError(facts["one"])

    found = by_id(
        run_checks([Check("one", good), Check("two", breaks, needs=("one",)), Check("three", good)], Target())
    )
    assert (found["two"].status, found["two"].found) == ("warning", "the check failed: LookupError: a fact")
    assert {found[name].status for name in ("one", "three")} == {"ok"}


def test_a_check_that_hangs_is_a_finding_and_no_other_changes() -> None:
    never = threading.Event()

    def hangs(_target: Target, _facts: Facts) -> Observation:
        never.wait()
        return Observation("good", "too late")

    checks = [Check("one", good), Check("two", hangs, seconds=0.2), Check("three", good, after=("two",))]
    found = by_id(run_checks(checks, Target()))
    never.set()
    assert (found["two"].status, found["two"].found) == ("warning", "timed out")
    assert {found[name].status for name in ("one", "three")} == {"ok"}


def test_the_whole_run_is_bounded_too() -> None:
    never = threading.Event()
    hangs = Check("one", lambda _target, _facts: Observation("good", str(never.wait())), seconds=600)
    (found,) = run_checks([hangs], Target(), longest=0.2)
    never.set()
    assert found.found == "timed out"


def test_a_check_without_the_fact_that_it_needs_is_not_made() -> None:
    lacking = Check("one", lambda _target, _facts: Observation("bad", "nothing", fix_arguments={"part": "it"}))
    found = by_id(run_checks([Check("two", good, needs=("one",)), lacking], Target()))
    assert (found["two"].status, found["two"].found) == ("info", "not checked: needs planted")


def test_a_check_may_have_nothing_to_say() -> None:
    assert run_checks([Check("one", lambda _target, _facts: None)], Target()) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:s3cr3t@proxy:3128/x", "https://***@proxy:3128/x"),
        ("cannot reach //token@host", "cannot reach //***@host"),
        ("bad login hf_abcdefghij", "bad login hf_***"),
        ("GET /?token=abc failed", "GET /?token=*** failed"),
        ("Authorization: Bearer", "Authorization: ***"),
        ("no secret here: https://host/path@2", "no secret here: https://host/path@2"),
    ],
)
def test_a_text_loses_its_secrets(text: str, shown: str) -> None:
    assert finding.redacted(text) == shown


def test_every_check_has_its_item_and_every_item_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [check.id for check in CHECKS] == list(dict.fromkeys(check.id for check in CHECKS))
    assert {check.id for check in CHECKS} == set(table.ITEMS)
    assert {item.group for item in table.ITEMS.values()} == set(table.GROUPS)
    earlier = {check.id for check in CHECKS}
    assert all({*check.needs, *check.after} <= earlier for check in CHECKS)


def test_every_outcome_that_a_check_names_is_in_the_table_and_the_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    folder = Path(warmimage.doctor.__file__).parent
    words = set()
    for path in folder.glob("*.py"):
        if path.name not in ("table.py", "checks.py"):
            tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            words |= {node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    outcomes = {outcome for item in table.ITEMS.values() for outcome in item.outcomes} | set(table._ANY)
    assert outcomes - words <= {"v1", "v2"}  # made from what was found
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in folder.glob("*.py"))
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    first = (node.args[0] for node in calls if getattr(node.func, "id", "") == "Observation")
    named = {node.value for node in first if isinstance(node, ast.Constant)}
    assert named <= outcomes


def test_the_document_has_every_item_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \|.*\| ([a-z, ]+) \|$", text, flags=re.MULTILINE))
    order = ("ok", "info", "warning", "missing")
    for name, item in table.ITEMS.items():
        statuses = {status for status, _ in item.outcomes.values()}
        assert rows.get(name) == ", ".join(status for status in order if status in statuses), name
    assert set(rows) == set(table.ITEMS)


FINDINGS = [
    Finding("one", "docker", "engine", "ok", "20.10", "", ""),
    Finding("two", "disk", "free space", "warning", "1 GB", "2 GB", "free some"),
]


def test_the_exit_code_is_4_only_where_something_required_is_missing() -> None:
    assert report.exit_code(FINDINGS) == 0
    assert report.exit_code([*FINDINGS, Finding("three", "gpu", "driver", "missing", "none")]) == 4


def test_json_carries_its_schemas_number_and_every_finding() -> None:
    shown = json.loads(report.to_json("image:1", FINDINGS, 1.234))
    assert (shown["schema"], shown["image"], shown["seconds"], shown["exit_code"]) == (1, "image:1", 1.23, 0)
    assert [entry["id"] for entry in shown["findings"]] == ["one", "two"]
    assert set(shown["findings"][0]) == {"id", "group", "title", "status", "found", "expected", "fix"}


def test_the_page_has_groups_then_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(FINDINGS, 1.2)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines == [
        "docker",
        "  ok       engine      20.10",
        "disk",
        "  warning  free space  1 GB (expected: 2 GB)",
        "warning: disk, free space",
        "  fix: free some",
        "1 ok, 0 info, 1 warning, 0 missing (1.2 s)",
    ]


@pytest.mark.parametrize("gpus", [["--gpus", "all"], ["--gpus", "some", "image"]])
def test_gpus_need_an_image_and_a_known_form(gpus: list[str]) -> None:
    assert "at --gpus" in command("doctor", *gpus, code=2).stderr
