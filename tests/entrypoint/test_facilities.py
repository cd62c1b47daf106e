"""What a container may do here: each answer is compared with what is planted."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from warmimage.entrypoint import facilities, pagecache

from .harness import SOURCE, works

SCRIPT = str(SOURCE / "facilities.py")

#: Another user, who may read root's files and no more.
SOMEBODY = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups")


def ask(python: str, *words: str, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run the script as a container would."""
    done = subprocess.run(
        [*prefix, python, "-I", "-S", "-B", SCRIPT, *words], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def on_disk(path: Path, size: int) -> Path:
    """Write a file of which no page is waiting to be written."""
    with path.open("wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
    for parent in path.parents[:5]:
        parent.chmod(parent.stat().st_mode | 0o055)
    path.chmod(0o644)
    return path


def closure_of(folder: Path, *paths: Path) -> str:
    closure = folder / "closure.json"
    closure.write_text(json.dumps({"files": [str(path) for path in paths], "libraries": []}), encoding="utf-8")
    closure.chmod(0o644)
    return str(closure)


def fetches(path: Path) -> bool:
    """Return whether this machine's kernel charges a read of a file that is not resident."""
    return bool(facilities.read_rate([str(path)])["fetched"])


def test_every_part_is_answered(python: str) -> None:
    found = ask(python)
    assert set(found) == {"privileges", "kernel", "memory", "root", "pagecache", "closure", "cuda"}
    assert not [name for name, part in found.items() if "error" in part]
    assert found["privileges"]["uid"] == os.getuid()
    assert found["kernel"]["release"] == os.uname().release
    assert found["memory"]["shared"] == os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize


def test_what_is_dropped_is_seen(python: str) -> None:
    prefix = ("setpriv", "--bounding-set=-sys_admin", "--no-new-privs")
    if not works(*prefix):
        pytest.skip("capabilities cannot be dropped here (needs setpriv and root)")
    before, dropped = ask(python)["privileges"], ask(python, prefix=prefix)["privileges"]
    assert before["bounding"] & ~dropped["bounding"] == 1 << 21  # SYS_ADMIN
    assert (before["no_new_privs"], dropped["no_new_privs"]) == (0, 1)


def test_a_closure_that_cannot_be_read_hides_nothing_else(python: str, tmp_path: Path) -> None:
    found = ask(python, "--closure", str(tmp_path / "none.json"))
    assert found["closure"] == {"error": f"FileNotFoundError: [Errno 2] No such file or directory: "
                                f"'{tmp_path}/none.json'"}  # fmt: skip
    assert found["kernel"]["release"] == os.uname().release


def test_a_rate_is_measured_on_what_was_dropped(tmp_path: Path) -> None:
    path = on_disk(tmp_path / "large", 32 << 20)
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass
    assert pagecache.resident_bytes(str(path)) == 32 << 20
    rate = facilities.read_rate([str(path)])
    assert rate["bytes"] == 32 << 20
    if not rate["fetched"]:
        pytest.skip("reads of this file system are charged to nobody")
    assert rate["fetched"] >= rate["bytes"]
    assert rate["seconds"] > 0


def test_what_is_in_memory_alone_is_not_called_cold() -> None:
    path = Path("/dev/shm/warmimage-test-rate")
    path.write_bytes(bytes(20 << 20))
    try:
        rate = facilities.read_rate([str(path)])
    finally:
        path.unlink()
    assert rate["bytes"] == 20 << 20
    assert rate["fetched"] == 0


def test_a_rate_reads_no_more_than_its_limits(tmp_path: Path) -> None:
    first, second = on_disk(tmp_path / "first", 3 << 20), on_disk(tmp_path / "second", 3 << 20)
    assert facilities.read_rate([str(first), str(second)], limit_bytes=4 << 20)["bytes"] == 4 << 20
    assert facilities.read_rate([str(first), str(second)], limit_seconds=0)["bytes"] == 0
    assert facilities.read_rate([])["bytes"] == 0


def test_an_empty_file_ends_no_measurement(tmp_path: Path) -> None:
    empty, full = on_disk(tmp_path / "empty", 0), on_disk(tmp_path / "full", 1 << 20)
    assert facilities.read_rate([str(empty), str(full)])["bytes"] == 1 << 20


def test_the_kernel_is_asked_about_files_of_ones_own(tmp_path: Path) -> None:
    path = on_disk(tmp_path / "own", 1 << 20)
    assert facilities.page_cache([str(path)])["others"]["how"] == "asked"


def test_mincore_about_files_of_others_is_found_out(python: str, tmp_path: Path) -> None:
    if not works(*SOMEBODY) or not works(*SOMEBODY, python, "-c", ""):
        pytest.skip("nobody else's process can be started here (needs setpriv, root, and an interpreter for all)")
    path = on_disk(tmp_path / "large", 32 << 20)
    if not fetches(path):
        pytest.skip("reads of this file system are charged to nobody")
    words = ["--closure", closure_of(tmp_path, path)]
    if subprocess.run([*SOMEBODY, "cat", SCRIPT], capture_output=True, check=False).returncode:
        pytest.skip("the repository is not readable by others")
    found = ask(python, *words, prefix=SOMEBODY)["pagecache"]
    assert found["others"] == {"how": "sampled", "mincore_truthful": False}


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        ("#!/bin/sh\necho Version: 4.1.1\necho GitID: x\n", 0o755, {"version": "Version: 4.1.1"}),
        ("#!/bin/sh\necho bad library >&2\nexit 3\n", 0o755, {"error": "exit code 3: bad library"}),
        ("#!/bin/sh\n", 0o755, {"error": "exit code 0: "}),
        ("#!/bin/sh\necho never\n", 0o644, {}),
    ],
    ids=["answers", "fails", "silent", "not-executable"],
)
def test_a_program_is_tried(tmp_path: Path, content: str, mode: int, expected: dict[str, str]) -> None:
    path = tmp_path / "criu"
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)
    assert facilities.program(str(path)) == {"exists": True, "executable": mode == 0o755, **expected}


def test_a_program_that_is_absent_or_hangs_or_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facilities, "_CRIU_SECONDS", 0.2)
    assert facilities.program(str(tmp_path / "none")) == {"exists": False, "executable": False}
    path = tmp_path / "criu"
    path.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    path.chmod(0o755)
    assert facilities.program(str(path))["error"].startswith("TimeoutExpired")
    path.write_bytes(b"\0\0\0\0")
    assert facilities.program(str(path))["error"].startswith("OSError: [Errno 8]")


@pytest.mark.parametrize(
    ("line", "expected"), [("cuda: Optional[str] = '13.0'", "13.0"), ("cuda = '12.4'", "12.4"), ("cuda = None", None)]
)
def test_the_cuda_of_torch_is_read_and_not_imported(tmp_path: Path, line: str, expected: str | None) -> None:
    package = tmp_path / "torch" / "site-packages" / "torch"
    (package / "lib").mkdir(parents=True)
    (package / "version.py").write_text(f"__version__ = '2'\n{line}\nhip = None\n", encoding="utf-8")
    library = package / "lib" / "libtorch_cpu.so"
    library.write_bytes(b"x")
    assert facilities.cuda([str(library)])["torch"] == expected
