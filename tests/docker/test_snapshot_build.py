"""A snapshot built into an image, added to one later, or not captured with a reason: real captures of a real engine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from warmimage.image import read
from warmimage.plan import Plan

from tests.support.images import container, warmimage
from tests.support.snapshots import DIRECTORY, NOTHING_GRANTED, member, members, serve, start

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

IMAGE = "warmimage-test/snapshot-built"

#: A step that has every interpreter of the image share memory, which no snapshot can hold.
SHARES = "echo 'import mmap; shared = mmap.mmap(-1, 4096)' >> /usr/lib/python3.11/sitecustomize.py"


def build(directory: Path, model: Path, tag: str, *lines: str, code: int = 0) -> str:
    """Build an image, and return what the command said to a person."""
    text = "\n".join([f"model: {model}", "accelerator: cpu", f"tags: ['{tag}']", *lines]) + "\n"
    (directory / "warmimage.yaml").write_text(text, encoding="utf-8")
    return warmimage("build", "--file", str(directory / "warmimage.yaml"), code=code).stderr


@pytest.fixture
def remove(client: docker.DockerClient) -> Iterator[list[str]]:
    """Names of images that are removed when the test has ended."""
    names: list[str] = []
    yield names
    for name in names:
        if client.images.list(name):
            client.images.remove(name, force=True)


def test_the_image_says_what_it_holds(client: docker.DockerClient, transformers_image: str) -> None:
    report = read.inspect(client, transformers_image)
    made = report.snapshot
    assert made
    assert report.plan.tiers[0] == "snapshot"
    assert report.labels["dev.warmimage.tiers"] == ",".join(report.plan.tiers)
    assert made.modules > 1000
    assert report.sizes["snapshot"] >= made.bytes > 100_000_000
    page = warmimage("inspect", transformers_image).stdout
    assert f"{made.modules} modules, captured on kernel {made.kernel}" in page
    assert "every part works on this host" in page
    data = json.loads(warmimage("inspect", transformers_image, "--json").stdout)
    assert data["snapshot"]["bytes"] == made.bytes
    assert "HF_HUB_OFFLINE" in data["snapshot"]["variables"]
    assert "environment" not in data["snapshot"], "values of variables may be secret"


def test_the_files_are_roots_and_everybodys_to_read(client: docker.DockerClient, transformers_image: str) -> None:
    found = {entry.name: entry for entry in members(client, transformers_image, DIRECTORY)}
    assert found.keys() == {"snapshot", "snapshot/memory", "snapshot/manifest.json", "snapshot/checks.json"}
    assert {entry.uid for entry in found.values()} == {0}
    assert {entry.mode & 0o777 for entry in found.values() if entry.isfile()} == {0o644}
    assert found["snapshot"].mode & 0o777 == 0o755
    plan = Plan.from_json(member(client, transformers_image, "/opt/warmimage/plan.json"))
    assert plan == read.plan_of(client.images.get(transformers_image), transformers_image)


def test_an_image_built_again_is_not_captured_again(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path: Path, remove: list[str]
) -> None:
    """The builder has the layer, also where the arguments or the port differ."""
    remove += [f"{IMAGE}:1", f"{IMAGE}:2"]
    build(tmp_path, tiny_model, f"{IMAGE}:1")
    build(tmp_path, tiny_model, f"{IMAGE}:2", "args: ['--port', '8001']")
    first, second = (member(client, name, f"{DIRECTORY}/manifest.json") for name in (f"{IMAGE}:1", f"{IMAGE}:2"))
    assert first == second == member(client, transformers_image, f"{DIRECTORY}/manifest.json")
    assert client.images.get(f"{IMAGE}:1").id != client.images.get(f"{IMAGE}:2").id


def test_an_image_with_a_snapshot_gets_no_second_one(transformers_image: str) -> None:
    assert "the image already has a snapshot" in warmimage("snapshot", transformers_image, code=3).stderr


def test_a_snapshot_is_added_to_an_image_without_one(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path: Path, remove: list[str]
) -> None:
    """By a build on top of it: no container is run."""
    off, added = f"{IMAGE}-off:1", f"{IMAGE}-added:1"
    remove += [added, off]
    build(tmp_path, tiny_model, off, "snapshot: off")
    report = read.inspect(client, off)
    assert (report.plan.snapshot, report.snapshot) == (None, None)
    assert "snapshot" not in report.plan.tiers
    served = start(client, off, tiny_model, **NOTHING_GRANTED)
    assert (served.tier, served.reasons) == ("zygote", []), served.log
    began = int(time.time())
    done = warmimage("snapshot", off, "--tag", added)
    assert [name for name in started(client, began) if name in (off, added)] == []
    assert done.stdout.strip() == client.images.get(added).id
    report = read.inspect(client, added)
    assert report.plan.tiers[0] == "snapshot"
    assert report.snapshot
    before, after = (client.images.get(name).attrs for name in (off, added))
    for key in ("User", "WorkingDir", "Entrypoint", "Cmd", "Env", "ExposedPorts", "Healthcheck"):
        assert after["Config"].get(key) == before["Config"].get(key), key
    assert after["RootFS"]["Layers"][: len(before["RootFS"]["Layers"])] == before["RootFS"]["Layers"]
    restored = start(client, added, tiny_model, **NOTHING_GRANTED)
    assert (restored.tier, restored.reasons, restored.text) == ("snapshot", [], served.text), restored.log


def started(client: docker.DockerClient, since: int) -> list[str]:
    """Return the images of the containers that were started since a moment, in seconds."""
    filters = {"type": "container", "event": "start"}
    events = client.events(since=since, until=int(time.time()) + 1, filters=filters, decode=True)
    return [event["from"] for event in events]


@pytest.mark.slow
def test_what_cannot_be_captured(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path: Path, remove: list[str]
) -> None:
    """By default the image is built without, and everybody names the reason; ``require`` ends the build."""
    tag = f"{IMAGE}-shares:1"
    remove.append(tag)
    step = f"run: [{json.dumps(SHARES)}]"
    said = build(tmp_path, tiny_model, tag, step)
    reason = "it has mapped /dev/zero (deleted)"
    assert f"no snapshot in this image: {reason}" in " ".join(said.split())
    assert reason in warmimage("inspect", tag).stdout
    assert [entry.name for entry in members(client, tag, DIRECTORY)] == ["snapshot", "snapshot/declined"]
    with container(client, tag, model=tiny_model, **NOTHING_GRANTED) as running:
        served = serve(running)
    assert served.tier == "zygote"
    (line,) = served.reasons
    assert line.startswith(f"skipped: none was captured: {reason}")
    assert f"snapshot not captured: {reason}" in build(tmp_path, tiny_model, tag, step, "snapshot: require", code=1)
    assert f"snapshot not captured: {reason}" in warmimage("snapshot", tag, code=1).stderr
