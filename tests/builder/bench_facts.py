"""Runs of a bench as they would have been measured, for tests of what is made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from warmimage.bench import verdict
from warmimage.bench.result import ArmFacts, Host, ImageFacts, ModelFacts, Result, Run, Span, State

HOST = Host(cpu="A CPU", cpus=2, memory_bytes=8_000_000_000, kernel="6.1", docker="Docker 20.10", gpus=())

IMAGE = ImageFacts(
    reference="my-model:1",
    id="sha256:1",
    digests=(),
    size_bytes=1,
    engine="transformers",
    engine_version="5.23.0",
    python_version="3.12",
    accelerator="cpu",
    method="compose",
    tiers=("preload", "plain"),
    tool_version="0.1.0",
)


def run(arm: str, seconds: float, number: int = 1, state: State = "warm", **changed: Any) -> Run:
    """Return a run whose first token came after ``seconds``."""
    text = str(changed.pop("completion", "hello"))
    words: dict[str, Any] = {
        "arm": arm,
        "state": state,
        "round": number,
        "asked": 1000.0,
        "created": 0.01,
        "first_byte": 0.3,
        "tier": arm.partition("#")[0],
        "tier_right": True,
        "figures": {"ready": seconds * 0.9, "first_token": seconds, "cpu": 1.5, "read": None},
        "phases": (Span(name="loading", seconds=seconds * 0.98), Span(name="unaccounted", seconds=seconds * 0.02)),
        "others_before": 0.01,
        "others_during": 0.02,
        "cold": None,
        "completion": text,
        "completion_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "events": (),
    }
    return Run(**{**words, **changed})


def runs(arm: str, seconds: Sequence[float], state: State = "warm", **changed: Any) -> list[Run]:
    """Return one run for each of ``seconds``."""
    return [run(arm, value, number, state, **changed) for number, value in enumerate(seconds, 1)]


def result(found: Sequence[Run], missing: dict[str, str] | None = None) -> Result:
    """Return the result of these runs."""
    names = tuple(dict.fromkeys(entry.arm for entry in found))
    states = tuple(dict.fromkeys(entry.state for entry in found))
    arms = tuple(
        ArmFacts(name=name, image=IMAGE.reference, tier=name.partition("#")[0], variables=(), arguments=())
        for name in names
    )
    return Result(
        tool_version="0.1.0",
        date="2026-11-24T00:00:00+00:00",
        host=HOST,
        images=(IMAGE,),
        model=ModelFacts(name="my-model", weight_bytes=6_000_000),
        arms=arms,
        states=states,
        rounds=max(entry.round for entry in found),
        runs=tuple(found),
        cells=verdict.cells(found, states, arms),
        comparisons=verdict.comparisons(found, states, arms),
        faults=verdict.faults(found, arms),
        missing=missing or {},
    )
