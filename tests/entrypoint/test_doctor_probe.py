"""What a container may do here: each answer is compared with what is planted."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from warmimage.entrypoint import doctor_probe
from warmimage.entrypoint.pagecache import syscalls

from .harness import SOURCE, works

SCRIPT = (str(SOURCE), "doctor-probe")

#: Another user, who may read root's files and no more.
SOMEBODY = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups")


def ask(python: str, *words: str, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run the script as a container would."""
    done = subprocess.run(
        [*prefix, python, "-I", "-S", "-B", *SCRIPT, *words], capture_output=True, text=True, check=True
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
    return bool(doctor_probe.read_rate([str(path)])["fetched"])


def test_every_part_is_answered(python: str) -> None:
    found = ask(python)
    assert set(found) == {"privileges", "kernel", "memory", "root", "pagecache", "closure", "cuda"}
    assert not [name for name, part in found.items() if "error" in part]
    assert found["privileges"]["uid"] == os.getuid()
    assert found["kernel"]["release"] == os.uname().release
    assert found["memory"]["shared"] == os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize


def test_a_closure_that_cannot_be_read_hides_nothing_else(python: str, tmp_path: Path) -> None:
    found = ask(python, "--closure", str(tmp_path / "none.json"))
    assert found["closure"] == {
        "error": f"FileNotFoundError: [Errno 2] No such file or directory: '{tmp_path}/none.json'"
    }
    assert found["kernel"]["release"] == os.uname().release


def test_a_rate_is_measured_on_what_was_dropped(tmp_path: Path) -> None:
    path = on_disk(tmp_path / "large", 32 << 20)
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass
    assert syscalls.resident_bytes(str(path)) == 32 << 20
    rate = doctor_probe.read_rate([str(path)])
    assert rate["bytes"] == 32 << 20
    if not rate["fetched"]:
        pytest.skip("reads of this file system are charged to nobody")
    assert rate["fetched"] >= rate["bytes"]
    assert rate["seconds"] > 0


def test_what_is_in_memory_alone_is_not_called_cold() -> None:
    path = Path("/dev/shm/warmimage-test-rate")
    path.write_bytes(bytes(20 << 20))
    try:
        rate = doctor_probe.read_rate([str(path)])
    finally:
        path.unlink()
    assert rate["bytes"] == 20 << 20
    assert rate["fetched"] == 0


def test_a_rate_reads_no_more_than_its_limits(tmp_path: Path) -> None:
    first, second = on_disk(tmp_path / "first", 3 << 20), on_disk(tmp_path / "second", 3 << 20)
    assert doctor_probe.read_rate([str(first), str(second)], limit_bytes=4 << 20)["bytes"] == 4 << 20
    assert doctor_probe.read_rate([str(first), str(second)], limit_seconds=0)["bytes"] == 0
    assert doctor_probe.read_rate([])["bytes"] == 0


def test_an_empty_file_ends_no_measurement(tmp_path: Path) -> None:
    empty, full = on_disk(tmp_path / "empty", 0), on_disk(tmp_path / "full", 1 << 20)
    assert doctor_probe.read_rate([str(empty), str(full)])["bytes"] == 1 << 20


def test_the_kernel_is_asked_about_files_of_ones_own(tmp_path: Path) -> None:
    path = on_disk(tmp_path / "own", 1 << 20)
    assert doctor_probe.page_cache([str(path)])["others"]["how"] == "asked"


def test_mincore_about_files_of_others_is_found_out(python: str, tmp_path: Path) -> None:
    if not works(*SOMEBODY) or not works(*SOMEBODY, python, "-c", ""):
        pytest.skip("nobody else's process can be started here (needs setpriv, root, and an interpreter for all)")
    path = on_disk(tmp_path / "large", 32 << 20)
    if not fetches(path):
        pytest.skip("reads of this file system are charged to nobody")
    words = ["--closure", closure_of(tmp_path, path)]
    if subprocess.run([*SOMEBODY, "ls", SCRIPT[0]], capture_output=True, check=False).returncode:
        pytest.skip("the repository is not readable by others")
    found = ask(python, *words, prefix=SOMEBODY)["pagecache"]
    assert found["others"] == {"how": "sampled", "mincore_truthful": False}


MANIFEST = {"kernel": "6.1.0", "machine": "x86_64", "modules": 3012, "bytes": 297_000_000, "cpu_features": []}


def test_a_snapshot_says_what_it_is_and_what_this_cpu_lacks(python: str, tmp_path: Path) -> None:
    here = sorted(doctor_probe.cpu_flags(Path("/proc/cpuinfo").read_text(encoding="utf-8")))
    assert here
    manifest = {**MANIFEST, "cpu_features": [here[0], "no-such-extension"]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = ask(python, "--snapshot", str(tmp_path))["snapshot"]
    expected = {name: value for name, value in MANIFEST.items() if name != "cpu_features"}
    assert found == {"captured": True, **expected, "lacking": ["no-such-extension"]}


def test_a_build_that_captured_none_says_why(tmp_path: Path) -> None:
    assert doctor_probe.captured(str(tmp_path)) == {"captured": False, "declined": ""}
    (tmp_path / "declined").write_text("a thread is running:\n  of torch\n", encoding="utf-8")
    assert doctor_probe.captured(str(tmp_path)) == {"captured": False, "declined": "a thread is running: of torch"}


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"cpu_features": 1}'])
def test_a_damaged_manifest_is_an_error_and_hides_nothing_else(python: str, tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    found = ask(python, "--snapshot", str(tmp_path))
    assert set(found["snapshot"]) == {"error"}
    assert found["kernel"]["release"] == os.uname().release


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (
            "processor : 0\nflags\t\t: fpu avx2 avx512f\nbugs\t: spectre\nprocessor : 1\nflags\t: fpu\n",
            {"fpu", "avx2", "avx512f"},
        ),
        ("processor\t: 0\nFeatures\t: fp asimd sve\n", {"fp", "asimd", "sve"}),
        ("processor : 0\n", set()),
    ],
    ids=["x86", "arm64", "neither"],
)
def test_the_flags_of_the_cpu_are_read(text: str, flags: set[str]) -> None:
    assert doctor_probe.cpu_flags(text) == flags


#: Installs a seccomp filter that answers EPERM to ``prctl(PR_SET_MM)``, then becomes the command that follows.
DENIED = """\
import ctypes, os, struct, sys
number = {"x86_64": 157, "aarch64": 167}[os.uname().machine]
rows = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16), (0x15, 0, 1, 35), (0x06, 0, 0, 0x50001)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in [*rows, (0x06, 0, 0, 0x7fff0000)]))
header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 6, ctypes.addressof(program)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, header, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_kernel_that_maps_no_process_back_is_found_out(python: str) -> None:
    """The option answers here; where a filter refuses it, the reason is the kernel's own."""
    before = ask(python)["kernel"]["mm_map"]
    if before is not True:
        pytest.skip(f"PR_SET_MM_MAP is not available here: {before}")
    after = ask(python, prefix=(python, "-c", DENIED))["kernel"]
    assert after["mm_map"] == "PermissionError: [Errno 1] Operation not permitted"
    assert after["release"] == os.uname().release


@pytest.mark.parametrize(
    ("line", "expected"), [("cuda: Optional[str] = '13.0'", "13.0"), ("cuda = '12.4'", "12.4"), ("cuda = None", None)]
)
def test_the_cuda_of_torch_is_read_and_not_imported(tmp_path: Path, line: str, expected: str | None) -> None:
    package = tmp_path / "torch" / "site-packages" / "torch"
    (package / "lib").mkdir(parents=True)
    (package / "version.py").write_text(f"__version__ = '2'\n{line}\nhip = None\n", encoding="utf-8")
    library = package / "lib" / "libtorch_cpu.so"
    library.write_bytes(b"x")
    assert doctor_probe.cuda([str(library)])["torch"] == expected
