"""The command ``warm`` in real containers: a sidecar before a server, limits, evictions, pressure, its own image."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from warmimage.bench import page_cache
from warmimage.build import warmer_image
from warmimage.entrypoint.pagecache.syscalls import resident_bytes
from warmimage.errors import EnvironmentLacks
from warmimage.image.read import plan_of

from tests.entrypoint.harness import evict
from tests.entrypoint.warming import MIB, model, wait_for
from tests.support.images import (
    COMMAND,
    completion,
    container,
    port_of,
    request,
    wait_ended,
    wait_for_event,
    wait_ready,
)
from tests.support.page_cache import undisturbed
from tests.support.tiny_model import make_tiny_model

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

WARMER = "warmimage-test/warmer:1"

#: As Pod Security's profile *restricted* has it.
RESTRICTED: dict[str, Any] = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}


@contextmanager
def warming(client: docker.DockerClient, image: str, folder: Path, *words: str, **how: Any) -> Iterator[Container]:
    """Run ``warm`` as the chart does: restricted, without a GPU."""
    how = {"environment": {"NVIDIA_VISIBLE_DEVICES": "void"}, "ports": {"9464/tcp": ("127.0.0.1", None)}, **how}
    with container(client, image, ["warm", *words], folder, **RESTRICTED, **how) as made:
        yield made


def ask(running: Container, path: str) -> tuple[int, str]:
    """Return status and text of an answer of ``warm``, 0 while it does not listen yet."""
    try:
        return request(port_of(running, "9464/tcp"), "GET", path)
    except (OSError, KeyError, IndexError):
        running.reload()
        assert running.status == "running", running.logs().decode()[-3000:]
        return 0, ""


def wait_warm(running: Container, seconds: float = 120) -> dict[str, Any]:
    """Wait until ``warm`` is ready, and return its status."""
    wait_for(lambda: ask(running, "/readyz")[0] == 200, seconds)
    told: dict[str, Any] = json.loads(ask(running, "/status")[1])
    return told


def readable(*folders: Path) -> None:
    for folder in folders:
        for each in (folder, *folder.parents):
            if str(each).startswith("/tmp/"):
                each.chmod(each.stat().st_mode | 0o055)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory of 1 GiB, on the disk and not in the page cache."""
    folder = tmp_path_factory.mktemp("large")
    (path,) = model(folder, 16 * MIB)
    block = path.read_bytes()
    with path.open("wb") as file:
        for _ in range(64):
            file.write(block)
    evict(path)
    readable(folder)
    return folder


def test_a_memory_limit_that_defeats_it_is_named_and_it_is_not_ready(
    client: docker.DockerClient, transformers_image: str, large: Path
) -> None:
    words = ("--targets", "weights")
    with warming(client, transformers_image, large, *words, mem_limit="256m") as made:
        wait_for(lambda: json.loads(ask(made, "/status")[1] or "{}").get("phase") == "waiting", 60)
        status, text = ask(made, "/readyz")
        assert status == 503
        assert text.startswith(
            "1.0 GiB are wanted, more than memory holds: the container's memory limit of 256.0 MiB (/sys/fs/cgroup"
        )
        samples = ask(made, "/metrics")[1]
        assert "warmimage_warm_limited 1.0" in samples
        made.reload()
        assert (made.status, made.attrs["State"]["OOMKilled"]) == ("running", False)
        assert b"1.0 GiB are wanted" in made.logs()
    with warming(client, transformers_image, large, *words) as made:
        told = wait_warm(made)
        assert told["reason"].startswith("warm: 1.0 GiB of 1.0 GiB are resident")
        assert told["targets"]["weights"]["warm_after"] > 0
    assert resident_bytes(str(large / "model-00001-of-00001.safetensors")) == 1 << 30, "it stays when the warmer ends"


@undisturbed
def test_an_eviction_is_noticed_within_the_interval_and_read_again(
    client: docker.DockerClient, transformers_image: str, tmp_path: Path
) -> None:
    (path,) = model(tmp_path / "model", 64 * MIB)
    readable(path.parent)
    evict(path)
    with warming(client, transformers_image, path.parent, "--interval", "2", "--targets", "weights") as made:
        told = wait_warm(made)
        assert told["targets"]["weights"]["sampled"] == 64 * MIB + 2, "the image's user may only read it"
        evict(path)
        dropped = time.monotonic()
        wait_for(lambda: 'evicted_bytes_total{target="weights"} 6.' in ask(made, "/metrics")[1], 30)
        noticed = time.monotonic() - dropped
        wait_for(lambda: resident_bytes(str(path)) == 64 * MIB, 30)
        told = wait_for(lambda: (now := json.loads(ask(made, "/status")[1]))["complete"] and now, 30)
        assert told["targets"]["weights"]["rewarms"] == 1
        assert told["ready"]
        assert noticed < 2 + 5, "the interval, and what a look and the asking take on a busy machine"
        print(f"an eviction of 64 MiB noticed after {noticed:.1f} s at an interval of 2 s")


def test_a_single_run_needs_no_http_and_works_as_any_user(
    client: docker.DockerClient, transformers_image: str, tmp_path: Path
) -> None:
    (path,) = model(tmp_path / "model", 4 * MIB)
    readable(path.parent)
    with container(
        client,
        transformers_image,
        ["warm", "--once", "--targets", "weights,snapshot"],
        path.parent,
        user="123456:0",
        **RESTRICTED,
    ) as made:
        assert wait_ended(made) == 0, made.logs()
        assert b"warm: " in made.logs()
    for words, code, said in (
        (["--budget", "0"], 64, "'0' is not even one byte"),
        (["--rate", "nan"], 64, "'nan' is no amount of bytes"),
        (["--once", "--dir", "/nothing"], 66, "--dir /nothing is not there: mount the model there"),
        (["--once", "--targets", "weights", "--dir", "/home"], 75, "weights: no weights in /home"),
    ):
        with container(client, transformers_image, ["warm", *words], path.parent, **RESTRICTED) as made:
            assert wait_ended(made) == code
            assert said in made.logs().decode()


def test_the_health_check_of_the_image_asks_the_command(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path
) -> None:
    with warming(client, transformers_image, tiny_model, "--port", "9465", "--targets", "weights") as made:
        check = made.client.images.get(transformers_image).attrs["Config"]["Healthcheck"]["Test"][1:]
        wait_for(lambda: made.exec_run(check).exit_code == 0, 60)
        assert made.exec_run(check).output.strip() == b"HTTP 200"


def test_the_warmers_own_image_is_small_and_warms_weights(
    client: docker.DockerClient, python_base: str, tmp_path: Path, tiny_model: Path
) -> None:
    done = subprocess.run(
        [COMMAND, "build-warmer", "--tag", WARMER, "--base-image", python_base],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lock = json.loads((tmp_path / "warmimage-warmer.lock").read_text())
    assert {"fastapi", "uvicorn", "prometheus-client", "pip"} <= {wheel["name"] for wheel in lock["wheels"]}
    image, base = client.images.get(WARMER), client.images.get(python_base)
    added = image.attrs["Size"] - base.attrs["Size"]
    assert added < 60_000_000
    with warming(client, WARMER, tiny_model) as made:
        assert wait_warm(made)["targets"]["weights"]["problems"] == []
        check = image.attrs["Config"]["Healthcheck"]["Test"][1:]
        assert made.exec_run(check).exit_code == 0
    with container(client, WARMER, [], tiny_model, ports={}) as made:  # without a word: the same
        wait_for(lambda: b"are resident" in made.logs(), 60)


def test_a_build_says_what_the_http_face_would_lack(
    client: docker.DockerClient, transformers_image: str, python_base: str
) -> None:
    plan = plan_of(client.images.get(transformers_image), transformers_image)
    assert warmer_image.lacking(client, transformers_image, plan) == []
    bare = replace(plan, python="/usr/bin/python3")
    assert warmer_image.lacking(client, python_base, bare) == ["fastapi", "uvicorn", "prometheus_client"]


@contextmanager
def memory_pressure(client: docker.DockerClient, image: str, folder: Path) -> Iterator[None]:
    """Run processes that wait for memory most of the time: they read far more than their limit holds, in turns."""
    (path,) = model(folder, 256 * MIB)
    readable(folder)
    evict(path)  # what is resident already would be charged to nobody
    loop = f"while true; do cat /model/{path.name} >/dev/null; done"
    words = {"entrypoint": ["/bin/sh", "-c", f"({loop}) & ({loop}) & ({loop}) & {loop}"], "mem_limit": "24m"}
    with container(client, image, [], folder, ports={}, **words):
        yield


def stalled(resource: str = "memory") -> float:
    """Return the seconds in which somebody on this host has waited."""
    row = Path(f"/proc/pressure/{resource}").read_text().splitlines()[0]
    return int(row.rpartition("total=")[2]) / 1e6


def share_of(seconds: float, resource: str = "memory") -> float:
    before, began = stalled(resource), time.monotonic()
    time.sleep(seconds)
    return (stalled(resource) - before) / (time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/pressure/memory"), reason="this kernel keeps no account of pressure")
def test_it_pauses_while_another_process_waits_for_memory(
    client: docker.DockerClient, transformers_image: str, tmp_path: Path
) -> None:
    (path,) = model(tmp_path / "model", 512 * MIB)
    readable(path.parent)
    evict(path)
    words = ("--targets", "weights", "--rate", "8Mi", "--interval", "2")
    before = share_of(2)
    with ExitStack() as others:
        others.enter_context(memory_pressure(client, transformers_image, tmp_path / "other"))
        wait_for(lambda: share_of(1) > 0.2, 120)
        with warming(client, transformers_image, path.parent, *words) as made:
            told = wait_for(lambda: (now := json.loads(ask(made, "/status")[1] or "{}")).get("holding") and now, 90)
            during = share_of(2)
            assert told["holding"] in ("memory", "io"), "what swaps the pages of files waits for both"
            assert told["reason"].startswith("paused, as others wait for ")
            assert told["pressure"][told["holding"]] > 0.1
            assert not told["complete"]
            read = told["targets"]["weights"]["read"]
            others.close()
            after = share_of(2)
            told = wait_for(
                lambda: (now := json.loads(ask(made, "/status")[1]))["targets"]["weights"]["read"] > read and now, 90
            )
            assert sum(told["backoffs"].values()) >= 1
            assert told["backoff_seconds"] > 0
    print(f"others waited for memory {before:.0%} of the time before, {during:.0%} then, {after:.0%} after")
    print(f"pauses {told['backoffs']}, {told['backoff_seconds']:.1f} s in all")


@pytest.mark.slow
@pytest.mark.parametrize("start", ["zygote", "snapshot"])
def test_a_server_after_the_sidecar_reads_nothing_from_the_disk(
    client: docker.DockerClient, transformers_image: str, tmp_path: Path, start: str
) -> None:
    if os.geteuid():
        pytest.skip("needs root, who may drop the page cache of an image")
    tag = transformers_image
    tier_words: dict[str, Any] = {"environment": {"WARMIMAGE_START": start}}
    image = client.images.get(tag)
    if start == "snapshot" and "snapshot" not in image.labels["dev.warmimage.tiers"].split(","):
        pytest.skip("this host captures no snapshot")
    folder = make_tiny_model(tmp_path / "tiny-qwen2", hidden=1024, layers=8)
    readable(folder)
    places = [*page_cache.layers(image), str(folder)]
    files = page_cache.Files.under(places)

    def served(prepare: bool) -> tuple[int, int, int, int]:
        """Return the bytes that the server's processes, the disks, and the sidecar before it have read, and lost."""
        try:
            page_cache.drop(files)
        except EnvironmentLacks as error:
            pytest.skip(f"other containers use these files: {error.problems[0].got}")
        read = lost = 0
        if prepare:
            with warming(client, tag, folder) as sidecar:
                told = wait_warm(sidecar)
                read = sum(each["read"] for each in told["targets"].values())
            lost = taken_back([folder, *(Path(place) / "opt/warmimage/snapshot" for place in places)])
        before = disk_bytes(places)
        with container(client, tag, [], folder, **tier_words) as made:
            port = wait_ready(made)
            assert completion(port, "tiny-qwen2")
            (ready,) = [event for event in wait_for_event(made, "ready") if event["event"] == "ready"]
            # Cold and alone, a restore may be given up, and the next tier takes over.
            assert ready["tier"] == start or not prepare, made.logs().decode()[-2000:]
            own = processes_bytes(made)
        return own, disk_bytes(places) - before, read, lost

    without = served(prepare=False)
    with_it = served(prepare=True)
    print(f"{start}: read by the server's processes and by the disks: {without[:2]}, after the sidecar {with_it[:2]}")
    print(f"{start}: the sidecar read {with_it[2]}, and the kernel had taken {with_it[3]} of it back before the server")
    assert without[0] > 50 * MIB
    assert with_it[3] < with_it[2] // 100
    assert with_it[0] < without[0] // 100 + with_it[3]
    assert with_it[1] < without[0] // 4, "the disks of image and model, which others on this machine read too"


def taken_back(folders: Iterable[Path]) -> int:
    """Return how many bytes of some folders' files are not resident though they were read.

    With memory to spare Linux 6.18 loses single pages of a file that was dropped before, now and then 2 of 311 MB: also
    after ``cat``, which is how it was told from a fault of ours.
    """
    files = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_file()]
    return sum(path.stat().st_size - resident_bytes(str(path)) for path in files)


def disk_bytes(places: Iterable[str]) -> int:
    """Return the bytes that the block devices of some folders have read, for whomever; 0 where they are on none."""
    total = 0
    for device in {os.stat(place).st_dev for place in places}:
        counters = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
        total += int(counters.read_text().split()[2]) * 512 if counters.exists() else 0
    return total


def processes_bytes(running: Container) -> int:
    """Return the bytes that a container's processes have had read from storage."""
    table = running.top()
    pids = [row[table["Titles"].index("PID")] for row in table["Processes"]]
    total = 0
    for pid in pids:
        rows = Path(f"/proc/{pid}/io").read_text().splitlines()
        total += next(int(row.split()[1]) for row in rows if row.startswith("read_bytes:"))
    return total
