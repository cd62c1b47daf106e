"""``warmimage bench`` on a real Docker daemon: what it finds, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from warmimage.bench import page_cache
from warmimage.bench.result import Result, load
from warmimage.errors import EnvironmentLacks

from tests.images import stub
from tests.support.images import COMMAND, warmimage

pytestmark = pytest.mark.docker

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a page cache is dropped by root alone")


@pytest.fixture(scope="module")
def images(client: docker.DockerClient) -> tuple[str, str]:
    """The stub as warmimage would build it, and the stub alone."""
    return stub.build(client)


@pytest.fixture(autouse=True)
def nothing_left(client: docker.DockerClient) -> Iterator[None]:
    yield
    assert left(client) == set()


def left(client: docker.DockerClient) -> set[str]:
    """Return the containers of benches of the stub that do not go away: another bench may run on the same daemon."""
    found: set[str] | None = None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and found != set():
        filters = {"label": "dev.warmimage.bench", "ancestor": [stub.IMAGE, stub.FOREIGN]}
        now = {str(container.name) for container in client.containers.list(all=True, filters=filters)}
        found = now if found is None else found & now
        time.sleep(0.2)
    return found or set()


def bench(folder: Path, image: str, model: Path, *words: str, code: int = 0) -> Result:
    """Run the command and return its result."""
    file = folder / "result.json"
    warmimage("bench", image, "--model", str(model), "--output", str(file), *words, code=code)
    return load(file)


def test_every_figure_of_every_run_is_there(images: tuple[str, str], tiny_model: Path, tmp_path: Path) -> None:
    ours, foreign = images
    found = bench(
        tmp_path,
        ours,
        tiny_model,
        "--arms",
        "plain,plain+STUB_SECONDS=0.6",
        "--against",
        foreign,
        "-n",
        "2",
        "--state",
        "warm",
        "--report",
        str(tmp_path / "report.html"),
    )
    assert [arm.name for arm in found.arms] == ["plain", "plain+STUB_SECONDS=0.6", foreign]
    assert [(run.round, run.arm) for run in found.runs] == [
        (1, "plain"),
        (1, "plain+STUB_SECONDS=0.6"),
        (1, foreign),
        (2, "plain+STUB_SECONDS=0.6"),
        (2, foreign),
        (2, "plain"),
    ]
    assert found.faults == ()
    for run in found.runs:
        assert run.completion == "hello from the stub "
        assert sum(span.seconds for span in run.phases) == pytest.approx(run.figure("first_token"))
        assert abs(run.phases[-1].seconds) <= 0.03 * run.figure("first_token")
        assert 0 < run.figure("ready") <= run.figure("first_token")
        assert run.created is not None
        assert 0 < run.created < run.figure("ready")
        for name in ("cpu", "rss", "pss", "memory"):
            value = run.figures[name]
            assert value is None if name in found.missing else value and value > 0.01
        if run.arm == foreign:
            assert (run.tier, run.first_byte, run.events) == (None, None, ())
        else:
            assert run.tier == "plain"
            assert run.first_byte is not None
            assert run.created < run.first_byte < run.figure("ready")
            assert {"started", "tier.started", "ready"} <= {event["event"] for event in run.events}
    slow = found.cell("warm", "plain+STUB_SECONDS=0.6").phases
    fast = found.cell("warm", "plain").phases
    loading = [next(span.seconds for span in spans if span.name == "loading") for spans in (slow, fast)]
    assert loading[0] - loading[1] == pytest.approx(0.3, abs=0.15)
    assert (tmp_path / "report.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")


def test_an_image_is_compared_with_itself_and_no_difference_is_claimed(
    images: tuple[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """Each repeat may be wrong once in twenty to thirty: two of three is what a right bench misses once in hundreds."""
    held = 0
    for _ in range(3):
        found = bench(tmp_path, images[0], tiny_model, "--arms", "plain,plain", "--state", "warm")
        held += holds_one(found)
    assert held >= 2


def holds_one(found: Result) -> bool:
    (entry,) = (entry for entry in found.comparisons if entry.figure == "first_token")
    assert entry.low is not None
    assert entry.high is not None
    return entry.low <= 1 <= entry.high


def test_a_planted_slowdown_is_found_and_ends_with_the_gates_code(
    images: tuple[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    found = bench(
        tmp_path,
        images[0],
        tiny_model,
        "--arms",
        "plain,plain+STUB_SECONDS=1.5",
        "--state",
        "warm",
        "--gate",
        "0.9",
        code=5,
    )
    (entry,) = (entry for entry in found.comparisons if entry.figure == "first_token")
    assert entry.high is not None
    assert entry.high < 0.9
    assert entry.verdict == "slower" or entry.noise


@pytest.mark.slow
def test_twenty_comparisons_with_itself_and_a_slowdown_of_a_tenth(
    images: tuple[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """Wants a quiet machine, and says how quiet it was."""
    found = [bench(tmp_path, images[0], tiny_model, "--arms", "plain,plain", "--state", "warm") for _ in range(20)]
    told = [(entry.low, entry.high, entry.noise) for result in found for entry in result.comparisons[1::2]]
    assert sum(holds_one(result) for result in found) >= 19, told
    median = statistics.median(run.figure("first_token") for result in found for run in result.runs)
    slower = f"plain,plain+STUB_SECONDS={0.3 + 0.1 * median:.3f}"
    (entry,) = bench(tmp_path, images[0], tiny_model, "--arms", slower, "--state", "warm", "-n", "9").comparisons[1::2]
    assert entry.high is not None
    assert entry.high < 1, entry


@pytest.mark.slow
def test_figures_are_those_of_a_loop_of_curl(images: tuple[str, str], tiny_model: Path, tmp_path: Path) -> None:
    """Medians of nine, alternating with the bench so that both see the same machine.

    The server takes 2 s: the loop's own programs cost it some 20 ms that the bench, which speaks to the daemon itself,
    does not have.
    """
    script = f"""
        set -eu
        begun=$(date +%s.%N)
        id=$(docker create -p 127.0.0.1:0:8000 --cap-drop ALL -e WARMIMAGE_START=plain -e STUB_SECONDS=2 \
            -v {tiny_model}:/model:ro {images[0]})
        docker start $id >/dev/null
        port=$(docker port $id 8000/tcp | head -n 1 | sed 's/.*://')
        until curl -sf -o /dev/null http://127.0.0.1:$port/health; do sleep 0.005; done
        healthy=$(date +%s.%N)
        docker rm -f $id >/dev/null
        echo "$healthy $begun"
    """
    by_bench, by_curl = [], []
    for _ in range(9):
        words = ("--arms", "plain,plain", "--state", "warm", "-n", "1", "-e", "STUB_SECONDS=2")
        found = bench(tmp_path, images[0], tiny_model, *words)
        by_bench += [run.figure("ready") for run in found.runs]
        for _ in range(2):
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
            healthy, begun = map(float, done.stdout.split())
            by_curl.append(healthy - begun)
    assert statistics.median(by_bench) == pytest.approx(statistics.median(by_curl), rel=0.03)


@as_root
def test_cold_is_cold(images: tuple[str, str], tiny_model: Path, tmp_path: Path) -> None:
    found = bench(tmp_path, images[0], tiny_model, "--arms", "plain,plain", "-n", "1")
    assert found.states == ("warm", "cold")
    assert all(run.cold is None for run in found.runs if run.state == "warm")
    for run in found.runs:
        if run.state == "cold":
            assert run.cold is not None
            assert run.cold.files > 100
            assert run.cold.share <= page_cache.LIMIT
    reads = {state: found.cell(state, "plain").figures["machine_read"].median for state in found.states}
    assert reads["cold"] > reads["warm"] + 1_000_000


@as_root
def test_a_start_is_not_called_cold_while_another_container_holds_the_image(
    client: docker.DockerClient, images: tuple[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """What another process has mapped stays resident; where that is too much, the bench ends and names it."""
    held = "import mmap,time;f=open('/big','rb');m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ);m[::4096];time.sleep(60)"
    (tmp_path / "Dockerfile").write_text(
        f"FROM {images[0]}\nUSER 0\nRUN head -c 60000000 /dev/urandom > /big\nUSER 1000:0\n", encoding="utf-8"
    )
    image, _ = client.images.build(path=str(tmp_path), tag="warmimage-test/stub-held:1", rm=True)
    holder = client.containers.run("warmimage-test/stub-held:1", ["-c", held], entrypoint="python3", detach=True)
    try:
        time.sleep(1)
        done = warmimage(
            "bench",
            "warmimage-test/stub-held:1",
            "--model",
            str(tiny_model),
            "--arms",
            "plain,plain",
            "--state",
            "cold",
            "-n",
            "1",
            code=4,
        )
    finally:
        holder.remove(force=True)
        client.images.remove(str(image.id), force=True)
    assert "of the files stay in the page cache" in done.stderr
    assert "/big (6" in done.stderr


def test_where_no_start_can_be_cold_it_is_said_before_anything_runs(
    client: docker.DockerClient, images: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = client.images.get(images[0])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EnvironmentLacks) as caught:
        page_cache.check(client, [image])
    assert caught.value.problems[0].got == "user id 1000"
    monkeypatch.undo()
    if os.geteuid() == 0:
        page_cache.check(client, [image])
        image.attrs["GraphDriver"] = {"Name": "overlayfs", "Data": None}
        with pytest.raises(EnvironmentLacks, match="layers"):
            page_cache.check(client, [image])


def test_a_tier_that_does_not_come_up_is_said_loudly_and_misses_the_gate(
    images: tuple[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """The stub's image has no closure, so that its tier ``preload`` declines."""
    words = ("bench", images[0], "--model", str(tiny_model), "-n", "1", "--state", "warm")
    file = tmp_path / "result.json"
    done = warmimage(*words, "--output", str(file), "--gate", "0.01", code=5)
    fault = "preload, warm: tier plain came up, not preload"
    assert load(file).faults == (fault,)
    assert f"INVALID: {fault}" in done.stdout
    assert f"error: the comparison is invalid\n  at --gate\n  got {fault}" in done.stderr
    assert warmimage(*words).returncode == 0


def test_completions_that_differ_miss_the_gate(images: tuple[str, str], tiny_model: Path, tmp_path: Path) -> None:
    found = bench(
        tmp_path,
        images[0],
        tiny_model,
        "--arms",
        "plain,plain+STUB_TEXT=goodbye",
        "-n",
        "1",
        "--state",
        "warm",
        "--gate",
        "0.01",
        code=5,
    )
    assert found.faults == (
        "the completion of plain+STUB_TEXT=goodbye differs from that of plain: 'goodbye ', not 'hello from the stub '",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("after", [0.0, 0.6, 1.2])
def test_an_interrupted_bench_leaves_no_container(
    client: docker.DockerClient, images: tuple[str, str], tiny_model: Path, tmp_path: Path, number: int, after: float
) -> None:
    words = [COMMAND, "bench", images[0], "--model", str(tiny_model), "--arms", "plain,plain", "--state", "warm"]
    file = tmp_path / "result.json"
    # A CI that was started with nohup, or in a script's background, ignores signals, and so would the command.
    command = ["env", "--default-signal", *words, "-n", "50", "-e", "STUB_SECONDS=1", "--output", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stderr
        assert b"warm-up" in running.stderr.readline()
        time.sleep(after)  # the second start is watched for, asked for, or on its way
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 128 + number, err
    assert not file.exists()
    time.sleep(0.5)  # a daemon that was asked for a container would create it now
    assert left(client) == set()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--arms", "plain"], 2, "error: a comparison needs two arms\n  at --arms\n"),
        (["--arms", "plain,quick"], 2, "error: the image has no such tier\n  at --arms\n  got quick"),
        (["--state", "hot"], 2, "error: unknown state of the page cache\n  at --state\n  got hot"),
        (["--against", "warmimage-test/nowhere:1"], 1, "error: cannot bench warmimage-test/nowhere:1: no such image"),
        (["--against", "x", "--against-args", "'"], 2, "error: the arguments cannot be split"),
        (["--output", "/nowhere/r.json"], 3, "error: the file cannot be written\n  at /nowhere/r.json\n"),
        (["--gate", "x"], 2, "--gate"),
        (["--", "--help"], 2, "error: --help makes readiness undetectable\n  at engine arguments\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_before_anything_runs(
    images: tuple[str, str], tiny_model: Path, words: list[str], code: int, message: str
) -> None:
    done = warmimage("bench", images[0], "--model", str(tiny_model), *words, code=code)
    assert message in done.stderr
    assert "run 1" not in done.stderr


def test_an_image_of_others_is_no_subject(images: tuple[str, str], tiny_model: Path) -> None:
    done = warmimage("bench", images[1], "--model", str(tiny_model), code=3)
    assert "not an image built by warmimage" in done.stderr


def test_a_server_that_ends_is_reported_with_its_log(images: tuple[str, str], tiny_model: Path) -> None:
    done = warmimage(
        "bench",
        images[0],
        "--model",
        str(tiny_model),
        "--arms",
        "plain,plain",
        "--state",
        "warm",
        "-e",
        "STUB_SECONDS=x",
        code=1,
    )
    assert "error: the server ended before it was ready: plain" in done.stderr
    assert "could not convert string to float" in done.stderr


def test_secrets_are_not_in_the_result(images: tuple[str, str], tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = warmimage(
        "bench",
        images[0],
        "--model",
        str(tiny_model),
        "--arms",
        "plain,plain",
        "--state",
        "warm",
        "-n",
        "1",
        "-e",
        "HF_TOKEN=hush-1",
        "--output",
        str(file),
        "--",
        "--api-key",
        "hush-2",
    )
    assert "hush" not in file.read_text(encoding="utf-8") + done.stdout + done.stderr
    assert str(tiny_model) not in file.read_text(encoding="utf-8")
    assert json.loads(file.read_text(encoding="utf-8"))["arms"][0]["arguments"] == ["--api-key", "***"]
