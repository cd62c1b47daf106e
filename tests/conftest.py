"""What all tests share: a quiet, private environment, and a Docker client where a test asks for one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from warmimage.inputs.base_image import default_base

from tests.images import vllm_cpu
from tests.support.images import warmimage
from tests.support.tiny_model import make_tiny_model

TRANSFORMERS_IMAGE = "warmimage-test/transformers:1"
VLLM_IMAGE = "warmimage-test/vllm:1"

#: The engine's arguments of ``vllm_image``: what runs on any CPU, and starts quickly.
VLLM_ARGUMENTS = ("--dtype", "float32", "--max-model-len", "512", "--enforce-eager")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that uses the daemon without the marker ``docker``, by which the two parts of a run are chosen.

    CPython's own tests take minutes each and mostly wait: they begin, so that no worker runs one of them alone at the
    end.
    """
    items.sort(key=lambda item: "multiprocessing" not in item.path.parts)
    unmarked = [
        item.nodeid
        for item in items
        if "client" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("docker")
    ]
    if unmarked:
        raise pytest.UsageError(f"these tests use the daemon and lack the marker docker: {', '.join(unmarked)}")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No colour, and none of the user's own settings."""
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("WARMIMAGE_DEBUG", "WARMIMAGE_START", "WARMIMAGE_FILE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """A client of the Docker daemon that the tests run on."""
    made = docker.from_env(timeout=600)
    yield made
    made.close()


@pytest.fixture(scope="session")
def python_base(client: docker.DockerClient) -> str:
    """The base image that the product itself takes by default: Python, and no engine."""
    return default_base(client)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real model, readable by any user."""
    directory = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny-qwen2")
    for parent in (directory, *directory.parents[:4]):
        parent.chmod(parent.stat().st_mode | 0o055)
    return directory


@pytest.fixture(scope="session")
def transformers_image(client: docker.DockerClient, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image composed by the command: transformers on CPU.  It stays, so that the next run builds on its layers."""
    lock_folder = tmp_path_factory.mktemp("transformers")
    (lock_folder / "warmimage.yaml").write_text(f"model: {tiny_model}\naccelerator: cpu\n", encoding="utf-8")
    warmimage("build", "--file", str(lock_folder / "warmimage.yaml"), "--tag", TRANSFORMERS_IMAGE)
    return TRANSFORMERS_IMAGE


@pytest.fixture(scope="session")
def vllm_image(client: docker.DockerClient, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image derived by the command from an image of unmodified vLLM for CPU, its closure recorded from a start."""
    configuration = tmp_path_factory.mktemp("vllm") / "warmimage.yaml"
    configuration.write_text(
        f"model: {tiny_model}\nengine: vllm\naccelerator: cpu\nbase_image: {vllm_cpu.build(client)}\n"
        f"args: {json.dumps(VLLM_ARGUMENTS)}\nrecord: require\n",
        encoding="utf-8",
    )
    warmimage("build", "--file", str(configuration), "--tag", VLLM_IMAGE)
    return VLLM_IMAGE
