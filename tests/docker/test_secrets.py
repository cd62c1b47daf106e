"""A build secret reaches the steps that ask for it, and nothing that stays."""

from __future__ import annotations

import secrets
from pathlib import Path

import docker
import pytest

from tests.support.images import warmimage

pytestmark = pytest.mark.docker


def test_no_layer_history_or_label_holds_a_secret(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path: Path
) -> None:
    tag = "warmimage-test/secret:1"
    token, other = secrets.token_hex(24), secrets.token_hex(24)
    (tmp_path / "token").write_text(token, encoding="utf-8")
    # The step proves that it had the secrets: it keeps their lengths, which are no secret.
    (tmp_path / "warmimage.yaml").write_text(
        f"model: {tiny_model}\naccelerator: cpu\nbase_image: {transformers_image}\n"
        "run: ['cat /run/secrets/token /run/secrets/other | wc -c > /length']\n",
        encoding="utf-8",
    )
    done = warmimage(
        "build", "--file", str(tmp_path / "warmimage.yaml"), "--tag", tag, "--secret", f"id=token,src={tmp_path}/token",
        "--secret", "id=other,env=OTHER_TOKEN", OTHER_TOKEN=other,
    )  # fmt: skip
    image = client.images.get(tag)
    assert client.containers.run(tag, ["/length"], entrypoint="cat", remove=True).strip() == b"96"
    for secret in (token, other):
        assert secret not in done.stdout + done.stderr
        assert secret not in str(image.attrs)
        assert secret not in str(image.history())
        assert not _holds(image.save(), secret.encode())
    client.images.remove(tag, force=True)


def _holds(chunks: object, needle: bytes) -> bool:
    """Return whether a stream holds ``needle``, across its chunks."""
    tail = b""
    for chunk in chunks:  # type: ignore[attr-defined]
        if needle in tail + chunk:
            return True
        tail = chunk[-len(needle) :]
    return False
