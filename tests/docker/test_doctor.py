"""The doctor on a real Docker daemon: right about a healthy host; a planted fault changes its own finding alone."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from warmimage.doctor.checks import CHECKS
from warmimage.doctor.finding import Finding
from warmimage.doctor.run import run_checks
from warmimage.doctor.target import Target

from tests.support.images import COMMAND, warmimage
from tests.support.servers import small_daemon

pytestmark = pytest.mark.docker

#: Left out where one run is compared with another: a network and a disk's rate are not the same twice.
VARYING = ("network.registry", "network.hub", "network.index", "disk.rate", "model.rate")

#: For machines that other work is done on.
PATIENCE = 120.0


def findings(target: Target) -> dict[str, Finding]:
    checks = [check for check in CHECKS if check.id not in VARYING]
    return {entry.id: entry for entry in run_checks(checks, target, longest=PATIENCE)}


def changed(before: Mapping[str, Finding], after: Mapping[str, Finding]) -> dict[str, str]:
    """Return the status of each finding that has another now."""
    assert set(before) == set(after)
    return {name: entry.status for name, entry in after.items() if entry.status != before[name].status}


@pytest.fixture(scope="module")
def well(transformers_image: str, tiny_model: Path) -> dict[str, Finding]:
    """What is found where nothing is planted."""
    found = findings(Target(image=transformers_image, model_dir=tiny_model))
    assert [entry for entry in found.values() if entry.status in ("missing", "warning")] == []
    return found


@contextmanager
def derived(
    client: docker.DockerClient, image: str, change: Mapping[str, Any], files: Mapping[str, tuple[str, int] | None]
) -> Iterator[str]:
    """Yield an image like another, but for its plan, and with files of some content and mode in it.

    Where ``None`` stands for a file, a link to nowhere takes its place: nothing can be taken out of an image.
    """
    tag = "warmimage-test/doctor:1"
    plan = {**json.loads(client.images.get(image).labels["dev.warmimage.plan"]), **change}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, file in files.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            if file is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, "/nowhere"
                archive.addfile(entry)
                continue
            content, mode = file
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content.encode()))
    made = client.containers.create(image)
    try:
        made.put_archive("/", packed.getvalue())
        made.commit("warmimage-test/doctor", tag="1", conf={"Labels": {"dev.warmimage.plan": json.dumps(plan)}})
        yield tag
    finally:
        made.remove(force=True)
        client.images.remove(tag, force=True)


def test_the_command_is_right_about_this_host(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path
) -> None:
    done = warmimage("doctor", transformers_image, "--model", str(tiny_model), "--json")
    shown = json.loads(done.stdout)
    assert (shown["schema"], shown["exit_code"], shown["image"]) == (1, 0, transformers_image)
    found = {entry["id"]: entry for entry in shown["findings"]}
    info, version = client.info(), client.version()
    assert found["docker"]["found"].startswith(f"{version['Version']}, API {version['ApiVersion']}")
    assert found["docker.storage"]["found"].startswith(info["Driver"])
    assert found["kernel"]["found"] == os.uname().release
    assert found["memory.cgroup"]["found"] == f"version {info['CgroupVersion']}"
    assert f"{transformers_image} runs as uid 1000" in found["container"]["found"]
    assert f"captured on Linux {os.uname().release}" in found["snapshot.image"]["found"]
    assert {found[f"snapshot.{name}"]["status"] for name in ("image", "cpu", "mm_map")} == {"ok"}
    assert _containers_of_the_doctor(client) == []


def test_the_page_for_a_person_ends_well_too(transformers_image: str) -> None:
    done = warmimage("doctor", transformers_image)
    assert done.stderr == ""
    assert " 0 missing (" in done.stdout.splitlines()[-1]


def test_without_an_image_the_newest_of_ours_is_tried(
    client: docker.DockerClient, transformers_image: str, well: object
) -> None:
    with derived(client, transformers_image, {}, {}):  # other tests' images may be newer
        found = findings(Target())
    assert found["image"].status == "info"
    assert found["container"].status == "ok"
    assert found["snapshot.image"].found == "not checked: needs image"
    assert found["snapshot.mm_map"].status == "ok"


def test_an_image_that_is_not_there_is_missing(well: object) -> None:
    found = findings(Target(image="warmimage-test/none:1"))
    assert [name for name, entry in found.items() if entry.status == "missing"] == ["image"]


def test_an_image_of_others_is_missing(well: object, python_base: str) -> None:
    found = findings(Target(image=python_base))
    assert [name for name, entry in found.items() if entry.status == "missing"] == ["image"]
    assert found["image"].found == "not an image built by warmimage"


def test_a_container_to_which_nothing_is_granted(
    well: dict[str, Finding], transformers_image: str, tiny_model: Path
) -> None:
    """Tier ``snapshot`` needs no privilege: what the strictest container finds is no different."""
    words = {"security_opt": ["no-new-privileges"], "cap_drop": ["ALL"], "user": "54321:0"}
    found = findings(Target(image=transformers_image, model_dir=tiny_model, container=words))
    assert changed(well, found) == {}
    assert "runs as uid 54321" in found["container"].found


def test_a_profile_that_forbids_the_option(well: dict[str, Finding], transformers_image: str, tiny_model: Path) -> None:
    arguments = [{"index": 0, "value": 35, "op": "SCMP_CMP_EQ"}]  # PR_SET_MM
    rules = [{"names": ["prctl"], "action": "SCMP_ACT_ERRNO", "args": arguments}]
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    words = {"security_opt": [f"seccomp={profile}"]}
    found = findings(Target(image=transformers_image, model_dir=tiny_model, container=words))
    assert found["snapshot.mm_map"].status == "warning"
    assert "Operation not permitted" in found["snapshot.mm_map"].found
    assert set(changed(well, found)) <= {"snapshot.mm_map", "pagecache.cachestat"}  # the default profile may hide that


def test_an_image_without_the_tier(
    well: dict[str, Finding], client: docker.DockerClient, transformers_image: str, tiny_model: Path
) -> None:
    change = {"tiers": ["zygote", "preload", "plain"], "snapshot": None}
    with derived(client, transformers_image, change, {}) as image:
        found = findings(Target(image=image, model_dir=tiny_model))
    assert found["snapshot.image"].found == "no snapshot tier in this image"
    assert changed(well, found) == {"snapshot.image": "info", "snapshot.cpu": "info"}


@pytest.mark.parametrize(
    ("files", "status", "said"),
    [
        ({"manifest.json": None}, "missing", "no /opt/warmimage/snapshot/manifest.json"),
        ({"manifest.json": ("{", 0o644)}, "missing", "its manifest cannot be read: JSONDecodeError"),
        (
            {"manifest.json": None, "declined": ("a thread is running\n", 0o644)},
            "warning",
            "none: a thread is running",
        ),
    ],
    ids=["absent", "damaged", "declined"],
)
def test_a_snapshot_that_is_not_whole(
    well: dict[str, Finding],
    client: docker.DockerClient,
    transformers_image: str,
    tiny_model: Path,
    files: dict[str, tuple[str, int] | None],
    status: str,
    said: str,
) -> None:
    planted = {f"/opt/warmimage/snapshot/{name}": file for name, file in files.items()}
    with derived(client, transformers_image, {}, planted) as image:
        found = findings(Target(image=image, model_dir=tiny_model))
    assert changed(well, found) == {"snapshot.image": status, "snapshot.cpu": "info"}
    assert found["snapshot.image"].found.startswith(said)


def test_a_cpu_that_lacks_an_extension(
    well: dict[str, Finding], client: docker.DockerClient, transformers_image: str, tiny_model: Path
) -> None:
    """The planted manifest asks for an extension that no CPU has."""
    manifest = {"kernel": "6.1", "machine": "x86_64", "modules": 1, "bytes": 1, "cpu_features": ["no-such-extension"]}
    planted = {"/opt/warmimage/snapshot/manifest.json": (json.dumps(manifest), 0o644)}
    with derived(client, transformers_image, {}, planted) as image:
        found = findings(Target(image=image, model_dir=tiny_model))
    assert changed(well, found) == {"snapshot.cpu": "warning"}
    assert found["snapshot.cpu"].found == "lacks no-such-extension"


def test_a_memory_limit(well: dict[str, Finding], transformers_image: str, tiny_model: Path) -> None:
    found = findings(Target(image=transformers_image, model_dir=tiny_model, container={"mem_limit": "64m"}))
    assert changed(well, found) == {"memory.container": "warning"}
    assert found["memory.container"].found.startswith("limit 67.1 MB;")


def test_a_full_disk(well: dict[str, Finding], transformers_image: str, tiny_model: Path, tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("mounting a small disk needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(tmp_path)], check=True)
    try:
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "fill").write_bytes(bytes(2 << 20))
        found = findings(Target(image=transformers_image, model_dir=tiny_model, data_root=tmp_path))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert changed(well, found) == {"disk.space": "missing"}
    assert found["disk.space"].found.startswith("0 B free")


def test_a_driver_that_is_too_old_for_the_image(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "driver" / "nvidia"
    folder.mkdir(parents=True)

    def with_driver(image: str, version: str) -> dict[str, Finding]:
        text = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Thu Aug 1 00:00:00 UTC 2024\n"
        (folder / "version").write_text(text, encoding="utf-8")
        return findings(Target(image=image, model_dir=tiny_model, proc=tmp_path))

    # The torch of this image was built for no CUDA: it is its base image's variable that tells.
    with derived(client, transformers_image, {"accelerator": "cuda"}, {}) as image:
        made = client.containers.create(image)
        made.commit("warmimage-test/doctor", tag="1", conf={"Env": ["CUDA_VERSION=12.4.1"]})
        made.remove(force=True)
        before = with_driver(image, "550.54.15")
        after = with_driver(image, "470.256.02")
    assert before["gpu.cuda"].status == "ok"
    assert changed(before, after) == {"gpu.cuda": "missing"}
    assert after["gpu.cuda"].expected == "driver 525.60.13 or later"


def test_gpus_that_the_engine_does_not_give(
    well: dict[str, Finding], client: docker.DockerClient, transformers_image: str, tiny_model: Path
) -> None:
    if "nvidia" in (client.info().get("Runtimes") or {}):
        pytest.skip("this daemon gives GPUs")
    found = findings(Target(image=transformers_image, model_dir=tiny_model, gpus="all"))
    assert found.pop("gpu.container").status == "missing"
    assert changed(well, found) == {}


def test_a_damaged_model(well: dict[str, Finding], transformers_image: str, tiny_model: Path, tmp_path: Path) -> None:
    for path in tiny_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:-1] if path.name.endswith("2.safetensors") else b"{}")
    found = findings(Target(image=transformers_image, model_dir=tmp_path))
    assert changed(well, found) == {"model": "missing"}


def test_an_engine_without_an_image_of_ours_and_without_room(
    python_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid() or not shutil.which("dockerd"):
        pytest.skip("starting a second daemon needs root and dockerd")
    with small_daemon(python_base, tmp_path) as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        found = findings(Target())
    assert [name for name, entry in found.items() if entry.status == "missing"] == ["disk.space"]
    assert found["container"].found.startswith("the Docker daemon has no image built by this version of warmimage")
    assert found["snapshot.image"].found == "not checked: needs image"
    assert found["kernel"].found == os.uname().release


def test_a_run_that_is_interrupted_leaves_no_container(client: docker.DockerClient, transformers_image: str) -> None:
    with subprocess.Popen([COMMAND, "doctor", transformers_image], stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + PATIENCE
        while not _containers_of_the_doctor(client):
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert _containers_of_the_doctor(client) == []


def _containers_of_the_doctor(client: docker.DockerClient) -> list[str]:
    found = client.containers.list(all=True, filters={"label": "dev.warmimage.doctor"}, ignore_removed=True)
    return [str(entry.id) for entry in found]
