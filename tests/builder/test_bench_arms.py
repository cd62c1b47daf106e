"""What is compared with what: arms as they are written, their order, and the phases of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from warmimage.bench import measure, page_cache
from warmimage.bench.arms import Arm, against, arms_of, without_secrets
from warmimage.bench.session import Request, Session
from warmimage.config.model import Config
from warmimage.errors import EnvironmentLacks, UsageError
from warmimage.plan import Plan

from . import facts


def plan(tiers: tuple[str, ...] = ("preload", "plain")) -> Plan:
    made = facts.plan_of(Config(model="tiny-llama", engine="vllm", accelerator="cuda", base_image="vllm:1"))
    return replace(made, tiers=tiers)


def arms(text: str, tiers: tuple[str, ...] = ("preload", "plain")) -> list[Arm]:
    return arms_of(text, "my-model:1", plan(tiers), {"A": "1"}, ["--port", "9000"])


def test_without_a_word_every_tier_of_the_image_is_an_arm_the_slowest_first() -> None:
    found = arms("", ("snapshot", "zygote", "preload", "plain"))
    assert [arm.name for arm in found] == ["plain", "preload", "zygote", "snapshot"]
    assert [arm.environment for arm in found] == [{"A": "1", "WARMIMAGE_START": arm.name} for arm in found]
    assert {arm.needs.port for arm in found} == {9000}


def test_an_arm_may_come_twice_and_have_variables_of_its_own() -> None:
    found = arms("plain,plain,preload+WARMIMAGE_PREFETCH=off+B=x=y, plain")
    assert [arm.name for arm in found] == ["plain", "plain#2", "preload+WARMIMAGE_PREFETCH=off+B=x=y", "plain#3"]
    assert found[2].environment == {"A": "1", "B": "x=y", "WARMIMAGE_PREFETCH": "off", "WARMIMAGE_START": "preload"}
    assert [arm.tier for arm in found] == ["plain", "plain", "preload", "plain"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("plain,snapshot", "the image has no such tier"),
        ("plain,", "the image has no such tier"),
        ("plain+OFF", "an arm's variable needs a name and a value"),
        ("plain+WARMIMAGE_START=preload", "an arm's tier is set by its first part"),
        ("plain+HF_TOKEN=x", "an arm's name is public and must not hold a secret"),
    ],
)
def test_an_arm_that_cannot_be_is_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        arms(text)
    assert caught.value.problems[0].what == what
    assert "HF_TOKEN=x" not in str(caught.value)


def test_another_image_gets_the_same_mount_and_shared_memory_for_any_engine() -> None:
    ours = facts.plan_of(Config(model="tiny-llama", engine="transformers", accelerator="cpu"))
    assert ours.engine.shared_memory == 0
    found = against("other:1", None, ours, {}, ["--model", "/model"], 8080, unprivileged=False)
    assert (found.needs.port, found.needs.model_path, found.needs.writable) == (8080, "/model", False)
    assert found.needs.shared_memory == plan().engine.shared_memory > 0, "it may hold vLLM"
    assert not found.needs.unprivileged
    assert (found.tier, found.health_path) == (None, "/health")


def test_values_of_secrets_are_not_kept() -> None:
    given = ["--api-key", "one", "two", "--hf-token=three", "--max-num-batched-tokens", "64", "--dtype", "auto"]
    kept = ("--api-key", "***", "***", "--hf-token=***", "--max-num-batched-tokens", "64", "--dtype", "auto")
    assert without_secrets(given) == kept


def test_rounds_are_rotated_after_one_that_warms_up() -> None:
    session = Session.__new__(Session)
    session.arms = arms("plain,preload,plain")
    session._request = Request("my-model:1", rounds=3, states=("warm", "cold"))
    found = [(step.state, step.round, step.arm) for step in session.steps()]
    turns = [
        ["plain", "preload", "plain#2"],
        ["plain", "preload", "plain#2"],
        ["preload", "plain#2", "plain"],
        ["plain#2", "plain", "preload"],
    ]
    of_one_state = [(number, name) for number, turn in enumerate(turns) for name in turn]
    assert found == [(state, *step) for state in ("warm", "cold") for step in of_one_state]


def test_phases_add_up_and_what_is_left_is_said() -> None:
    ends = [("asking", 100.1), ("container", 100.5), ("loading", 105.0), ("health", 105.2)]
    found = {span.name: round(span.seconds, 6) for span in measure._phases(ends, 100.0, 105.3, 105.5)}
    assert found == {
        "asking": 0.1,
        "container": 0.4,
        "loading": 4.5,
        "health": 0.2,
        "token": 0.2,
        "unaccounted": 0.1,
    }


def test_a_phase_that_ended_after_the_client_was_ready_ends_with_it() -> None:
    ends = [("asking", 100.1), ("loading", 105.0), ("health", 105.25)]
    found = {span.name: round(span.seconds, 6) for span in measure._phases(ends, 100.0, 105.1, 105.5)}
    assert found == {"asking": 0.1, "loading": 4.9, "health": 0.1, "token": 0.4, "unaccounted": 0.0}


def test_files_are_dropped_and_are_found_cold(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "weights"
    file.write_bytes(b"x" * 5_000_000)
    (tmp_path / "again").hardlink_to(file)
    (tmp_path / "link").symlink_to(file)
    files = page_cache.Files.under([str(tmp_path)])
    assert (len(files.paths), files.total_bytes) == (1, 5_000_000)
    found = page_cache.drop(files)
    assert (found.files, found.total_bytes) == (1, 5_000_000)
    assert found.share <= page_cache.LIMIT


def test_files_that_stay_resident_are_named(tmp_path: Path) -> None:
    """Pages that a process has mapped cannot be dropped, as those of a running container cannot."""
    import mmap

    held, free = tmp_path / "held", tmp_path / "free"
    held.write_bytes(b"x" * 5_000_000)
    free.write_bytes(b"x" * 5_000_000)
    with held.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        assert mapping[::4096].count(b"x") == 5_000_000 // 4096 + 1
        with pytest.raises(EnvironmentLacks) as caught:
            page_cache.drop(page_cache.Files.under([str(tmp_path)]))
    problem = caught.value.problems[0]
    assert str(held) in problem.got
    assert str(free) not in problem.got


def test_a_models_links_lead_to_its_files(tmp_path: Path) -> None:
    """The Hub's cache keeps a model's files elsewhere."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "blobs" / "a").write_bytes(b"x")
    (tmp_path / "snapshot" / "model.safetensors").symlink_to(tmp_path / "blobs" / "a")
    folders = page_cache.model_directories(tmp_path / "snapshot")
    assert folders == [str(tmp_path / "snapshot"), str(tmp_path / "blobs")]
    assert page_cache.Files.under(folders).paths == (str(tmp_path / "blobs" / "a"),)
