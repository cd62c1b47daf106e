"""When is the server ready: the port that it was told, the probe, and what is said about it."""

from __future__ import annotations

import errno
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from warmimage.entrypoint.settings import is_address, last_port, load
from warmimage.entrypoint.supervision.readiness import ReadinessProbe

from .harness import Image, free_port

pytestmark = pytest.mark.timeout(60)

OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("command", "port"),
    [
        ("engine --host h", 8000),
        ("engine --port 9000", 9000),
        ("engine --port=9000", 9000),
        ("engine --port 9000 --port=9001", 9001),
        ("engine --port=9001 -p 9002 model", 9002),
        ("engine --port", 8000),
        ("engine --port=", 8000),
        ("engine --port 65536", 8000),
        ("engine --port -1", 8000),
        ("engine --port 99999999999999999999", 8000),
        ("engine --port ²", 8000),
        ("engine --portable 9000", 8000),
    ],
)
def test_last_port_flag_wins_in_either_spelling(command: str, port: int) -> None:
    assert last_port(command.split(), ["--port", "-p"], 8000) == port


def test_host_in_numbers_is_told_from_a_name() -> None:
    assert [host for host in ("1.2.3.4", "::1", "999.1.1.1", ":::", "", "h", "é", "a\0b") if is_address(host)] == [
        "1.2.3.4",
        "::1",
    ]


def test_server_on_all_ipv6_addresses_is_asked_on_the_loopback_of_ipv6(image: Image) -> None:
    settings = load(["--host", "::"], {}, "", str(image.root / "plan.json"))
    assert settings.host == "::1"


def test_no_descriptor_for_the_probe_is_no_answer_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_words: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    probe = ReadinessProbe("127.0.0.1", free_port(), "/health")
    monkeypatch.setattr(socket, "socket", exhausted)
    probe.step()
    assert (probe.descriptor, probe.ready) == (-1, False)
    assert 0 < probe.wait() <= 0.02


@contextmanager
def answering(*answers: list[bytes] | None) -> Iterator[int]:
    """Serve one connection per answer, written part by part and then closed; ``None`` is never answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def work() -> None:
            for answer in answers:
                connection, _ = server.accept()
                held.append(connection)
                if answer is not None:
                    with suppress(OSError):  # who asks has read enough
                        for part in answer:
                            connection.sendall(part)
                            time.sleep(0.01)
                    connection.close()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        for connection in held:
            connection.close()


def safety(probe: ReadinessProbe, seconds: float) -> None:
    """Do what PID 1's loop does, until the server is ready."""
    deadline = time.monotonic() + seconds
    while not probe.ready and time.monotonic() < deadline:
        descriptors = [probe.descriptor] if probe.descriptor >= 0 else []
        reading, writing = ([], descriptors) if probe.writes else (descriptors, [])
        select.select(reading, writing, [], probe.wait())
        probe.step()
    probe.close()


@pytest.mark.parametrize(
    "first",
    [
        [b"HTTP/1.1 503 Service Unavailable\r\n\r\n"],
        [b"HTTP/1.1 404 Not Found\r\n\r\n200"],
        [],
        [b"HTTP/1.1"],
        [b"\x00\xff 200"],
        None,
    ],
    ids=["503", "404", "closed", "closed in the middle", "no HTTP", "hangs"],
)
def test_question_that_is_not_answered_with_200_is_asked_again(first: list[bytes] | None) -> None:
    with answering(first, first, [OK]) as port:
        probe = ReadinessProbe("127.0.0.1", port, "/health", patience=0.2)
        safety(probe, 5)
    assert probe.listening
    assert probe.ready


def test_answer_that_comes_byte_by_byte_is_read() -> None:
    with answering([OK[index : index + 1] for index in range(len(OK))]) as port:
        probe = ReadinessProbe("127.0.0.1", port, "/health", patience=5)
        safety(probe, 5)
    assert probe.ready


def test_nothing_that_listens_is_not_ready() -> None:
    probe = ReadinessProbe("127.0.0.1", free_port(), "/health")
    safety(probe, 0.2)
    assert not probe.listening
    assert not probe.ready


def test_ready_is_one_line_and_two_events(image: Image) -> None:
    words = ["sleep:0.1", "listen", "serve:503,close,200", "until:ready", "end:0"]
    ended = image.run(f"--port={free_port()}", "--port", str(free_port()), *words)
    assert ended.code == 0
    assert ended.err.count(b"\n") == 1
    assert re.fullmatch(r"ready in \d+\.\d\d s \(tier preload\)", ended.said[0])
    events = [event["event"] for event in image.events() if event["process"] == "supervisor"]
    names = [name for name in events if name != "usage" and not name.startswith("process.")]
    assert names[-5:] == ["tier.started", "engine.listening", "ready", "engine.ended", "ended"]
    ready = image.events("ready")[0]
    assert 0.1 < ready["engine_seconds"] <= ready["seconds"] < 10


def test_skipped_tiers_are_named_when_ready(image: Image) -> None:
    (image.root / "closure.json").unlink()
    ended = image.run("--port", str(free_port()), "listen", "serve:200", "until:ready")
    assert ended.said[1].endswith("(tier plain; skipped: preload)")


def test_server_that_cannot_be_asked_is_said_and_left_alone(image: Image) -> None:
    words = [image.mark, "--ssl-keyfile=key.pem", "--port", str(free_port()), "listen", "sleep:0.2", "end:1"]
    ended = image.run(*words)
    assert (ended.code, ended.said) == (1, ["ready not reported: the engine is told --ssl-keyfile"])
    assert not image.events("engine.listening")
    assert image.started == ["preload"], "it may have served for days: it is not started again"


@pytest.mark.usefixtures("in_namespace")
def test_health_check_asks_the_port_that_pid_1_was_told(image: Image) -> None:
    script = str(image.entrypoint)
    ended = image.run("--port", str(free_port()), "listen", f"health:{script}", "serve:200,200", "join")
    assert ended.out == b"health 0 HTTP 200\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP 503"), (b"no HTTP\r\n\r\n", "not answering on port ")],
)
def test_health_check_fails_on_any_other_answer(image: Image, answer: bytes, said: str) -> None:
    with answering([answer]) as port:
        image.write_plan(port=port)
        done = image.python_run("-I", "-S", str(image.entrypoint), "healthcheck")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(said)
