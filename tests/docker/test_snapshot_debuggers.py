"""Debuggers and profilers see a restored process as they see a started one: py-spy, gdb and perf, from the host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.images import completion, container, wait_ready
from tests.support.snapshots import MODEL, NOTHING_GRANTED, engine_pid, wait_for_line

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

TIERS = ("snapshot", "plain")

#: A row of a stack as py-spy prints it: function, and file with line.
FRAME = re.compile(r"^    (.+) \((\S+):\d+\)$", re.MULTILINE)

#: A row of a stack as gdb prints it: the function.
FUNCTION = re.compile(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\S+) \(", re.MULTILINE)

#: Python's evaluation loop, and what calls it from outside; all of it is in stacks of any interpreter.
EVALUATES, BEGINS = "_PyEval_EvalFrameDefault", "Py_BytesMain"


def program(name: str, package: str) -> str:
    """Return the path of a program, which may be beside this interpreter."""
    fork_server = Path(sys.executable).parent / name
    found = str(fork_server) if fork_server.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed ({package})")
    if os.geteuid():
        pytest.skip(f"{name} attaches to a container's process as root alone")
    return found


@pytest.fixture(scope="module")
def engines(client: docker.DockerClient, transformers_image: str, tiny_model: Path) -> Iterator[dict[str, int]]:
    """A server in each tier, and the PID of its engine on this host."""
    words: dict[str, Any] = {"model": tiny_model, **NOTHING_GRANTED}
    restored = container(client, transformers_image, **words)
    started = container(client, transformers_image, environment={"WARMIMAGE_START": "plain"}, **words)
    with restored as first, started as second:
        assert [wait_for_line(running)[0] for running in (first, second)] == list(TIERS)
        if not Path(f"/proc/{first.attrs['State']['Pid']}").exists():
            pytest.skip("the daemon's containers are on another host")
        yield {tier: engine_pid(running) for tier, running in zip(TIERS, (first, second), strict=True)}


def output(*words: str) -> str:
    """Run a program, and return what it prints."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def main_thread(dump: str) -> list[str]:
    """Return function and file of the frames of the main thread, the innermost first, as py-spy prints them."""
    (part,) = [part for part in re.split(r"^(?=Thread )", dump, flags=re.MULTILINE) if '"MainThread"' in part]
    return [f"{function} {file}" for function, file in FRAME.findall(part)]


def test_py_spy_shows_the_same_functions(engines: dict[str, int]) -> None:
    tool = program("py-spy", "from PyPI")
    restored, started = (output(tool, "dump", "--pid", str(engines[tier])) for tier in TIERS)
    frames = main_thread(started)
    assert len(frames) > 10
    assert main_thread(restored)[: len(frames)] == frames, "the engine's own; below them are those of the tier"
    threads = [sorted(re.findall(r'^Thread .*: "(.+)"$', dump, re.MULTILINE)) for dump in (restored, started)]
    assert threads[0] == threads[1]
    command = [dump.splitlines()[0].partition(": ")[2] for dump in (restored, started)]
    assert command[0] == command[1]


def test_gdb_shows_the_interpreter(engines: dict[str, int]) -> None:
    tool = program("gdb", "Debian package gdb")
    stacks = []
    for tier in TIERS:
        functions = FUNCTION.findall(output(tool, "-nx", "-p", str(engines[tier]), "-batch", "-ex", "bt"))
        assert EVALUATES in functions, functions
        assert functions.index(EVALUATES) < functions.index(BEGINS), functions
        stacks.append(functions)
    restored, started = stacks
    until = started.index(EVALUATES)
    assert restored[: until + 1] == started[: until + 1], "from the system call that waits to the evaluation loop"


def test_gdb_stops_at_a_function_and_goes_on(engines: dict[str, int], asking: None) -> None:
    """Breakpoints are written into the code, which is mapped privately from the image's files."""
    tool = program("gdb", "Debian package gdb")
    words = [
        "-nx",
        "-p",
        str(engines["snapshot"]),
        "-batch",
        "-ex",
        "break epoll_wait",
        "-ex",
        "continue",
        "-ex",
        "bt 1",
    ]
    assert re.search(r"hit Breakpoint 1.*\bepoll_wait\b", output(tool, *words), re.DOTALL)


@pytest.fixture
def asking(client: docker.DockerClient, engines: dict[str, int]) -> Iterator[None]:
    """Ask both servers all the time."""
    with _asked([_port(client, pid) for pid in engines.values()]):
        yield


def _port(client: docker.DockerClient, pid: int) -> int:
    """Return the port that the server with this engine is published on."""
    parent = int(re.findall(r"^PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[0])
    (running,) = [each for each in client.containers.list() if each.attrs["State"]["Pid"] == parent]
    return wait_ready(running)


@contextmanager
def _asked(ports: list[int]) -> Iterator[None]:
    ended = threading.Event()

    def ask(port: int) -> None:
        while not ended.is_set():
            completion(port, MODEL)

    threads = [threading.Thread(target=ask, args=(port,)) for port in ports]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_perf_samples_the_interpreter(engines: dict[str, int], asking: None, tmp_path: Path) -> None:
    tool = program("perf", "Debian package linux-perf")
    for tier in TIERS:
        data = str(tmp_path / tier)
        record = [tool, "record", "-e", "cpu-clock", "-g", "-o", data, "-p", str(engines[tier]), "--", "sleep", "2"]
        done = subprocess.run(record, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode and tier == "snapshot" and "not supported" in done.stderr:
            pytest.skip(f"this kernel samples nothing: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
        samples = output(tool, "script", "-i", data, "-F", "comm,ip,sym,dso")
        assert re.search(rf"{EVALUATES}.*python3", samples), samples[-2000:]
        assert re.search(r"libtorch_cpu\.so", samples), samples[-2000:]
