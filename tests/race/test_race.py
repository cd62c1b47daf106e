"""How often the seed's way breaks, beside which tier preload never does (``test_vllm``)."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from tests.support.images import wait_ended

SCRIPT = Path(__file__).parent / "seed_way.py"
TRIES = 40


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_seeds_way_breaks_imports(client: docker.DockerClient, vllm_image: str) -> None:
    reasons = []
    for number in range(1, TRIES + 1):
        words = {"entrypoint": "python3", "volumes": {str(SCRIPT): {"bind": "/seed_way.py", "mode": "ro"}}}
        made = client.containers.run(vllm_image, ["/seed_way.py"], detach=True, **words)
        try:
            if wait_ended(made, 300):
                reasons.append(made.logs().decode().strip().splitlines()[-1])
        finally:
            made.remove(force=True)
        print(f"{number} tries, {len(reasons)} broken: {reasons[-1:]}")
    assert reasons, f"the race did not show in {TRIES} tries: is the reproduction still one?"
