"""A restored server is to its users what a started one is; what it shares with the next one, and what it must not."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from warmimage import timeline
from warmimage.image.read import plan_of

from tests.support.images import (
    MESSAGES,
    completion,
    container,
    request,
    wait_ended,
    wait_for_event,
    wait_ready,
    warmimage,
)
from tests.support.processes import Process, called, look, send
from tests.support.snapshots import DIRECTORY, MODEL, NOTHING_GRANTED, derived, member, serve, wait_for_line

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

TIERS = ("plain", "snapshot")

#: What a container is started with in each tier: what the engine must take over, of any kind.
WORDS: dict[str, Any] = {
    "environment": {"PROBE": "ä=b", "EMPTY": ""},
    "working_dir": "/tmp",
    "hostname": "here",
    "shm_size": "1g",
    "ulimits": [docker.types.Ulimit(name="nofile", soft=777, hard=888), docker.types.Ulimit(name="core", soft=0)],
    "user": "54321:0",
    "group_add": ["1234"],
    "cpuset_cpus": "0",
    "oom_score_adj": 77,
    "ipc_mode": "private",
}

#: Shows what the kernel says of a process of the container, as its own user may read it.
KERNEL = """
import json, os, sys
pid = sys.argv[1]
def text(name):
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
of_its_time = {"Pid", "Tgid", "NSpid", "NStgid", "NSpgid", "NSsid", "Ngid", "voluntary_ctxt_switches",
               "nonvoluntary_ctxt_switches", "SigQ", "FDSize", "State"}
status = dict(row.split(":", 1) for row in text("status").splitlines())
found = {name: value.split() for name, value in status.items()
         if name not in of_its_time and name[:2] not in ("Vm", "Rs")}
found |= {f"fd {number}": os.readlink(f"/proc/{pid}/fd/{number}").partition(":")[0] for number in range(3)}
found |= {name: os.readlink(f"/proc/{pid}/{name}") for name in ("cwd", "root", "exe")}
found |= {name: text(name) for name in ("limits", "cmdline", "oom_score_adj", "cgroup", "personality")}
found["environ"] = sorted(text("environ").rstrip("\\0").split("\\0"))
found["shared stdio"] = [os.readlink(f"/proc/{pid}/fd/{n}") == os.readlink(f"/proc/1/fd/{n}") for n in range(3)]
found["leads"] = os.getpgid(int(pid)) == int(pid)
print(json.dumps(found))
"""

#: Draws from each source of randomness that a process has, then goes on as the engine's own script.
DRAWS = """#!{python}
import json, random, secrets, sys, tempfile, uuid
import numpy, torch
draws = {{
    "random": random.random(), "numpy": numpy.random.rand(), "numpy generator": numpy.random.default_rng().random(),
    "uuid4": uuid.uuid4().hex, "uuid1": uuid.uuid1().hex, "secrets": secrets.token_hex(), "name": tempfile.mktemp(),
}}
print("draws:", json.dumps(draws), flush=True)
print("torch:", torch.initial_seed(), flush=True)
"""


#: Lines that no two starts share: durations, and who has asked.
DIFFERS = re.compile(r"^warmimage: |it/s\]|\d \(took |HTTP/1\.1|Started server process|Finished server process|^$")


@dataclass(frozen=True)
class Life:
    """One start, a completion, and a stop.

    Attributes:
        tier: in which.
        texts: the completion, and the same streamed.
        processes: those of the container after the first token.
        kernel: what the kernel says of the engine's process.
        code: the exit code after SIGTERM.
        seconds_to_end: from SIGTERM to the end.
        log: what was said, without PID 1's own lines and durations.
    """

    tier: str
    texts: tuple[str, str]
    processes: list[Process]
    kernel: dict[str, Any]
    code: int
    seconds_to_end: float
    log: list[str]


@pytest.fixture(scope="module")
def lives(client: docker.DockerClient, transformers_image: str, tiny_model: Path) -> dict[str, Life]:
    """One start in each tier."""
    found = {}
    for tier in TIERS:
        words = {**WORDS, **NOTHING_GRANTED, "environment": {**WORDS["environment"], "WARMIMAGE_START": tier}}
        with container(client, transformers_image, ["--default-seed", "3"], tiny_model, **words) as running:
            found[tier] = _live(running)
    return found


def _live(running: Container) -> Life:
    tier, _ = wait_for_line(running)
    port = wait_ready(running)
    texts = completion(port, MODEL), completion(port, MODEL, stream=True)
    processes = look(running)
    (engine,) = [process["pid"] for process in processes if process["parent"] == 1 and process["name"] != "python"]
    python = running.attrs["Config"]["Entrypoint"][0]
    done = running.exec_run([python, "-I", "-S", "-c", KERNEL, str(engine)])
    assert done.exit_code == 0, done.output.decode()
    began = time.monotonic()
    running.stop(timeout=30)
    code = wait_ended(running)
    lines = running.logs().decode(errors="replace").splitlines()
    log = sorted({line for line in lines if not DIFFERS.search(line)})
    return Life(tier, texts, processes, json.loads(done.output), code, time.monotonic() - began, log)


def test_completions_are_the_same(lives: dict[str, Life]) -> None:
    plain, restored = (lives[tier] for tier in TIERS)
    assert (plain.tier, restored.tier) == TIERS
    assert min(map(len, plain.texts)) > 4
    assert restored.texts == plain.texts


def test_the_kernel_says_the_same_of_the_engines_process(lives: dict[str, Life]) -> None:
    """User, groups, capabilities, signals, limits, standard streams, directory, environment, processors, and more."""
    plain, restored = (lives[tier].kernel for tier in TIERS)
    for kernel in (plain, restored):
        kernel["cmdline"] = kernel["cmdline"].replace("\0", " ")  # a title, as every process of a fork server has
        kernel["cgroup"] = kernel["cgroup"].count("\n")
        kernel["environ"] = [entry for entry in kernel["environ"] if not entry.startswith("WARMIMAGE_START=")]
    assert {"PROBE=ä=b", "EMPTY="} <= {*plain["environ"]}
    assert plain["Groups"] == ["0", "1234"]
    assert "Max open files            777                  888" in plain["limits"]
    assert plain["shared stdio"] == [True, True, True]
    assert {name: restored[name] for name in restored if restored[name] != plain.get(name)} == {}
    assert restored.keys() == plain.keys()


def test_processes_are_those_of_plain_and_a_fork_server(lives: dict[str, Life]) -> None:
    plain, restored = (lives[tier].processes for tier in TIERS)
    fork_server = called(restored, "fork-server")
    others = [process for process in restored if process is not fork_server]
    assert [process["name"] for process in others] == [process["name"] for process in plain]
    assert [process["line"] for process in others] == [process["line"] for process in plain]
    (engine,) = [process for process in others if process["pid"] == fork_server["parent"]]
    (started,) = [process for process in plain if process["name"] == engine["name"]]
    assert engine["parent"] == started["parent"] == 1
    assert sorted(engine["threads"]) == sorted(started["threads"])
    assert (engine["ignored"], engine["caught"]) == (started["ignored"], started["caught"])


def test_memory_is_not_more_than_plains(lives: dict[str, Life]) -> None:
    for kind in ("rss", "pss"):
        plain, restored = (sum(process[kind] for process in lives[tier].processes) for tier in TIERS)
        print(kind, "MiB: plain", plain >> 20, "snapshot", restored >> 20)
        assert restored < plain


def test_stop_ends_as_under_plain(lives: dict[str, Life]) -> None:
    plain, restored = (lives[tier] for tier in TIERS)
    assert restored.code == plain.code
    assert restored.seconds_to_end < plain.seconds_to_end + 1
    assert restored.log == plain.log


@pytest.mark.parametrize("arguments", [["--no-such-flag"], ["--port", "no-number"]], ids=" ".join)
def test_what_the_engine_refuses(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, arguments: list[str]
) -> None:
    found = []
    for tier in TIERS:
        words = {**NOTHING_GRANTED, "environment": {"WARMIMAGE_START": tier}}
        with container(client, transformers_image, arguments, tiny_model, **words) as running:
            code = wait_ended(running)
            found.append((code, running.logs()))
    assert found[0] == found[1]
    assert found[0][0] == 2


@pytest.mark.parametrize("name", ["KILL", "ABRT", pytest.param("SEGV", marks=pytest.mark.slow)])
def test_a_killed_engine_ends_the_container(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, name: str
) -> None:
    codes = []
    for tier in TIERS:
        words = {**NOTHING_GRANTED, "environment": {"WARMIMAGE_START": tier}}
        with container(client, transformers_image, model=tiny_model, **words) as running:
            wait_for_line(running)
            (engine,) = [each["pid"] for each in look(running) if each["parent"] == 1 and each["name"] != "python"]
            send(running, name, engine)
            codes.append(wait_ended(running))
            assert timeline.find(timeline.fetch(running), "tier.failed") == [], "a ready server falls to no next tier"
    assert codes[0] == codes[1] > 128


def test_arguments_are_the_containers(client: docker.DockerClient, transformers_image: str, tiny_model: Path) -> None:
    words = {**NOTHING_GRANTED, "ports": {"9123/tcp": ("127.0.0.1", None)}}
    with container(client, transformers_image, ["--port", "9123"], tiny_model, **words) as running:
        assert wait_for_line(running)[0] == "snapshot"
        port = int(running.ports["9123/tcp"][0]["HostPort"]) if running.ports else 0
        assert request(port, "GET", "/health")[0] == 200


def test_two_replicas_draw_different_numbers(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path
) -> None:
    plan = plan_of(client.images.get(transformers_image), transformers_image)
    path = f"{plan.folders.engine}/bin/{plan.engine.command[0]}"
    own = member(client, transformers_image, path).decode().partition("\n")[2]
    script = DRAWS.format(python=plan.python) + own
    with derived(client, transformers_image, [f"COPY script {path}"], {"script": script.encode()}) as image:

        def replica(_number: int) -> tuple[dict[str, Any], str]:
            with container(client, image, model=tiny_model, **NOTHING_GRANTED) as running:
                assert wait_for_line(running)[0] == "snapshot"
                said = [line for line in running.logs().decode().splitlines() if line.startswith(("draws:", "torch:"))]
                body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 4}
                answer = json.loads(request(wait_ready(running), "POST", "/v1/chat/completions", body)[1])
                draws, torch_seed = (line.partition(" ")[2] for line in said)
                return {**json.loads(draws), "completion": answer["id"]}, torch_seed

        with ThreadPoolExecutor(2) as pool:
            (first, seed), (second, other_seed) = pool.map(replica, range(2))
    assert [name for name in first if first[name] == second[name]] == []
    assert (seed == other_seed) is torch_begins_alike(client, transformers_image), "as two new processes would"


def torch_begins_alike(client: docker.DockerClient, image: str) -> bool:
    """Return whether this build of torch has the same seed in every new process, or draws one."""
    words = {"entrypoint": "/opt/engine/bin/python", "remove": True}
    code = ["-c", "import torch; print(torch.initial_seed())"]
    return bool(client.containers.run(image, code, **words) == client.containers.run(image, code, **words))


def test_two_replicas_share_the_page_cache(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path
) -> None:
    """Two cold starts at once read the snapshot from storage once."""
    file = layer_directory(client, transformers_image) / "memory"
    size = file.stat().st_size
    drop(file)
    before = read_sectors()

    def replica(_number: int) -> None:
        with container(client, transformers_image, model=tiny_model, **NOTHING_GRANTED) as running:
            assert serve(running).tier == "snapshot"

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(replica, range(2)))
    read = (read_sectors() - before) * 512
    assert size * 0.9 < read < size * 1.5, f"{read >> 20} MiB read of a snapshot of {size >> 20} MiB"


def layer_directory(client: docker.DockerClient, image: str) -> Path:
    """Return where the daemon keeps the layer that the snapshot is."""
    data = client.images.get(image).attrs["GraphDriver"]["Data"] or {}
    for layer in [data.get("UpperDir", ""), *data.get("LowerDir", "").split(":")]:
        directory = Path(layer, DIRECTORY[1:])
        if layer and directory.is_dir():
            return directory
    pytest.skip("this daemon does not show its layers")


def drop(file: Path) -> None:
    """Have nothing of a file in memory."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_sectors() -> int:
    """Return how many sectors of 512 bytes this machine's disks have read so far."""
    rows = [row.split() for row in Path("/proc/diskstats").read_text(encoding="ascii").splitlines()]
    whole = {entry.name for entry in Path("/sys/block").iterdir()}
    return sum(int(row[5]) for row in rows if row[2] in whole and not row[2].startswith(("loop", "dm-", "ram")))


@pytest.fixture(scope="module")
def without(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The same image without a snapshot."""
    directory, tag = tmp_path_factory.mktemp("without"), "warmimage-test/without:1"
    text = f"model: {tiny_model}\naccelerator: cpu\nsnapshot: off\n"
    (directory / "warmimage.yaml").write_text(text, encoding="utf-8")
    warmimage("build", "--file", str(directory / "warmimage.yaml"), "--tag", tag)
    yield tag
    client.images.remove(tag, force=True)


def test_a_snapshot_captured_on_the_node(
    client: docker.DockerClient, without: str, tiny_model: Path, tmp_path: Path
) -> None:
    """The image has none of its own; a directory of the host holds one, read-only."""
    tmp_path.chmod(0o755)
    node = {str(tmp_path): {"bind": "/node", "mode": "rw"}}
    words = {"user": "0", "volumes": node, "network_mode": "none", "remove": True}
    said = client.containers.run(without, ["capture", "/node", "--require"], stderr=True, **words)
    assert b"warmimage: captured" in said
    assert {file.stat().st_uid for file in tmp_path.iterdir()} == {0}
    volumes = {
        str(tmp_path): {"bind": "/node", "mode": "ro"},
        str(tiny_model): {"bind": "/model", "mode": "ro"},
    }
    environment = {"WARMIMAGE_SNAPSHOT_DIR": "/node"}
    with container(client, without, volumes=volumes, environment=environment, **NOTHING_GRANTED) as running:
        assert serve(running).tier == "snapshot"
    with container(client, without, model=tiny_model, **NOTHING_GRANTED) as running:
        found = serve(running)
        assert (found.tier, found.reasons) == ("zygote", []), found.log
        assert timeline.find(wait_for_event(running, "ready"), "tier.declined") == []
