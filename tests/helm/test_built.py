"""What ``warmimage build`` finds out about an image for its values, and when it refuses to write them."""

from __future__ import annotations

import io
from pathlib import Path

import docker
import pytest
import yaml
from warmimage.helm import values
from warmimage.image import read
from warmimage.rendering import quoting

from tests.images import stub
from tests.support.images import warmimage

TAG = "warmimage-test/stub-values:1"


@pytest.mark.docker
def test_an_image_is_looked_into(client: docker.DockerClient) -> None:
    """Its variables say which folders a server writes to; only those with something in them are to be filled."""
    reference, _ = stub.build(client)
    plan = stub.plan()
    label = f"LABEL dev.warmimage.plan={quoting.dockerfile(plan.to_json())}"
    lines = [f"FROM {reference}", label, "ENV HF_HOME=/cache/hf VLLM_CACHE_ROOT=/cache/vllm TRITON_CACHE_DIR=/none"]
    lines += ["USER 0", "RUN mkdir -p /cache/vllm /cache/hf/hub && touch /cache/hf/hub/file"]
    client.images.build(fileobj=io.BytesIO("\n".join(lines).encode()), tag=TAG, rm=True)
    try:
        built = values.inspect(client, read.inspect(client, TAG), "", 5 << 20)
        assert client.containers.list(all=True, filters={"ancestor": TAG}) == []
    finally:
        client.images.remove(TAG, force=True)
    assert built.size > 1 << 20
    (model,) = yaml.safe_load(values.text(built))["models"].values()
    assert model["image"] == {"repository": "warmimage-test/stub-values", "tag": "1"}
    assert model["weights"]["bytes"] == "5Mi"
    folders = {folder["path"]: folder["seed"] for folder in model["writable"].values()}
    assert folders == {plan.folders.home: False, "/cache/hf": True, "/cache/vllm": False, "/none": False}


def test_a_file_that_no_build_wrote_is_refused_before_the_build(tiny_model: Path, tmp_path: Path) -> None:
    """Nothing is resolved, pulled or built first."""
    file = tmp_path / "mine.yaml"
    file.write_text("models: {}\n", encoding="utf-8")
    words = ["build", "--model", str(tiny_model), "--accelerator", "cpu", "--tag", "nothing:1", "--values", str(file)]
    done = warmimage(*words, code=3, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert "error: the values file was not written by a build, so it is not overwritten" in done.stderr
    assert f"at {file}" in done.stderr
    assert file.read_text(encoding="utf-8") == "models: {}\n"
    done = warmimage(*words, "--no-values", code=2)
    assert "error: --values and --no-values exclude each other" in done.stderr
