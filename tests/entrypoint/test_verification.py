"""A snapshot is looked at beside its restore: every damage, and every replaced module, is found and named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from warmimage.entrypoint.snapshot import verification
from warmimage.entrypoint.snapshot.verification import BLOCK, NAME, Verification, problem, record

PAGES = "pages-1.img"


@pytest.fixture
def module(tmp_path: Path) -> Path:
    file = tmp_path / "engine.py"
    file.write_text("imported = True\n")
    return file


@pytest.fixture
def dump(tmp_path: Path, module: Path) -> Path:
    """A folder as CRIU leaves it: small files, and one of several blocks."""
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / PAGES).write_bytes(os.urandom(2 * BLOCK + 12345))
    (folder / "core-20000.img").write_bytes(b"registers")
    (folder / "empty.img").touch()
    (folder / "manifest.json").write_text("{}")
    record(str(folder), [str(module), str(module), "/no/such/module.py"])
    return folder


def flip(folder: Path, position: int, name: str = PAGES) -> None:
    with (folder / name).open("r+b") as file:
        file.seek(position, os.SEEK_SET if position >= 0 else os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def truncate(folder: Path) -> None:
    os.truncate(folder / PAGES, 2 * BLOCK)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "first bit": (lambda folder: flip(folder, 0), "pages-1.img in {} is damaged"),
    "inner bit": (lambda folder: flip(folder, BLOCK + 77), "pages-1.img in {} is damaged"),
    "last bit": (lambda folder: flip(folder, -1), "pages-1.img in {} is damaged"),
    "small file": (lambda folder: flip(folder, 3, "core-20000.img"), "core-20000.img in {} is damaged"),
    "truncated": (truncate, "pages-1.img in {} is damaged"),
    "no such file": (lambda folder: (folder / "core-20000.img").unlink(), "it cannot be verified: FileNotFoundError"),
    "no checks": (lambda folder: (folder / NAME).unlink(), "it cannot be verified: FileNotFoundError"),
    "checks of nothing": (lambda folder: (folder / NAME).write_text("{}"), "it cannot be verified: KeyError('images')"),
    "checks without sums": (
        lambda folder: (folder / NAME).write_text(json.dumps({"images": {PAGES: {"bytes": 2 * BLOCK + 12345}}})),
        "it cannot be verified: KeyError('crc32')",
    ),
    "module replaced": (
        lambda folder: (folder.parent / "engine.py").write_text("imported = False\n"),
        "{}/engine.py is not the file that was imported at the capture",
    ),
    "module removed": (
        lambda folder: (folder.parent / "engine.py").unlink(),
        "{}/engine.py is not the file that was imported at the capture",
    ),
}


def test_nothing_is_found_where_nothing_has_changed(dump: Path) -> None:
    assert problem(str(dump)) == ""
    assert answer(dump) == ""


@pytest.mark.parametrize("name", DAMAGE)
def test_each_damage_is_found_and_named(dump: Path, name: str) -> None:
    cause, expected = DAMAGE[name]
    cause(dump)
    where = dump.parent if "engine.py" in expected else dump
    assert problem(str(dump)).startswith(expected.format(where))
    assert answer(dump) == problem(str(dump))


def answer(folder: Path) -> str | None:
    looking = Verification(str(folder))
    try:
        return looking.answer(20)
    finally:
        looking.close()


def test_nobody_waits_longer_than_asked(dump: Path) -> None:
    for image in dump.glob("*.img"):
        image.unlink()
    os.mkfifo(dump / "pages-1.img")  # to open it for reading takes a writer: as a volume that hangs
    checks = {"images": {PAGES: {"bytes": 0, "crc32": [0]}}, "sources": []}
    (dump / NAME).write_text(json.dumps(checks))
    looking = Verification(str(dump))
    try:
        assert looking.answer() is None
        assert looking.answer(0.1) is None
    finally:
        looking.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(looking._pid, 0)


def test_one_that_dies_is_no_approval(dump: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "problem", lambda _folder: os._exit(9))
    assert answer(dump) == "what verifies it has ended"
