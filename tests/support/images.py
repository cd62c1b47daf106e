"""Build images and talk to their containers, as a user's own script would: through the command and over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container
from warmimage import timeline

COMMAND = str(Path(sys.executable).parent / "warmimage")

MESSAGES = [{"role": "user", "content": "Hello"}]


def warmimage(*words: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command, and check the exit code."""
    environment = {**os.environ, "NO_COLOR": "1", **variables}
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code, f"exit code {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@contextmanager
def container(
    client: docker.DockerClient, image: str, arguments: Sequence[str] = (), model: Path | None = None, **words: Any
) -> Iterator[Container]:
    """Start a container as ``docker run -d`` would, its port 8000 published, and remove it at the end."""
    words.setdefault("volumes", {str(model): {"bind": "/model", "mode": "ro"}} if model else {})
    words.setdefault("ports", {"8000/tcp": ("127.0.0.1", None)})
    made = client.containers.run(image, list(arguments), detach=True, **words)
    try:
        yield made
    finally:
        made.remove(force=True)


def port_of(running: Container, inside: str = "8000/tcp") -> int:
    """Return the host port that a container's port is published on."""
    running.reload()
    published = running.ports[inside]
    assert published, f"{running.name} publishes no {inside}"
    return int(published[0]["HostPort"])


def wait_ready(running: Container, seconds: float = 240) -> int:
    """Wait until ``/health`` answers 200, and return the host port.

    Raises:
        AssertionError: the container ended, or did not become ready in time; the message has its log.
    """
    deadline = time.monotonic() + seconds
    port = port_of(running)
    while time.monotonic() < deadline:
        try:
            if request(port, "GET", "/health")[0] == 200:
                return port
        except (OSError, http.client.HTTPException):
            pass
        running.reload()
        assert running.status == "running", running.logs().decode()[-4000:]
        time.sleep(0.1)
    raise AssertionError(f"not ready after {seconds} s:\n{running.logs().decode()[-4000:]}")


def wait_for_event(running: Container, name: str, seconds: float = 120) -> list[timeline.Event]:
    """Wait until a container's timeline has an event, and return the timeline.

    The supervisor sees by its own question that the server is ready, which may be after somebody else's.
    """
    deadline = time.monotonic() + seconds
    while not timeline.find(events := timeline.fetch(running), name):
        assert time.monotonic() < deadline, running.logs().decode()[-4000:]
        time.sleep(0.2)
    return events


def request(port: int, method: str, path: str, body: object = None) -> tuple[int, str]:
    """Send one request and return the answer's status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json"}
    with closing(connection):
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def completion(port: int, model: str, *, stream: bool = False, tokens: int = 24) -> str:
    """Return the text of a chat completion at temperature 0."""
    body = {"model": model, "messages": MESSAGES, "temperature": 0, "max_tokens": tokens, "stream": stream}
    status, text = request(port, "POST", "/v1/chat/completions", body)
    assert status == 200, text
    if not stream:
        return str(json.loads(text)["choices"][0]["message"]["content"])
    parts = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return "".join(part["choices"][0]["delta"].get("content") or "" for part in parts if part["choices"])


def wait_ended(running: Container, seconds: int = 60) -> int:
    """Wait for a container's end and return its exit code."""
    return int(running.wait(timeout=seconds)["StatusCode"])
