"""Prefetch in real containers on a network volume: what it brings, what reaches the volume, and what if it hangs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import median

import docker
import pytest
from docker.models.containers import Container
from warmimage import timeline
from warmimage.bench.result import Result, load

from tests.support.images import COMMAND, completion, container, wait_ended, wait_for_event, wait_ready, warmimage
from tests.support.slow_volume import MB, TAKEN_BACK, Volume, mounted
from tests.support.tiny_model import make_tiny_model

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="file systems are mounted by root alone"),
]

RATE = 200 * MB
DELAY = 0.001

OPTIONS = {"shm_size": "1g"}

#: The model's own type, which is what the engine takes unless it is told another: the image's setting for the tiny
#: model, float32, has the engine convert while it loads, and that takes longer than the reading.
OWN_TYPE = ("--dtype", "bfloat16")


@pytest.fixture
def volume(tiny_model: Path, tmp_path: Path) -> Iterator[Volume]:
    """The tiny model on a slow volume that any user may read."""
    with mounted(tiny_model, open_to_all(tmp_path) / "volume", rate=RATE, delay=DELAY) as made:
        yield made


def open_to_all(folder: Path) -> Path:
    """Let any user pass through a folder of pytest's, which only its owner may enter, and return it."""
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    return folder


def prefetched(events: list[timeline.Event]) -> timeline.Event:
    """Return what came of prefetching the model."""
    (found,) = [event for event in timeline.find(events, "prefetch.ended") if event["target"] == "weights"]
    return found


def test_weights_come_from_the_volume_once_and_the_engine_waits_for_none(
    client: docker.DockerClient, transformers_image: str, volume: Volume
) -> None:
    with container(client, transformers_image, model=volume.path) as made:
        port = wait_ready(made)
        assert completion(port, "tiny-qwen2")
        events = wait_for_event(made, "prefetch.ended")
    found = prefetched(events)
    assert (found["reason"], found["failures"]) == ("done", [])
    assert found["resident_bytes"] + found["read_bytes"] == found["wanted_bytes"]
    assert volume.again() <= TAKEN_BACK
    shards = {path.name: path.stat().st_size for path in volume.folder.glob("*.safetensors")}
    assert {name: size for name, size in volume.files_read().items() if name in shards} == shards


def test_two_containers_that_start_together_share_what_either_reads(
    client: docker.DockerClient, transformers_image: str, volume: Volume
) -> None:
    with (
        container(client, transformers_image, model=volume.path) as one,
        container(client, transformers_image, model=volume.path) as other,
    ):
        texts = {completion(wait_ready(made), "tiny-qwen2") for made in (one, other)}
    assert len(texts) == 1
    assert volume.again() <= TAKEN_BACK


def test_the_engine_is_started_though_the_volume_hangs(
    client: docker.DockerClient, transformers_image: str, volume: Volume
) -> None:
    """Neither the check of the volume nor prefetch holds it up for long; when the volume answers, all is well."""
    volume.hang()
    with container(client, transformers_image, model=volume.path) as made:
        events = wait_for_event(made, "tier.started", seconds=60)
        (unchecked,) = timeline.find(events, "volume.unchecked")
        assert unchecked["reason"] == "the volume has not answered for 10 s"
        volume.hang(False)
        assert completion(wait_ready(made), "tiny-qwen2")
        made.stop(timeout=30)
        assert wait_ended(made) == 143


def test_sigterm_while_prefetch_hangs_ends_the_container(
    client: docker.DockerClient, transformers_image: str, volume: Volume
) -> None:
    volume.hang()
    with container(client, transformers_image, model=volume.path) as made:
        deadline = time.monotonic() + 60
        while not volume.requests():
            assert time.monotonic() < deadline, made.logs().decode()
            time.sleep(0.01)
        made.stop(timeout=30)
        assert wait_ended(made) == 143


def test_the_containers_memory_limit_bounds_prefetch(
    client: docker.DockerClient, transformers_image: str, tmp_path: Path
) -> None:
    """A model twice as large as the limit: prefetch stops at its window, and nothing is killed for want of memory."""
    folder = open_to_all(tmp_path) / "model"
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(1 << 30)
    drop(folder / "model.safetensors")
    with container(client, transformers_image, ["prefetch"], folder, mem_limit="512m", memswap_limit="512m") as made:
        assert wait_ended(made) == 1
        made.reload()
        assert not made.attrs["State"]["OOMKilled"]
        events = [json.loads(row) for row in made.logs(stderr=False).decode().splitlines()]
    assert prefetched(events)["reason"].startswith("memory window of ")
    held = sum(event["resident_bytes"] + event["read_bytes"] for event in timeline.find(events, "prefetch.ended"))
    assert 0 < held <= 0.7 * (512 << 20)


def drop(path: Path) -> None:
    """Drop a file from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


@pytest.fixture(scope="module")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 2 GB in eight shards, readable by any user."""
    folder = open_to_all(tmp_path_factory.mktemp("large"))
    return make_tiny_model(folder / "tiny-qwen2", hidden=1536, layers=40, shards=8)


@pytest.fixture
def slow_volume(large_model: Path, tmp_path: Path) -> Iterator[Volume]:
    """The large model on a slow volume."""
    with mounted(large_model, open_to_all(tmp_path) / "volume", rate=RATE, delay=DELAY) as made:
        yield made


def bench(image: str, model: Path, folder: Path, *words: str) -> Result:
    """Run the command on a cold page cache, and return its result."""
    file = folder / "result.json"
    warmimage("bench", image, "--model", str(model), "--state", "cold", "--output", str(file), *words)
    return load(file)


def loading_seconds(running: Container) -> float:
    """Return how long vLLM says that loading the weights took."""
    rows = [row for row in running.logs().decode().splitlines() if "Loading weights took" in row]
    return float(rows[-1].split("took")[1].split()[0])


@pytest.mark.slow
def test_a_slow_volume_is_hidden_behind_vllms_imports(
    client: docker.DockerClient, vllm_image: str, slow_volume: Volume, tmp_path: Path
) -> None:
    """Nothing but prefetch is on: the first token comes at least 1.25 times as soon."""
    arms = "plain+WARMIMAGE_PREFETCH=off,plain"
    found = bench(vllm_image, slow_volume.path, tmp_path, "--arms", arms, "--", *OWN_TYPE)
    print(json.dumps([comparison.model_dump() for comparison in found.comparisons], indent=1))
    assert found.faults == ()
    (first_token,) = [comparison for comparison in found.comparisons if comparison.figure == "first_token"]
    assert first_token.ratio >= 1.25
    for run in found.runs:
        if run.arm == "plain":
            ended = prefetched(list(run.events))
            assert ended["reason"] == "done", "the weights were there before the server was ready"
    for path in slow_volume.folder.iterdir():
        drop(slow_volume.path / path.name)
    slow_volume.forget()
    options = {**OPTIONS, "environment": {"WARMIMAGE_START": "plain"}}
    with container(client, vllm_image, OWN_TYPE, slow_volume.path, **options) as made:
        wait_ready(made, 600)
        hidden = loading_seconds(made)
        assert slow_volume.again() <= TAKEN_BACK
    with container(client, vllm_image, OWN_TYPE, slow_volume.path, **options) as made:
        wait_ready(made, 600)
        warm = loading_seconds(made)
    assert hidden < warm + 1, "the engine found the weights in memory"


@pytest.mark.slow
def test_restored_from_a_snapshot_the_start_takes_the_longer_of_reading_and_loading_and_what_follows(
    client: docker.DockerClient, vllm_image: str, slow_volume: Volume
) -> None:
    """What the engine does with the weights once it has them cannot begin before they have been read."""
    if "snapshot" not in client.images.get(vllm_image).labels["dev.warmimage.tiers"].split(","):
        pytest.skip("this host captures no snapshot")
    rounds: dict[str, list[tuple[float, float, float]]] = {"cold": [], "warm": []}
    for _ in range(3):
        for path in slow_volume.folder.iterdir():
            drop(slow_volume.path / path.name)
        for measured in rounds.values():
            measured.append(restored(client, vllm_image, slow_volume))
    print(json.dumps(rounds))
    reading, _, ready = (median(column) for column in zip(*rounds["cold"], strict=True))
    _, loaded, warm = (median(column) for column in zip(*rounds["warm"], strict=True))
    assert ready <= 1.1 * (max(reading, loaded) + warm - loaded)


def restored(client: docker.DockerClient, image: str, volume: Volume) -> tuple[float, float, float]:
    """Start from the snapshot; return how long prefetch read, and after how many seconds all was loaded and ready."""
    granted = {**OPTIONS, "environment": {"WARMIMAGE_START": "snapshot"}}
    with container(client, image, OWN_TYPE, volume.path, **granted) as made:
        wait_ready(made, 600)
        (ready,) = timeline.find(events := wait_for_event(made, "ready"), "ready")
        assert ready["tier"] == "snapshot", made.logs().decode()[-2000:]
        found = prefetched(events)
        rows = made.logs(timestamps=True).decode().splitlines()
        (told,) = [row for row in rows if "Loading weights took" in row]
    began = events[0]
    loaded = datetime.fromisoformat(f"{told[:26]}+00:00").timestamp() - began["wall"]
    return found["seconds"], loaded, ready["t"] - began["t"]


@pytest.mark.slow
def test_two_api_servers_and_two_workers_read_each_byte_once(
    client: docker.DockerClient, vllm_image: str, volume: Volume
) -> None:
    words = ["--api-server-count", "2", "--data-parallel-size", "2"]
    with container(client, vllm_image, words, volume.path, **OPTIONS) as made:
        wait_ready(made, 900)
        names = processes(made)
        shards = {path.name: path.stat().st_size for path in volume.folder.glob("*.safetensors")}
        assert volume.again() <= TAKEN_BACK
        assert {name: size for name, size in volume.files_read().items() if name in shards} == shards
    assert sum("APIServer" in name for name in names) == 2
    assert sum("EngineCore" in name for name in names) == 2


def processes(running: Container) -> list[str]:
    """Return the titles of a container's processes."""
    table = running.top(ps_args="-eo pid,args")
    return [" ".join(row[1:]) for row in table["Processes"]]


@pytest.mark.slow
def test_prefetch_alone_reads_a_cold_disk_as_fast_as_cat_and_vmtouch(large_model: Path) -> None:
    """The whole command, its interpreter's start included; the rounds take turns, and the medians are compared."""
    done = subprocess.run(
        [
            str(Path(COMMAND).parent / "python"),
            "-m",
            "benchmarks.stress.read_methods",
            str(large_model),
            "--rounds",
            "15",
            "--bars",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    print(done.stdout)
    rates = {row.split(" | ")[0].strip("| "): float(row.split(" | ")[1]) for row in done.stdout.splitlines()[2:]}
    assert rates["warmimage prefetch"] >= max(rates["cat"], rates["vmtouch -t"])
