"""Compile caches: collected after a start, placed before the next one, and declined by name on another machine."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from warmimage.entrypoint.kernel.gpus import Accelerator
from warmimage.entrypoint.settings import Settings
from warmimage.entrypoint.startup import compile_caches
from warmimage.entrypoint.timeline import Timeline

from .plans import make_plan

CACHES = {
    "vllm": ("VLLM_CACHE_ROOT", "<cache>/vllm", ""),
    "triton": ("TRITON_CACHE_DIR", "<home>/.triton/cache", ""),
    "flashinfer": ("FLASHINFER_WORKSPACE_BASE", "<home>", ".cache/flashinfer"),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def settings(home: Path) -> Settings:
    plan = make_plan(name="vllm", version="0.26.0", command=("vllm",), caches=CACHES)
    return Settings(plan, (), {"HOME": str(home), "USER": "warmimage"}, "auto", "", "")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The image's folder, with a compiled library and a file of each cache."""
    folder = tmp_path / "caches"
    library = folder / "triton" / "KEY" / "launcher.so"
    for path in (library, folder / "vllm" / "modelinfos" / "qwen2.json", folder / "flashinfer" / "0.6" / "kernel.so"):
        path.parent.mkdir(parents=True)
        path.write_text(path.name)
    library.chmod(0o755)
    manifest = compile_caches.Manifest({"name": "vllm", "version": "0.26.0"}, Accelerator.here(), 3, 30)
    (folder / compile_caches.NAME).write_text(manifest.to_json())
    return folder


def placed(settings: Settings, image: Path, tmp_path: Path) -> dict[str, Any]:
    """Place, and return the one event."""
    timeline = tmp_path / "timeline.jsonl"
    compile_caches.place(settings, Timeline(str(timeline), "supervisor", truncate=True), str(image))
    (row,) = timeline.read_text().splitlines()
    event: dict[str, Any] = json.loads(row)
    return event


def test_caches_are_placed_where_the_engine_looks(settings: Settings, image: Path, home: Path, tmp_path: Path) -> None:
    event = placed(settings, image, tmp_path)
    assert (event["event"], event["files"], event["present"]) == ("caches.placed", 3, 0)
    assert (home / ".cache/vllm/modelinfos/qwen2.json").read_text() == "qwen2.json"
    assert (home / ".cache/flashinfer/0.6/kernel.so").read_text() == "kernel.so"
    assert os.access(home / ".triton/cache/KEY/launcher.so", os.X_OK)


def test_what_is_there_already_is_left_as_it_is(settings: Settings, image: Path, home: Path, tmp_path: Path) -> None:
    own = home / ".cache/vllm/modelinfos/qwen2.json"
    own.parent.mkdir(parents=True)
    own.write_text("newer")
    event = placed(settings, image, tmp_path)
    assert (event["files"], event["present"]) == (2, 1)
    assert own.read_text() == "newer"


def test_a_variable_moves_a_cache(settings: Settings, image: Path, home: Path, tmp_path: Path) -> None:
    moved = {
        **settings.environment,
        "XDG_CACHE_HOME": str(tmp_path / "xdg"),
        "TRITON_CACHE_DIR": str(tmp_path / "triton"),
        "FLASHINFER_WORKSPACE_BASE": str(tmp_path / "base"),
    }
    placed(replace(settings, environment=moved), image, tmp_path)
    assert (tmp_path / "xdg/vllm/modelinfos/qwen2.json").exists()
    assert (tmp_path / "triton/KEY/launcher.so").exists()
    assert (tmp_path / "base/.cache/flashinfer/0.6/kernel.so").exists()
    assert not home.exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engine": {"name": "vllm", "version": "0.27.0"}}, "the engine's version is 0.26.0, and was 0.27.0"),
        ({"accelerator": {"driver": "", "gpus": ["NVIDIA A100"]}}, "the GPU is absent, and was NVIDIA A100"),
        ({"accelerator": {"driver": "570.1", "gpus": []}}, "the GPU's driver is absent, and was 570.1"),
        ({"schema": 99}, "ValueError('it was written by another version')"),
    ],
)
def test_what_differs_is_named(
    settings: Settings, image: Path, home: Path, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    if Accelerator.here() != Accelerator():
        pytest.skip("this machine has an NVIDIA GPU")
    manifest = image / compile_caches.NAME
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    event = placed(settings, image, tmp_path)
    assert (event["event"], event["reason"]) == ("caches.declined", reason)
    assert not home.exists()


def test_replicas_that_are_all_process_1_may_fill_one_volume(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = image / "triton/KEY/launcher.so", tmp_path / "launcher.so"
    names: list[str] = []
    copy = shutil.copyfileobj

    def beside(content: IO[bytes], file: IO[bytes]) -> None:
        """Another replica copies the same file while this one does."""
        names.append(file.name)
        if len(names) == 1:
            compile_caches._copy(str(source), str(target))
        copy(content, file)

    monkeypatch.setattr(shutil, "copyfileobj", beside)
    compile_caches._copy(str(source), str(target))
    assert len(set(names)) == 2
    assert {Path(name).parent for name in names} == {tmp_path}
    assert target.read_text() == "launcher.so"
    assert os.access(target, os.X_OK)


def test_a_copy_that_fails_leaves_nothing(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_files: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    folder = tmp_path / "volume"
    folder.mkdir()
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="no space"):
        compile_caches._copy(str(image / "triton/KEY/launcher.so"), str(folder / "launcher.so"))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "start", "reason"),
    [
        ({"WARMIMAGE_CACHES": "off"}, "auto", "WARMIMAGE_CACHES=off"),
        ({}, "plain", "WARMIMAGE_START=plain"),
        ({"WARMIMAGE_CACHES": "on"}, "plain", ""),
    ],
)
def test_plain_has_none_unless_it_is_asked_for(
    settings: Settings, image: Path, tmp_path: Path, variables: dict[str, str], start: str, reason: str
) -> None:
    asked = replace(settings, environment={**settings.environment, **variables}, start=start)
    assert placed(asked, image, tmp_path).get("reason", "") == reason


def test_an_image_without_caches_says_nothing(settings: Settings, tmp_path: Path) -> None:
    timeline = tmp_path / "timeline.jsonl"
    compile_caches.place(settings, Timeline(str(timeline), "supervisor", truncate=True), str(tmp_path))
    assert timeline.read_text() == ""


def test_an_accelerator_is_read_from_proc(tmp_path: Path) -> None:
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (nixbld@)\nGCC: 15.3.0\n"
    )
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / bus).mkdir(parents=True)
        (tmp_path / "gpus" / bus / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 41\n")
    assert Accelerator.here(str(tmp_path)) == Accelerator("580.159.04", ("NVIDIA H200",))
    assert Accelerator.here(str(tmp_path / "none")) == Accelerator()
