"""A model volume that cannot be served: one line, exit code 66, within a second, and nothing of the engine started."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from warmimage.entrypoint.model.volume import VolumeError, check

from .harness import Image

pytestmark = pytest.mark.timeout(60)


def missing(model: Path) -> str:
    shutil.rmtree(model)
    return f"no model volume at {model}; mount the model: -v DIR:{model}:ro"


def empty(model: Path) -> str:
    shutil.rmtree(model)
    model.mkdir()
    return f"the model volume {model} is empty; mount the model: -v DIR:{model}:ro"


def a_file(model: Path) -> str:
    shutil.rmtree(model)
    model.write_text("")
    return f"the model volume {model} is a file, not a directory"


def no_weights(model: Path) -> str:
    for path in model.glob("*.safetensors"):
        path.unlink()
    return f"no weights (.safetensors, .bin, .gguf, .pt, .pth) in the model volume {model}"


def shard_missing(model: Path) -> str:
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (model / shards["b"]).unlink()
    return f"model-00002-of-00002.safetensors is named by the index but missing from {model} (missing: 1)"


def broken_index(model: Path) -> str:
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a"')
    return f"model.safetensors.index.json in the model volume {model} is not a safetensors index: Expecting"


def name_not_in_utf8(model: Path) -> str:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "caf\udce9.safetensors"}}))
    return "caf\\udce9.safetensors is named by the index but missing"


@pytest.mark.parametrize("damage", [missing, empty, a_file, no_weights, shard_missing, broken_index, name_not_in_utf8])
def test_volume_that_cannot_be_served_ends_before_the_engine(image: Image, damage) -> None:  # type: ignore[no-untyped-def]
    message = damage(image.model)
    ended = image.run(image.mark)
    assert ended.code == 66
    assert ended.err.count(b"\n") == 1
    assert ended.said[0].startswith(f"error: {message}")
    assert ended.out == b""
    assert image.started == []
    assert [event["event"] for event in image.events()] == ["started", "volume.refused", "ended"]


@pytest.mark.parametrize("path", [".", "model-00002-of-00002.safetensors"], ids=["folder", "shard"])
def test_unreadable_volume_names_the_user_and_the_remedy(
    image: Image, path: str, unprivileged: tuple[str, ...]
) -> None:
    (image.model / path).chmod(0)
    ended = image.run(image.mark, prefix=unprivileged)
    (image.model / path).chmod(0o755)
    assert (ended.code, image.started) == (66, [])
    assert ended.err.count(b"\n") == 1
    assert str(image.model) in ended.said[0]
    assert "cannot be read by uid" in ended.said[0]
    assert "chmod -R a+rX" in ended.said[0]


@pytest.mark.parametrize("index", ["[]", "null", "{}", '{"weight_map": []}', '{"weight_map": {"a": []}}', "\xff"])
def test_any_other_json_is_refused_as_an_index(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors").write_text("")
    (tmp_path / "model.safetensors.index.json").write_bytes(index.encode("latin-1"))
    with pytest.raises(VolumeError, match="is not a safetensors index"):
        check(str(tmp_path))


def test_weights_are_the_preferred_kind_in_load_order(tmp_path: Path) -> None:
    names = [
        "model-00002-of-00002.safetensors",
        "model-00001-of-00002.safetensors",
        "pytorch_model.bin",
        ".x.safetensors",
    ]
    for name in names:
        (tmp_path / name).write_text("")
    assert check(str(tmp_path)) == [str(tmp_path / names[1]), str(tmp_path / names[0])]


def test_engine_that_loads_other_weights_finds_its_volume_unchecked(image: Image) -> None:
    no_weights(image.model)
    assert image.run("--load-format", "dummy", "end:0").code == 0
    assert [event["reason"] for event in image.events("volume.unchecked")] == ["the engine is told --load-format"]
    assert image.run("--help=all", "end:0").code == 0
