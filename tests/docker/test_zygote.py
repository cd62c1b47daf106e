"""Tier zygote with unmodified vLLM: nothing but the time and the memory of a start tells it from tier plain."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from warmimage import timeline

from tests.support.images import completion, container, wait_ended, wait_for_event, wait_ready
from tests.support.processes import Process, called, look

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]

MODEL = "tiny-qwen2"

#: Runs in the engine's processes, and where it writes to there.
PROBE, FACTS = Path(__file__).parents[1] / "support" / "probe.py", "/tmp/probe"
TIERS = ("plain", "zygote")

#: What vLLM starts, by the names that the kernel has for them: process -> parent.
TREE = {"VLLM::EngineCor": "vllm", "VLLM::Worker": "VLLM::EngineCor"}


@dataclass(frozen=True)
class Start:
    """One start, a completion, and a stop.

    Attributes:
        texts: the completion, and the same streamed.
        processes: those of the container after the first token.
        facts: how the engine's processes saw themselves, by their role.
        log: the container's output, without what differs from start to start.
        events: the timeline.
        code: the exit code after SIGTERM.
        seconds_to_end: from SIGTERM to the end.
    """

    texts: tuple[str, str]
    processes: list[Process]
    facts: dict[str, Any]
    log: list[str]
    events: list[timeline.Event]
    code: int
    seconds_to_end: float


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the probe, installed as a plugin of vLLM."""
    folder = tmp_path_factory.mktemp("plugin")
    installed = folder / "warmimage_probe-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: warmimage-probe\nVersion: 1\n", encoding="utf-8")
    (installed / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nwarmimage_probe = warmimage_probe:record\n", encoding="utf-8"
    )
    shutil.copy(PROBE, folder / "warmimage_probe.py")
    for path in (folder, *folder.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    return folder


@pytest.fixture(scope="module")
def starts(client: docker.DockerClient, vllm_image: str, tiny_model: Path, plugin: Path) -> dict[str, Start]:
    """One start in each tier."""
    volumes = {
        str(tiny_model): {"bind": "/model", "mode": "ro"},
        str(plugin): {"bind": "/plugin", "mode": "ro"},
    }
    found = {}
    for tier in TIERS:
        # Without what a start has found out about the model's class, for which the engine asks one more process.
        environment = {"WARMIMAGE_START": tier, "PYTHONPATH": "/plugin", "WARMIMAGE_CACHES": "off"}
        with container(
            client, vllm_image, volumes=volumes, environment=environment, shm_size="1g", hostname="here"
        ) as made:
            found[tier] = _live(made)
    return found


def _live(made: Container) -> Start:
    port = wait_ready(made, 600)
    texts = completion(port, MODEL), completion(port, MODEL, stream=True)
    wait_for_event(made, "ready")
    processes = look(made)
    facts = _facts(made)
    began = time.monotonic()
    made.stop(timeout=30)
    code = wait_ended(made)
    seconds = time.monotonic() - began
    log = sorted({plain_line(line) for line in made.logs().decode(errors="replace").splitlines()})
    return Start(texts, processes, facts, log, timeline.fetch(made), code, seconds)


def _facts(made: Container) -> dict[str, Any]:
    done = made.exec_run(["sh", "-c", f"for file in {FACTS}/*.json; do cat $file; echo; done"])
    rows = [json.loads(line) for line in done.output.decode().splitlines()]
    return {row["role"]: row for row in rows}


def plain_line(line: str) -> str:
    """Return a line of a log without colours, moments, durations, PIDs and random names."""
    line = re.sub(r"\x1b\[[0-9;]*m", "", line)
    line = re.sub(r"\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?", "MOMENT", line)
    line = re.sub(r"\b([WE])\d{4} [\d:.]+ \d+", r"\1", line)
    line = re.sub(r"\b([WE])\d{4} ?[\d:.]+", r"\1", line)
    line = re.sub(r"pid[= ]\d+", "pid=N", line)
    line = re.sub(r"process \[\d+\]", "process [N]", line)
    line = re.sub(r"[0-9a-f]{32}", "HEX", line)
    line = re.sub(r"Methods: (.*)", lambda found: "Methods: " + ", ".join(sorted(found[1].split(", "))), line)
    line = re.sub(r"((?:\d+\.){3}\d+):\d+", r"\1:PORT", line)
    return re.sub(r"\d+\.\d+", "F", line)


def test_completions_are_the_same(starts: dict[str, Start]) -> None:
    plain, zygote = (starts[tier] for tier in TIERS)
    assert plain.texts[0] == plain.texts[1] != ""
    assert zygote.texts == plain.texts
    assert [event["tier"] for event in timeline.find(zygote.events, "ready")] == ["zygote"]


def test_every_python_process_of_the_engine_was_forked(starts: dict[str, Start]) -> None:
    events = starts["zygote"].events
    assert timeline.find(events, "zygote.fallback") == []
    forked = timeline.find(events, "zygote.forked")
    assert [event["target"] for event in forked] == [
        "vllm.model_executor.models.registry",
        "multiprocessing",
        "multiprocessing",
    ]
    assert [event["process"] for event in forked] == ["engine", "engine", "EngineCore"]
    assert [event["name"] for event in timeline.find(events, "child.entered")] == ["EngineCore", "VllmWorker-0"]


@pytest.mark.parametrize("tier", TIERS)
def test_process_tree_and_titles_are_vllms_own(starts: dict[str, Start], tier: str) -> None:
    processes = starts[tier].processes
    assert [process for process in processes if process["state"] == "Z"] == []
    assert called(processes, "vllm")["parent"] == 1
    for name, parent in TREE.items():
        process = called(processes, name)
        assert process["parent"] == called(processes, parent)["pid"]
        assert process["line"].startswith("VLLM::")


def test_beside_each_process_stands_its_fork_server_and_nothing_else_is_new(starts: dict[str, Start]) -> None:
    plain, zygote = (starts[tier].processes for tier in TIERS)
    fork_servers = [process for process in zygote if process["name"] == "fork-server"]
    parents = [called(zygote, name)["pid"] for name in ("vllm", *TREE)]
    assert sorted(process["parent"] for process in fork_servers) == sorted(parents)
    assert all(len(process["threads"]) == 1 for process in fork_servers)
    others = [process["name"] for process in zygote if process not in fork_servers]
    assert sorted(others) == sorted(process["name"] for process in plain)


@pytest.mark.parametrize("name", ["vllm", *TREE])
def test_threads_stand_on_the_same_processors(starts: dict[str, Start], name: str) -> None:
    plain, zygote = (called(starts[tier].processes, name) for tier in TIERS)
    assert sorted(zygote["threads"]) == sorted(plain["threads"])
    assert zygote["ignored"] == plain["ignored"]
    assert zygote["caught"] == plain["caught"]


def test_each_process_sees_itself_as_under_plain(starts: dict[str, Start]) -> None:
    plain, zygote = (starts[tier].facts for tier in TIERS)
    assert plain.keys() == zygote.keys() == {"vllm", "registry.py", "EngineCore", "VllmWorker-0"}
    for role in plain:
        assert _comparable(role, zygote[role]["same"]) == _comparable(role, plain[role]["same"]), role


def _comparable(role: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that do not differ by their nature."""
    kept = dict(facts)
    for name in ("environment", "environment_in_c"):
        kept[name] = {key: value for key, value in facts[name].items() if key != "WARMIMAGE_START"}
        # One of the packages puts its folder in front whenever it is imported, once more in each process's child.
        kept[name]["LD_LIBRARY_PATH"] = sorted({*facts[name].get("LD_LIBRARY_PATH", "").split(":")})
    if role == "registry.py":  # it imports a part of what the engine does, and has not the rest's settings
        del kept["signals"], kept["warnings"]
    return kept


@pytest.mark.parametrize("tier", TIERS)
def test_no_two_processes_have_the_same_random_numbers(starts: dict[str, Start], tier: str) -> None:
    facts = starts[tier].facts.values()
    for numbers in zip(*(row["random"] for row in facts), strict=True):
        assert len(set(numbers)) == len(facts)


def test_the_worker_sees_what_the_engine_core_set_just_before_starting_it(starts: dict[str, Start]) -> None:
    for tier in TIERS:
        facts = starts[tier].facts
        core, worker = (facts[role]["same"]["environment"] for role in ("EngineCore", "VllmWorker-0"))
        assert {name for name in worker if worker[name] != core.get(name)} >= {"OMP_NUM_THREADS"}
        assert "libgomp" in worker["LD_PRELOAD"]


def test_imports_after_the_zygotes_own_are_few(starts: dict[str, Start]) -> None:
    events = starts["zygote"].events
    (imported,) = timeline.find(events, "zygote.imported")
    assert imported["skipped"] == []
    (ready,) = timeline.find(events, "ready")
    late = [row for event in timeline.find(events, "imports") if event["t"] < ready["t"] for row in event["modules"]]
    ours = [row for row in late if not row[0].startswith("warmimage_probe")]
    assert len(ours) < 0.01 * imported["modules"], [row[0] for row in ours]
    assert sum(row[3] for row in ours) < 0.05 * imported["seconds"], ours


def test_pages_are_shared(starts: dict[str, Start]) -> None:
    plain, zygote = (sum(process["pss"] for process in starts[tier].processes) for tier in TIERS)
    for tier in TIERS:
        for process in starts[tier].processes:
            print(tier, process["name"], process["rss"] >> 20, "MiB RSS", process["pss"] >> 20, "MiB PSS")
    print("PSS of all:", plain >> 20, "MiB plain", zygote >> 20, "MiB zygote")
    assert zygote < plain


def test_nothing_new_is_said(starts: dict[str, Start]) -> None:
    plain, zygote = (starts[tier].log for tier in TIERS)
    new = [line for line in zygote if line not in plain and not _EXPECTED.search(line)]
    assert new == []


#: What differs between two starts in the same tier: which of vLLM's processes is still there when it kills them all,
#: and so what it and they say; health is asked for at other moments.
_EXPECTED = re.compile(
    r"warmimage: ready in|safetensors checkpoint shards|\[shutdown\]|leaked (semaphore|shared_memory)|resource_tracker|"
    r"GET /health|output_handler|Parent process exited|"
    r"EngineDeadError|async_llm.py|core_client.py"
)


def test_stop_ends_as_under_plain(starts: dict[str, Start]) -> None:
    plain, zygote = (starts[tier] for tier in TIERS)
    assert zygote.code == plain.code == 0
    print(f"SIGTERM to end: plain {plain.seconds_to_end:.2f} s, zygote {zygote.seconds_to_end:.2f} s")
    assert timeline.find(zygote.events, "ended")[0]["code"] == 0
