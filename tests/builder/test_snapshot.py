"""Plans and containers of images with a snapshot: what the builder adds, what a host is told, what a container gets."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
from warmimage import compiled, containers, criu, host, planner, render, snapshot
from warmimage.config import Config
from warmimage.containers import Options
from warmimage.entrypoint.accelerator import Accelerator
from warmimage.entrypoint.snapshot.manifest import cpu_features
from warmimage.errors import WarmimageError
from warmimage.plan import CachesPlan, Plan, SnapshotPlan

from tests.builder import facts

MADE = SnapshotPlan(
    manifest="ab" * 32, source="sha256:" + "cd" * 32, bytes=310_000_000, criu="4.1.1", kernel="6.1.0-13-amd64",
    machine="x86_64", cpu_features=("sse2", "avx512f"), modules=3571,
)  # fmt: skip


def plan_of(**values: Any) -> Plan:
    return facts.plan_of(Config(model="./tiny-llama", accelerator="cpu", **values))


def test_a_plan_has_no_snapshot_before_one_is_captured() -> None:
    plan = plan_of()
    assert plan.snapshot is None
    assert plan.tiers == ("zygote", "preload", "plain")
    assert plan.labels["dev.warmimage.tiers"] == "zygote,preload,plain"


def test_criu_has_a_layer_of_its_own_and_with_snapshot_off_none() -> None:
    assert "criu_folder.py" in render.dockerfile(plan_of())
    plan = plan_of(snapshot="off")
    assert plan.criu is None
    assert "criu_folder.py" not in render.dockerfile(plan)


def test_where_criu_cannot_be_had_auto_goes_without_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(criu, "ORIGINS", ("http://127.0.0.1:9/{path}",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    config = Config(model="./tiny-llama")
    assert planner._criu(config, "x86_64") is None
    assert "no tier snapshot in this image: CRIU cannot be downloaded" in capfd.readouterr().err
    assert planner._criu(config.model_copy(update={"snapshot": "off"}), "x86_64") is None
    assert capfd.readouterr().err == ""
    with pytest.raises(WarmimageError, match="CRIU cannot be downloaded"):
        planner._criu(config.model_copy(update={"snapshot": "require"}), "x86_64")


def test_with_a_snapshot_the_plan_says_so_and_is_else_the_same() -> None:
    before = plan_of()
    plan = snapshot.with_snapshot(before, MADE)
    assert plan.tiers == ("snapshot", "zygote", "preload", "plain")
    assert plan.labels["dev.warmimage.tiers"] == "snapshot,zygote,preload,plain"
    assert plan.labels["dev.warmimage.snapshot"] == MADE.manifest
    assert plan.labels[snapshot.SOURCE] == MADE.source
    assert plan.model_copy(update={"tiers": before.tiers, "snapshot": None, "labels": before.labels}) == before
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_the_snapshot_is_added_as_one_layer_and_nothing_else_changes() -> None:
    plan = snapshot.with_snapshot(plan_of(), MADE)
    lines = render.snapshot_dockerfile(plan, "warmimage-build:1").splitlines()
    instructions = [line.split()[0] for line in lines if line and line[0] not in "# "]
    assert instructions == ["FROM", "COPY", "COPY", "LABEL"]
    assert "FROM warmimage-build:1" in lines
    assert "COPY snapshot/ /opt/warmimage/snapshot/" in lines
    assert any(line.startswith('      "dev.warmimage.plan"=') for line in lines)


def test_facts_come_from_the_manifest(tmp_path: Path) -> None:
    accelerator = {"driver": "580.159.04", "gpus": ["NVIDIA H200"]}
    facts_of_it = MADE.model_dump(exclude={"manifest", "source", "driver", "gpus"})
    text = json.dumps({**facts_of_it, "schema": 2, "files": [], "accelerator": accelerator})
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert snapshot._read_manifest(tmp_path, MADE.source) == MADE.model_copy(
        update={"manifest": digest, "driver": "580.159.04", "gpus": ("NVIDIA H200",)}
    )


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"bytes": 1}'])
def test_a_capture_without_a_usable_manifest_is_an_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(WarmimageError, match="the capture left no usable manifest"):
        snapshot._read_manifest(tmp_path, "x")


def with_facts(**values: Any) -> Plan:
    return snapshot.with_snapshot(plan_of(), MADE.model_copy(update=values))


@pytest.mark.parametrize(
    ("kernel", "declined"),
    [("6.0.9", True), ("5.15.0", True), ("6.1.0-1", False), ("6.1.99-azure", False), ("6.10.2", False)],
)
def test_an_older_kernel_would_not_restore(kernel: str, declined: bool) -> None:
    reason = host.snapshot_mismatch({"KernelVersion": kernel}, with_facts(cpu_features=()))
    assert reason == (f"kernel {kernel} is older than 6.1.0-13-amd64, on which it was captured" if declined else "")


def test_a_processor_is_compared_where_it_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "here", Accelerator)
    release = os.uname().release
    here = cpu_features()
    fits = with_facts(kernel=release, cpu_features=tuple(here))
    lacks = with_facts(kernel=release, cpu_features=(*here, "avx9000"))
    assert host.snapshot_mismatch({"KernelVersion": release}, fits) == ""
    assert host.snapshot_mismatch({"KernelVersion": release}, lacks) == "this CPU lacks avx9000"
    assert host.snapshot_mismatch({"KernelVersion": release + "-elsewhere"}, lacks) == ""


@pytest.mark.parametrize(
    ("driver", "gpus", "reason"),
    [
        ("580.1", ("NVIDIA H200",), ""),
        ("580.1", ("NVIDIA H100", "NVIDIA H200"), ""),  # a container may be given one of them
        ("580.2", ("NVIDIA H200",), "the GPU's driver is 580.2, and was 580.1"),
        ("580.1", ("NVIDIA H100",), "the GPU is NVIDIA H100, and was NVIDIA H200"),
        ("", (), "the GPU is absent, and was NVIDIA H200"),
    ],
)
def test_another_gpu_or_driver_would_not_restore(
    monkeypatch: pytest.MonkeyPatch, driver: str, gpus: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setattr(Accelerator, "here", lambda: Accelerator(driver, gpus))
    release = os.uname().release
    plan = with_facts(kernel=release, cpu_features=(), driver="580.1", gpus=("NVIDIA H200",))
    assert host.snapshot_mismatch({"KernelVersion": release}, plan) == reason
    assert host.snapshot_mismatch({"KernelVersion": release + "-elsewhere"}, plan) == "", "it is another machine"


@pytest.mark.parametrize("caches", [None, CachesPlan(files=1, bytes=1, driver="", gpus=())])
def test_a_snapshot_without_caches_is_kept_only_where_none_can_be_had(caches: CachesPlan | None) -> None:
    own = with_facts(cpu_features=(), kernel="5.9")
    engine = own.engine.model_copy(update={"caches": {"triton": ("TRITON_CACHE_DIR", "<home>/.triton", "")}})
    plan = own.model_copy(update={"engine": engine, "caches": caches})
    made = SimpleNamespace(
        id="sha256:1", labels={"dev.warmimage.plan": plan.model_dump_json()},
        history=lambda: [{"CreatedBy": f"LABEL {snapshot.SOURCE}=sha256:0"}],
    )  # fmt: skip
    client: Any = SimpleNamespace(
        images=SimpleNamespace(list=lambda filters: [made]), info=lambda: {"KernelVersion": "6.2"}
    )
    source: Any = SimpleNamespace(id="sha256:0")
    assert snapshot.find(client, source, (), None), "the model is not here"
    assert bool(snapshot.find(client, source, (), Path("model"))) == bool(caches)


@pytest.mark.parametrize(
    ("last", "found"),
    [
        (f"LABEL {snapshot.SOURCE}=sha256:0 dev.warmimage.plan={{}}", True),
        ("RUN pip install x", False),
        ("ENV A=1", False),
    ],
)
def test_an_image_derived_from_one_with_a_snapshot_is_not_taken_for_it(last: str, found: bool) -> None:
    """It inherits the labels, the plan's too."""
    labels = {"dev.warmimage.plan": with_facts(cpu_features=(), kernel="5.9").model_dump_json()}
    made = SimpleNamespace(id="sha256:1", labels=labels, history=lambda: [{"CreatedBy": last}, {"CreatedBy": "FROM"}])
    client: Any = SimpleNamespace(
        images=SimpleNamespace(list=lambda filters: [made]), info=lambda: {"KernelVersion": "6.2"}
    )
    source: Any = SimpleNamespace(id="sha256:0")
    assert bool(snapshot.find(client, source, ())) is found


def test_an_engine_that_takes_new_privileges_from_all_containers_is_named() -> None:
    info = {"KernelVersion": "6.2", "SecurityOptions": ["name=seccomp,profile=default", "name=no-new-privileges"]}
    assert "no_new_privs" in host.snapshot_mismatch(info, with_facts())
    assert host.snapshot_mismatch(info, with_facts().model_copy(update={"user": 0})) == ""
    assert host.snapshot_mismatch(info, plan_of()) == ""


def test_a_collection_that_fails_costs_no_snapshot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "caches"

    def fail(*_arguments: object) -> None:
        (folder / "triton").mkdir(parents=True)
        raise WarmimageError("no compile cache was collected", got="error: the engine has left\nno compile cache")

    monkeypatch.setattr(compiled, "collect", fail)
    client = docker.DockerClient("tcp://127.0.0.1:9", version="1.41")
    assert snapshot._caches(client, "x", plan_of(), None, "", folder) is None
    assert not folder.exists(), "the build's context holds nothing half-made"
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("no compile caches")]
    assert said == [
        "no compile caches in this image: no compile cache was collected: error: the engine has left no compile cache"
    ]


@pytest.mark.docker
@pytest.mark.parametrize(
    ("start", "asked", "granted"),
    [
        ("auto", None, True), ("auto", "snapshot", True), ("auto", "zygote", False), ("auto", "plain", False),
        ("snapshot", None, True), ("zygote", None, False), ("zygote", "auto", True), ("plain", "snapshot", True),
    ],
)  # fmt: skip
def test_a_container_gets_one_capability_only_where_it_may_restore(
    client: docker.DockerClient, start: str, asked: str | None, granted: bool
) -> None:
    options = Options(environment={"WARMIMAGE_START": asked} if asked else {})
    for plan in (snapshot.with_snapshot(plan_of(start=start), MADE), plan_of(start=start)):
        words = containers.create_arguments(client, containers.needs_of(plan, ()), options, {})
        assert words["cap_drop"] == ["ALL"]
        expected = [containers.restore_capability(client)] if granted and plan.snapshot else []
        assert words["cap_add"] == expected


@pytest.mark.docker
def test_the_engine_takes_the_capability_that_it_is_said_to_know(client: docker.DockerClient, python_base: str) -> None:
    capability = containers.restore_capability(client)
    made = client.containers.create(python_base, ["true"], cap_add=[capability])
    made.remove()
    assert capability in ("CHECKPOINT_RESTORE", "SYS_ADMIN")


def test_what_is_captured_has_nothing_of_this_host() -> None:
    words = containers.capture_arguments(plan_of(), "", "/snapshot")
    assert "environment" not in words
    assert words["network_mode"] == "none"
    assert words["use_config_proxy"] is False
    assert words["cap_add"] == ["SYS_ADMIN", "SYS_PTRACE"]
    named = containers.capture_arguments(plan_of(), "", "/snapshot", ["CUDA_HOME"])
    assert named["command"] == ["capture", "/snapshot", "CUDA_HOME"]
