"""The model: what its directory or the Hub says about it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled
from warmimage import model
from warmimage.config import Config
from warmimage.errors import ConfigError, WarmimageError

from tests.builder import facts
from tests.support.tiny_model import make_tiny_model


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path.resolve() / "folder" / "tiny", hidden=64, layers=2)


def test_a_directory_is_known_by_its_name_alone_and_described_by_its_config(tiny: Path) -> None:
    found = model.resolve(Config(model="folder/tiny"))
    assert (found.reference, found.name, found.directory, found.revision) == ("tiny", "tiny", tiny, None)
    assert (found.architecture, found.model_type) == ("Qwen2ForCausalLM", "qwen2")
    assert found.weight_bytes == sum(path.stat().st_size for path in tiny.glob("*.safetensors"))


def test_the_served_name_wins_over_the_directorys(tiny: Path) -> None:
    found = model.resolve(Config(model=f"{tiny}/", served_name="team/x"))
    assert (found.reference, found.name) == ("tiny", "team/x")


def test_a_linked_directory_is_followed(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(tiny, target_is_directory=True)
    assert model.resolve(Config(model="latest")).directory == tiny


def test_weights_of_another_kind_and_a_config_that_says_little_are_enough(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(b"12345")
    found = model.resolve(Config(model="old"))
    assert (found.architecture, found.model_type, found.weight_bytes) == (None, None, 5)


@pytest.mark.parametrize(
    "config",
    [{"architectures": "A", "model_type": 5}, {"architectures": {}}, {"architectures": [7], "model_type": None}],
)
def test_a_config_with_values_of_the_wrong_kind_says_nothing(tiny: Path, config: dict[str, Any]) -> None:
    (tiny / "config.json").write_text(json.dumps(config), encoding="utf-8")
    found = model.resolve(Config(model="folder/tiny"))
    assert (found.architecture, found.model_type) == (None, None)


def offline(*_: Any, **__: Any) -> None:
    raise OfflineModeIsEnabled("no network here")


def test_offline_a_hub_model_can_be_mounted_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(HfApi, "model_info", offline)
    found = model.resolve(Config(model="owner/name", revision="main"))
    assert found == model.Model("owner/name", "owner/name", None, "main", None, None, 0)
    shown = capsys.readouterr().err
    assert "warning: the Hub cannot be reached: owner/name stays at the revision that is mounted" in shown


@pytest.mark.parametrize("weights", ["bake", "download"])
def test_offline_a_hub_model_can_be_neither_baked_nor_downloaded(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HfApi, "model_info", offline)
    with pytest.raises(WarmimageError) as caught:
        model.resolve(Config.model_validate({"model": "owner/name", "weights": weights}))
    assert str(caught.value) == (
        f"error: the Hub cannot be reached, and weights={weights} needs owner/name\n  at model\n"
        "  got no network here\n  fix: --model DIR with the files on this machine"
    )
    assert caught.value.exit_code == 1


def test_a_hub_model_is_pinned_to_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def info(_: HfApi, name: str, *, revision: str | None, **__: Any) -> SimpleNamespace:
        asked.append((name, revision))
        files = [("a.safetensors", 5), ("b.safetensors", 7), ("a.bin", 100)]
        siblings = [SimpleNamespace(rfilename=file, size=size) for file, size in files]
        return SimpleNamespace(sha=facts.HUB_COMMIT, siblings=siblings)

    def download(name: str, file: str, *, revision: str) -> str:
        asked.append((f"{name}/{file}", revision))
        (tmp_path / file).write_text('{"architectures": ["A"], "model_type": "b-c"}', encoding="utf-8")
        return str(tmp_path / file)

    monkeypatch.setattr(HfApi, "model_info", info)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    found = model.resolve(Config(model="owner/name", revision="main"))
    assert found == model.Model("owner/name", "owner/name", None, facts.HUB_COMMIT, "A", "b-c", 12)
    assert asked == [("owner/name", "main"), ("owner/name/config.json", facts.HUB_COMMIT)]


def test_a_name_that_is_no_hub_id_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^error: not a Hub id: 'owner/na me'\n  at model\n"):
        model.resolve(Config(model="owner/na me"))


def test_shards_are_judged_as_the_library_judges_them(tiny: Path) -> None:
    library = pytest.importorskip("safetensors")
    shard = sorted(tiny.glob("*.safetensors"))[0]
    whole = shard.read_bytes()
    for content in (whole, whole[:-1], whole + b"x", whole[:20], b"", bytes(8), b"\2" + bytes(7) + b"{}"):
        shard.write_bytes(content)
        try:
            with library.safe_open(str(shard), framework="np"):
                accepted = True
        except (library.SafetensorError, OSError):
            accepted = False
        assert (list(model.check_directory(tiny)) == []) is accepted, content[:20]
