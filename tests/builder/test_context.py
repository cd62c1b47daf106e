"""The build context: whole or not at all, nothing of anybody else's lost, and what of a model is baked."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from warmimage.build import context, planner
from warmimage.config.model import Config
from warmimage.errors import ConfigError, WarmimageError
from warmimage.plan import CachesPlan, Plan

from tests.builder import facts


@pytest.fixture
def baked(tmp_path: Path) -> tuple[Plan, planner.Inputs]:
    """A plan that bakes a small local model, with a linked folder, a circle of links and hidden files."""
    model, linked = tmp_path / "tiny", tmp_path / "elsewhere"
    for folder in (model, linked, model / "part", model / ".cache"):
        folder.mkdir()
    for path in (model / "a.safetensors", model / "old.bin", model / "part" / "b.json", model / ".cache" / "c"):
        path.write_text("x", encoding="utf-8")
    (linked / "d.json").write_text("d", encoding="utf-8")
    (model / "linked").symlink_to(linked)
    (linked / "circle").symlink_to(model)
    config = Config(model="tiny", weights="bake", method="derive", base_image="base:1")
    inputs = facts.inputs_of(config)
    inputs = replace(inputs, model=replace(inputs.model, directory=model))
    return planner.make_plan(config, inputs), inputs


def listing(folder: Path) -> list[str]:
    """Return the files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_linked_folders_are_baked_and_a_circle_of_links_ends(baked: tuple[Plan, planner.Inputs]) -> None:
    context.write(*baked, Path("out"))
    assert listing(Path("out/model")) == ["a.safetensors", "linked/d.json", "old.bin", "part/b.json"]
    assert not any(path.is_symlink() for path in Path("out/model").rglob("*"))


@pytest.mark.parametrize("link", [False, True])
def test_a_context_that_is_kept_shares_no_file_with_the_model(baked: tuple[Plan, planner.Inputs], link: bool) -> None:
    context.write(*baked, Path("out"), link=link)
    assert os.path.samefile("out/model/a.safetensors", "tiny/a.safetensors") is link
    assert os.path.samefile("out/model/linked/d.json", "elsewhere/d.json") is link


def test_a_context_written_before_is_replaced_whole(baked: tuple[Plan, planner.Inputs]) -> None:
    context.write(*baked, Path("out"))
    before = listing(Path("out"))
    Path("out/model/left").touch()
    context.write(*baked, Path("out/../out"))
    assert listing(Path("out")) == before
    assert not list(Path().glob(".warmimage-*"))


def test_an_empty_folder_and_a_link_to_a_folder_are_taken(baked: tuple[Plan, planner.Inputs]) -> None:
    Path("real").mkdir()
    Path("link").symlink_to("real")
    context.write(*baked, Path("link"))
    assert Path("link").is_symlink()
    assert Path("real/Dockerfile").is_file()


@pytest.mark.parametrize("name", ["notes.txt", ".git/config", "src/main.py"])
def test_a_folder_with_anything_else_beside_a_context_is_refused(baked: tuple[Plan, planner.Inputs], name: str) -> None:
    context.write(*baked, Path("out"))
    other = Path("out", name)
    other.parent.mkdir(exist_ok=True)
    other.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^error: the output directory is not a build context"):
        context.write(*baked, Path("out"))
    assert other.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("text", ["", "{}", "[1]", "plan", '{"schema_version": 1}'])
def test_a_project_with_a_dockerfile_and_a_plan_of_its_own_is_refused(
    baked: tuple[Plan, planner.Inputs], text: str
) -> None:
    Path("out").mkdir()
    for name in ("Dockerfile", "plan.json"):
        Path("out", name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="is not a build context"):
        context.write(*baked, Path("out"))
    assert listing(Path("out")) == ["Dockerfile", "plan.json"]


@pytest.mark.parametrize("name", [".", "..", "{out}"])
def test_the_current_folder_is_refused_and_kept(
    baked: tuple[Plan, planner.Inputs], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    context.write(*baked, out)
    before = listing(out)
    monkeypatch.chdir(out / "model" if name == ".." else out)
    with pytest.raises(ConfigError, match=r"^error: the output directory is in use and cannot be replaced"):
        context.write(*baked, Path(name.format(out=out)))
    assert listing(out) == before
    assert Path.cwd().is_dir()


def test_a_mount_point_is_refused_and_kept(baked: tuple[Plan, planner.Inputs], monkeypatch: pytest.MonkeyPatch) -> None:
    context.write(*baked, Path("out"))
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "out")
    with pytest.raises(ConfigError, match="or a mount point"):
        context.write(*baked, Path("out"))
    assert Path("out/Dockerfile").is_file()


def test_a_folder_that_cannot_be_replaced_keeps_its_context(
    baked: tuple[Plan, planner.Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    context.write(*baked, Path("out"))
    before = listing(Path("out"))
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name == "made":
            raise OSError(16, "Device or resource busy", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(WarmimageError, match="cannot be written: Device or resource busy"):
        context.write(*baked, Path("out"))
    assert listing(Path("out")) == before


def modes(folder: Path) -> dict[str, int]:
    """Return the permissions of everything below a directory, and its own."""
    found = {path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    return {".": folder.stat().st_mode & 0o777, **found}


@pytest.mark.parametrize("link", [False, True])
def test_every_user_of_an_image_can_read_what_a_private_umask_wrote(
    baked: tuple[Plan, planner.Inputs], link: bool
) -> None:
    before = os.umask(0o077)
    try:
        Path("tiny/a.safetensors").chmod(0o600)
        Path("tiny/old.bin").chmod(0o666)
        context.write(*baked, Path("out"), link=link)
    finally:
        os.umask(before)
    wrong = {
        name: oct(mode)
        for name, mode in modes(Path("out")).items()
        if mode != (0o755 if Path("out", name).is_dir() else 0o644) and not name.endswith(".so")
    }
    assert wrong == {}
    assert modes(Path("tiny"))["a.safetensors"] == 0o600, "the user's own file keeps its mode"
    assert modes(Path("tiny"))["old.bin"] == 0o666


def test_a_private_file_is_copied_and_a_public_one_linked(baked: tuple[Plan, planner.Inputs]) -> None:
    Path("tiny/a.safetensors").chmod(0o640)
    context.write(*baked, Path("out"), link=True)
    assert not os.path.samefile("out/model/a.safetensors", "tiny/a.safetensors")
    assert os.path.samefile("out/model/old.bin", "tiny/old.bin")


def test_compile_caches_are_copied_with_what_is_executable(baked: tuple[Plan, planner.Inputs]) -> None:
    plan, inputs = baked
    Path("kept/triton").mkdir(parents=True)
    for name, mode in (("manifest.json", 0o600), ("triton/kernel.so", 0o700)):
        Path("kept", name).write_text("x", encoding="utf-8")
        Path("kept", name).chmod(mode)
    caches = CachesPlan(files=1, bytes=1, driver="", gpus=())
    context.write(replace(plan, caches=caches), replace(inputs, caches=Path("kept")), Path("out"))
    assert modes(Path("out/caches")) == {".": 0o755, "triton": 0o755, "manifest.json": 0o644, "triton/kernel.so": 0o755}
    context.write(plan, inputs, Path("out"))
    assert not Path("out/caches").exists()


def test_the_imports_say_all_that_closure_and_snapshot_depend_on(baked: tuple[Plan, planner.Inputs]) -> None:
    plan, inputs = baked
    context.write(plan, inputs, Path("out"))
    written = json.loads(Path("out/imports.json").read_text(encoding="utf-8"))
    assert set(written) == {
        "required_modules",
        "native_libraries",
        "import_environment",
        "modules",
        "later",
        "preload",
        "accelerator",
        "command",
        "python",
        "user",
        "environment",
        "baseline",
    }
    assert written["command"] == ["transformers", "serve"]
    assert (written["python"], written["user"], written["baseline"]) == (plan.python, plan.user, "x86-64-v3")
    assert written["accelerator"] == plan.accelerator
    assert written["environment"] == sorted(plan.environment)
    bare = planner.with_snapshot(plan, None)
    assert json.loads(context.imports(bare).to_json()) == written, "an image without a snapshot may get one later"
