"""The command ``warm`` as tests run it: in this process, and as an image's own."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmimage.entrypoint.timeline import Timeline
from warmimage.entrypoint.warm.loop import Warmer
from warmimage.entrypoint.warm.options import Options
from warmimage.entrypoint.warm.targets import Places

from .harness import SOURCE

MIB = 1 << 20


def model(folder: Path, *sizes: int) -> list[Path]:
    """Make a model directory whose weights have these sizes, and return their paths; they are on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    paths = []
    for number, size in enumerate(sizes, 1):
        path = folder / f"model-{number:05}-of-{len(sizes):05}.safetensors"
        path.write_bytes(os.urandom(size))
        paths.append(path)
    return paths


def events(timeline: Path, name: str = "") -> list[dict[str, Any]]:
    """Return a timeline's events, all or those of one name."""
    rows = timeline.read_text().splitlines() if timeline.exists() else []
    return [event for row in rows if row.endswith("}") and name in ("", (event := json.loads(row))["event"])]


def wait_for(found: Callable[[], Any], seconds: float = 90) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return value


@contextmanager
def warming(
    tmp_path: Path, directories: Sequence[Path], places: Places | None = None, **words: Any
) -> Iterator[tuple[Warmer, Path]]:
    """Run the loop on a thread of this process, and yield it with its timeline."""
    timeline = tmp_path / "timeline.jsonl"
    paths = tuple(map(str, directories))
    options = Options(**{"directories": paths, "targets": ("weights",), "interval": 0.2, **words})
    stop = threading.Event()
    written = Timeline(str(timeline), "warm", truncate=True)
    warmer = Warmer(options, places or Places(paths), written, stop, speak=lambda _line: None)
    loop = threading.Thread(target=warmer.run)
    loop.start()
    try:
        yield warmer, timeline
    finally:
        stop.set()
        loop.join(20)
        written.close()
        assert not loop.is_alive()


@dataclass(frozen=True)
class Sidecar:
    """A process that warms, with its HTTP API."""

    process: subprocess.Popen[bytes]
    port: int
    timeline: Path

    def ask(self, path: str) -> tuple[int, str]:
        """Return status and text of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@contextmanager
def sidecar(tmp_path: Path, *words: str, prefix: Sequence[str] = (), **variables: str) -> Iterator[Sidecar]:
    """Run ``warm`` as a container would, on a free port, and wait until it answers."""
    timeline = tmp_path / "sidecar.jsonl"
    command = [*prefix, sys.executable, "-I", "-S", str(SOURCE), "warm", "--port", "0", *words]
    environment = {**os.environ, "WARMIMAGE_TIMELINE": str(timeline), **variables}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        try:
            wait_for(lambda: process.poll() is not None or events(timeline, "warm.listening"))
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            made = Sidecar(process, events(timeline, "warm.listening")[0]["port"], timeline)
            wait_for(lambda: _answers(made))
            yield made
        finally:
            process.kill()


def _answers(made: Sidecar) -> bool:
    try:
        return made.ask("/healthz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False
