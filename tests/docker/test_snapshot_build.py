"""A snapshot built into an image, captured later, or not captured with a reason: real captures on a real engine."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.images import Image
from warmimage import buildkit, builds, containers, image, quoting, snapshot
from warmimage.config import Config
from warmimage.errors import WarmimageError
from warmimage.plan import CriuPlan, Plan

from tests.images import stub
from tests.support.images import container, wait_for_event, wait_ready, warmimage

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

IMAGE = "warmimage-test/snapshot:1"


@pytest.fixture(scope="module")
def captured(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Image:
    """The image of the other tests, built again: its snapshot is captured, or kept where it was there."""
    folder = tmp_path_factory.mktemp("snapshot")
    text = f"model: {tiny_model}\naccelerator: cpu\nsnapshot: require\ntags: [{IMAGE}]\n"
    (folder / "warmimage.yaml").write_text(text, encoding="utf-8")
    warmimage("build", "--file", str(folder / "warmimage.yaml"))
    made = client.images.get(IMAGE)
    assert left_behind(client, made.labels[snapshot.SOURCE]) == []
    return made


def left_behind(client: docker.DockerClient, source: str) -> list[str]:
    """Return the temporary tags of an image, and its containers that capture; other builds may be at work too."""
    try:
        tags = client.images.get(source).tags
    except docker.errors.ImageNotFound:
        return []
    made = client.containers.list(all=True, filters={"label": "dev.warmimage.capture", "ancestor": source})
    return [tag for tag in tags if tag.startswith("warmimage-build:")] + [str(entry.name) for entry in made]


def test_the_image_says_what_it_holds(client: docker.DockerClient, captured: Image) -> None:
    report = image.inspect(client, IMAGE)
    made = report.plan.snapshot
    assert made
    assert report.plan.tiers[0] == "snapshot"
    assert report.labels["dev.warmimage.tiers"] == ",".join(report.plan.tiers)
    assert report.labels["dev.warmimage.snapshot"] == made.manifest
    assert made.modules > 1000
    assert report.sizes["snapshot"] >= made.bytes > 10_000_000
    assert report.sizes["criu"] > 10_000_000
    page = warmimage("inspect", IMAGE).stdout
    assert f"{made.modules} modules, captured by CRIU {made.criu} on kernel {made.kernel}" in page
    assert "nothing would be declined on this host" in page


def test_the_files_are_roots_and_everybodys_to_read(client: docker.DockerClient, captured: Image) -> None:
    made = client.containers.create(IMAGE)
    try:
        members = {member.name: member for member in archive_of(made, "/opt/warmimage/snapshot")}
        manifest = read(made, "/opt/warmimage/snapshot/manifest.json")
        plan = read(made, "/opt/warmimage/plan.json")
        folder = {member.name for member in archive_of(made, "/opt/warmimage/criu")}
    finally:
        made.remove()
    assert {member.uid for member in members.values()} == {0}
    assert {member.mode & 0o777 for member in members.values() if member.isfile()} == {0o644}
    assert members["snapshot"].mode & 0o777 == 0o755
    label = Plan.model_validate_json(captured.labels["dev.warmimage.plan"])
    assert Plan.model_validate_json(plan) == label
    assert label.snapshot
    assert label.snapshot.manifest == hashlib.sha256(manifest).hexdigest()
    assert {"criu/criu", "criu/criu-checkpoint-restore", "criu/criu-sys-admin", "criu/licenses/criu"} <= folder


def archive_of(made: Any, path: str) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(made.get_archive(path)[0]))) as archive:
        return archive.getmembers()


def read(made: Any, path: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(b"".join(made.get_archive(path)[0]))) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        assert file
        return file.read()


def test_user_entrypoint_and_folder_stay(client: docker.DockerClient, captured: Image) -> None:
    plan = Plan.model_validate_json(captured.labels["dev.warmimage.plan"])
    config = captured.attrs["Config"]
    assert config["User"] == f"{plan.user}:0"
    assert config["WorkingDir"] == plan.folders.home
    assert config["Entrypoint"][-1] == f"{plan.folders.root}/entrypoint"
    assert not config["Cmd"]


@pytest.mark.parametrize("capable", [True, False])
def test_criu_runs_as_the_user_where_its_capability_is_granted(
    client: docker.DockerClient, captured: Image, capable: bool
) -> None:
    capability = containers.restore_capability(client)
    program = f"/opt/warmimage/criu/criu-{capability.lower().replace('_', '-')}"
    words = {"cap_drop": ["ALL"], "cap_add": [capability] if capable else []}
    made = client.containers.create(IMAGE, ["-c", f"{program} --version"], entrypoint=["/bin/sh"], **words)
    try:
        made.start()
        code = made.wait(timeout=60)["StatusCode"]
        said = made.logs().decode()
    finally:
        made.remove(force=True)
    assert (code, "Version: 4.1.1" in said) == ((0, True) if capable else (126, False)), said


def test_the_snapshot_is_restored(client: docker.DockerClient, captured: Image, tiny_model: Path) -> None:
    words = {"cap_drop": ["ALL"], "cap_add": [containers.restore_capability(client)]}
    with container(client, IMAGE, model=tiny_model, **words) as running:
        wait_ready(running)
        (ready,) = [event for event in wait_for_event(running, "ready") if event["event"] == "ready"]
    assert ready["tier"] == "snapshot"


def test_the_same_image_built_again_keeps_its_snapshot(captured: Image, tiny_model: Path, tmp_path: Path) -> None:
    text = f"model: {tiny_model}\naccelerator: cpu\ntags: [{IMAGE}, {IMAGE}-too]\n"
    (tmp_path / "warmimage.yaml").write_text(text, encoding="utf-8")
    done = warmimage("build", "--file", str(tmp_path / "warmimage.yaml"))
    assert "snapshot kept" in done.stderr
    assert done.stdout.strip() == captured.id
    assert warmimage("inspect", f"{IMAGE}-too", "--json").stdout.count(str(captured.id))


def test_an_image_with_a_snapshot_is_not_captured_again(client: docker.DockerClient, captured: Image) -> None:
    assert "the image has a snapshot already" in warmimage("snapshot", IMAGE, code=3).stderr
    assert left_behind(client, str(captured.id)) == []


@contextmanager
def stub_with(client: docker.DockerClient, change: Mapping[str, Any], *lines: str) -> Iterator[str]:
    """Yield an image of the stub server with something else in its plan, and with further instructions."""
    tag = "warmimage-test/stub-snapshot:1"
    reference, _ = stub.build(client)
    plan = stub.plan().model_copy(update={"criu": CriuPlan(version="4.1.1", fingerprint="0" * 32), **change})
    label = f"LABEL dev.warmimage.plan={quoting.dockerfile(plan.model_dump_json())}"
    text = "\n".join([f"FROM {reference}", label, *lines]) + "\n"
    client.images.build(fileobj=io.BytesIO(text.encode()), tag=tag, rm=True)
    try:
        yield tag
    finally:
        client.images.remove(tag, force=True)


def test_the_reason_of_a_capture_that_fails_is_told(client: docker.DockerClient) -> None:
    with stub_with(client, {}) as tag:
        done = warmimage("snapshot", tag, "--tag", f"{tag}-made", code=1)
        assert client.images.list(f"{tag}-made") == []
        assert left_behind(client, tag) == []
    assert "error: the engine cannot be captured here" in done.stderr
    assert "got the image has no CRIU" in done.stderr


def test_what_a_capture_writes_is_taken_whole(client: docker.DockerClient) -> None:
    """The image's command is any program here: it writes a large file, a link and a manifest."""
    facts = {
        "bytes": 9_000_001,
        "criu": "4.1.1",
        "kernel": "1.0",
        "machine": "x86_64",
        "cpu_features": [],
        "modules": 3,
        "accelerator": {"driver": "", "gpus": []},
    }
    script = (
        "import os,sys;d=sys.argv[2];os.makedirs(d);os.umask(0o077);"
        "open(d+'/pages-1.img','wb').write(bytes(range(256))*35157);os.symlink('/etc/shadow',d+'/link');"
        f"open(d+'/manifest.json','w').write({json.dumps(json.dumps(facts))})"
    )
    with stub_with(client, {}, f"ENTRYPOINT {json.dumps(['python3', '-c', script])}") as tag:
        done = warmimage("snapshot", tag, "--tag", f"{tag}-made")
        made = client.images.get(f"{tag}-made")
        assert done.stdout.strip() == made.id
        running = client.containers.create(made)
        try:
            members = archive_of(running, "/opt/warmimage/snapshot")
            pages = read(running, "/opt/warmimage/snapshot/pages-1.img")
        finally:
            running.remove()
        client.images.remove(f"{tag}-made")
        assert left_behind(client, tag) == []
        source = client.images.get(tag).id
    assert sorted(member.name for member in members if not member.isdir()) == [
        "snapshot/manifest.json", "snapshot/pages-1.img",
    ]  # fmt: skip
    assert pages == bytes(range(256)) * 35157
    assert {member.mode & 0o777 for member in members if member.isfile()} == {0o644}
    assert made.labels[snapshot.SOURCE] == source


def test_an_image_without_criu_and_one_for_gpus_that_are_not_there(client: docker.DockerClient) -> None:
    with stub_with(client, {"criu": None}) as tag:
        assert "the image has no CRIU" in warmimage("snapshot", tag, code=4).stderr
    if "nvidia" in client.info()["Runtimes"]:
        pytest.skip("this engine has GPUs")
    with stub_with(client, {"accelerator": "cuda"}) as tag:
        assert "this Docker engine names no NVIDIA runtime" in warmimage("snapshot", tag, code=4).stderr
        assert "no GPU" in warmimage("snapshot", tag, "--gpus", "all", code=4).stderr
        assert left_behind(client, tag) == []


@pytest.mark.parametrize("tagged", [True, False])
def test_auto_keeps_the_image_as_it_is_and_require_fails(
    client: docker.DockerClient, capfd: pytest.CaptureFixture[str], tagged: bool
) -> None:
    tags = ("warmimage-test/stub-auto:1", "warmimage-test/stub-auto:2") if tagged else ()
    with stub_with(client, {}) as reference:
        plan = image.inspect(client, reference).plan

        def make(_plan: Plan, names: Sequence[str]) -> str:
            text = f"FROM {reference}\nLABEL made=again\n"
            made, _ = client.images.build(fileobj=io.BytesIO(text.encode()), rm=True)
            for name in names:
                made.tag(name)
            return str(made.id)

        config = Config(model="tiny-llama", accelerator="cpu", tags=tags, snapshot="auto")
        builder = buildkit.find_builder()
        found, same = builds._with_snapshot(client, builder, config, plan, "quiet", make, None)
        assert same == plan
        assert sorted(client.images.get(found).tags) == sorted(tags)
        said = capfd.readouterr().err
        assert "no snapshot captured: the engine cannot be captured here: the image has no CRIU" in said
        with pytest.raises(WarmimageError, match="cannot be captured"):
            builds._with_snapshot(
                client, builder, config.model_copy(update={"snapshot": "require"}), plan, "quiet", make, None
            )
        assert left_behind(client, found) == []
        for name in tags or (found,):
            with suppress(docker.errors.ImageNotFound):
                client.images.remove(name, force=True)
