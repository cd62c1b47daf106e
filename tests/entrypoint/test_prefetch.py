"""Prefetch and the page cache: what is read, what is left alone, and what is said about it."""

from __future__ import annotations

import functools
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from warmimage.entrypoint import pagecache, prefetch
from warmimage.entrypoint.pagecache import memory_headroom, resident_bytes
from warmimage.entrypoint.timeline import Timeline

from .harness import Image, evict, free_port

pytestmark = pytest.mark.timeout(60)

MIB = 1 << 20


def undisturbed(test: Callable[..., None]) -> Callable[..., None]:
    """Skip a test about the page cache that has failed while somebody on this machine dropped all of it."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        before = drops()
        try:
            test(*args, **fixtures)
        except AssertionError:
            if drops() != before:
                pytest.skip("the whole page cache was dropped meanwhile")
            raise

    return run


def drops() -> str:
    """Return how often the page cache was dropped on this machine."""
    rows = Path("/proc/vmstat").read_text().splitlines()
    return next((row for row in rows if row.startswith("drop_pagecache ")), "")


@pytest.fixture
def _sigterm() -> Iterator[None]:
    """Put back the disposition that prefetch changes in its own process."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def fill(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


@undisturbed
def test_weights_are_resident_afterwards_and_the_events_add_up(image: Image) -> None:
    shards = [fill(path, 4 * MIB + 1) for path in sorted(image.model.glob("*.safetensors"))]
    hot = fill(image.root / "hot.so", 3 * MIB)
    image.closure({"files": [str(hot), str(image.root / "gone.py")], "libraries": []})
    evict(*shards, hot)

    image.run("until:prefetch.ended:weights", "end:0")
    sizes = {"image": 3 * MIB, "weights": 2 * (4 * MIB + 1)}
    for event in image.events("prefetch.ended"):
        size = sizes.pop(event["target"])
        assert (event["wanted_bytes"], event["resident_bytes"], event["read_bytes"]) == (size, 0, size)
        assert event["reason"] == "done"
    assert not sizes
    assert [resident_bytes(str(path)) for path in (*shards, hot)] == [4 * MIB + 1, 4 * MIB + 1, 3 * MIB]

    image.closure({"files": [str(hot)], "libraries": []})
    image.run("until:prefetch.ended:weights", "end:0")
    assert image.events("prefetch.declined")[0]["reason"] == "the first 1 files are resident"
    again = image.events("prefetch.ended")[0]
    assert (again["resident_bytes"], again["read_bytes"]) == (2 * (4 * MIB + 1), 0)


def test_prefetch_ends_when_the_server_is_ready(image: Image) -> None:
    size = min(8 << 30, memory_headroom() // 2)
    with (image.model / "model-00001-of-00002.safetensors").open("wb") as file:
        file.truncate(size)  # a hole: reading it fills memory and needs no disk
    image.run("--port", str(free_port()), "listen", "serve:200", "until:ready", "until:prefetch.ended", "end:0")
    event = image.events("prefetch.ended")[0]
    assert event["reason"] == "server ready or stopping"
    assert event["read_bytes"] < event["wanted_bytes"]


def test_prefetch_can_be_switched_off(image: Image) -> None:
    assert image.run("end:0", WARMIMAGE_PREFETCH="off").said == []
    assert image.events("prefetch.declined")[0]["reason"] == "WARMIMAGE_PREFETCH=off"
    assert not image.events("prefetch.ended")
    ended = image.run("until:prefetch.ended", "end:0", WARMIMAGE_PREFETCH="none")
    assert ended.said == ["WARMIMAGE_PREFETCH is 'none', neither on nor off: prefetch stays on"]
    assert image.events("prefetch.ended")


def prefetched(tmp_path: Path, closure: Path, *weights: Path) -> list[dict[str, Any]]:
    """Prefetch in this process and return the events."""
    timeline = tmp_path / "timeline.jsonl"
    prefetch.Prefetch(Timeline(str(timeline), "prefetch", truncate=True)).run(str(closure), [str(p) for p in weights])
    return [json.loads(row) for row in timeline.read_text().splitlines()]


@pytest.mark.usefixtures("_sigterm")
@undisturbed
def test_no_more_is_read_than_memory_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "memory_headroom", lambda: 10 * MIB)
    weights = [fill(tmp_path / name, 4 * MIB) for name in "ab"]
    evict(*weights)
    (event,) = prefetched(tmp_path, tmp_path / "none.json", *weights)
    assert [resident_bytes(str(path)) for path in weights] == [4 * MIB, 0]
    assert event["read_bytes"] == 4 * MIB
    assert event["reason"] == f"memory window of {7 * MIB} bytes"


@pytest.mark.usefixtures("_sigterm")
@undisturbed
def test_file_that_cannot_be_read_is_a_failure_in_the_event(tmp_path: Path) -> None:
    good, folder = fill(tmp_path / "good", 3 * MIB), tmp_path / "folder"
    folder.mkdir()
    evict(good)
    (event,) = prefetched(tmp_path, tmp_path / "none.json", tmp_path / "gone", folder, good)
    assert sorted(event["failures"]) == [
        f"{folder}: Is a directory", f"{tmp_path / 'gone'}: No such file or directory",
    ]  # fmt: skip
    assert resident_bytes(str(good)) == 3 * MIB


@pytest.mark.usefixtures("_sigterm")
@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"files": 1}'])
def test_damaged_closure_does_not_cost_the_weights(tmp_path: Path, text: str) -> None:
    closure = tmp_path / "closure.json"
    closure.write_text(text)
    declined, ended = prefetched(tmp_path, closure, fill(tmp_path / "weights", 100))
    assert (declined["event"], declined["target"]) == ("prefetch.declined", "image")
    assert (ended["target"], ended["read_bytes"]) == ("weights", 100)


@undisturbed
def test_both_ways_to_ask_for_residency_agree(tmp_path: Path) -> None:
    path = fill(tmp_path / "file", 8 * MIB + 100)
    evict(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = 8 * MIB + 100
        assert pagecache.mincore(descriptor, size) == 0
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        assert len(os.pread(descriptor, 3 * MIB, 2 * MIB)) == 3 * MIB
        pages = pagecache.mincore(descriptor, size)
        assert pages == 3 * MIB // mmap.PAGESIZE
        assert resident_bytes(str(path)) == pages * mmap.PAGESIZE
        os.pread(descriptor, size, 0)
        assert pagecache.mincore(descriptor, size) == -(-size // mmap.PAGESIZE)
        assert resident_bytes(str(path)) == size
    finally:
        os.close(descriptor)


@undisturbed
def test_residency_of_a_file_of_another_owner_is_known(tmp_path: Path, unprivileged: tuple[str, ...]) -> None:
    """An image's files belong to root, its user is another: the kernel then answers ``mincore`` with all ones."""
    path = fill(tmp_path / "file", 8 * MIB)
    evict(path)
    path.chmod(0o444)
    os.chown(path, 65534, 65534)
    ask = f"from warmimage.entrypoint.prefetch import layer_bytes; print(layer_bytes({str(path)!r}))"
    asked = subprocess.run([*unprivileged, sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert int(asked.stdout) < MIB
    path.read_bytes()
    asked = subprocess.run([*unprivileged, sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert int(asked.stdout) == 8 * MIB


@pytest.mark.parametrize(("size", "most"), [(0, MIB), (5000, MIB), (3 * pagecache.BLOCK, pagecache.BLOCK + MIB)])
def test_reading_a_small_file_takes_a_small_buffer(tmp_path: Path, size: int, most: int) -> None:
    """An image has thousands of small files: a whole block for each cost more than all the reading."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(size)
    tracemalloc.start()
    try:
        assert pagecache.read_through(str(path), threading.Event()) == size
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


V1 = "/sys/fs/cgroup/memory/"
FREE = {"/proc/meminfo": "MemTotal:  900 kB\nMemAvailable:     400 kB\n"}


@pytest.mark.parametrize(
    ("files", "headroom"),
    [
        (FREE, 400 * 1024),
        ({**FREE, "/sys/fs/cgroup/memory.max": "max\n"}, 400 * 1024),
        ({**FREE, "/sys/fs/cgroup/memory.max": "9000\n", "/sys/fs/cgroup/memory.stat": "anon 1000\nfile 7000\n"}, 8000),
        ({**FREE, "/sys/fs/cgroup/memory.max": "9000\n", "/sys/fs/cgroup/memory.stat": "anon 9999\n"}, 0),
        ({**FREE, V1 + "memory.limit_in_bytes": "9000\n", V1 + "memory.stat": "rss 1\ntotal_rss 500\n"}, 8500),
        ({**FREE, V1 + "memory.limit_in_bytes": "9223372036854771712\n"}, 400 * 1024),
    ],
    ids=["host", "v2 unlimited", "v2", "v2 full", "v1", "v1 unlimited"],
)
def test_memory_headroom_is_the_tighter_of_host_and_cgroup(files: dict[str, str], headroom: int) -> None:
    assert memory_headroom(files.get) == headroom
