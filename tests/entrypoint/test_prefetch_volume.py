"""Prefetch on a network volume, a FUSE file system served here: what reaches its server, and what if it hangs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from warmimage.entrypoint.model.download import MARKER
from warmimage.entrypoint.pagecache.reader import Reading
from warmimage.entrypoint.pagecache.syscalls import BLOCK
from warmimage.entrypoint.startup.prefetch import volume_range

from tests.support.slow_volume import MB, TAKEN_BACK, Volume, mounted

from .harness import Image

pytestmark = pytest.mark.timeout(60)

SIZE = 2 * BLOCK + 12345


@pytest.fixture
def volume(image: Image, tmp_path: Path) -> Iterator[Volume]:
    """Serve the image's model from a slow volume."""
    for path in image.model.glob("*.safetensors"):
        path.write_bytes(os.urandom(SIZE))
    with mounted(image.model, tmp_path / "volume", rate=200 * MB, delay=0.001) as made:
        image.move_model(made.path)
        yield made


#: Reads a folder's weights as an engine's process does, which maps them.
READ_MAPPED = """
import mmap, pathlib, sys
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors")):
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        sum(mapped[at] for at in range(0, len(mapped), 4096))
"""


def command(image: Image) -> list[str]:
    return [image.python, "-I", "-S", str(image.entrypoint), "prefetch"]


def test_each_byte_is_read_once_by_containers_and_processes_that_start_together(image: Image, volume: Volume) -> None:
    """Two containers' prefetch, and four processes that map the weights: two API servers and two workers, say."""
    volume.forget()
    readers = [command(image), command(image), *[[sys.executable, "-c", READ_MAPPED, str(volume.path)]] * 4]
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(subprocess.Popen(words, env=image.environment(), stdout=subprocess.PIPE))
            for words in readers
        ]
        outputs = [process.communicate(timeout=50)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 6
    assert volume.again() <= TAKEN_BACK
    sizes = {path.name: path.stat().st_size for path in image.model.iterdir()}
    assert volume.files_read() == sizes
    told = [json.loads(row) for output in outputs[:2] for row in output.splitlines()]
    ended = [event for event in told if event.get("target") == "weights"]
    assert [event["reason"] for event in ended] == ["done", "done"]
    assert all(event["resident_bytes"] + event["read_bytes"] == event["wanted_bytes"] for event in ended)


def test_what_is_resident_is_not_asked_for_again(image: Image, volume: Volume) -> None:
    first = subprocess.run(command(image), env=image.environment(), capture_output=True, check=True)
    volume.forget()
    again = subprocess.run(command(image), env=image.environment(), capture_output=True, check=True)
    assert events(first.stdout)[-1]["read_bytes"] == 2 * SIZE + 2
    assert events(again.stdout)[-1]["resident_bytes"] == 2 * SIZE
    assert volume.requests() == []


def test_what_the_kernels_readahead_brings_was_not_there_before(image: Image, volume: Volume) -> None:
    """One reader comes to each part after the one before, and to some that came with it."""
    path = volume.path / "model-00001-of-00002.safetensors"
    outcome = Reading([str(path)], volume_range, lambda: 1 << 40, readers=1, whole=True).run()
    assert (outcome.resident, outcome.read, outcome.reason) == (0, SIZE, "done")


def events(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(row) for row in output.splitlines()]


def test_a_volume_that_hangs_delays_neither_the_start_nor_the_end(image: Image, volume: Volume) -> None:
    volume.hang()
    assert image.run("until:tier.started", "end:7").code == 7
    assert not image.events("prefetch.ended")


def test_a_download_to_a_volume_that_hangs_is_left_out(image: Image, volume: Volume) -> None:
    (image.model / MARKER).write_text("abc\n")
    image.change_plan(weights="download")
    source = image.entrypoint / "startup" / "main.py"
    source.write_text(
        source.read_text()
        .replace("MARKER_SECONDS = 120.0", "MARKER_SECONDS = 1.0")
        .replace("VOLUME_SECONDS = 10.0", "VOLUME_SECONDS = 1.0")
    )
    for compiled in image.entrypoint.glob(
        "startup/__pycache__/main.*.pyc"
    ):  # unchecked: the source would not be looked at
        compiled.unlink()
    volume.hang()
    with image.start("sleep:50") as running:
        while not volume.requests():
            time.sleep(0.01)  # until it hangs
        running.send(signal.SIGTERM)
        assert running.end() == 128 + signal.SIGTERM
    assert not image.events("tier.started")
    assert image.run("until:tier.started", "end:7").code == 7
    assert not image.events("download.started"), "the model may be there"
    (unchecked,) = image.events("volume.unchecked")
    assert unchecked["reason"] == "the volume has not answered for 1 s"


def test_sigterm_ends_a_prefetch_that_hangs(image: Image, volume: Volume) -> None:
    volume.hang()
    with image.start("out:begun", "sleep:50") as running:
        assert running.line() == "begun"
        while not volume.requests():
            time.sleep(0.01)  # until it hangs
        running.send(signal.SIGTERM)
        assert running.end() == 128 + signal.SIGTERM
    assert volume.requests()


def test_prefetch_that_hangs_ends_when_the_server_is_ready(image: Image, volume: Volume) -> None:
    volume.hang()
    port = str(image.plan.engine.port)
    image.run("--port", port, "listen", "serve:200", "until:ready", "until:prefetch.ended", "end:0")
    (event,) = [event for event in image.events("prefetch.ended") if event["target"] == "weights"]
    assert event["reason"] == "server ready or stopping"
    assert event["read_bytes"] < event["wanted_bytes"] == 2 * SIZE + 2


def test_a_volume_that_keeps_nothing_is_not_read_twice(image: Image, tmp_path: Path) -> None:
    """It drops a file's pages when the file is opened again, as FUSE servers do unless they are told otherwise."""
    for number in range(1, 9):
        (image.model / f"model-{number:05d}-of-00008.safetensors").write_bytes(os.urandom(SIZE))
    with mounted(image.model, tmp_path / "volume", rate=200 * MB, keep=False) as volume:
        image.move_model(volume.path)
        done = subprocess.run(command(image), env=image.environment(), capture_output=True, check=False)
        assert done.returncode == 1
        assert events(done.stdout)[-1]["reason"] == "the file system does not keep in the page cache what is read"
        assert sum(volume.files_read().values()) < 8 * SIZE
