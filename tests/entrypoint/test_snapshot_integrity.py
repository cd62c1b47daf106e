"""A snapshot is verified beside its restore: every damage, and every replaced file, is found and named."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from warmimage.entrypoint.tiers.snapshot import integrity
from warmimage.entrypoint.tiers.snapshot.integrity import BLOCK, NAME, Verification, problem, record
from warmimage.entrypoint.tiers.snapshot.manifest import MEMORY

#: Bytes of the snapshot file: blocks, and one that is not full.
SIZE = 2 * BLOCK + 12345


def pages(size: int) -> bytes:
    return os.urandom(1 << 16) * (size // (1 << 16)) + os.urandom(size % (1 << 16))


@pytest.fixture
def module(tmp_path: Path) -> Path:
    file = tmp_path / "engine.py"
    file.write_text("imported = True\n")
    os.utime(file, (1000, 1000))
    return file


@pytest.fixture
def others(tmp_path: Path) -> list[str]:
    """Files with times of their own, so that times tell."""
    files = [tmp_path / f"other{number}.py" for number in range(3)]
    for number, file in enumerate(files):
        file.write_text("pass\n")
        os.utime(file, (2000 + number, 2000 + number))
    return [str(file) for file in files]


@pytest.fixture
def directory(tmp_path: Path, module: Path, others: list[str]) -> Path:
    """A directory with a snapshot file, and its checksums."""
    made = tmp_path / "snapshot"
    made.mkdir()
    (made / MEMORY).write_bytes(pages(SIZE))
    record(str(made), [str(module), str(module), "/no/such/module.py", *others])
    assert json.loads((made / NAME).read_text())["times_tell"] is True
    return made


def flip(file: Path, position: int, bit: int = 0) -> None:
    with file.open("r+b") as opened:
        (byte,) = os.pread(opened.fileno(), 1, position)
        os.pwrite(opened.fileno(), bytes([byte ^ 1 << bit]), position)


def patch(module: Path, text: str, changed: int) -> None:
    module.write_text(text)
    os.utime(module, (changed, changed))


MEMORY_DAMAGED, MODULE_DIFFERS = f"{MEMORY} is damaged", "engine.py is not the file"

DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "first bit": (lambda made: flip(made / MEMORY, 0), MEMORY_DAMAGED),
    "highest bit of an inner byte": (lambda made: flip(made / MEMORY, BLOCK + 77, 7), MEMORY_DAMAGED),
    "last bit of a block": (lambda made: flip(made / MEMORY, BLOCK - 1), MEMORY_DAMAGED),
    "first bit of a block": (lambda made: flip(made / MEMORY, 2 * BLOCK), MEMORY_DAMAGED),
    "last bit": (lambda made: flip(made / MEMORY, SIZE - 1, 7), MEMORY_DAMAGED),
    "truncated in a block": (lambda made: os.truncate(made / MEMORY, SIZE - 1), MEMORY_DAMAGED),
    "truncated to whole blocks": (lambda made: os.truncate(made / MEMORY, 2 * BLOCK), MEMORY_DAMAGED),
    "empty": (lambda made: os.truncate(made / MEMORY, 0), MEMORY_DAMAGED),
    "absent": (lambda made: (made / MEMORY).unlink(), MEMORY_DAMAGED),
    "no checks": (lambda made: (made / NAME).unlink(), "cannot be verified: FileNotFoundError"),
    "no JSON": (lambda made: (made / NAME).write_text("checks"), "cannot be verified: JSONDecodeError"),
    "checks of nothing": (lambda made: (made / NAME).write_text("{}"), "cannot be verified: KeyError('blocks')"),
    "checks in another form": (
        lambda made: (made / NAME).write_text('{"blocks": [], "files": [["a"]], "times_tell": true}'),
        "cannot be verified: TypeError",
    ),
    "module absent": (lambda made: (made.parent / "engine.py").unlink(), MODULE_DIFFERS),
    "module of another size": (
        lambda made: patch(made.parent / "engine.py", "imported = False\n", 1000),
        MODULE_DIFFERS,
    ),
    "module of the same size and another time": (
        lambda made: patch(made.parent / "engine.py", "imported = None\n", 1001),
        MODULE_DIFFERS,
    ),
}


def test_nothing_is_found_where_nothing_has_changed(directory: Path) -> None:
    assert problem(str(directory)) is None


@pytest.mark.parametrize("name", DAMAGE)
def test_each_damage_is_found_and_named(directory: Path, name: str) -> None:
    cause, phrase = DAMAGE[name]
    cause(directory)
    assert phrase in str(problem(str(directory)))


def test_the_same_content_with_another_time_is_the_same_file(directory: Path, module: Path) -> None:
    os.utime(module, (9999, 9999))
    assert problem(str(directory)) is None


def test_where_times_do_not_tell_the_content_decides(directory: Path, module: Path, others: list[str]) -> None:
    """As a builder leaves files that gives all of them one time."""
    text = module.read_text()
    for name in (str(module), *others):
        os.utime(name, (1, 1))
    record(str(directory), [str(module), *others])
    assert problem(str(directory)) is None
    patch(module, text.replace("True", "None"), 1)
    assert MODULE_DIFFERS in str(problem(str(directory))), "it has the size and the time of the capture"


def test_where_times_tell_they_save_the_reading(directory: Path, module: Path) -> None:
    """What this costs is written down here: a file of the same size and time passes for the same."""
    patch(module, module.read_text().replace("True", "None"), 1000)
    assert problem(str(directory)) is None


# --- The process beside the engine's start --------------------------------------------------------------------------


@pytest.fixture
def children() -> Iterator[list[int]]:
    """PIDs of helpers, which end with the test."""
    made: list[int] = []
    yield made
    for pid in made:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def fork_server(directory: Path, children: list[int]) -> Verification:
    """Verify in a forked process, as PID 1's own helper does."""

    def helper(_name: str, work: Callable[[Any], None]) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                work(SimpleNamespace(event=lambda *_words, **_facts: None))
            finally:
                os._exit(0)
        children.append(pid)
        return pid

    supervisor: Any = SimpleNamespace(helper=helper)
    return Verification(supervisor, str(directory))


def answer(verification: Verification, seconds: float = 20) -> str | None:
    """Wait for the end of the verification, and return the problem that it has found."""
    deadline = time.monotonic() + seconds
    while not verification.poll():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return verification.problem


def test_the_process_gives_the_same_answer(directory: Path, children: list[int]) -> None:
    assert answer(fork_server(directory, children)) is None
    flip(directory / MEMORY, BLOCK)
    found = answer(fork_server(directory, children))
    assert found
    assert found == problem(str(directory))


def test_nobody_waits_for_it(directory: Path, children: list[int]) -> None:
    (directory / MEMORY).unlink()
    os.mkfifo(directory / MEMORY)  # to open it for reading takes a writer: as a volume that hangs
    began = time.monotonic()
    assert not fork_server(directory, children).poll()
    assert time.monotonic() - began < 5


def test_one_that_dies_is_no_approval(directory: Path, children: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "problem", lambda _directory: os._exit(9))
    assert answer(fork_server(directory, children)) == "it cannot be verified: that process was killed"
