"""The doctor's checks of the host, each with a fault planted where it looks: no container is started here."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from warmimage.config.model import Config
from warmimage.doctor import containers, disk, docker_daemon, gpu, kernel, memory, snapshot
from warmimage.doctor.checks import CHECKS
from warmimage.doctor.containers import ExaminedImage
from warmimage.doctor.run import Check, run_checks
from warmimage.doctor.target import Target

from tests.builder import facts
from tests.support.images import warmimage
from tests.support.servers import old_daemon

#: What the driver of an H200 writes there.
DRIVER = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  (nixbld@)
GCC version:  gcc version 15.3.0 (GCC)
"""
CLOSED_DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Thu Aug 1 00:00:00 UTC 2024\n"
INFORMATION = "Model: \t\t NVIDIA H200\nIRQ:   \t\t 41\n"


def examined(accelerator: str = "cuda", **environment: str) -> ExaminedImage:
    config = Config(model="./tiny", accelerator=accelerator)  # type: ignore[arg-type]
    return ExaminedImage(facts.plan_of(config), 10_000_000_000, environment)


def planted_driver(folder: Path, version: str, text: str = DRIVER, gpus: int = 1) -> Target:
    """Return a target whose ``/proc`` tells of a driver."""
    at = folder / "driver" / "nvidia"
    at.mkdir(parents=True)
    (at / "version").write_text(text.format(version=version), encoding="utf-8")
    for number in range(gpus):
        (at / "gpus" / str(number)).mkdir(parents=True)
        (at / "gpus" / str(number) / "information").write_text(INFORMATION, encoding="utf-8")
    return Target(proc=folder)


def test_the_driver_and_its_gpus_are_read_from_proc(tmp_path: Path) -> None:
    observation = gpu.driver(planted_driver(tmp_path, "580.159.04", gpus=2), {})
    assert (observation.outcome, observation.found, observation.fact) == (
        "loaded",
        "580.159.04, 2 x NVIDIA H200",
        (580, 159, 4),
    )


def test_the_closed_drivers_wording_is_read_too(tmp_path: Path) -> None:
    assert gpu.driver(planted_driver(tmp_path, "550.54.15", CLOSED_DRIVER), {}).fact == (550, 54, 15)


def test_a_version_file_of_another_form_is_no_crash(tmp_path: Path) -> None:
    assert gpu.driver(planted_driver(tmp_path, "", "something else"), {}).outcome == "unreadable"


@pytest.mark.parametrize(("accelerator", "outcome"), [("cuda", "needed"), ("cpu", "none")])
def test_no_driver_matters_only_to_an_image_for_gpus(tmp_path: Path, accelerator: str, outcome: str) -> None:
    assert gpu.driver(Target(proc=tmp_path), {"image": examined(accelerator)}).outcome == outcome


@pytest.mark.parametrize(
    ("driver", "environment", "inside", "outcome"),
    [
        ((580, 159, 4), {}, {"torch": "13.0"}, "covered"),
        ((590, 44), {"CUDA_VERSION": "12.4.1"}, {}, "covered"),
        ((550, 54, 15), {"CUDA_VERSION": "12.4.1"}, {}, "covered"),
        ((535, 54, 3), {"CUDA_VERSION": "12.9.1"}, {}, "minor"),
        ((525, 60, 12), {"CUDA_VERSION": "12.9.1"}, {}, "old"),
        ((535, 54, 3), {"CUDA_VERSION": "12.9.1", "NVIDIA_REQUIRE_CUDA": "cuda>=12.9 brand=x"}, {}, "refused"),
        (
            (535, 1),
            {"CUDA_VERSION": "12.9", "NVIDIA_REQUIRE_CUDA": "cuda>=12.9", "NVIDIA_DISABLE_REQUIRE": "1"},
            {},
            "minor",
        ),
        ((535, 54, 3), {"NVIDIA_REQUIRE_CUDA": "cuda>=13.0"}, {}, "old"),
        ((575, 57, 8), {}, {"torch": "13.0"}, "old"),
        ((575, 57, 8), {}, {"torch": "13.0", "compatibility": True}, "forward"),
        ((450, 80, 2), {"CUDA_VERSION": "11.8.0"}, {}, "minor"),
        ((580, 1), {}, {}, "unknown"),
    ],
)
def test_the_driver_must_run_the_images_cuda(
    driver: tuple[int, ...], environment: dict[str, str], inside: dict[str, Any], outcome: str
) -> None:
    known = {"image": examined(**environment), "container": {"cuda": inside}, "gpu.driver": driver}
    assert gpu.cuda(Target(), known).outcome == outcome


def test_torchs_own_word_wins_over_the_base_images() -> None:
    known = {
        "image": examined(CUDA_VERSION="11.8"),
        "container": {"cuda": {"torch": "13.0"}},
        "gpu.driver": (535, 1),
    }
    observation = gpu.cuda(Target(), known)
    assert observation.outcome == "old"
    assert observation.found == "CUDA 13.0 (torch), driver 535.1, which brings CUDA 12.2"
    assert observation.fix_arguments == {"driver": "580"}


def test_an_image_for_cpus_wants_no_cuda() -> None:
    assert gpu.cuda(Target(), {"image": examined("cpu")}).outcome == "no_cuda"


@pytest.mark.parametrize(
    ("driver", "outcome"), [("overlay2", "shared"), ("vfs", "copies"), ("fuse-overlayfs", "fuse"), ("odd", "unknown")]
)
def test_storage_drivers_differ_in_what_they_share(driver: str, outcome: str) -> None:
    info = {"Driver": driver, "DriverStatus": [["Backing Filesystem", "extfs"]], "DockerRootDir": "/d"}
    observation = docker_daemon.storage(Target(), {"docker": info})
    assert (observation.outcome, observation.found) == (outcome, f"{driver} on extfs, at /d")


def test_a_daemon_that_is_too_old_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with old_daemon(tmp_path / "old.sock") as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        (found,) = run_checks([Check("docker", docker_daemon.daemon)], Target())
    assert found.status == "missing"
    assert found.found == "the Docker daemon is too old: version 18.09.9, API 1.39"
    assert found.fix == "update Docker"


def test_a_daemon_that_never_answers_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "deaf.sock"))
        listening.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/deaf.sock")
        (found,) = run_checks([Check("docker", docker_daemon.daemon, seconds=0.5)], Target())
    assert (found.status, found.found) == ("missing", "timed out")


def test_without_a_daemon_only_the_daemon_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    done = warmimage("doctor", "image:1", "--json", code=4)
    shown = {entry["id"]: entry for entry in json.loads(done.stdout)["findings"]}
    assert [name for name, entry in shown.items() if entry["status"] == "missing"] == ["docker"]
    dependent = {check.id for check in CHECKS if {"docker", "image", "container"} & set(check.needs)}
    assert {shown[name]["status"] for name in dependent if name in shown} == {"info"}
    assert all(shown[name]["found"].startswith("not checked: needs ") for name in dependent if name in shown)


def test_no_docker_command_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = run_checks([Check("buildkit", docker_daemon.builder)], Target())
    assert (found.status, found.expected) == ("missing", "docker with the buildx plugin")


@pytest.mark.parametrize(
    ("answer", "release", "seccomp", "outcome"),
    [
        (True, "6.18.0", 2, "there"),
        ("OSError: 38", "6.18.0", 2, "hidden"),
        ("OSError: 38", "6.18.0", 0, "absent"),
        ("OSError: 38", "5.15.0", 2, "absent"),
    ],
)
def test_a_call_that_the_kernel_has_is_hidden_by_the_profile(
    answer: bool | str, release: str, seccomp: int, outcome: str
) -> None:
    inside = {
        "pagecache": {"cachestat": answer},
        "kernel": {"release": release},
        "privileges": {"seccomp": seccomp},
    }
    assert kernel.cachestat(Target(), {"container": inside}).outcome == outcome


@pytest.mark.parametrize(
    ("file", "text", "outcome"),
    [
        ("docker/memory.max", "max\n", "none"),
        ("docker/memory.max", "1000000000\n", "limited"),
        ("memory/docker/memory.limit_in_bytes", "9223372036854771712\n", "none"),
        ("memory/docker/memory.limit_in_bytes", "1000000000\n", "limited"),
        ("elsewhere/memory.max", "max\n", "unknown"),
    ],
)
def test_a_limit_over_all_containers_is_found(tmp_path: Path, file: str, text: str, outcome: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text, encoding="utf-8")
    observation = memory.daemon(Target(cgroups=tmp_path), {"docker": {"CgroupDriver": "cgroupfs"}})
    assert observation.outcome == outcome
    if outcome == "limited":
        assert (observation.found, observation.fix_arguments) == ("1.0 GB", {"group": str((tmp_path / file).parent)})


@pytest.mark.parametrize(("wanted", "outcome"), [(0, "enough"), (1 << 26, "enough"), (1 << 30, "default_short")])
def test_shared_memory_is_held_against_what_the_engine_wants(wanted: int, outcome: str) -> None:
    plan = SimpleNamespace(engine=SimpleNamespace(shared_memory=wanted))
    known = {"image": SimpleNamespace(plan=plan), "container": {"memory": {"shared": 1 << 26}}}
    assert memory.shared(Target(), known).outcome == outcome


def rate(read: int, seconds: float, fetched: int | None) -> dict[str, Any]:
    measured = {"bytes": read, "seconds": seconds, "fetched": fetched}
    return {"docker": {"DockerRootDir": "/d"}, "container": {"rate": measured}}


@pytest.mark.parametrize(
    ("known", "outcome"),
    [
        (rate(256 << 20, 0.2, 256 << 20), "fast"),
        (rate(100 << 20, 1.0, 100 << 20), "slow"),
        (rate(256 << 20, 0.1, 100 << 20), "warm"),
        (rate(256 << 20, 0.1, 0), "warm"),
        (rate(256 << 20, 0.1, None), "warm"),
        (rate(1 << 20, 0.1, 1 << 20), "small"),
        (rate(0, 0.0, 0), "small"),
        ({"docker": {"DockerRootDir": "/d"}, "container": {}}, "small"),
        ({"docker": {"DockerRootDir": "/d"}, "container": {"rate": {"error": "E"}}}, "small"),
    ],
)
def test_a_rate_is_called_cold_only_where_storage_gave_the_bytes(known: dict[str, Any], outcome: str) -> None:
    observation = disk.image_rate(Target(), known)
    assert observation.outcome == outcome
    assert observation.found.endswith(", cold") == (outcome in ("fast", "slow"))


def test_a_model_directory_must_be_there_and_whole(tmp_path: Path, tiny_model: Path) -> None:
    assert containers.model(Target(), {}) is None
    observation = containers.model(Target(model_dir=tiny_model), {})
    assert observation
    assert observation.outcome == "whole"
    assert observation.fact == sum(path.stat().st_size for path in tiny_model.glob("*.safetensors"))
    for directory in (tmp_path / "none", tmp_path):
        observation = containers.model(Target(model_dir=directory), {})
        assert observation
        assert observation.outcome == "damaged"


def test_a_model_is_read(tiny_model: Path) -> None:
    assert disk.model_rate(Target(model_dir=tiny_model), {"model": 1}).outcome == "small"


def inside(**found: Any) -> dict[str, Any]:
    """Return the facts of an image with tier ``snapshot``, and of its container that looked at the snapshot."""
    captured = {"captured": True, "kernel": "6.1.0", "machine": "x86_64", "modules": 3012, "bytes": 297_000_000}
    plan = SimpleNamespace(tiers=("snapshot", "zygote"), folders=SimpleNamespace(root="/opt/warmimage"))
    return {
        "image": SimpleNamespace(plan=plan),
        "container": {"snapshot": {**captured, "lacking": [], **found}, "kernel": {"mm_map": True}},
    }


def test_a_captured_snapshot_says_what_it_is() -> None:
    observation = snapshot.image(Target(), inside())
    assert (observation.outcome, observation.found) == ("captured", "297.0 MB, 3,012 modules, captured on Linux 6.1.0")


@pytest.mark.parametrize(
    ("found", "outcome", "said"),
    [
        ({"captured": False, "declined": "a thread is running"}, "declined", "none: a thread is running"),
        ({"captured": False, "declined": ""}, "absent", "no /opt/warmimage/snapshot/manifest.json"),
        ({"error": "KeyError: 'bytes'"}, "damaged", "its manifest cannot be read: KeyError: 'bytes'"),
    ],
)
def test_a_snapshot_that_is_not_there_says_why(found: dict[str, Any], outcome: str, said: str) -> None:
    observation = snapshot.image(Target(), inside(**found))
    assert (observation.outcome, observation.found, observation.fact) == (outcome, said, None)


def test_an_image_without_the_tier_needs_no_snapshot() -> None:
    facts = inside(captured=False, declined="")
    facts["image"].plan.tiers = ("zygote", "preload", "plain")
    assert snapshot.image(Target(), facts).outcome == "no_tier"


@pytest.mark.parametrize(
    ("lacking", "outcome", "said"),
    [
        ([], "covered", "has every extension that the snapshot needs"),
        (["avx2"], "lacks", "lacks avx2"),
        (list("abcdefg"), "lacks", "lacks a, b, c, d, e and 2 others"),
    ],
)
def test_the_cpu_is_held_against_the_snapshot(lacking: list[str], outcome: str, said: str) -> None:
    observation = snapshot.cpu(Target(), {"snapshot.image": {"lacking": lacking}})
    assert (observation.outcome, observation.found) == (outcome, said)


@pytest.mark.parametrize(
    ("answer", "tiers", "outcome"),
    [
        (True, ("snapshot",), "there"),
        ("PermissionError: EPERM", ("snapshot",), "absent_needed"),
        ("OSError: EINVAL", ("zygote",), "absent"),
    ],
)
def test_a_kernel_without_the_option_matters_to_an_image_with_the_tier(
    answer: bool | str, tiers: tuple[str, ...], outcome: str
) -> None:
    facts = inside()
    facts["image"].plan.tiers = tiers
    facts["container"]["kernel"]["mm_map"] = answer
    assert snapshot.mm_map(Target(), facts).outcome == outcome


def test_without_an_image_the_option_is_tried_here() -> None:
    facts = {"container": {"kernel": {"mm_map": "OSError: EINVAL"}}}
    assert snapshot.mm_map(Target(), facts).outcome == "absent"
