"""Bad models: each ends with one exact message before any daemon, index or hub is asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from warmimage.config.model import Config
from warmimage.inputs.model import resolve

from tests.builder.refusals import refusal
from tests.support.tiny_model import make_tiny_model

AGAIN = "copy or download the model again"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", hidden=64, layers=2)


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    """A whole model, for a test to damage."""
    return Path(shutil.copytree(whole, tmp_path.resolve() / "tiny"))


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere", "a/b/c", "file"])
def test_a_path_that_is_no_directory_is_refused(name: str) -> None:
    Path("file").touch()
    assert refusal(model=name) == (
        f"error: the model is not a directory\n  at model\n  got '{name}', "
        "expected a directory with config.json and weights, or a Hub id OWNER/NAME"
    )


def test_a_revision_of_a_directory_is_refused(model: Path) -> None:
    assert refusal(model="tiny", revision="main") == (
        "error: only a Hub model has revisions\n  at revision\n"
        "  got the directory tiny, expected a Hub id\n  fix: remove --revision"
    )


def test_a_download_of_a_directory_is_refused(model: Path) -> None:
    assert refusal(model="tiny", weights="download") == (
        "error: only a Hub model can be downloaded at start\n  at weights\n"
        "  got the directory tiny, expected a Hub id\n  fix: --weights mount or --weights bake"
    )


@pytest.mark.parametrize("name", ["--help", "a b", "a\u00e9"])
def test_a_folder_whose_name_cannot_be_served_is_refused_until_one_is_given(model: Path, name: str) -> None:
    model.rename(model.parent / name)
    assert refusal(model=f"./{name}") == (
        f"error: the model's name is not a valid served name\n  at served_name\n  got {name!r}, "
        "expected letters, digits, '.', '_', '-' and '/'\n  fix: --served-name NAME"
    )
    assert resolve(Config(model=f"./{name}", served_name="ok")).name == "ok"


def test_a_model_without_config_is_refused(model: Path) -> None:
    (model / "config.json").unlink()
    assert refusal(model="tiny") == (
        f"error: the model directory has no config.json\n  at model: {model}\n"
        "  expected a model as save_pretrained writes it\n  fix: name the directory that holds config.json"
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("nonsense", "cannot be read: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "is not a JSON object"),
    ],
)
def test_a_model_with_a_broken_config_is_refused(model: Path, text: str, what: str) -> None:
    (model / "config.json").write_text(text, encoding="utf-8")
    assert refusal(model="tiny") == f"error: config.json {what}\n  at model: {model}\n  fix: {AGAIN}"


def test_a_model_without_weights_is_refused(model: Path) -> None:
    for path in model.glob("*.safetensors*"):
        path.unlink()
    assert refusal(model="tiny") == (
        f"error: the model directory has no weights\n  at model: {model}\n"
        "  expected .safetensors or .bin or .gguf or .pt or .pth"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content[:-100], "{whole} bytes"),
        (lambda content: content + b"x", "{whole} bytes"),
        (lambda content: content[:50], "a readable header"),
        (lambda content: b"", "a readable header"),
        (lambda content: b"<html>404 not found</html>", "a readable header"),
        (lambda content: b"\2" + bytes(7) + b"[]", "a readable header"),
    ],
    ids=["cut off", "longer", "cut off in its header", "empty", "a web page", "another header"],
)
def test_a_damaged_shard_is_refused(model: Path, change: Callable[[bytes], bytes], expected: str) -> None:
    shard = sorted(model.glob("*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(change(content))
    assert refusal(model="tiny") == (
        f"error: the shard {shard.name} is damaged or cut off\n  at model: {model}\n"
        f"  got {shard.stat().st_size} bytes, expected {expected.format(whole=len(content))}\n  fix: {AGAIN}"
    )


def test_an_index_that_names_a_missing_shard_is_refused(model: Path) -> None:
    shard = sorted(model.glob("*.safetensors"))[0]
    shard.unlink()
    assert refusal(model="tiny") == (
        f"error: a shard that the index names is missing: {shard.name}\n  at model: {model}\n  fix: {AGAIN}"
    )


def test_a_broken_index_is_refused(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text("nonsense", encoding="utf-8")
    assert refusal(model="tiny") == (
        f"error: model.safetensors.index.json in the model volume {model} is not a safetensors index: "
        f"Expecting value: line 1 column 1 (char 0)\n  at model: {model}\n  fix: {AGAIN}"
    )


def test_everything_wrong_with_a_model_is_reported_at_once(model: Path) -> None:
    (model / "config.json").unlink()
    first, second = sorted(model.glob("*.safetensors"))
    first.unlink()
    second.write_bytes(b"")
    lines = refusal(model="tiny").splitlines()
    assert [line for line in lines if line.startswith("error: ")] == [
        "error: the model directory has no config.json",
        f"error: a shard that the index names is missing: {first.name}",
        f"error: the shard {second.name} is damaged or cut off",
    ]
