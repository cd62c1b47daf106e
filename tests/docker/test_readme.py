"""README's quick start, run top to bottom in one shell by a new user."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from tests.docs.readme import readme_commands


@pytest.mark.docker
def test_every_command_of_the_quick_start_works(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path: Path
) -> None:
    with socket.socket() as asked:
        if asked.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("port 8000 is in use on this host")
    shutil.copytree(tiny_model, tmp_path / "my-model")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    commands = [command for _, command in readme_commands()]
    assert len(commands) >= 10
    script = "set -eux\n" + "\n".join(commands)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
    finally:
        for name in ("my-model", "my-model-plain"):
            subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
        subprocess.run(["docker", "image", "rm", "--force", "my-model:1"], capture_output=True, check=False)
    assert '"chat.completion"' in done.stdout
    assert '"event": "ready"' in done.stdout
