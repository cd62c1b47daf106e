"""The chart as a release: what Helm tells its user, and what an upgrade may change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .cases import CASES, case, find, parse, rendered
from .generate import CHART
from .tool import helm, template

#: What earlier versions rendered in fields that Kubernetes lets nobody change.
BEFORE = Path(__file__).parent / "immutable"


def notes(*words: str | Path) -> str:
    """Return what Helm tells after an installation."""
    done = helm("install", "r", CHART, "--namespace", "models", "--dry-run=client", *words)
    return done.stdout.partition("NOTES:\n")[2]


def test_the_notes_name_the_timeout_and_what_is_off() -> None:
    """One server: pull, start and slack; the warmers, a quarter at a time, take longer here."""
    told = notes("--values", case("gpu"))
    deployment = find(rendered(case("gpu")), "Deployment")
    progress = deployment["spec"]["progressDeadlineSeconds"]
    assert f"rollout status deployment/r-warmimage-qwen3-8b --timeout {progress}s" in told
    assert f"--wait --timeout {max(progress, 4 * (1800 + 900 + 60))}s" in told
    assert "--namespace models" in told
    assert "snapshot   in the image: servers start from it and need no privilege" in told
    assert "WARNING" not in told


@pytest.mark.parametrize(("share", "rounds"), [("25%", 4), ("30%", 4), ("100%", 1), ("3", 1)])
def test_the_timeout_has_every_round_of_the_warmers(share: str, rounds: int) -> None:
    """Of a share the rounds are known; how many nodes a number goes round, nobody knows."""
    told = notes("--values", case("minimal"), "--set", f"defaults.warmer.maxUnavailable={share}")
    assert f"--wait --timeout {rounds * (1800 + 900 + 60)}s" in told


def test_the_timeout_grows_with_the_servers_that_are_replaced_one_after_the_other() -> None:
    """Three servers, one missing at a time: three times as long as one."""
    told = notes("--values", case("overlap"))
    progress = [
        document["spec"]["progressDeadlineSeconds"]
        for document in rendered(case("overlap"))
        if document["kind"] == "Deployment"
    ]
    assert f"--wait --timeout {3 * max(progress)}s" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "No model is served yet"),
        (["--values", case("minimal")], "not the weights: weights.volume.pvc.shared is false"),
        (["--values", case("minimal"), "--set", "monitoring.mode=auto"], "No ServiceMonitor and no PodMonitor"),
        (["--values", case("gpu"), "--set", "defaults.start=zygote"], "in the image but not used: start is zygote"),
        (["--values", case("once")], "sidecar    once: weights"),
        (["--values", case("once")], "warmer     off"),
    ],
)
def test_the_notes_say_what_is_missing(words: list[str | Path], told: str) -> None:
    assert told in notes(*words)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"env": {"VLLM_PLUGINS": "x", "TZ": "UTC"}}, "VLLM_PLUGINS differs from its value in the image: set it"),
        ({"extraEnv": [{"name": "VLLM_PLUGINS", "value": "x"}]}, "VLLM_PLUGINS differs from its value"),
        (
            {"env": {"VLLM_TARGET_DEVICE": "x"}, "extraEnv": [{"name": "VLLM_PLUGINS", "value": "x"}]},
            "VLLM_PLUGINS, VLLM_TARGET_DEVICE differ from their values in the image: set them",
        ),
        ({"env": {"SAGEMAKER_MODEL": "x", "SAGE": "y"}}, "SAGEMAKER_MODEL differs from its value"),
        ({"env": {"TZ": "UTC"}}, ""),
        ({"env": {"VLLM_PLUGINS": "x"}, "start": "zygote"}, ""),
        ({"env": {"VLLM_PLUGINS": "x"}, "snapshot": {"inImage": False}}, ""),
        ({"env": {"VLLM_PLUGINS": "x"}, "snapshot": {"variables": []}}, ""),
    ],
)
def test_the_notes_warn_of_variables_that_cost_the_snapshot(values: dict[str, Any], named: str, tmp_path: Path) -> None:
    """One line names them and says what to do; a variable that imports have not read is no matter."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(json.dumps({"models": {"qwen3-8b": values}}), encoding="utf-8")
    told = notes("--values", case("gpu"), "--values", mine)
    warned = [line for line in told.splitlines() if "WARNING" in line]
    assert len(warned) == bool(named), told
    for line in warned:
        assert f"WARNING    tier snapshot is lost if {named}" in line
        assert "under env: in warmimage.yaml and build again" in line


def immutable(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """Return by resource what Kubernetes lets nobody change."""
    found: dict[str, Any] = {}
    for document in documents:
        spec = document.get("spec", {})
        name = f"{document['apiVersion']} {document['kind']} {document['metadata']['name']}"
        if document["kind"] in ("Deployment", "DaemonSet"):
            found[name] = spec["selector"]
        elif document["kind"] == "PersistentVolumeClaim":
            found[name] = {key: value for key, value in spec.items() if key != "resources"}
        elif document["kind"] == "PriorityClass":
            found[name] = {key: document[key] for key in ("value", "preemptionPolicy")}
        elif document["kind"] == "ClusterRoleBinding":
            found[name] = document["roleRef"]
    return found


@pytest.mark.parametrize("file", sorted(BEFORE.glob("*.json")), ids=lambda file: file.stem)
def test_an_upgrade_changes_no_immutable_field(file: Path) -> None:
    """From each version whose fields are kept, every case can be upgraded to this one."""
    before = json.loads(file.read_text(encoding="utf-8"))
    assert before
    for name, fields in before.items():
        now = immutable(list(rendered(case(name))))
        assert {key: now.get(key) for key in fields} == fields, name


def test_every_version_of_the_chart_has_its_immutable_fields_kept() -> None:
    """``python -m tests.helm.test_release`` keeps those of a new version; all cases of that time are in them."""
    chart = parse((CHART / "Chart.yaml").read_text(encoding="utf-8"))[0]
    kept = json.loads((BEFORE / f"{chart['version']}.json").read_text(encoding="utf-8"))
    assert set(kept) == {file.name.removesuffix("-values.yaml") for file in CASES}


def test_a_new_image_new_labels_and_new_values_keep_selectors() -> None:
    """What users change from release to release is no part of an immutable field."""
    words = [
        "commonLabels.team=other",
        "defaults.podLabels.version=other",
        "models.qwen3-8b.image.digest=sha256:" + "1" * 64,
    ]
    words += ["defaults.replicas=3", "defaults.sidecar.mode=gate", "defaults.weights.volume.pvc.claimName=other"]
    done = template(CHART, [case("gpu")], *(part for word in words for part in ("--set", word)))
    assert immutable(parse(done.stdout)) == immutable(list(rendered(case("gpu"))))


if __name__ == "__main__":
    version = parse((CHART / "Chart.yaml").read_text(encoding="utf-8"))[0]["version"]
    fields = {file.name.removesuffix("-values.yaml"): immutable(list(rendered(file))) for file in CASES}
    (BEFORE / f"{version}.json").write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
