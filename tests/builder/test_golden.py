"""Rendered Dockerfiles: byte for byte as reviewed, within the rules, and no more than what was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from warmimage.build import context
from warmimage.config.model import Config
from warmimage.plan import CachesPlan, Plan
from warmimage.rendering.dockerfile import dockerfile

from tests.builder import facts, golden, rules

CASES = golden.cases()


def golden_text(case: str, file: str = "Dockerfile") -> str:
    return (golden.FOLDER / case / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_rendered_equals_golden(case: str) -> None:
    assert golden_text(case, "warmimage.yaml") == CASES[case], "make golden"
    assert golden.rendered(golden.FOLDER / case / "warmimage.yaml") == golden_text(case), "make golden"


def test_the_golden_folder_holds_every_case_and_nothing_else() -> None:
    found = {str(path.relative_to(golden.FOLDER)) for path in golden.FOLDER.rglob("*") if path.is_file()}
    assert found == {f"{case}/{file}" for case in CASES for file in ("warmimage.yaml", "Dockerfile")}
    assert len(CASES) == 7


@pytest.mark.parametrize("case", CASES)
def test_golden_keeps_every_rule(case: str) -> None:
    assert list(rules.violations(golden_text(case))) == []


@pytest.mark.parametrize("case", CASES)
def test_golden_has_the_parts_of_its_case_and_no_others(case: str) -> None:
    expected = {
        "steps": case == "everything",
        "wheels": case.endswith("compose") or case == "everything",
        "bytecode": True,
        "weights": "-bake-" in case or case == "everything",
        "entrypoint": True,
        "closure": True,
        "settings": True,
        "caches": False,
        "snapshot": True,
        "plan": True,
    }
    assert rules.parts(golden_text(case)) == [part for part in rules.PARTS if expected[part]]


def test_a_secret_shows_by_its_id_alone() -> None:
    text = golden_text("everything")
    assert "id=netrc" in text
    assert "private/netrc" not in text
    assert "PRIVATE_INDEX" not in text


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("FROM lmsysorg/sglang:v0.5.23", "FROM lmsysorg/sglang", "the base image is pinned"),
        ("FROM lmsysorg/sglang:v0.5.23", "FROM localhost:5000/sglang:latest", "the base image is pinned"),
        ("COPY plan.json", "ADD plan.json", "COPY, never ADD"),
        ("/usr/bin/python3 /opt/warmimage/compile-bytecode.py", "sudo true", "no sudo"),
        ("WORKDIR /home", "WORKDIR home", "WORKDIR is absolute"),
        ("USER 1000:0", "USER 0", "the last USER"),
        ("USER 1000:0", "USER warmimage", "the last USER"),
        ("CMD []", "CMD true", "ENTRYPOINT and CMD in exec form"),
        ('CMD ["/usr/bin', 'CMD /bin/true ["/usr/bin', "HEALTHCHECK in exec form"),
        ("CMD []", "CMD []\nCMD []", "one ENTRYPOINT"),
        ("/usr/bin/python3 /opt/warmimage/compile-bytecode.py", "apt-get install git", "apt-get leaves no lists"),
        ("/usr/bin/python3 /opt/warmimage/compile-bytecode.py", "pip --quiet install x", "pip keeps no cache"),
        ("/usr/bin/python3 /opt/warmimage/compile-bytecode.py", "pip install --no-cache-dir x", "pip installs by hash"),
        ('    USER="warmimage"', '    HF_TOKEN="x"', "no ENV, ARG or LABEL"),
        ("USER 1000:0", "ARG API_KEY\nUSER 1000:0", "no ENV, ARG or LABEL"),
        ("COPY plan.json", "COPY secret.json", "secrets come as secret mounts"),
        ("# sglang 0.5.23", "# syntax=docker/dockerfile:1\n# sglang 0.5.23", "no parser directive"),
        ("CMD []", "CMD [] ", "no whitespace at the end"),
        ("CMD []\n", "CMD []\n\n", "one blank line at most"),
        ("\nENV ", "\n\n\nENV ", "one blank line at most"),
        ("RUN home", "RUN --mount=type=tmpfs,target=/t home", "every builder knows"),
        ("COPY plan.json", "COPY --chmod=644 plan.json", "every builder knows"),
        ("CMD []", "RUN cat <<EOF\nCMD []", "every builder knows"),
        ("CMD []", "# " + "x" * 120 + "\nCMD []", "lines of at most 120"),
        ("# closure: ", "# settings: ", "parts in the stated order"),
    ],
)
def test_each_rule_notices_what_it_forbids(old: str, new: str, rule: str) -> None:
    text = golden_text("sglang-mount-derive")
    assert old in text
    broken = list(rules.violations(text.replace(old, new, 1)))
    assert any(name.startswith(rule) for name in broken), broken


def test_every_rule_is_seen_to_be_broken_by_some_text() -> None:
    marks = [mark.args[1] for mark in test_each_rule_notices_what_it_forbids.pytestmark]  # type: ignore[attr-defined]
    known = {rule for case in marks[0] for rule in rules.RULES if rule.startswith(case[2])}
    assert known == set(rules.RULES)


def rendered(**values: Any) -> str:
    return dockerfile(facts.plan_of(Config(model="./tiny-llama", **values)))


def without_plan(text: str) -> list[str]:
    return [line for line in text.splitlines() if '"dev.warmimage.plan"=' not in line]


def test_a_feature_that_is_off_leaves_no_trace() -> None:
    off: dict[str, Any] = {
        "run": [],
        "requirements": [],
        "args": [],
        "env": {},
        "labels": {},
        "secrets": [],
        "tags": [],
    }
    assert rendered(**off) == rendered()
    assert rendered(tags=["a:1"], max_size="1GB", network="default") == rendered()


def test_secrets_that_no_step_uses_change_nothing_but_the_plan() -> None:
    changed = rendered(secrets=["id=hub,env=HUB"])
    assert without_plan(changed) == without_plan(rendered())
    assert changed != rendered()


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"port": 9000}, "plan"),
        ({"labels": {"a": "b"}}, "plan"),
        ({"args": ["--x"]}, "plan"),
        ({"start": "plain"}, "plan"),
        ({"env": {"A": "b"}}, "settings"),
        ({"user": 5}, "settings"),
        ({"weights": "download"}, "settings"),
        ({"snapshot": "require"}, "snapshot"),
    ],
    ids=str,
)
def test_a_change_leaves_every_layer_before_its_own_in_the_cache(values: dict[str, Any], part: str) -> None:
    config = {"served_name": "tiny", **values}
    before, after = rendered(served_name="tiny"), rendered(**config)
    assert before != after
    assert before.partition(f"\n# {part}")[0] == after.partition(f"\n# {part}")[0]


def test_what_the_plan_adds_is_no_input_of_the_snapshot() -> None:
    """The context's files before the plan are the same, too."""
    plain = facts.plan_of(Config(model="./tiny-llama", served_name="tiny"))
    other = facts.plan_of(
        Config(model="./tiny-llama", served_name="other", port=9000, args=("--x",), labels={"a": "b"})
    )
    assert context.imports(plain) == context.imports(other)
    assert context.imports(plain).command == ("transformers", "serve")


def test_with_snapshot_off_nothing_is_captured() -> None:
    assert not [rest for rest in rules.of("RUN", rendered(snapshot="off")) if "capture" in rest]
    before = rendered().partition("\n# snapshot")[0]
    assert rendered(snapshot="off").partition("\n# plan")[0] == before
    assert rules.parts(rendered(snapshot="off"))[-2:] == ["settings", "plan"]
    assert list(rules.violations(rendered(snapshot="off"))) == []


@pytest.mark.parametrize(("snapshot", "ending"), [("auto", "/snapshot"), ("require", "/snapshot --require")])
def test_only_a_required_snapshot_fails_the_build(snapshot: str, ending: str) -> None:
    (capture,) = [rest for rest in rules.of("RUN", rendered(snapshot=snapshot)) if " capture " in rest]
    assert capture.endswith(f"/opt/warmimage/entrypoint capture /opt/warmimage{ending}")


def test_caches_come_before_the_snapshot() -> None:
    plan = facts.plan_of(Config(model="./tiny-llama"))
    caches = CachesPlan(files=1, bytes=1, driver="580.1", gpus=("NVIDIA H200",))
    text = dockerfile(replace(plan, caches=caches))
    assert list(rules.violations(text)) == []
    assert rules.parts(text)[-4:] == ["settings", "caches", "snapshot", "plan"]
    assert "COPY caches/ /opt/warmimage/caches/" in text.splitlines()
    assert "# caches: what real starts on NVIDIA H200 have compiled" in text.splitlines()


def test_the_plans_label_is_the_plan() -> None:
    plan = facts.plan_of(Config(model="./tiny-llama", env={"A": 'say "$x" \\'}))
    line = next(line for line in dockerfile(plan).splitlines() if '"dev.warmimage.plan"=' in line)
    quoted = line.partition("=")[2][1:-1]
    text = quoted.replace("\\$", "$").replace('\\"', '"').replace("\\\\", "\\")
    assert Plan.from_json(text) == plan
