"""Plans, Dockerfiles, inspections and containers of images with a snapshot, as far as no daemon is asked."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from warmimage.build import planner, record_closure
from warmimage.config.model import Config
from warmimage.docker_api import container_options
from warmimage.docker_api.container_options import Options
from warmimage.entrypoint.tiers.snapshot.manifest import cpu_features
from warmimage.errors import EnvironmentLacks, WarmimageError
from warmimage.image import host_compat, show, snapshot_facts
from warmimage.image.host_compat import Declined
from warmimage.image.read import ImageReport
from warmimage.image.snapshot_facts import Captured
from warmimage.plan import CachesPlan, ClosurePlan, Plan
from warmimage.rendering import dockerfile

from tests.builder import facts, rules

MANIFEST = {
    "schema": 3,
    "engine": {"name": "transformers", "version": "5"},
    "machine": "x86_64",
    "cpu_features": ["sse2"],
    "baseline": "x86-64-v3",
    "kernel": "6.1.0-13-amd64",
    "python": "/opt/engine/bin/python",
    "closure": "ab" * 32,
    "native": "cd" * 32,
    "modules": 3571,
    "bytes": 310_000_000,
    "files": [["/usr/lib/x.so", 1, 2]],
    "environment": {"reads": {"TZ": None, "HF_HOME": "/private"}},
}

HERE = {"KernelVersion": os.uname().release}


def plan_of(**values: Any) -> Plan:
    return facts.plan_of(Config(model="./tiny-llama", accelerator="cpu", **values))


def captured(**values: Any) -> Captured:
    return snapshot_facts.parse(json.dumps({**MANIFEST, **values}).encode(), "x:1")


@pytest.mark.parametrize("wanted", ["auto", "require", "off"])
def test_a_plan_has_a_snapshot_where_one_is_wanted(wanted: str) -> None:
    plan = plan_of(snapshot=wanted)
    assert (plan.snapshot is not None) == (wanted != "off") == (plan.tiers[0] == "snapshot")
    assert plan.tiers[-3:] == ("zygote", "preload", "plain")
    assert plan.labels["dev.warmimage.tiers"] == ",".join(plan.tiers)
    assert not plan.snapshot or plan.snapshot.required == (wanted == "require")


@pytest.mark.parametrize(("machine", "baseline"), [("x86_64", "x86-64-v3"), ("aarch64", "")])
def test_the_native_files_of_the_images_machine_are_in_the_plan(machine: str, baseline: str) -> None:
    made = planner.snapshot_plan(Config(model="./tiny-llama"), machine)
    assert made
    assert (len(made.native), made.baseline, made.required) == (64, baseline, False)


def test_the_native_files_of_two_machines_differ() -> None:
    config = Config(model="./tiny-llama")
    assert planner.snapshot_plan(config, "x86_64") != planner.snapshot_plan(config, "aarch64")


def test_a_machine_without_native_files_has_no_snapshot(capfd: pytest.CaptureFixture[str]) -> None:
    config = Config(model="./tiny-llama")
    assert planner.snapshot_plan(config, "s390x") is None
    assert capfd.readouterr().err == "no snapshot in this image: there is no native part for s390x\n"
    assert planner.snapshot_plan(config.model_copy(update={"snapshot": "off"}), "s390x") is None
    assert capfd.readouterr().err == ""
    with pytest.raises(EnvironmentLacks, match="a snapshot cannot be captured on this machine type"):
        planner.snapshot_plan(config.model_copy(update={"snapshot": "require"}), "s390x")


def test_a_snapshot_is_taken_out_of_a_plan_and_put_back() -> None:
    plan = plan_of()
    bare = planner.with_snapshot(plan, None)
    assert bare == plan_of(snapshot="off")
    assert planner.with_snapshot(bare, plan.snapshot) == plan
    assert Plan.from_json(plan.to_json()) == plan


def test_a_snapshot_is_added_to_an_image_by_one_step_and_nothing_else_changes() -> None:
    text = dockerfile.snapshot_dockerfile(plan_of(), "warmimage-build:1", caches=False, names=["PATH", "A B"])
    instructions = rules.instructions(text)
    assert [name for name, _ in instructions] == ["FROM", "USER", "LABEL", "RUN", "LABEL", "COPY", "LABEL", "USER"]
    assert instructions[1][1] == "0"
    assert instructions[2][1] == "dev.warmimage.layer=snapshot"
    assert instructions[3][1] == (
        "/opt/engine/bin/python -I -S /opt/warmimage/entrypoint capture /opt/warmimage/snapshot --require PATH 'A B'"
    )
    assert instructions[-1][1] == "1000:0"
    assert "\n\n\n" not in text


def test_the_compile_caches_of_the_source_are_not_copied_again() -> None:
    caches = CachesPlan(files=1, bytes=1, driver="", gpus=())
    plan = replace(plan_of(), caches=caches)
    for added in (True, False):
        text = dockerfile.snapshot_dockerfile(plan, "x:1", caches=added, names=())
        assert ("COPY caches/ /opt/warmimage/caches/" in text.splitlines()) is added


def test_the_facts_of_a_manifest() -> None:
    found = captured()
    assert (found.bytes, found.modules, found.kernel) == (310_000_000, 3571, "6.1.0-13-amd64")
    assert found.variables == ["HF_HOME", "TZ"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bytes": 1}', '{"bytes": "many", "modules": 1}', "\0"])
def test_a_damaged_manifest_is_an_error(text: str) -> None:
    with pytest.raises(WarmimageError, match=r"(?s)the manifest of the snapshot cannot be read\n  at x:1"):
        snapshot_facts.parse(text.encode(), "x:1")


def test_a_processor_is_compared_where_it_can_be_seen() -> None:
    lacks = captured(cpu_features=["avx9000", "sse2"])
    assert host_compat.snapshot_mismatch(HERE, captured(), ["sse2", "avx2"]) == ""
    assert host_compat.snapshot_mismatch(HERE, lacks, ["sse2"]) == "this CPU lacks avx9000"
    assert host_compat.snapshot_mismatch({"KernelVersion": "elsewhere"}, lacks, ["sse2"]) == ""
    many = captured(cpu_features=[f"f{index}" for index in range(7)])
    assert host_compat.snapshot_mismatch(HERE, many, []) == "this CPU lacks f0, f1, f2, f3, f4 and others"
    assert host_compat.snapshot_mismatch(HERE, captured(cpu_features=list(cpu_features())), cpu_features()) == ""


class Daemon:
    """A Docker client of which only ``info`` is asked."""

    def info(self) -> dict[str, Any]:
        return {**HERE, "Architecture": "x86_64"}


@pytest.mark.parametrize(
    ("found", "absent", "declined"),
    [
        (captured(cpu_features=[]), "", []),
        (captured(cpu_features=["avx9000"]), "", [Declined("snapshot", "this CPU lacks avx9000")]),
        (None, "a thread is left", [Declined("snapshot", "a thread is left")]),
    ],
)
def test_what_this_host_would_decline(found: Captured | None, absent: str, declined: list[Declined]) -> None:
    client: Any = Daemon()
    assert host_compat.declined(client, plan_of(), found, absent) == declined
    assert host_compat.declined(client, plan_of(snapshot="off"), None, "the image was built with snapshot: off") == []


def report(found: Captured | None, absent: str) -> ImageReport:
    return ImageReport("x:1", "sha256:0", (), plan_of(), {}, 1, {"base": 1}, found, absent)


def test_inspect_shows_the_snapshot_or_the_reason() -> None:
    page = show.as_text(report(captured(), ""), [])
    assert "snapshot      310.0 MB, 3571 modules, captured on kernel 6.1.0-13-amd64 (x86_64 for x86-64-v3)\n" in page
    assert "snapshot      none: a thread is left\n" in show.as_text(report(None, "a thread is left"), [])


def test_inspect_gives_the_variables_by_name_and_no_value() -> None:
    text = show.to_json(report(captured(), ""), [])
    data = json.loads(text)
    assert data["snapshot"]["variables"] == ["HF_HOME", "TZ"]
    assert data["snapshot"]["baseline"] == "x86-64-v3"
    assert "/private" not in text
    absent = json.loads(show.to_json(report(None, "a thread is left"), []))
    assert (absent["snapshot"], absent["snapshot_absent"]) == (None, "a thread is left")


@pytest.mark.parametrize("start", ["auto", "snapshot", "zygote"])
def test_a_container_gets_no_capability(start: str) -> None:
    options = Options(environment={"WARMIMAGE_START": start, "WARMIMAGE_SNAPSHOT_DIR": "/node"})
    words = container_options.create_arguments(container_options.needs_of(plan_of(), ()), options, {})
    assert words["cap_drop"] == ["ALL"]
    assert not [name for name in words if name in ("cap_add", "security_opt", "privileged")]
    root = container_options.create_arguments(container_options.needs_of(plan_of(user=0), ()), options, {})
    assert root["cap_drop"] == []
    assert "cap_add" not in root


def keep(plan: Plan, *, closure: bool = True, caches: bool) -> None:
    """Leave what an earlier build would have recorded of a plan."""
    if closure:
        record_closure._keep_closure(plan, ClosurePlan(modules=("torch",), recorded=True))
    if caches:
        directory = record_closure._caches_directory(plan)
        directory.mkdir(parents=True)
        accelerator = {"driver": "", "gpus": []}
        manifest = {"schema": 1, "engine": {}, "accelerator": accelerator, "files": 2, "bytes": 3}
        (directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def with_caches() -> Plan:
    plan = plan_of()
    engine = replace(plan.engine, caches={"triton": ("TRITON_CACHE_DIR", "<home>/.triton", "")})
    return replace(plan, engine=engine)


def test_a_recording_is_found_again_without_a_start() -> None:
    plan = with_caches()
    assert record_closure.cached(plan, Path("model")) is None
    keep(plan, caches=True)
    found = record_closure.cached(plan, Path("model"))
    assert found
    assert found.closure.modules == ("torch",)
    assert found.caches == CachesPlan(files=2, bytes=3, driver="", gpus=())
    assert found.directory
    assert (found.directory / "manifest.json").is_file()
    assert record_closure.cached(planner.with_snapshot(plan, None), Path("model")) == found, (
        "the snapshot decides nothing"
    )


def test_a_recording_without_compile_caches_is_kept_only_where_none_can_be_had() -> None:
    plan = with_caches()
    keep(plan, caches=False)
    assert record_closure.cached(plan, Path("model")) is None, "a start that failed is tried again"
    assert record_closure.cached(plan, None), "the model is not here"
    keep(plan_of(), caches=False)
    assert record_closure.cached(plan_of(), Path("model")), "the engine keeps none"


def test_compile_caches_of_another_model_are_not_taken() -> None:
    plan = with_caches()
    keep(plan, caches=True)
    other = replace(plan, model=replace(plan.model, revision="1" * 40))
    found = record_closure.cached(other, None)
    assert found
    assert found.caches is None


def test_a_collection_that_fails_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with record_closure.without_caches():
        raise WarmimageError(
            "the compile caches could not be collected", got="error: the engine has left\nno compile cache"
        )
    assert capfd.readouterr().err == (  # type: ignore[unreachable]  # the block above swallows the error
        "no compile caches in this image: the compile caches could not be collected: "
        "error: the engine has left no compile cache\n"
    )


def test_an_image_built_without_a_snapshot_is_not_looked_into() -> None:
    client = docker.DockerClient("tcp://127.0.0.1:9", version="1.41")
    absent = snapshot_facts.read(client, "x:1", plan_of(snapshot="off"))
    assert absent == (None, "the image was built with snapshot: off")


@pytest.mark.docker
@pytest.mark.parametrize(
    ("files", "modules", "absent"),
    [
        ({"manifest.json": json.dumps(MANIFEST)}, 3571, ""),
        ({"declined": "a thread\nis left\n"}, None, "a thread is left"),
        ({}, None, "its build left neither a snapshot nor a reason"),
    ],
    ids=["captured", "declined", "neither"],
)
def test_the_snapshot_is_read_from_an_image_that_is_not_run(
    client: docker.DockerClient, python_base: str, files: dict[str, str], modules: int | None, absent: str
) -> None:
    plan = plan_of()
    with tempfile.TemporaryDirectory() as name:
        context = Path(name)
        (context / "snapshot").mkdir()
        for file, text in files.items():
            (context / "snapshot" / file).write_text(text, encoding="utf-8")
        (context / "Dockerfile").write_text(
            f'FROM {python_base}\nCOPY snapshot/ {snapshot_facts.directory_of(plan)}/\nENTRYPOINT ["/nowhere"]\n',
            encoding="utf-8",
        )
        made, _ = client.images.build(path=name, rm=True)
    try:
        found, reason = snapshot_facts.read(client, str(made.id), plan)
    finally:
        client.images.remove(str(made.id), force=True)
    assert (found and found.modules, reason) == (modules, absent)
