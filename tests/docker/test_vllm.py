"""Unmodified vLLM for CPU, derived from an engine image."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest
from warmimage import timeline

from tests.conftest import VLLM_ARGUMENTS
from tests.support.images import completion, container, wait_ended, wait_for_event, wait_ready

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

MODEL = "tiny-qwen2"
OPTIONS = {"shm_size": "1g"}


@pytest.fixture(scope="module")
def by_hand(client: docker.DockerClient, vllm_image: str, tiny_model: Path) -> tuple[str, str, int]:
    """The completion, plain and streamed, and the exit code after a stop of the engine as a person would start it."""
    words = ["serve", "/model", "--served-model-name", MODEL, "--host", "0.0.0.0", "--port", "8000", *VLLM_ARGUMENTS]
    with container(client, vllm_image, words, tiny_model, entrypoint="vllm", init=True, **OPTIONS) as made:
        port = wait_ready(made, 600)
        texts = completion(port, MODEL), completion(port, MODEL, stream=True)
        made.stop(timeout=30)
        return (*texts, wait_ended(made))


@pytest.mark.parametrize("tier", ["zygote", "preload"])
def test_completions_are_those_of_the_engine_started_by_hand(
    client: docker.DockerClient, vllm_image: str, tiny_model: Path, by_hand: tuple[str, str, int], tier: str
) -> None:
    with container(client, vllm_image, model=tiny_model, environment={"WARMIMAGE_START": tier}, **OPTIONS) as made:
        port = wait_ready(made, 600)
        assert (completion(port, MODEL), completion(port, MODEL, stream=True)) == by_hand[:2]
        assert by_hand[0] == by_hand[1] != ""
        wait_for_event(made, "ready")
        made.stop(timeout=30)
        assert wait_ended(made) == by_hand[2]
        events = timeline.fetch(made)
    assert [event["tier"] for event in timeline.find(events, "ready")] == [tier]
    declined = [event["reason"] for event in timeline.find(events, "forkserver.declined")]
    assert declined == (["vllm accepts fork and spawn"] if tier == "preload" else [])
    (placed,) = timeline.find(events, "caches.placed")
    assert (placed["files"], placed["present"]) == (1, 0)
    if tier == "zygote":
        forked = [event["target"] for event in timeline.find(events, "zygote.forked")]
        assert forked == ["multiprocessing"] * 2, "no process had to look at the model's class"


def start_in_preload(client: docker.DockerClient, image: str, model: Path) -> str:
    """Start once in tier preload; return its log when it did not come up in that tier, else an empty string."""
    with container(client, image, model=model, environment={"WARMIMAGE_START": "preload"}, **OPTIONS) as made:
        events = wait_for_event(made, "ready", seconds=300)
        log = str(made.logs().decode())
        tiers = [event["tier"] for event in timeline.find(events, "ready")]
    return "" if tiers == ["preload"] and "ImportError" not in log else log


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_fifty_starts_two_at_a_time_never_break_an_import(
    client: docker.DockerClient, vllm_image: str, tiny_model: Path
) -> None:
    """Invariant 2: with both cores loaded, no start breaks an import, ever."""
    with ThreadPoolExecutor(2) as pool:  # as many as this product's own test machines have cores: both are loaded
        logs = list(pool.map(lambda _: start_in_preload(client, vllm_image, tiny_model), range(50)))
    assert [log for log in logs if log] == []
