"""Prefetch and the page cache: what is read, what is left alone, and what is said about it."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warmimage.entrypoint.kernel.gpus import Accelerator
from warmimage.entrypoint.model import weights
from warmimage.entrypoint.pagecache import syscalls
from warmimage.entrypoint.pagecache.headroom import memory_headroom
from warmimage.entrypoint.pagecache.reader import Reading
from warmimage.entrypoint.pagecache.syscalls import resident_bytes
from warmimage.entrypoint.settings import load
from warmimage.entrypoint.startup import prefetch
from warmimage.entrypoint.timeline import Timeline

from tests.support.page_cache import resident, undisturbed

from .harness import Image, evict, free_port

pytestmark = pytest.mark.timeout(60)

MIB = 1 << 20


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
    sizes = {"image": 3 * MIB, "weights": 2 * (4 * MIB + 1) + 2}  # and config.json
    for event in image.events("prefetch.ended"):
        size = sizes.pop(event["target"])
        assert (event["wanted_bytes"], event["resident_bytes"], event["read_bytes"]) == (size, 0, size)
        assert event["reason"] == "done"
    assert not sizes
    assert [resident(path) for path in (*shards, hot)] == [4 * MIB + 1, 4 * MIB + 1, 3 * MIB]

    image.closure({"files": [str(hot)], "libraries": []})
    image.run("until:prefetch.ended:weights", "end:0")
    assert image.events("prefetch.declined")[0]["reason"] == "1 of 1 files, spread over all, are resident"
    again = image.events("prefetch.ended")[0]
    assert (again["resident_bytes"], again["read_bytes"]) == (2 * (4 * MIB + 1), 2)  # small ones are read unasked


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


@pytest.fixture
def prefetched(image: Image) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that prefetches in this process and returns the events."""

    def run(*arguments: str, hot: Path | None = None, stall: float = 30, **variables: str) -> list[dict[str, Any]]:
        path = image.timeline.with_name("own.jsonl")
        settings = load(arguments, image.environment(**variables), "", str(image.root / "plan.json"))
        timeline = Timeline(str(path), "prefetch", truncate=True)
        prefetch.Prefetch(timeline, stall=stall).run(settings, [str(hot)] if hot else [])
        return [json.loads(row) for row in path.read_text().splitlines()]

    return run


Prefetched = Callable[..., list[dict[str, Any]]]


@pytest.mark.usefixtures("sigterm_kept")
@undisturbed
def test_no_more_is_read_than_memory_can_hold(
    image: Image, prefetched: Prefetched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "memory_headroom", lambda: 10 * MIB)
    weights = [fill(path, 4 * MIB) for path in sorted(image.model.glob("*.safetensors"))]
    evict(*weights)
    (event,) = prefetched()
    assert [resident(path) for path in weights] == [4 * MIB, 0]
    assert (event["wanted_bytes"], event["read_bytes"]) == (8 * MIB + 2, 4 * MIB + 2)
    assert event["reason"] == f"memory window of {7 * MIB} bytes"


@pytest.mark.usefixtures("sigterm_kept")
def test_memory_that_is_taken_meanwhile_ends_it(
    image: Image, prefetched: Prefetched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window is that of now, not that of the beginning: the engine fills memory while its weights are read."""
    room = iter([1 << 40])
    monkeypatch.setattr(prefetch, "memory_headroom", lambda: next(room, 0))
    with (image.model / "model-00001-of-00002.safetensors").open("wb") as file:
        file.truncate(64 << 30)
    (event,) = prefetched()
    assert event["reason"] == "memory window of 0 bytes"
    assert event["read_bytes"] < event["wanted_bytes"]


@pytest.mark.usefixtures("sigterm_kept")
@undisturbed
def test_only_the_parts_that_are_missing_are_read(image: Image, prefetched: Prefetched) -> None:
    path = fill(image.model / "model-00001-of-00002.safetensors", 3 * syscalls.BLOCK)
    evict(path)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), syscalls.BLOCK, syscalls.BLOCK)
    held = resident_bytes(str(path))
    (event,) = prefetched()
    assert syscalls.BLOCK <= held < 2 * syscalls.BLOCK
    assert event["resident_bytes"] == held
    assert event["read_bytes"] == event["wanted_bytes"] - held
    assert resident(path) == 3 * syscalls.BLOCK


@pytest.mark.usefixtures("sigterm_kept")
@undisturbed
def test_a_file_that_cannot_be_read_is_a_failure_in_the_event(
    image: Image, prefetched: Prefetched, tmp_path: Path
) -> None:
    """A link in a loop, one out of the volume, a folder where a file should be, a pipe that nobody writes to."""
    good = image.model / "model-00001-of-00002.safetensors"
    fill(good, 3 * MIB)
    evict(good)
    (image.model / "a.safetensors").symlink_to("b.safetensors")
    (image.model / "b.safetensors").symlink_to("a.safetensors")
    outside = fill(tmp_path / "outside", 10)
    (image.model / "out.safetensors").symlink_to(outside)
    (image.model / "folder.safetensors").mkdir()
    os.mkfifo(image.model / "pipe.safetensors")
    (event,) = prefetched()
    assert event["failures"] == [
        f"{image.model}/a.safetensors: Too many levels of symbolic links",
        f"{image.model}/b.safetensors: Too many levels of symbolic links",
        f"{image.model}/out.safetensors: {outside} is outside the volume",
    ]
    assert event["reason"] == "done"
    assert resident(good) == 3 * MIB


@pytest.mark.usefixtures("sigterm_kept")
def test_a_file_that_is_gone_or_forbidden_by_then_is_a_failure(tmp_path: Path) -> None:
    """What was there when the files were looked for need not be when they are opened."""
    good, folder = fill(tmp_path / "good", 3 * MIB), tmp_path / "folder"
    folder.mkdir()
    paths = [str(tmp_path / "gone"), str(folder), str(good)]
    outcome = Reading(paths, prefetch.volume_range, lambda: 1 << 40).run()
    assert sorted(outcome.failures) == [
        f"{folder}: Is a directory",
        f"{tmp_path / 'gone'}: No such file or directory",
    ]
    assert (outcome.reason, outcome.files) == ("done", 2)
    assert resident(good) == 3 * MIB


def test_a_file_that_is_truncated_while_it_is_read_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    with path.open("wb") as file:
        file.truncate(3 * syscalls.BLOCK)

    def truncate(_path: str, _descriptor: int, offset: int, _length: int) -> int:
        if offset == 0:
            os.truncate(path, syscalls.BLOCK // 2)
        return 0

    outcome = Reading([str(path)], truncate, lambda: 1 << 40, readers=1).run()
    assert outcome.reason == "done"
    assert outcome.failures[0] == f"{path}: ends {syscalls.BLOCK // 2} bytes before byte {syscalls.BLOCK}"
    assert outcome.read == syscalls.BLOCK // 2
    assert len(outcome.failures) == 3


def test_reading_that_hangs_ends_by_the_clock(tmp_path: Path) -> None:
    path, never = fill(tmp_path / "shard", 5 * MIB), threading.Event()

    def hang(_path: str, _descriptor: int, _offset: int, _length: int) -> int:
        never.wait()
        return 0

    outcome = Reading([str(path)], hang, lambda: 1 << 40, stall=0.2).run()
    assert outcome.reason == "no byte came for 0.2 s"
    capped = Reading([str(path)], hang, lambda: 1 << 40, cap=0.2).run()
    never.set()
    assert capped.reason == "0.2 s are over"


def test_files_are_closed_however_reading_ends(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    with path.open("wb") as file:
        file.truncate(40 * syscalls.BLOCK)

    def open_files() -> int:
        return sum(os.path.realpath(entry.path) == str(path) for entry in os.scandir("/proc/self/fd"))

    reading = Reading([str(path)], lambda *_part: reading.stop("enough") or 0, lambda: 1 << 40)
    assert reading.run().reason == "enough"
    deadline = time.monotonic() + 10
    while open_files() and time.monotonic() < deadline:
        time.sleep(0.01)  # readers that are at it still
    room = 5 * syscalls.BLOCK
    window = Reading([str(path)], prefetch.volume_range, lambda: room).run()
    assert (window.resident + window.read, window.reason) == (room, f"memory window of {room} bytes")
    assert not open_files()


@pytest.mark.usefixtures("sigterm_kept")
def test_a_volume_that_does_not_answer_is_declined(prefetched: Prefetched, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(weights, "find", lambda _settings: never.wait())
    (event,) = prefetched(stall=0.2)
    never.set()
    assert (event["event"], event["target"]) == ("prefetch.declined", "weights")
    assert event["reason"] == "the volume has not answered for 0.2 s"


@pytest.mark.usefixtures("sigterm_kept")
@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"files": 1}'])
def test_damaged_closure_does_not_cost_the_weights(image: Image, prefetched: Prefetched, text: str) -> None:
    closure = image.root / "closure.json"
    closure.write_text(text)
    declined, ended = prefetched(hot=closure)
    assert (declined["event"], declined["target"]) == ("prefetch.declined", "image")
    assert (ended["target"], ended["wanted_bytes"]) == ("weights", 16)


@pytest.mark.usefixtures("sigterm_kept")
@undisturbed
def test_a_snapshots_files_are_read_before_the_model_the_largest_first(
    image: Image, prefetched: Prefetched, tmp_path: Path
) -> None:
    dump = tmp_path / "dump"
    dump.mkdir()
    sizes = {"core.img": 100, "pages-1.img": 5 * MIB}
    files = [fill(dump / name, size) for name, size in sizes.items()]
    assert prefetch.dump_files(str(dump)) == [str(dump / "pages-1.img"), str(dump / "core.img")]
    evict(*files)
    snapshot, model = prefetched(hot=dump)
    assert (snapshot["target"], model["target"]) == ("snapshot", "weights")
    assert snapshot["wanted_bytes"] == snapshot["read_bytes"] == 5 * MIB + 100
    assert [resident(path) for path in files] == list(sizes.values())


@pytest.mark.usefixtures("sigterm_kept")
def test_gpus_that_share_the_page_caches_memory_are_left_alone(
    prefetched: Prefetched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch.Accelerator, "here", lambda: Accelerator("580.1", ("NVIDIA GB10",)))
    (event,) = prefetched()
    assert event["event"] == "prefetch.declined"
    assert event["reason"].startswith("NVIDIA GB10 shares its memory with the page cache; ")
    assert prefetched(WARMIMAGE_PREFETCH="on")[-1]["event"] == "prefetch.ended"
    monkeypatch.setattr(prefetch.Accelerator, "here", lambda: Accelerator("580.1", ("NVIDIA H200", "NVIDIA B200")))
    assert prefetched()[-1]["event"] == "prefetch.ended"


@pytest.mark.parametrize(
    "name", ["NVIDIA GH200 480GB", "NVIDIA GB200", "NVIDIA GB300", "NVIDIA GB10", "NVIDIA Thor", "Orin"]
)
def test_unified_memory_is_known_by_the_gpus_name(name: str) -> None:
    assert prefetch._UNIFIED.search(name)


def test_prefetch_is_a_command_of_the_image(image: Image) -> None:
    ended = image.run("prefetch", "--help")
    events = [json.loads(row) for row in ended.out.splitlines()]
    assert ended.code == 0
    assert [(event["event"], event["target"]) for event in events][-1] == ("prefetch.ended", "weights")
    assert image.run("prefetch", "--load-format", "none").code == 0
    for path in image.model.iterdir():
        path.unlink()
    image.model.rmdir()
    ended = image.run("prefetch")
    assert ended.code == 1
    assert "is no directory" in ended.out.decode()


@undisturbed
def test_both_ways_to_ask_for_residency_agree(tmp_path: Path) -> None:
    path = fill(tmp_path / "file", 8 * MIB + 100)
    evict(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = 8 * MIB + 100
        assert syscalls.mincore(descriptor, size) == 0
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        assert len(os.pread(descriptor, 3 * MIB, 2 * MIB)) == 3 * MIB
        pages = syscalls.mincore(descriptor, size)
        assert pages == 3 * MIB // mmap.PAGESIZE
        assert resident_bytes(str(path)) == pages * mmap.PAGESIZE
        os.pread(descriptor, size, 0)
        assert syscalls.mincore(descriptor, size) == -(-size // mmap.PAGESIZE)
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
    ask = "from warmimage.entrypoint.pagecache.residency import Residency; "
    ask += f"print(Residency().of_file({str(path)!r}, {8 * MIB})[0])"
    asked = subprocess.run([*unprivileged, sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert int(asked.stdout) < MIB
    path.read_bytes()
    asked = subprocess.run([*unprivileged, sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert int(asked.stdout) == 8 * MIB


@pytest.mark.parametrize(("size", "most"), [(0, MIB), (5000, MIB), (syscalls.BLOCK, MIB)])
def test_reading_takes_little_memory(tmp_path: Path, size: int, most: int) -> None:
    """An image has thousands of small files: a whole block for each cost more than all the reading."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(size)
    with path.open("rb") as file:
        tracemalloc.start()
        try:
            assert syscalls.fetch_range(file.fileno(), 0, size) == size
            assert tracemalloc.get_traced_memory()[1] < most
        finally:
            tracemalloc.stop()


@undisturbed
def test_a_kernel_that_cannot_populate_reads_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(syscalls, "populate", refuse)
    path = fill(tmp_path / "file", syscalls.BLOCK + 5)
    evict(path)
    with path.open("rb") as file:
        assert syscalls.fetch_range(file.fileno(), 0, syscalls.BLOCK) == syscalls.BLOCK
        assert syscalls.fetch_range(file.fileno(), syscalls.BLOCK, syscalls.BLOCK) == 5
    assert resident_bytes(str(path)) == syscalls.BLOCK + 5
