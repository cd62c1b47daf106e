"""The doctor's questions to the network: who answers, who does not, and that no password is ever shown."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from warmimage.config.model import Config
from warmimage.doctor import network
from warmimage.doctor.containers import ExaminedImage
from warmimage.doctor.finding import Observation
from warmimage.doctor.run import Check, run_checks
from warmimage.doctor.target import Target

from tests.builder import facts
from tests.support.images import warmimage


@contextmanager
def server(status: int) -> Iterator[int]:
    """Answer every question with one status, and yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            """Keep test output quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield made.server_port
        finally:
            made.shutdown()
            thread.join()


@contextmanager
def deaf() -> Iterator[int]:
    """Take connections and never answer; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


def registry(base: str, monkeypatch: pytest.MonkeyPatch) -> Observation:
    """Ask for the registry of a configured base image."""
    monkeypatch.setenv("WARMIMAGE_BASE_IMAGE", base)
    return network.registry(Target(), {})


@pytest.fixture
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("WARMIMAGE_BASE_IMAGE", "")
    monkeypatch.setattr(network, "_PATIENCE", (1.0, 0.3))


@pytest.mark.usefixtures("_no_proxy")
@pytest.mark.parametrize(("status", "outcome"), [(200, "answers"), (401, "answers"), (404, "answers"), (503, "silent")])
def test_any_answer_of_a_registry_will_do_but_that_it_cannot(
    status: int, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(status) as port:
        assert registry(f"127.0.0.1:{port}/python:1", monkeypatch).outcome == outcome


@pytest.mark.usefixtures("_no_proxy")
def test_a_registry_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with deaf() as port:
        observation = registry(f"127.0.0.1:{port}/python:1", monkeypatch)
    assert observation.outcome == "silent"
    assert observation.found.startswith(f"127.0.0.1:{port}: ")


@pytest.mark.usefixtures("_no_proxy")
def test_the_configurations_base_image_names_the_registry() -> None:
    with server(200) as port:
        Path("warmimage.yaml").write_text(f"base_image: 127.0.0.1:{port}/x:1\n", encoding="utf-8")
        observation = network.registry(Target(), {})
    assert (observation.outcome, observation.found) == ("answers", f"127.0.0.1:{port}")


def test_an_image_from_no_registry_asks_none() -> None:
    image = ExaminedImage(facts.plan_of(Config(model="./m", method="derive", base_image="here:1")), 1, {})
    assert network.registry(Target(), {"image": image}).outcome == "local"


@pytest.mark.parametrize(
    ("reference", "host"),
    [
        ("python:3.12", "registry-1.docker.io"),
        ("vllm/vllm-openai:v1", "registry-1.docker.io"),
        ("docker.io/library/python", "registry-1.docker.io"),
        ("ghcr.io/a/b", "ghcr.io"),
        ("localhost/a", "localhost"),
        ("host:5000/a:1", "host:5000"),
    ],
)
def test_a_reference_names_its_registry(reference: str, host: str) -> None:
    assert network.registry_of(reference) == host


def test_the_hub_is_not_asked_offline() -> None:
    done = warmimage("doctor", "--json", code=4, DOCKER_HOST="unix:///nowhere", HF_HUB_OFFLINE="1")
    (found,) = (entry for entry in json.loads(done.stdout)["findings"] if entry["id"] == "network.hub")
    assert (found["status"], found["found"]) == ("info", "not checked: HF_HUB_OFFLINE is set")


@pytest.mark.parametrize(("status", "expected"), [(200, "ok"), (500, "warning")])
def test_the_hub_is_the_one_that_is_configured(status: int, expected: str) -> None:
    with server(status) as port:
        variables = {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": f"http://127.0.0.1:{port}", "NO_PROXY": "127.0.0.1"}
        done = warmimage("doctor", "--json", code=4, DOCKER_HOST="unix:///nowhere", **variables)
    (found,) = (entry for entry in json.loads(done.stdout)["findings"] if entry["id"] == "network.hub")
    assert found["status"] == expected


@pytest.mark.usefixtures("_no_proxy")
def test_pips_own_index_is_asked_and_its_password_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(200) as port, deaf() as silent:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://me:s3cr3t@127.0.0.1:{port}/simple")
        observation = network.index(Target(), {})
        assert (observation.outcome, observation.found) == ("answers", f"http://***@127.0.0.1:{port}/simple")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file://{Path.cwd()}/none http://me:s3cr3t@127.0.0.1:{silent}/x")
        observation = network.index(Target(), {})
    assert observation.outcome == "silent"
    assert "no such directory" in observation.found
    assert f"http://***@127.0.0.1:{silent}/x: no answer within" in observation.found
    assert "s3cr3t" not in observation.found


def test_pip_may_be_told_to_ask_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    observation = network.index(Target(), {})
    assert (observation.outcome, observation.found) == ("none", "pip is configured without an index; it uses /wheels")


def test_a_proxy_of_no_use_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:s3cr3t@127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("WARMIMAGE_BASE_IMAGE", "registry.invalid/x:1")
    (found,) = run_checks([Check("network.registry", network.registry)], Target())
    assert (found.status, "s3cr3t" in str(found)) == ("warning", False)
    assert "proxy" in found.found
