"""The container's processes while it starts: real ones, looked at by the supervisor and by its class alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from warmimage.entrypoint.supervision.process_monitor import Processes
from warmimage.entrypoint.timeline import Timeline

from .harness import Image, evict, free_port

pytestmark = pytest.mark.timeout(60)

Events = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the timeline goes."""
    return tmp_path / "timeline.jsonl"


@pytest.fixture
def looking(path: Path) -> Processes:
    """A look at this very process and what it starts."""
    return Processes(Timeline(str(path), "supervisor"))


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A Python that does what it is told on its standard input, line by line, and says so."""
    work = "import sys\nfor row in sys.stdin:\n exec(row)\n print(flush=True)"
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            tell(process, "import os, time")
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[bytes], row: str) -> None:
    """Have the child do something, and wait until it has."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(row.encode() + b"\n")
    process.stdin.flush()
    process.stdout.readline()


def events(path: Path, name: str) -> list[dict[str, Any]]:
    """Return the events of a name."""
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    return [row for row in rows if row["event"] == name]


def test_child_has_its_parent_and_the_time_of_its_begin(
    looking: Processes, path: Path, child: subprocess.Popen[bytes]
) -> None:
    looking.step()
    own, other = ([row for row in events(path, "process.started") if row["child"] == pid] for pid in pids(child))
    assert [row["parent"] for row in (*own, *other)] == [os.getppid(), os.getpid()]
    assert own[0]["began"] < other[0]["began"] <= other[0]["t"]
    assert other[0]["began"] > time.monotonic() - 60


def pids(child: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Return this process's pid and the child's."""
    return os.getpid(), child.pid


def test_processes_that_do_not_descend_from_it_are_left_out(looking: Processes, path: Path) -> None:
    looking.step()
    assert {row["child"] for row in events(path, "process.started")} >= {os.getpid()}
    assert os.getppid() not in {row["child"] for row in events(path, "process.started")}


def test_new_name_is_said_once_and_arguments_never(
    looking: Processes, path: Path, child: subprocess.Popen[bytes]
) -> None:
    looking.step()
    tell(child, "open('/proc/self/comm', 'w').write('served')")
    for _ in range(3):
        looking.step(now=True)
    (renamed,) = [row for row in events(path, "process.renamed") if row["child"] == child.pid]
    assert renamed["name"] == "served"
    assert "sys.stdin" not in path.read_text()


def test_purpose_of_a_spawned_child_is_its_name(looking: Processes, path: Path) -> None:
    secret = "multiprocessing.spawn --api-key secret"
    with subprocess.Popen([sys.executable, "-c", "input()", secret], stdin=subprocess.PIPE) as process:
        try:
            looking.step()
            looking.step(now=True)
            named = [row["name"] for row in rows_of(path, process.pid)]
        finally:
            process.kill()
    assert named[-1] == "spawned child"
    assert "secret" not in path.read_text()


def rows_of(path: Path, pid: int) -> list[dict[str, Any]]:
    """Return the events that name a process."""
    return [*(row for name in ("started", "renamed") for row in events(path, f"process.{name}") if row["child"] == pid)]


def test_processor_time_and_reads_are_counted_once_when_the_child_is_gone(
    looking: Processes, path: Path, child: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    looking.step()
    file = tmp_path / "large"
    file.write_bytes(os.urandom(1 << 24))
    evict(file)
    tell(child, f"open({str(file)!r}, 'rb').read()")
    tell(child, "while time.process_time() < 0.5: pass")
    looking.step(now=True)
    child.kill()
    child.wait()
    looking.step(now=True)
    first, before, after = events(path, "usage")
    (ended,) = events(path, "process.ended")
    assert ended["child"] == child.pid
    assert ended["cpu_seconds"] >= 0.4
    grown = before["read_bytes"] - first["read_bytes"]
    assert (1 << 24) <= grown < (1 << 25)
    assert before["cpu_seconds"] <= after["cpu_seconds"] < before["cpu_seconds"] + 0.3
    assert before["read_bytes"] <= after["read_bytes"] < before["read_bytes"] + (1 << 23)
    assert {row[0] for row in before["processes"]} - {row[0] for row in after["processes"]} == {child.pid}
    assert before["memory_bytes"] >= sum(row[2] for row in before["processes"]) > 0


def test_it_looks_when_it_is_time_and_not_before(looking: Processes, path: Path) -> None:
    assert looking.wait() == 0
    looking.step()
    looking.step()
    assert len(events(path, "usage")) == 1
    assert 0 < looking.wait() <= 10


def test_without_a_timeline_nothing_is_looked_at() -> None:
    silent = Processes(Timeline("", "supervisor"))
    silent.step(now=True)
    assert silent.wait() > 60


def test_fault_ends_the_looking_and_nothing_else(
    looking: Processes, path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(_path: str) -> list[str]:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", refused)
        looking.step()
    looking.step(now=True)
    (failed,) = events(path, "processes.failed")
    assert "Permission denied" in failed["reason"]
    assert not events(path, "usage")
    assert capfd.readouterr().err.count("warmimage: processes no longer looked at") == 1


def test_supervisor_looks_until_ready_and_once_then(image: Image) -> None:
    words = ["--port", str(free_port()), "sleep:0.6", "listen", "serve:200", "until:ready", "sleep:0.6", "end:0"]
    assert image.run(*words, WARMIMAGE_PREFETCH="off").code == 0
    (ready,) = image.events("ready")
    usage = image.events("usage")
    assert len(usage) >= 2
    assert [row["t"] > ready["t"] for row in usage] == [False] * (len(usage) - 1) + [True]
    (engine,) = [row for row in image.events("process.started") if row["parent"] == ready["pid"]]
    (entered,) = image.events("engine.entered")
    assert engine["child"] == entered["pid"]
    assert engine["began"] <= entered["t"]


def test_command_that_answers_and_ends_is_not_looked_at(image: Image) -> None:
    assert image.run("--help").code == 0
    assert not image.events("usage")
