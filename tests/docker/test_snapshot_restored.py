"""What a restored server shares with the next one, and what it must not share; and what no snapshot may hold."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.images import Image
from warmimage import buildkit, containers, timeline
from warmimage.image import plan_of

from tests.docker.test_snapshot_build import IMAGE, captured
from tests.docker.test_snapshot_faults import derived, member
from tests.support.images import MESSAGES, container, request, wait_for_event, wait_ready, warmimage

__all__ = ["captured"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]

#: What the server calls the model.
MODEL = "tiny-qwen2"

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


@pytest.fixture(scope="module")
def restores(client: docker.DockerClient) -> dict[str, Any]:
    """What ``warmimage run`` grants."""
    return {"cap_drop": ["ALL"], "cap_add": [containers.restore_capability(client)]}


def restored(running: Any) -> None:
    (ready,) = timeline.find(wait_for_event(running, "ready"), "ready")
    assert ready["tier"] == "snapshot", running.logs().decode()


def test_two_replicas_draw_different_numbers(
    client: docker.DockerClient, captured: Image, tiny_model: Path, restores: dict[str, Any]
) -> None:
    plan = plan_of(captured, IMAGE)
    path = f"{plan.folders.engine}/bin/{plan.engine.command[0]}"
    script = DRAWS.format(python=plan.python) + member(client, path).decode().partition("\n")[2]
    with derived(client, [f"COPY script {path}"], {"script": script.encode()}) as image:

        def replica(_number: int) -> tuple[dict[str, Any], str]:
            with container(client, image, model=tiny_model, **restores) as running:
                port = wait_ready(running)
                restored(running)
                said = [line for line in running.logs().decode().splitlines() if line.startswith(("draws:", "torch:"))]
                body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 4}
                answer = json.loads(request(port, "POST", "/v1/chat/completions", body)[1])
                draws, torch_seed = (line.partition(" ")[2] for line in said)
                return {**json.loads(draws), "completion": answer["id"]}, torch_seed

        with ThreadPoolExecutor(2) as pool:
            (first, seed), (second, other_seed) = pool.map(replica, range(2))
    assert [name for name in first if first[name] == second[name]] == []
    assert (seed == other_seed) is torch_begins_alike(client), "as two new processes would"


def torch_begins_alike(client: docker.DockerClient) -> bool:
    """Return whether this build of torch has the same seed in every new process, or draws one."""
    words = {"entrypoint": "/opt/engine/bin/python", "remove": True}
    code = ["-c", "import torch; print(torch.initial_seed())"]
    return bool(client.containers.run(IMAGE, code, **words) == client.containers.run(IMAGE, code, **words))


def test_two_replicas_share_the_page_cache_of_the_dump(
    client: docker.DockerClient, captured: Image, tiny_model: Path, restores: dict[str, Any]
) -> None:
    folder = layer_folder(client)
    images = [file for file in folder.iterdir() if file.suffix == ".img"]
    size = sum(file.stat().st_size for file in images)
    for file in images:
        drop(file)
    before = read_sectors()

    def replica(_number: int) -> None:
        with container(client, IMAGE, model=tiny_model, **restores) as running:
            wait_ready(running)
            restored(running)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(replica, range(2)))
    read = (read_sectors() - before) * 512
    assert size * 0.9 < read < size * 1.5, f"{read >> 20} MiB read of a dump of {size >> 20} MiB"


def layer_folder(client: docker.DockerClient) -> Path:
    """Return where the engine keeps the layer that the dump is."""
    data = client.images.get(IMAGE).attrs["GraphDriver"]["Data"]
    for layer in [data["UpperDir"], *data.get("LowerDir", "").split(":")]:
        folder = Path(layer, "opt/warmimage/snapshot")
        if folder.is_dir():
            return folder
    pytest.skip("this engine does not show its layers")


def drop(file: Path) -> None:
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
    """An image with CRIU and no snapshot: from a rendered context, which can hold none."""
    folder, tag = tmp_path_factory.mktemp("without"), "warmimage-test/without:1"
    (folder / "warmimage.yaml").write_text(f"model: {tiny_model}\naccelerator: cpu\n", encoding="utf-8")
    warmimage("render", "--file", str(folder / "warmimage.yaml"), "--output-dir", str(folder / "context"))
    builder = buildkit.find_builder()
    command = [*builder.command, "--network", "none", "--tag", tag, str(folder / "context")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **dict(builder.environment)})
    yield tag
    client.images.remove(tag, force=True)


def test_a_snapshot_captured_on_the_node_is_restored_from_its_folder(
    client: docker.DockerClient, without: str, tiny_model: Path, tmp_path: Path, restores: dict[str, Any]
) -> None:
    """The image has none of its own; a folder of the host holds one, read-only."""
    source = without
    tmp_path.chmod(0o777)
    capture = containers.capture_arguments(plan_of(client.images.get(source), source), "", "/node")
    capture["volumes"] = {str(tmp_path): {"bind": "/node", "mode": "rw"}}
    made = client.containers.create(source, **capture)
    try:
        made.start()
        assert made.wait(timeout=600)["StatusCode"] == 0, made.logs().decode()
    finally:
        made.remove(force=True)
    words = {
        **restores,
        "volumes": {
            str(tmp_path): {"bind": "/node", "mode": "ro"}, str(tiny_model): {"bind": "/model", "mode": "ro"},
        },
        "environment": {"WARMIMAGE_SNAPSHOT_DIR": "/node"},
    }  # fmt: skip
    with container(client, source, **words) as running:
        wait_ready(running)
        restored(running)
    with container(client, source, model=tiny_model, **restores) as running:
        wait_ready(running)
        (ready,) = timeline.find(wait_for_event(running, "ready"), "ready")
    assert ready["tier"] == "zygote"


def test_run_grants_the_capability_for_a_folder_of_the_node(client: docker.DockerClient, without: str) -> None:
    source = plan_of(client.images.get(without), without)
    options = containers.Options(environment={"WARMIMAGE_SNAPSHOT_DIR": "/node"})
    words = containers.create_arguments(client, containers.needs_of(source, ()), options, {})
    assert words["cap_add"] == [containers.restore_capability(client)]
    options = containers.Options(environment={"WARMIMAGE_SNAPSHOT_DIR": "/node", "WARMIMAGE_START": "zygote"})
    assert containers.create_arguments(client, containers.needs_of(source, ()), options, {})["cap_add"] == []


def test_no_planted_token_is_in_the_dump(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path: Path
) -> None:
    """In the environment of the build, in a secret of one of its steps, and in the proxies of the user's client."""
    tag = "warmimage-test/snapshot-token:1"
    tokens = {name: secrets.token_hex(24) for name in ("environment", "secret", "proxy", "hub")}
    (tmp_path / "token").write_text(tokens["secret"], encoding="utf-8")
    (tmp_path / "warmimage.yaml").write_text(
        f"model: {tiny_model}\naccelerator: cpu\nsnapshot: require\n"
        "run: ['cat /run/secrets/token | wc -c > /opt/length']\n",
        encoding="utf-8",
    )
    docker_config = tmp_path / "docker"
    docker_config.mkdir()
    proxy = f"http://user:{tokens['proxy']}@127.0.0.1:9"
    (docker_config / "config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": proxy}}}))
    warmimage(
        "build", "--file", str(tmp_path / "warmimage.yaml"), "--tag", tag, "--secret", f"id=token,src={tmp_path}/token",
        PLANTED_TOKEN=tokens["environment"], HF_TOKEN=tokens["hub"], DOCKER_CONFIG=str(docker_config),
    )  # fmt: skip
    archive = tmp_path / "snapshot.tar"
    made = client.containers.create(tag)
    try:
        with archive.open("wb") as file:
            for chunk in made.get_archive("/opt/warmimage/snapshot")[0]:
                file.write(chunk)
    finally:
        made.remove()
        client.images.remove(tag, force=True)
    assert archive.stat().st_size > 100 << 20
    known = subprocess.run(["grep", "-c", "-a", "huggingface_hub", archive], capture_output=True, check=False)
    assert int(known.stdout) > 0, "what is in the dump is found"
    for name, token in tokens.items():
        found = subprocess.run(["grep", "-q", "-a", "-F", token, archive], check=False)
        assert found.returncode == 1, name
