"""Weights that are not mounted: baked into the image, or downloaded at start."""

from __future__ import annotations

import json
from pathlib import Path

import docker
import pytest

from tests.support.hub import COMMIT, hub
from tests.support.images import completion, container, wait_ended, wait_ready, warmimage

pytestmark = pytest.mark.docker

REPOSITORY = "example/tiny-qwen2"


@pytest.fixture(scope="module")
def gateway(client: docker.DockerClient) -> str:
    """The address at which containers reach this machine."""
    return str(client.networks.get("bridge").attrs["IPAM"]["Config"][0].get("Gateway") or "172.17.0.1")


def test_baked_weights_come_from_the_hub_at_one_commit(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path: Path
) -> None:
    tag = "warmimage-test/baked:1"
    with hub(REPOSITORY, tiny_model) as endpoint:
        warmimage(
            "build",
            "--model",
            REPOSITORY,
            "--weights",
            "bake",
            "--accelerator",
            "cpu",
            "--base-image",
            transformers_image,
            "--tag",
            tag,
            HF_ENDPOINT=endpoint,
            HF_HOME=str(tmp_path),
        )
    report = json.loads(warmimage("inspect", tag, "--json").stdout)
    assert report["plan"]["model"]["revision"] == COMMIT
    weights = sum(path.stat().st_size for path in tiny_model.iterdir())
    assert weights <= report["sizes"]["weights"] <= weights * 1.1
    with container(client, tag) as made:
        assert completion(wait_ready(made), REPOSITORY)
    client.images.remove(tag, force=True)


def test_downloaded_weights_are_kept_on_the_volume(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path: Path, gateway: str
) -> None:
    tag = "warmimage-test/download:1"
    volume = tmp_path / "volume"
    volume.mkdir()
    for folder in (volume, tmp_path):
        folder.chmod(0o777)
    words = {"volumes": {str(volume): {"bind": "/model", "mode": "rw"}}}
    with hub(REPOSITORY, tiny_model, gateway) as endpoint:
        warmimage(
            "build",
            "--model",
            REPOSITORY,
            "--weights",
            "download",
            "--accelerator",
            "cpu",
            "--base-image",
            transformers_image,
            "--tag",
            tag,
            HF_ENDPOINT=endpoint,
            HF_HOME=str(tmp_path / "cache"),
        )
        with container(client, tag, environment={"HF_ENDPOINT": endpoint}, **words) as made:
            first = completion(wait_ready(made), REPOSITORY)
    with container(client, tag, network_mode="none", ports={}, **words) as made:
        # The hub is gone and so is the network; the volume has it all.
        made.exec_run(["true"])
        assert b"error" not in made.logs().split(b"\n")[0]
        assert made.exec_run(["cat", "/model/.warmimage-revision"]).output.decode().strip() == COMMIT
    with container(client, tag, network_mode="none", ports={}) as made:
        assert wait_ended(made) == 69
        (line,) = [line for line in made.logs().splitlines() if line.startswith(b"warmimage: error")]
        assert f"cannot download {REPOSITORY} at {COMMIT}".encode() in line
    assert first
    client.images.remove(tag, force=True)
