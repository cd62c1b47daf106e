"""A build secret reaches the steps that ask for it, and nothing that stays."""

from __future__ import annotations

import gzip
import json
import secrets
import tarfile
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
        "build",
        "--file",
        str(tmp_path / "warmimage.yaml"),
        "--tag",
        tag,
        "--secret",
        f"id=token,src={tmp_path}/token",
        "--secret",
        "id=other,env=OTHER_TOKEN",
        OTHER_TOKEN=other,
    )
    image = client.images.get(tag)
    assert client.containers.run(tag, ["/length"], entrypoint="cat", remove=True).strip() == b"96"
    for secret in (token, other):
        assert secret not in done.stdout + done.stderr
        assert secret not in str(image.attrs)
        assert secret not in str(image.history())
    own = own_layers(client, transformers_image, tag, tmp_path / "image.tar")
    assert any(b"96\n" in layer for layer in own), "the layers of this very build are looked into"
    assert [secret for secret in (token, other) if any(secret.encode() in layer for layer in own)] == []
    client.images.remove(tag, force=True)


def own_layers(client: docker.DockerClient, base: str, tag: str, file: Path) -> list[bytes]:
    """Return the layers that an image has on top of its base, as uncompressed tar archives."""
    with file.open("wb") as output:
        for chunk in client.images.get(tag).save():
            output.write(chunk)
    inherited = len(client.images.get(base).attrs["RootFS"]["Layers"])
    with tarfile.open(file) as archive:
        (manifest,) = json.loads(_member(archive, "manifest.json"))
        data = [_member(archive, name) for name in manifest["Layers"][inherited:]]
    return [gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer for layer in data]


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member, name
    return member.read()
