"""The chart's values: every one matters, no other is taken, and the schema and the table say what is so."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import generate
from .cases import CASES, case, parallel, parse
from .generate import CHART, Leaf
from .tool import helm, template

#: Cases to look into first for a change, since each switches on much; the others follow.
_FIRST = ("gpu", "everything", "gate", "download", "keda")

#: Values that are not the default and that fit where the default does.
_OTHER: dict[str, list[Any]] = {
    "text": ["other", "/other/folder"],
    "name": ["example.com/other"],
    "names": [["other"], ["monitoring.coreos.com/v1"]],
    "list": [["--other"]],
    "texts": [{"other": "text"}],
    "size": ["99Gi"],
    "digest": ["sha256:" + "ab" * 32],
    "path": ["/other/folder"],
    "path or empty": ["/other"],
    "subpath": ["other"],
    "share": ["50%"],
    "positive share": ["50%"],
    "duration": ["7s"],
    "port": [7777],
    "integers": [[7]],
    "integer or empty": [7],
    "integer": [-7],
    "targets": [["image"]],
    "resources": [{"requests": {"cpu": "7"}}],
    "objects": [[{"name": "other", "key": "other", "apiVersion": "v1", "kind": "Other"}]],
    "object": [{"other": {}}],
    "models": [{"other": {"image": {"repository": "other", "tag": "1"}, "weights": {"bytes": "1Gi"}}}],
}

#: Values that matter only together with another one, which is set with them.
_TOGETHER: dict[str, dict[str, Any]] = {
    "defaults.image.tag": {"defaults": {"image": {"digest": ""}}},
    "defaults.warmImage.registry": {"global": {"imageRegistry": ""}},
    "defaults.weights.volume.pvc.create": {"defaults": {"weights": {"volume": {"pvc": {"size": "99Gi"}}}}},
    "defaults.weights.volume.pvc.size": {"defaults": {"weights": {"volume": {"pvc": {"create": True}}}}},
    "defaults.autoscaling.type": {"defaults": {"autoscaling": {"keda": {"triggers": [{"type": "cpu"}]}}}},
    "defaults.autoscaling.keda.cooldownPeriod": {"defaults": {"autoscaling": {"minReplicas": 1}}},
    "defaults.sidecar.lock": {"defaults": {"sidecar": {"budget": "99Gi"}}},
}

#: Values that change what Helm tells, and no resource; the model's variables are set with them.
_TOLD: dict[str, dict[str, Any]] = {"defaults.snapshot.variables": {"defaults": {"env": {"other": "1"}}}}

#: Values that only refuse.
_REFUSES = {"defaults.snapshot.required"}


def test_the_schema_and_the_readme_are_fresh() -> None:
    """``make docs`` would change nothing."""
    for path, text in generate.documents().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run make docs"


def test_every_value_has_words() -> None:
    """Every value has a comment that ends like a sentence."""
    wrong = [".".join(leaf.path) for leaf in generate.leaves() if not leaf.text.endswith(".")]
    assert wrong == []
    assert len(list(generate.leaves())) > 150


def test_chart_and_command_have_one_version() -> None:
    project = (CHART.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert f'\nversion = "{chart["version"]}"\n' in project
    assert chart["appVersion"] == chart["version"]


def alternatives(leaf: Leaf) -> list[Any]:
    """Return values for a leaf that are not its default."""
    if "|" in leaf.type:
        return [word for word in leaf.type.split("|") if word != leaf.default]
    if leaf.type == "true or false":
        return [not leaf.default]
    if leaf.type in ("number", "positive"):
        return [leaf.default + 1, leaf.default + 700]
    return _OTHER[leaf.type]


def at(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return values with one leaf."""
    for name in reversed(path):
        value = {name: value}
    return dict(value)


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return one tree of values with another over it."""
    result = dict(one)
    for name, value in other.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], value) if both else value
    return result


def in_models(case: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """Return a case with values over it, those of ``defaults`` in each model too, whose own would hide them."""
    result = merged(copy.deepcopy(case), tree)
    for name, model in (result.get("models") or {}).items():
        result["models"][name] = merged(model, {"image": {}, **tree.get("defaults", {})})
    return result


def test_every_value_changes_what_some_case_renders(tmp_path: Path) -> None:
    """No value is dead: each, changed, changes the render of a case."""
    order = sorted(CASES, key=lambda file: file.name.partition("-values")[0] not in _FIRST)
    loaded = {file: yaml.safe_load(file.read_text(encoding="utf-8")) for file in order}
    before: dict[tuple[Path, str], Any] = {}

    def render(tree: dict[str, Any], name: str) -> Any:
        file = tmp_path / f"{name}.yaml"
        file.write_text(json.dumps(tree), encoding="utf-8")
        done = template(CHART, [file], code=None)
        return parse(done.stdout) if done.returncode == 0 else None

    def told(tree: dict[str, Any], dotted: str) -> str:
        given = merged(_TOLD[dotted], tree)
        file = tmp_path / f"{dotted}-{len(tree)}.yaml"
        file.write_text(json.dumps(in_models(loaded[case("gpu")], given)), encoding="utf-8")
        done = helm("install", "r", CHART, "--dry-run=client", "--values", file)
        return done.stdout.partition("NOTES:\n")[2]

    def matters(leaf: Leaf) -> bool:
        dotted = ".".join(leaf.path)
        if dotted in _TOLD:
            return told({}, dotted) != told(at(leaf.path, alternatives(leaf)[0]), dotted)
        together = _TOGETHER.get(dotted, {})
        for file in order:
            for number, value in enumerate(alternatives(leaf)):
                key = (file, json.dumps(together))
                if key not in before:
                    before[key] = render(in_models(loaded[file], together), f"{dotted}-before-{file.name}")
                tree = in_models(loaded[file], merged(together, at(leaf.path, value)))
                after = render(tree, f"{dotted}-{file.name}-{number}")
                if before[key] is None or (after is None and dotted not in _REFUSES):
                    continue
                if after != before[key]:
                    return True
        return False

    found = list(generate.leaves())
    dead = [".".join(leaf.path) for leaf, alive in zip(found, parallel(matters, found), strict=True) if not alive]
    assert not dead, "\n".join(dead)


def maps(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every map of the values that has fixed keys."""
    yield path
    for name, value in node.items():
        here = (*path, name)
        kind, text = generate.comments().get(here, ("", ""))
        if isinstance(value, dict) and (not text or kind == "folders"):
            if kind == "folders":
                yield (*here, "home")
                continue
            yield from maps(value, here)


def test_every_unknown_key_is_refused(tmp_path: Path) -> None:
    """A typing error is found wherever it is, in `defaults` and in a model alike; Helm names all of them at once."""
    tree: dict[str, Any] = {}
    wanted = set()
    for path in maps(generate.values()):
        if path[:1] == ("global",):
            continue  # shared with parent charts
        places = [path, ("models", "tiny", *path[1:])] if path[:1] == ("defaults",) else [path]
        for place in places:
            tree = merged(tree, at((*place, "noSuchKey"), 1))
            wanted.add("/" + "/".join(place))
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(tree), encoding="utf-8")
    said = template(CHART, [file], code=1).stderr
    refused = {
        line.partition("'")[2].partition("'")[0] if "at '" in line else ""
        for line in said.splitlines()
        if "additional properties 'noSuchKey' not allowed" in line
    }
    assert {place.rstrip("/") for place in wanted} == {place.rstrip("/") for place in refused}
    assert len(wanted) > 40


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("models: {tiny: {weights: {bytes: 17179869184}}}", "/models/tiny/weights/bytes"),
        ("models: {tiny: {weights: {bytes: 16 GB}}}", "/models/tiny/weights/bytes"),
        ("models: {tiny: {replicas: -1}}", "/models/tiny/replicas"),
        ("models: {tiny: {port: 70000}}", "/models/tiny/port"),
        ("models: {tiny: {image: {digest: sha256:abc}}}", "/models/tiny/image/digest"),
        ("models: {tiny: {weights: {volume: {subPath: ../other}}}}", "/models/tiny/weights/volume/subPath"),
        ("models: {tiny: {sidecar: {mode: overlaps}}}", "/models/tiny/sidecar/mode"),
        ("models: {tiny: {warmer: {targets: [gpu]}}}", "/models/tiny/warmer/targets/0"),
        ("models: [{name: tiny}]", "/models"),
        ("defaults: {warmer: {deadline: 0}}", "/defaults/warmer/deadline"),
        ("defaults: {warmer: {maxUnavailable: 0}}", "/defaults/warmer/maxUnavailable"),
        ("defaults: {warmer: {maxUnavailable: 0%}}", "/defaults/warmer/maxUnavailable"),
        ("defaults: {resources: {claims: [{name: gpu}]}}", "/defaults/resources"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(tmp_path: Path, text: str, where: str) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(text, encoding="utf-8")
    said = helm("lint", CHART, "--values", file, code=1).stdout
    assert f"at '{where}'" in said
