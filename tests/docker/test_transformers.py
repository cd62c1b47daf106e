"""The whole path with the embedded default engine: its image behaves as the engine started by hand in it would."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import docker
import pytest
from warmimage import timeline

from tests.support.images import completion, container, wait_ended, wait_for_event, wait_ready

pytestmark = pytest.mark.docker

MODEL = "tiny-qwen2"
#: The engine as a person would start it by hand in the image, Docker's own init above it.
BY_HAND = {"entrypoint": "transformers", "init": True, "working_dir": "/opt/warmimage/served"}
HAND_ARGUMENTS = ["serve", MODEL, "--host", "0.0.0.0", "--port", "8000", "--device", "cpu"]


@pytest.fixture(scope="module")
def by_hand(client: docker.DockerClient, transformers_image: str, tiny_model: Path) -> Iterator[tuple[str, str, int]]:
    """The completion, plain and streamed, and the exit code after ``docker stop`` of the engine started by hand."""
    with container(client, transformers_image, HAND_ARGUMENTS, tiny_model, **BY_HAND) as made:
        port = wait_ready(made)
        texts = completion(port, MODEL), completion(port, MODEL, stream=True)
        made.stop()
        yield (*texts, wait_ended(made))


@pytest.mark.parametrize("tier", ["preload", "plain"])
def test_completions_and_stop_are_the_engines_own(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, by_hand: tuple[str, str, int], tier: str
) -> None:
    environment = {"WARMIMAGE_START": tier}
    with container(client, transformers_image, model=tiny_model, environment=environment) as made:
        port = wait_ready(made)
        assert (completion(port, MODEL), completion(port, MODEL, stream=True)) == by_hand[:2]
        assert len(by_hand[0]) > 4
        wait_for_event(made, "ready")
        began = time.monotonic()
        made.stop(timeout=10)
        assert wait_ended(made) == by_hand[2]
        assert time.monotonic() - began < 9, "ended by Docker's own kill, not within the grace period"
        events = timeline.fetch(made)
    assert [event["tier"] for event in timeline.find(events, "ready")] == [tier]
    assert [event["name"] for event in timeline.find(events, "signal")] == ["SIGTERM"]


def test_refused_flag_shows_the_engines_own_error_and_code(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path
) -> None:
    with container(client, transformers_image, [*HAND_ARGUMENTS, "--no-such-flag"], tiny_model, **BY_HAND) as made:
        hand_code, hand_log = wait_ended(made), made.logs()
    # Of tier snapshot a container without its capability says one line first.
    environment = {"WARMIMAGE_START": "zygote"}
    with container(client, transformers_image, ["--no-such-flag"], tiny_model, environment=environment) as made:
        assert wait_ended(made) == hand_code == 2
        assert made.logs() == hand_log
        assert b"no-such-flag" in hand_log


def test_killed_engine_ends_the_container_with_137_and_orphans_are_reaped(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path
) -> None:
    with container(client, transformers_image, model=tiny_model) as made:
        wait_ready(made)
        # The shell ends before its child, which PID 1 inherits and has to reap when it is killed.
        made.exec_run(["sh", "-c", "sleep 60 & echo $! > /tmp/orphan"])
        made.exec_run(["sh", "-c", "kill -KILL $(cat /tmp/orphan)"])
        time.sleep(0.5)
        states = made.exec_run(["sh", "-c", "cat /proc/[0-9]*/stat"]).output.decode().splitlines()
        assert [state for state in states if ") Z " in state] == []
        assert timeline.find(timeline.fetch(made), "orphan.reaped")
        (engine,) = made.exec_run(["cat", "/proc/1/task/1/children"]).output.decode().split()
        assert made.exec_run(["sh", "-c", f"kill -KILL {engine}"]).exit_code == 0
        assert wait_ended(made) == 137


def test_runs_as_any_user_without_capabilities_on_a_read_only_root(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path
) -> None:
    hardened = {
        "user": "12345:0",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "read_only": True,
        "tmpfs": {"/tmp": "", "/run/warmimage": "mode=1777"},
    }
    with container(client, transformers_image, model=tiny_model, **hardened) as made:
        assert completion(wait_ready(made), MODEL)
        assert made.exec_run(["cat", "/run/warmimage/timeline.jsonl"]).exit_code == 0


def test_healthcheck_follows_the_port_given_at_start(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path
) -> None:
    ports = {"9123/tcp": ("127.0.0.1", None)}
    with container(client, transformers_image, ["--port", "9123"], tiny_model, ports=ports) as made:
        command = client.images.get(transformers_image).attrs["Config"]["Healthcheck"]["Test"][1:]
        assert made.exec_run(command).exit_code == 1, "healthy before the server listens"
        wait_for_event(made, "ready")
        assert made.exec_run(command).exit_code == 0


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (None, b"no model volume at /model"),
        ((), b"is empty"),
        (("config.json",), b"no weights"),
    ],
)
def test_volume_without_a_model_ends_within_a_second_and_names_the_fix(
    client: docker.DockerClient, transformers_image: str, tmp_path: Path, files: tuple[str, ...] | None, words: bytes
) -> None:
    tmp_path.chmod(0o755)
    for file in files or ():
        (tmp_path / file).write_text("{}", encoding="utf-8")
    with container(client, transformers_image, model=tmp_path if files is not None else None) as made:
        assert wait_ended(made) == 66
        (line,) = made.logs().splitlines()
        assert line.startswith(b"warmimage: error: ")
        assert words in line
        made.reload()
        began, ended = (datetime.fromisoformat(made.attrs["State"][key][:19]) for key in ("StartedAt", "FinishedAt"))
        assert (ended - began).total_seconds() <= 1


def test_help_needs_no_model(client: docker.DockerClient, transformers_image: str) -> None:
    with container(client, transformers_image, ["--help"]) as made:
        assert wait_ended(made) == 0
        assert b"Usage: transformers serve" in made.logs(stdout=True, stderr=False)
