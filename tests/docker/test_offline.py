"""Once the wheels are there, a build needs neither a registry, nor an index, nor a network in its steps."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import docker
import pytest
from warmimage.docker_api.buildkit import find_builder

from tests.support.images import warmimage

pytestmark = pytest.mark.docker

#: A proxy that refuses: what asks the network anyway fails at once.
NO_NETWORK = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "PIP_RETRIES": "0"}


@pytest.fixture
def locked(transformers_image: str, tiny_model: Path, tmp_path: Path) -> Path:
    """A configuration with a lock, its wheels in the cache."""
    (tmp_path / "warmimage.yaml").write_text(f"model: {tiny_model}\naccelerator: cpu\n", encoding="utf-8")
    warmimage("build", "--file", str(tmp_path / "warmimage.yaml"), "--tag", "warmimage-test/offline:1")
    return tmp_path / "warmimage.yaml"


def test_a_locked_build_asks_no_index(client: docker.DockerClient, locked: Path) -> None:
    lock = (locked.parent / "warmimage.lock").read_bytes()
    done = warmimage("build", "--file", str(locked), **NO_NETWORK)
    assert done.stdout.startswith("sha256:")
    assert (locked.parent / "warmimage.lock").read_bytes() == lock


def test_a_rendered_context_builds_with_plain_docker_and_no_network(
    client: docker.DockerClient, locked: Path, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    assert warmimage("render", "--file", str(locked), "--output-dir", str(context)).stdout.strip() == str(context)
    builder = find_builder()
    command = [*builder.command, "--network", "none", "--tag", "warmimage-test/rendered:1", str(context)]
    environment = {**os.environ, **NO_NETWORK, **dict(builder.environment)}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert client.images.get("warmimage-test/rendered:1").labels["dev.warmimage.engine"].startswith("transformers ")
    client.images.remove("warmimage-test/rendered:1", force=True)


def test_a_wheelhouse_alone_is_enough(locked: Path, tiny_model: Path, tmp_path: Path) -> None:
    context, wheelhouse = tmp_path / "context", tmp_path / "wheelhouse"
    warmimage("render", "--file", str(locked), "--output-dir", str(context))
    shutil.copytree(context / "wheels", wheelhouse, copy_function=_link)
    other = tmp_path / "other"
    other.mkdir()
    (other / "warmimage.yaml").write_text(f"model: {tiny_model}\naccelerator: cpu\n", encoding="utf-8")
    words = ("render", "--file", str(other / "warmimage.yaml"), "--wheelhouse", str(wheelhouse))
    warmimage(*words, "--output-dir", str(tmp_path / "again"), **NO_NETWORK)
    assert (tmp_path / "again/wheels/requirements.txt").read_text() == (context / "wheels/requirements.txt").read_text()
    (removed,) = wheelhouse.glob("tokenizers-*.whl")
    removed.unlink()
    (other / "warmimage.lock").unlink()
    assert "tokenizers" in warmimage(*words, code=3, **NO_NETWORK).stderr


def _link(source: str, target: str) -> str:
    Path(target).hardlink_to(source)
    return target
