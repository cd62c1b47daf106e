"""The model: what its directory or the Hub says about it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import OfflineModeIsEnabled
from warmimage import entrypoint
from warmimage.config.model import Config
from warmimage.entrypoint.model import download as hub_download
from warmimage.errors import ConfigError, WarmimageError
from warmimage.inputs import model

from tests.builder import facts
from tests.support.hub import COMMIT, hub
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


def online(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """Let the real client ask a hub; its variables are read once, when it is imported."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    init = HfApi.__init__
    monkeypatch.setattr(HfApi, "__init__", lambda self, **words: init(self, **{"endpoint": endpoint, **words}))


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://nowhere.invalid"])
@pytest.mark.parametrize("weights", ["mount", "bake", "download"])
def test_a_hub_out_of_reach_stops_only_what_needs_it(
    endpoint: str, weights: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    online(monkeypatch, endpoint, tmp_path / "hub")
    config = Config.model_validate({"model": "owner/name", "weights": weights})
    if weights == "mount":
        assert model.resolve(config).revision is None
        assert "warning: the Hub cannot be reached: owner/name stays" in capsys.readouterr().err
    else:
        with pytest.raises(WarmimageError, match=f"^error: the Hub cannot be reached, and weights={weights}") as caught:
            model.resolve(config)
        assert caught.value.exit_code == 1


@contextmanager
def refusing(status: int, code: str) -> Iterator[str]:
    """A hub that answers everything with one status and the Hub's code for the reason."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if code:
                self.send_header("X-Error-Code" if code.isalpha() else "X-Error-Message", code)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            """Keep test output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "message", "where", "exit_code"),
    [
        (404, "RevisionNotFound", "the Hub model 'owner/name' has no such revision", "revision", 3),
        (404, "EntryNotFound", "the Hub model 'owner/name' has no config.json", "model", 3),
        (404, "RepoNotFound", "the Hub has no model 'owner/name' that you can read", "model", 3),
        (401, "", "the Hub model 'owner/name' is not readable with your login", "model", 3),
        (401, "Invalid credentials in Authorization header", "the Hub model 'owner/name' is not readable", "model", 3),
        (403, "", "the Hub model 'owner/name' is not readable with your login", "model", 3),
        (403, "GatedRepo", "the Hub model 'owner/name' is not readable with your login", "model", 3),
        (503, "", "the Hub cannot be reached, and weights=bake needs owner/name", "model", 1),
        (429, "", "the Hub cannot be reached, and weights=bake needs owner/name", "model", 1),
    ],
)
def test_each_answer_of_the_hub_has_its_own_message(
    status: int, code: str, message: str, where: str, exit_code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with refusing(status, code) as endpoint:
        online(monkeypatch, endpoint, tmp_path / "hub")
        with pytest.raises(WarmimageError) as caught:
            model.resolve(Config(model="owner/name", revision="none", weights="bake"))
    (problem,) = caught.value.problems
    assert problem.what.startswith(message)
    assert (problem.where, caught.value.exit_code) == (where, exit_code)
    assert problem.fix or "config.json" in message


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("IO Error: No space left on device (os error 28)")],
)
def test_a_full_disk_is_no_hub_out_of_reach(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(HfApi, "model_info", full)
    with pytest.raises(WarmimageError, match=r"^error: the disk is full: owner/name cannot be downloaded") as caught:
        model.resolve(Config(model="owner/name"))
    assert caught.value.exit_code == 1


def test_an_error_that_is_not_the_hubs_is_not_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "cache")

    monkeypatch.setattr(HfApi, "model_info", broken)
    with pytest.raises(PermissionError):
        model.resolve(Config(model="owner/name"))


def test_a_model_to_bake_is_downloaded_late_and_without_what_no_engine_reads(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    used = sorted(path.name for path in tiny.iterdir())
    size = sum(path.stat().st_size for path in tiny.iterdir())
    for name in ("pytorch_model.bin", "a[1].pth", "flax_model.msgpack"):
        (tiny / name).write_bytes(b"12345")
    with hub("owner/name", tiny) as endpoint:
        online(monkeypatch, endpoint, tmp_path / "hub")
        found = model.resolve(Config(model="owner/name", weights="bake"))
        assert (found.directory, found.revision, found.weight_bytes) == (None, COMMIT, size)
        assert not list((tmp_path / "hub").rglob("*.safetensors"))
        fetched = model.fetch(found)
    assert fetched.directory
    assert model.files(fetched.directory, hub=True) == used
    assert not list((tmp_path / "hub").rglob("*.bin"))
    assert model.fetch(fetched) is fetched


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.safetensors", "a.bin", "original/x", "1_Dense/a.bin", "config.json"], ["a.bin", "original/x"]),
        (["pytorch_model.bin", "lora/a.safetensors", "onnx/model.onnx"], []),
        (["consolidated.safetensors", "consolidated.00.pth"], ["consolidated.00.pth"]),
        ([], []),
    ],
)
def test_other_formats_are_unused_only_beside_safetensors(names: list[str], expected: list[str]) -> None:
    assert hub_download.unused(names) == expected


def test_a_local_model_to_bake_is_as_large_as_all_of_its_files(tiny: Path) -> None:
    (tiny / ".hidden").write_bytes(b"1")
    found = model.resolve(Config(model="folder/tiny", weights="bake"))
    assert found.weight_bytes == sum(path.stat().st_size for path in tiny.iterdir() if path.name != ".hidden")


def test_a_download_at_start_leaves_out_the_same_files(tiny: Path, tmp_path: Path) -> None:
    used = sorted(path.name for path in tiny.iterdir())
    (tiny / "pytorch_model.bin").write_bytes(b"12345")
    volume = tmp_path / "volume"
    with hub("owner/name", tiny) as endpoint:
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
        command = [
            sys.executable,
            str(Path(entrypoint.__file__).with_name("__main__.py")),
            "download",
            "owner/name",
            COMMIT,
            str(volume),
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert model.files(volume) == used
    assert hub_download.complete(str(volume), COMMIT)
