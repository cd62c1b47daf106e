"""Starts of vLLM in tier zygote that are stopped at random moments on a busy machine: nothing hangs or stays behind."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from benchmarks.stress import zygote_starts

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.mark.timeout(1800)
def test_a_few_stops_at_random_moments(client: docker.DockerClient, vllm_image: str, tiny_model: Path) -> None:
    found = zygote_starts.run(client, vllm_image, tiny_model, n=4, tier="zygote", seed=4, at_once=1, busy=1)
    assert found["starts"] == 4
    assert found["faults"] == []


@pytest.mark.timeout(14400)
def test_two_hundred_stops_at_random_moments(client: docker.DockerClient, vllm_image: str, tiny_model: Path) -> None:
    found = zygote_starts.run(client, vllm_image, tiny_model, n=200, tier="zygote", seed=1, at_once=2, busy=1)
    assert found["starts"] == 200
    assert found["faults"] == []
