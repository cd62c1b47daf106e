"""The plan as JSON: what is refused, by which key, and that the builder's comes back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from warmimage.config.model import Config
from warmimage.entrypoint.plan import LoadingPlan, Plan

from tests.builder import facts

from .plans import make_plan


def test_the_builders_plan_comes_back() -> None:
    plan = facts.plan_of(Config(model="./tiny-llama", engine="vllm"))
    for indent in (None, 1):
        assert Plan.from_json(plan.to_json(indent)) == plan
    assert plan.engine.loading.model_flags, "a part in a part"
    assert plan.engine.caches, "a dictionary of tuples"
    assert plan.snapshot, "an optional part"


def test_unknown_keys_are_ignored_and_optional_ones_may_be_missing() -> None:
    document = make_plan().to_dict()
    del document["engine"]["loading"], document["snapshot"]
    document["new"] = document["engine"]["new"] = 1
    plan = Plan.from_json(json.dumps(document))
    assert plan == make_plan()
    assert plan.engine.loading == LoadingPlan()


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ((), [], "the document: got [], expected an object"),
        (("engine",), "vllm", "engine: got 'vllm', expected an object"),
        (("engine", "port"), "8000", "engine.port: got '8000', expected int"),
        (("engine", "port"), True, "engine.port: got True, expected int"),
        (("engine", "command"), "vllm", "engine.command: got 'vllm', expected tuple[str, ...]"),
        (("engine", "command"), ["vllm", None], "engine.command[1]: got None, expected str"),
        (("engine", "caches"), {"triton": ["A", "b"]}, "engine.caches.triton: got ['A', 'b'], expected tuple[str, str"),
        (("environment",), {"A": 1}, "environment.A: got 1, expected str"),
        (("model", "revision"), 1, "model.revision: got 1, expected str"),
        (("weights",), "nfs", "weights: got 'nfs', expected 'mount' or 'bake' or 'download'"),
        (("schema_version",), 2, "schema_version: got 2, expected 1"),
        (("snapshot",), {"required": True}, "snapshot.native is missing"),
    ],
)
def test_an_ill_typed_key_is_named(path: tuple[str, ...], value: object, reason: str) -> None:
    document: Any = make_plan().to_dict()
    at = document
    for key in path[:-1]:
        at = at[key]
    if path:
        at[path[-1]] = value
    else:
        document = value
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        Plan.from_json(json.dumps(document))


def test_a_missing_key_is_named() -> None:
    document = make_plan().to_dict()
    del document["engine"]["health_path"]
    with pytest.raises(ValueError, match=r"^engine\.health_path is missing$"):
        Plan.from_json(json.dumps(document))


def test_a_plan_is_frozen() -> None:
    with pytest.raises(AttributeError):
        make_plan().start = "plain"  # type: ignore[misc]
