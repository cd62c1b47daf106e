"""The seed's way breaks imports; how often depends on the machine.  Tier preload never does (``test_vllm``)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest

from tests.support.images import wait_ended

SCRIPT = Path(__file__).parent / "seed_way.py"

pytestmark = pytest.mark.docker


def broken(client: docker.DockerClient, image: str, way: str) -> str:
    """Import once in the seed's way; return the error that it ended with, or an empty string."""
    made = client.containers.run(
        image,
        ["/seed_way.py", way],
        entrypoint="python3",
        volumes={str(SCRIPT): {"bind": "/seed_way.py", "mode": "ro"}},
        detach=True,
    )
    try:
        code = wait_ended(made, 300)
        return str(made.logs().decode().strip().splitlines()[-1]) if code else ""
    finally:
        made.remove(force=True)


def test_a_name_asked_for_while_a_thread_imports_its_package_is_not_there(
    client: docker.DockerClient, vllm_image: str
) -> None:
    errors = [broken(client, vllm_image, "name") for _ in range(3)]
    assert any("cannot import name 'PreTrainedConfig' from 'transformers'" in error for error in errors), errors


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_how_often_the_seeds_way_breaks_the_command_line_here(client: docker.DockerClient, vllm_image: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        errors = list(pool.map(lambda _: broken(client, vllm_image, "cli"), range(40)))
    found = [error for error in errors if error]
    print(f"the seed's way broke {len(found)} of {len(errors)} times: {set(found)}")
    assert all("ImportError" in error for error in found), "it broke for another reason"
