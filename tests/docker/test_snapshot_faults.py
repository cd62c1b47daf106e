"""Whatever stands in the way of a restore: the server comes up in the next tier, and one line says why."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.images import Image
from warmimage import containers, timeline

from tests.docker.test_snapshot_build import IMAGE, archive_of, captured, read
from tests.support.images import completion, container, wait_for_event, wait_ready

__all__ = ["captured"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]

#: What the server calls the model.
MODEL = "tiny-qwen2"

TAG = "warmimage-test/snapshot-fault:1"

FOLDER = "/opt/warmimage/snapshot"

#: Seconds that a start may take longer than the tier does that it comes to.
DETOUR = 1.0


@pytest.fixture(scope="module")
def restores(client: docker.DockerClient) -> dict[str, Any]:
    """What ``warmimage run`` grants."""
    return {"cap_drop": ["ALL"], "cap_add": [containers.restore_capability(client)]}


@contextmanager
def derived(client: docker.DockerClient, lines: Sequence[str], files: Mapping[str, bytes]) -> Iterator[str]:
    """Yield an image that is derived from the captured one."""
    context = io.BytesIO()
    text = "\n".join([f"FROM {IMAGE}", "USER 0", *lines, "USER 1000:0"]) + "\n"
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, content in {**files, "Dockerfile": text.encode()}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), 0o755, 1_700_000_000
            archive.addfile(member, io.BytesIO(content))
    client.images.build(fileobj=io.BytesIO(context.getvalue()), custom_context=True, tag=TAG, rm=True)
    try:
        yield TAG
    finally:
        client.images.remove(TAG, force=True)


def outcome(client: docker.DockerClient, image: str, model: Path, **words: Any) -> tuple[str, str, float, str]:
    """Start, ask for a completion, and return the tier, what was said, the seconds to ready and the completion."""
    with container(client, image, model=model, **words) as running:
        port = wait_ready(running)
        events = wait_for_event(running, "ready")
        (ready,) = timeline.find(events, "ready")
        return ready["tier"], running.logs().decode(), ready["seconds"], completion(port, MODEL)


@pytest.fixture(scope="module")
def usual(
    client: docker.DockerClient, captured: Image, tiny_model: Path, restores: dict[str, Any]
) -> tuple[float, str]:
    """Return how long tier ``zygote`` takes by itself, in seconds, and its completion."""
    found = [
        outcome(client, IMAGE, tiny_model, environment={"WARMIMAGE_START": "zygote"}, **restores) for _ in range(3)
    ]
    assert {tier for tier, _, _, _ in found} == {"zygote"}
    return sorted(seconds for _, _, seconds, _ in found)[1], found[0][3]


def member(client: docker.DockerClient, path: str) -> bytes:
    made = client.containers.create(IMAGE)
    try:
        return read(made, path)
    finally:
        made.remove()


def pages(client: docker.DockerClient) -> tuple[str, bytes]:
    """Return name and content of the largest image file of the dump."""
    made = client.containers.create(IMAGE)
    try:
        name = max(archive_of(made, FOLDER), key=lambda entry: entry.size).name.rpartition("/")[2]
    finally:
        made.remove()
    return name, member(client, f"{FOLDER}/{name}")


def flipped(client: docker.DockerClient) -> tuple[list[str], dict[str, bytes]]:
    name, content = pages(client)
    middle = len(content) // 2
    return [f"COPY pages {FOLDER}/{name}"], {
        "pages": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    }


def truncated(client: docker.DockerClient) -> tuple[list[str], dict[str, bytes]]:
    name, content = pages(client)
    return [f"COPY pages {FOLDER}/{name}"], {"pages": content[: len(content) // 3]}


def another_cpu(client: docker.DockerClient) -> tuple[list[str], dict[str, bytes]]:
    manifest = json.loads(member(client, f"{FOLDER}/manifest.json"))
    manifest["cpu_features"].append("avx4096")
    return [f"COPY manifest.json {FOLDER}/"], {"manifest.json": json.dumps(manifest).encode()}


def replaced_module(client: docker.DockerClient) -> tuple[list[str], dict[str, bytes]]:
    checks = json.loads(member(client, f"{FOLDER}/checks.json"))
    path = next(path for path, _, _ in checks["sources"] if path.endswith("/transformers/__init__.py"))
    return [f"COPY module {path}"], {"module": member(client, path) + b"\n# patched\n"}


def replaced_library(client: docker.DockerClient) -> tuple[list[str], dict[str, bytes]]:
    manifest = json.loads(member(client, f"{FOLDER}/manifest.json"))
    path = next(path for path, _, _ in manifest["files"] if "/safetensors/" in path)
    return [f"COPY library {path}"], {"library": member(client, path)}


def hanging_criu(_client: docker.DockerClient) -> tuple[list[str], dict[str, bytes]]:
    names = ("criu-checkpoint-restore", "criu-sys-admin")
    return [f"COPY hang /opt/warmimage/criu/{name}" for name in names], {"hang": b"#!/bin/sh\nsleep 1000 &\nwait\n"}


#: Faults of the image: what makes the derived one, and what the line says.
IMAGES = {
    "bit flipped": (flipped, f"in {FOLDER} is damaged"),
    "truncated": (truncated, f"in {FOLDER} is damaged"),
    "no manifest": (lambda _client: ([f"RUN rm {FOLDER}/manifest.json"], {}), f"there is none in {FOLDER}"),
    "library replaced": (replaced_library, "is not the file that it was captured with"),
    "module replaced": (replaced_module, "is not the file that was imported at the capture"),
    "another CPU": (another_cpu, "this CPU lacks avx4096"),
    "CRIU missing": (lambda _client: (["RUN rm -r /opt/warmimage/criu"], {}), "the image has no CRIU"),
    "CRIU hangs": (hanging_criu, "the restore failed: it stood still"),
}

_FULL = dict.fromkeys(("/run/warmimage", "/dev/shm", "/tmp"), "size=4k,mode=1777")

#: Faults of the container: how it is started, and what the line says.
CONTAINERS: dict[str, tuple[dict[str, Any], str]] = {
    "no capability": ({"cap_add": []}, "the container has neither capability CHECKPOINT_RESTORE nor SYS_ADMIN"),
    "no new privileges": ({"security_opt": ["no-new-privileges"]}, "no_new_privs keeps CRIU from its capability"),
    "contract variable": ({"environment": {"HOME": "/tmp"}}, "HOME has changed since"),
    "another user": ({"user": "1234:0"}, "it was captured as user 1000, and this is 1234"),
}


def check(found: tuple[str, str, float, str], reason: str, usual: tuple[float, str]) -> None:
    tier, said, seconds, answer = found
    lines = [line for line in said.splitlines() if line.startswith("warmimage: snapshot skipped: ")]
    assert (tier, len(lines)) == ("zygote", 1), said
    assert reason in lines[0]
    assert answer == usual[1]
    assert seconds <= usual[0] + DETOUR


@pytest.mark.parametrize("name", IMAGES)
def test_a_fault_of_the_image(
    client: docker.DockerClient, tiny_model: Path, restores: dict[str, Any], usual: tuple[float, str], name: str
) -> None:
    make, reason = IMAGES[name]
    lines, files = make(client)
    with derived(client, lines, files) as image:
        check(outcome(client, image, tiny_model, **restores), reason, usual)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_fault_of_the_container(
    client: docker.DockerClient, tiny_model: Path, restores: dict[str, Any], usual: tuple[float, str], name: str
) -> None:
    words, reason = CONTAINERS[name]
    check(outcome(client, IMAGE, tiny_model, **{**restores, **words}), reason, usual)


def test_a_pid_that_is_taken(
    client: docker.DockerClient, tiny_model: Path, restores: dict[str, Any], usual: tuple[float, str]
) -> None:
    """In a PID namespace that two containers share, the first has taken it."""
    with ExitStack() as stack:
        first = stack.enter_context(container(client, IMAGE, model=tiny_model, **restores))
        wait_ready(first)
        assert timeline.find(wait_for_event(first, "ready"), "ready")[0]["tier"] == "snapshot"
        words = {**restores, "pid_mode": f"container:{first.id}"}
        check(outcome(client, IMAGE, tiny_model, **words), "the restore failed", usual)


def test_no_space_in_the_work_directory(
    client: docker.DockerClient, tiny_model: Path, restores: dict[str, Any], usual: tuple[float, str]
) -> None:
    """A folder that can be made, and then holds nothing."""
    script = 'for d in /run/warmimage /dev/shm /tmp; do cat /dev/zero >$d/full 2>/dev/null; done; exec "$@"'
    entrypoint = client.images.get(IMAGE).attrs["Config"]["Entrypoint"]
    words = {"tmpfs": _FULL, "entrypoint": ["/bin/sh", "-c", script, "sh", *entrypoint]}
    with container(client, IMAGE, model=tiny_model, **restores, **words) as running:
        port = wait_ready(running)
        assert completion(port, MODEL) == usual[1]
        said = running.logs().decode()
    assert said.count("snapshot skipped: the restore failed") == 1, said
    assert "(tier zygote; skipped: snapshot)" in said


def test_a_read_only_root_restores(
    client: docker.DockerClient, tiny_model: Path, restores: dict[str, Any], usual: tuple[float, str]
) -> None:
    with container(client, IMAGE, model=tiny_model, read_only=True, **restores) as running:
        assert completion(wait_ready(running), MODEL) == usual[1]
        said = running.logs().decode()  # there is no place for a timeline
    assert "(tier snapshot)" in said, said
