"""``warmimage run`` on a stub of an engine: its output, its exit code, and when it returns."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.images import stub
from tests.support.images import COMMAND, port_of, request, warmimage

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def image(client: docker.DockerClient) -> str:
    """The stub as warmimage would build it."""
    return stub.build(client)[0]


@pytest.fixture(autouse=True)
def nothing_left(client: docker.DockerClient) -> Iterator[None]:
    """Every container of a run is removed, but for the detached one that its test removes."""
    yield
    assert client.containers.list(all=True, filters={"label": "dev.warmimage.run", "ancestor": stub.IMAGE}) == []


def test_a_detached_run_returns_when_the_server_answers(
    client: docker.DockerClient, image: str, tiny_model: Path
) -> None:
    done = warmimage("run", image, "--model", str(tiny_model), "--port", "0", "--detach", "-e", "STUB_SECONDS=1")
    container = client.containers.get(done.stdout.strip())
    try:
        assert request(port_of(container), "GET", "/health")[0] == 200
        assert f"serving on http://127.0.0.1:{port_of(container)}\n" in done.stderr
        assert "total" in done.stderr
    finally:
        container.remove(force=True)


def test_a_run_passes_a_signal_on_and_shows_when_the_server_is_ready(image: str, tiny_model: Path) -> None:
    command = [COMMAND, "run", image, "--model", str(tiny_model), "--port", "0"]
    with subprocess.Popen(["env", "--default-signal", *command], text=True, stderr=subprocess.PIPE) as running:
        assert running.stderr
        for line in running.stderr:
            if "serving on http://127.0.0.1:" in line:
                break
        running.send_signal(signal.SIGTERM)
        rest = running.stderr.read()
    assert running.returncode == 143, rest


def test_a_server_that_fails_ends_a_detached_run_with_its_code_and_its_output(image: str, tiny_model: Path) -> None:
    words = ("run", image, "--model", str(tiny_model), "--port", "0", "--detach", "-e", "STUB_SECONDS=x")
    done = warmimage(*words, code=1)
    assert done.stdout == ""
    assert "could not convert string to float" in done.stderr


def test_a_detached_run_needs_a_timeline(image: str, tiny_model: Path) -> None:
    words = ("run", image, "--model", str(tiny_model), "--detach", "--env", "WARMIMAGE_TIMELINE=")
    assert "error: without a timeline readiness is unknown" in warmimage(*words, code=2).stderr


def test_output_that_nobody_reads_any_more_ends_the_run(image: str, tiny_model: Path) -> None:
    command = [COMMAND, "run", image, "--model", str(tiny_model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr
        running.stderr.close()
        assert running.wait(timeout=60) != 0
