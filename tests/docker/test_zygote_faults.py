"""Processes of vLLM that die, and fork servers that are killed: the server ends, or goes on, as in tier plain."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from warmimage import timeline

from tests.docker.test_zygote import MODEL, TIERS, plain_line
from tests.support.images import completion, container, wait_ended, wait_for_event, wait_ready
from tests.support.processes import called, look, send

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]

#: Kills the first fork server that appears, which is the API server's, before that has asked for a process.
KILL_FIRST_COMPANION = r"""
import os, signal
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as file:
                if file.read() != "fork server\n":
                    continue
            os.kill(int(pid), signal.SIGKILL)
            raise SystemExit
        except OSError:
            continue
"""

#: Takes memory until the container's limit is met, having said that the process named is the one to be killed.
TAKE_MEMORY = r"""
import sys
with open(f"/proc/{sys.argv[1]}/oom_score_adj", "w") as file:
    file.write("1000")
taken = []
while True:
    taken.append(b"x" * (64 << 20))
"""


@dataclass(frozen=True)
class End:
    """How a server ended.

    Attributes:
        code: the engine's exit code in the first tier that was tried.
        last_error: the last line that tells of an error.
        log: all it has said in that tier.
    """

    code: int
    last_error: str
    log: str


def end_of(made: Container) -> End:
    """Wait for a container's end, and return how the engine ended in the tier that was asked for."""
    wait_ended(made, 300)
    code = timeline.find(timeline.fetch(made), "engine.ended")[0]["code"]
    log = re.split(r"^warmimage: \w+ failed", made.logs().decode(errors="replace"), maxsplit=1, flags=re.M)[0]
    errors = [plain_line(line) for line in log.splitlines() if re.search(r"^[\w.]*(Error|Exception)\b|ERROR", line)]
    return End(code, errors[-1] if errors else "", log)


def in_each_tier(work: Any) -> dict[str, Any]:
    """Do the same in each tier, side by side."""
    with ThreadPoolExecutor(len(TIERS)) as pool:
        return dict(zip(TIERS, pool.map(work, TIERS), strict=True))


@pytest.mark.parametrize("name", ["VLLM::EngineCor", "VLLM::Worker"])
@pytest.mark.parametrize("signal_name", ["SEGV", "KILL"])
def test_process_that_dies_ends_the_server_as_under_plain(
    client: docker.DockerClient, vllm_image: str, tiny_model: Path, name: str, signal_name: str
) -> None:
    def kill(tier: str) -> End:
        words: dict[str, Any] = {"environment": {"WARMIMAGE_START": tier}, "shm_size": "1g"}
        with container(client, vllm_image, model=tiny_model, **words) as made:
            wait_ready(made, 600)
            wait_for_event(made, "ready")
            send(made, signal_name, called(look(made), name)["pid"])
            return end_of(made)

    ends = in_each_tier(kill)
    assert ends["zygote"].code == ends["plain"].code
    assert ends["zygote"].last_error == ends["plain"].last_error != "", ends["zygote"].log[-3000:]


def test_engine_core_that_meets_the_memory_limit_ends_the_server_as_under_plain(
    client: docker.DockerClient, vllm_image: str, tiny_model: Path
) -> None:
    def exhaust(tier: str) -> End:
        words: dict[str, Any] = {"environment": {"WARMIMAGE_START": tier}, "shm_size": "1g", "mem_limit": "5g"}
        with container(client, vllm_image, model=tiny_model, memswap_limit="5g", **words) as made:
            wait_ready(made, 600)
            wait_for_event(made, "ready")
            core = called(look(made), "VLLM::EngineCor")["pid"]
            python = made.attrs["Config"]["Entrypoint"][0]
            made.exec_run([python, "-I", "-S", "-c", TAKE_MEMORY, str(core)], detach=True)
            end = end_of(made)
            made.reload()
            assert made.attrs["State"]["OOMKilled"]
            return end

    ends = in_each_tier(exhaust)
    assert ends["zygote"].code == ends["plain"].code
    assert ends["zygote"].last_error == ends["plain"].last_error != "", ends["zygote"].log[-3000:]


@pytest.fixture(scope="module")
def misshapen_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights do not have the shapes that its configuration names."""
    folder = tmp_path_factory.mktemp("misshapen") / MODEL
    shutil.copytree(tiny_model, folder)
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["intermediate_size"] += 64
    file.write_text(json.dumps(config), encoding="utf-8")
    for path in (folder, *folder.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    return folder


@pytest.mark.parametrize("fault", ["engine core", "worker"])
def test_engine_that_fails_in_its_constructor_ends_as_under_plain(
    client: docker.DockerClient, vllm_image: str, tiny_model: Path, misshapen_model: Path, fault: str
) -> None:
    # One block of the key-value cache holds no whole request: that is found out in the engine core.
    arguments: Sequence[str] = ["--num-gpu-blocks-override", "1"] if fault == "engine core" else []
    model = misshapen_model if fault == "worker" else tiny_model

    def fail(tier: str) -> End:
        words: dict[str, Any] = {"environment": {"WARMIMAGE_START": tier}, "shm_size": "1g"}
        with container(client, vllm_image, arguments, model, **words) as made:
            return end_of(made)

    ends = in_each_tier(fail)
    assert "EngineCore failed to start." in ends["plain"].log, ends["plain"].log[-3000:]
    assert ends["zygote"].code == ends["plain"].code != 0
    assert ends["zygote"].last_error == ends["plain"].last_error != "", ends["zygote"].log[-3000:]


def test_fork_servers_killed_while_the_server_serves_change_nothing(
    client: docker.DockerClient, vllm_image: str, tiny_model: Path
) -> None:
    words: dict[str, Any] = {"environment": {"WARMIMAGE_START": "zygote"}, "shm_size": "1g"}
    with container(client, vllm_image, model=tiny_model, **words) as made:
        port = wait_ready(made, 600)
        before = completion(port, MODEL)
        fork_servers = [process["pid"] for process in look(made) if process["name"] == "fork-server"]
        assert len(fork_servers) == 3
        send(made, "KILL", *fork_servers)
        assert completion(port, MODEL) == before
        assert completion(port, MODEL, stream=True) == before
        made.stop(timeout=30)
        assert wait_ended(made) == 0


def test_process_wanted_after_its_fork_servers_death_is_spawned(
    client: docker.DockerClient, vllm_image: str, tiny_model: Path
) -> None:
    words: dict[str, Any] = {"environment": {"WARMIMAGE_START": "zygote"}, "shm_size": "1g"}
    with container(client, vllm_image, model=tiny_model, **words) as made:
        python = made.attrs["Config"]["Entrypoint"][0]
        made.exec_run([python, "-I", "-S", "-c", KILL_FIRST_COMPANION], detach=True)
        port = wait_ready(made, 600)
        assert completion(port, MODEL) != ""
        events = wait_for_event(made, "ready")
        assert [process for process in look(made) if process["state"] == "Z"] == []
        made.stop(timeout=30)
        assert wait_ended(made) == 0
        log = made.logs().decode(errors="replace")
    assert [event["tier"] for event in timeline.find(events, "ready")] == ["zygote"]
    assert timeline.find(events, "zygote.forked") == []
    reasons = [event["reason"] for event in timeline.find(events, "zygote.fallback")]
    assert len(reasons) == 2  # the registry's process and the engine core, which starts its worker by itself
    assert all("fork server" in reason for reason in reasons), reasons
    assert "warmimage: spawned a new interpreter instead of forking" in log
