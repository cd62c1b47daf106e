"""Build the image of unmodified vLLM for CPU that tests derive from, on the base that the product itself would use."""

from __future__ import annotations

import subprocess
from pathlib import Path

import docker
from warmimage.inputs.base_image import default_base

IMAGE = "warmimage-test/vllm-cpu:0.32.0"

BUILD = Path(__file__).parent / "vllm-cpu" / "build"


def build(client: docker.DockerClient) -> str:
    """Make sure of the image, and return its reference."""
    subprocess.run([str(BUILD), default_base(client)], check=True)
    return IMAGE


if __name__ == "__main__":
    print(build(docker.from_env()))
