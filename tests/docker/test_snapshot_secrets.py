"""No secret of a build or of a node is in a snapshot, which has all memory of the process that was captured."""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.images import warmimage
from tests.support.snapshots import DIRECTORY

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

TAG = "warmimage-test/snapshot-token:1"


def occurs(text: str, *files: Path) -> bool:
    """Return whether a text is in one of some files, which hold memory as it was."""
    done = subprocess.run(["grep", "-q", "-a", "-F", "-e", text, *files], check=False)
    assert done.returncode in (0, 1)
    return done.returncode == 0


@pytest.mark.slow
def test_no_token_of_a_build(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path: Path
) -> None:
    """In the build's environment, in a secret of one of its steps, and in the proxies of the user's client."""
    tokens = {name: secrets.token_hex(24) for name in ("environment", "secret", "proxy", "hub")}
    (tmp_path / "token").write_text(tokens["secret"], encoding="utf-8")
    (tmp_path / "warmimage.yaml").write_text(
        f"model: {tiny_model}\naccelerator: cpu\nsnapshot: require\n"
        "run: ['cat /run/secrets/token | wc -c > /opt/length; echo \"$http_proxy\" | wc -c >> /opt/length']\n",
        encoding="utf-8",
    )
    configuration = tmp_path / "docker"
    configuration.mkdir()
    proxy = f"http://user:{tokens['proxy']}@127.0.0.1:9"
    (configuration / "config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": proxy}}}))
    warmimage(
        "build",
        "--file",
        str(tmp_path / "warmimage.yaml"),
        "--tag",
        TAG,
        "--secret",
        f"id=token,src={tmp_path}/token",
        PLANTED_TOKEN=tokens["environment"],
        HF_TOKEN=tokens["hub"],
        DOCKER_CONFIG=str(configuration),
    )
    lengths = client.containers.run(TAG, ["/opt/length"], entrypoint="cat", remove=True).split()
    assert lengths == [b"48", str(len(proxy) + 1).encode()], "the build's steps had the secret and the proxy"
    archive = tmp_path / "snapshot.tar"
    made = client.containers.create(TAG)
    try:
        with archive.open("wb") as file:
            for chunk in made.get_archive(DIRECTORY)[0]:
                file.write(chunk)
    finally:
        made.remove()
        client.images.remove(TAG, force=True)
    assert archive.stat().st_size > 100 << 20
    assert occurs("huggingface_hub", archive), "what is in the snapshot is found"
    assert {name: occurs(token, archive) for name, token in tokens.items()} == dict.fromkeys(tokens, False)


def test_no_token_of_a_node(client: docker.DockerClient, transformers_image: str, tmp_path: Path) -> None:
    """A pod has tokens in its environment, and names what its imports may see."""
    tmp_path.chmod(0o755)
    tokens = {name: secrets.token_hex(24) for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "http_proxy")}
    named = secrets.token_hex(24)
    words: dict[str, Any] = {
        "user": "0",
        "network_mode": "none",
        "remove": True,
        "environment": {**tokens, "NAMED": named},
        "volumes": {str(tmp_path): {"bind": "/node", "mode": "rw"}},
    }
    client.containers.run(transformers_image, ["capture", "/node", "--require", "NAMED"], **words)
    files = list(tmp_path.iterdir())
    assert {file.name for file in files} == {"memory", "manifest.json", "checks.json"}
    assert occurs(named, *files), "what is in the snapshot is found"
    assert {name: occurs(token, *files) for name, token in tokens.items()} == dict.fromkeys(tokens, False)
