"""What cannot be restored, each alone: the next tier serves, and one line says why."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from .harness import Ended, Image, free_port
from .native import restores
from .native.restores import HEADER, MAPPING, MAPPING_COUNT, MAPPINGS, TABLES_LENGTH, VDSO_OFFSET, VDSO_START

pytestmark = pytest.mark.timeout(120)

#: Serves in tier ``zygote`` alone; in another it waits for that for ten seconds.
SERVE = ("listen", "serve:200", "until:ready:zygote", "end:0")


def serve(image: Image, *words: str, prefix: Sequence[str] = (), **variables: str) -> Ended:
    """Start the engine, and see that it is ready in tier ``zygote``."""
    ended = image.run(
        *(words or SERVE), "--port", str(free_port()), prefix=prefix, **restores.variables(image), **variables
    )
    assert ended.code == 0, ended
    assert [event["tier"] for event in image.events("ready")] == ["zygote"]
    return ended


def declined(image: Image, phrase: str, **options: object) -> None:
    """See that the tier was skipped with one line that has a phrase, and that nothing of it was left."""
    ended = serve(image, **options)  # type: ignore[arg-type]
    (line, ready) = ended.said
    assert line.startswith("snapshot skipped: ")
    assert phrase in line
    assert "(tier zygote; skipped: snapshot)" in ready
    assert ended.err.decode().count("\n") == 2, ended.err
    assert image.events("snapshot.restored") == []
    assert image.events("tier.failed") == []


def failed(image: Image, phrase: str) -> None:
    """See that the restored engine was ended before it was ready, with one line that has a phrase."""
    ended = serve(image)
    (line, ready) = ended.said
    assert line.startswith("snapshot failed: ")
    assert phrase in line
    assert "tier zygote" in ready
    (event,) = image.events("tier.failed")
    assert (event["tier"], phrase in event["reason"]) == ("snapshot", True)
    assert image.tiers == ["snapshot", "zygote"]


def flip(file: Path, position: int) -> None:
    with file.open("r+b") as opened:
        (byte,) = os.pread(opened.fileno(), 1, position)
        os.pwrite(opened.fileno(), bytes([byte ^ 1]), position)


def tables_bytes(image: Image) -> int:
    return int(HEADER.unpack((image.snapshot / "memory").read_bytes()[: HEADER.size])[TABLES_LENGTH])


def test_without_a_fault_it_restores(captured: Image) -> None:
    words = ("listen", "serve:200", "until:ready:snapshot", "end:0", "--port", str(free_port()))
    ended = captured.run(*words, **restores.variables(captured))
    assert (ended.code, captured.tiers) == (0, ["snapshot"])
    assert [event["tier"] for event in captured.events("ready")] == ["snapshot"]


DAMAGE: dict[str, tuple[Callable[[Image], object], str]] = {
    "a bit of the header": (lambda image: flip(image.snapshot / "memory", 20), "memory is damaged"),
    "a bit of the tables": (
        lambda image: flip(image.snapshot / "memory", tables_bytes(image) - 1),
        "memory is damaged",
    ),
    "truncated": (lambda image: os.truncate(image.snapshot / "memory", 1 << 20), "has 1048576 bytes"),
    "empty": (lambda image: os.truncate(image.snapshot / "memory", 0), "has 0 bytes"),
    "foreign": (lambda image: shutil.copy("/bin/sh", image.snapshot / "memory"), "bytes, and had"),
    "missing": (lambda image: (image.snapshot / "memory").unlink(), "memory cannot be read: No such file"),
    "no manifest": (lambda image: (image.snapshot / "manifest.json").unlink(), "there is none in"),
    "a damaged manifest": (
        lambda image: (image.snapshot / "manifest.json").write_text("{"),
        "its manifest cannot be read",
    ),
    "an older manifest": (
        lambda image: (image.snapshot / "manifest.json").write_text('{"schema": 1}'),
        "another version",
    ),
    "a capture that declined": (
        lambda image: (image.snapshot / "manifest.json").rename(image.snapshot / "declined").write_text("no\n"),
        "none was captured: no",
    ),
    "a replaced library": (
        lambda image: restores.modules(image).joinpath("libown.so").write_bytes(b"other"),
        "libown.so is not the file",
    ),
    "a library that is gone": (
        lambda image: restores.modules(image).joinpath("libown.so").unlink(),
        "libown.so is not the file",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_found_before_the_restore(captured: Image, damage: str) -> None:
    cause, phrase = DAMAGE[damage]
    cause(captured)
    declined(captured, phrase)


def test_damaged_pages_are_found_before_the_server_is_ready(captured: Image) -> None:
    """In a page of Python's objects: the process may crash, or serve wrongly; neither becomes ready."""
    data = (captured.snapshot / "memory").read_bytes()
    flip(captured.snapshot / "memory", data.index(b"memory of many kinds"))
    failed(captured, "memory is damaged")


def test_a_replaced_module_is_found_before_the_server_is_ready(captured: Image) -> None:
    module = restores.modules(captured) / "before.py"
    module.write_text(module.read_text().replace("PAGE = 4096", "PAGE = 4097"))
    failed(captured, "before.py is not the file of the capture")


def test_rewritten_times_keep_the_tier(captured: Image) -> None:
    """As ``rewrite-timestamp`` leaves an image."""
    for path in restores.modules(captured).iterdir():
        os.utime(path, (1, 1))
    words = ("listen", "serve:200", "until:ready:snapshot", "end:0", "--port", str(free_port()))
    assert captured.run(*words, **restores.variables(captured)).code == 0
    assert [event["tier"] for event in captured.events("ready")] == ["snapshot"]


# --- Refused by the restorer ----------------------------------------------------------------------------------------


def into_the_restorers_range(data: bytearray) -> None:
    restores.set_mapping(data, 0, 0x100000000000)


def vdso_in_other_memory(data: bytearray) -> None:
    (start,) = struct.unpack_from("<Q", data, HEADER.unpack_from(data)[MAPPINGS])
    struct.pack_into("<Q", data, 8 * VDSO_START, start)


def no_vdso(data: bytearray) -> None:
    at = HEADER.unpack_from(data)[VDSO_OFFSET]
    data[at : at + 4096] = bytes(4096)


def library_that_is_gone(data: bytearray) -> None:
    at = data.index(b"/libown.so\0")
    data[at : at + 10] = b"/libgone.s"


def many_mappings(data: bytearray) -> bytearray:
    with open("/proc/sys/vm/max_map_count", encoding="utf-8") as file:
        limit = int(file.read())
    if limit > 300_000:
        pytest.skip("vm.max_map_count is high here")
    return restores.with_more_mappings(data, limit)


FORGED: dict[str, tuple[Callable[[bytearray], bytearray | None], str]] = {
    "a taken range": (into_the_restorers_range, "a mapping has no address that may be mapped"),
    "a taken place of the vdso": (vdso_in_other_memory, "the captured vdso's place is taken"),
    "no code of the vdso": (no_vdso, "the vdso is no ELF image"),
    "a library that is gone": (library_that_is_gone, "cannot open"),
    "more mappings than a process may have": (many_mappings, "vm.max_map_count"),
    "another version": (lambda data: struct.pack_into("<B", data, 7, 0x39), "not a snapshot of this version"),
    "truncated pages": (lambda data: data[: -len(data) // 2 & ~4095], "cannot read"),
}


@pytest.mark.parametrize("fault", FORGED)
def test_what_the_restorer_finds(captured: Image, fault: str) -> None:
    """The manifest takes the file for whole, so that the restorer has to see it."""
    change, phrase = FORGED[fault]
    restores.rewrite(captured, change)
    declined(captured, phrase)


def test_further_mappings_alone_do_not_stop_it(captured: Image) -> None:
    """What forges too many of them forges nothing else."""
    restores.rewrite(captured, lambda data: restores.with_more_mappings(data, 1000))
    ended = captured.run("out:here", "end:0", **restores.variables(captured))
    assert ended.out == b"here\n"
    assert captured.tiers == ["snapshot"]
    assert captured.events("snapshot.restored")


def reserve(data: bytearray) -> bytearray:
    """Return a snapshot that reserves two GB of addresses."""
    found = restores.with_more_mappings(data, 1)
    fields = HEADER.unpack_from(found)
    struct.pack_into("<Q", found, fields[MAPPINGS] + MAPPING.size * (fields[MAPPING_COUNT] - 1) + 8, 2 << 30)
    return found


def test_too_few_addresses(captured: Image) -> None:
    """RLIMIT_AS is the same for all tiers, but the snapshot needs more."""
    restores.rewrite(captured, reserve)
    declined(captured, "no memory (cgroup limit, RLIMIT_AS", prefix=("prlimit", f"--as={2 << 30}"))


#: Installs a filter of system calls (seccomp(2)) that answers ``prctl(PR_SET_MM, ...)`` with EPERM, and executes.
FILTER = """
import ctypes, os, platform, struct, sys
prctl = {"x86_64": 157, "aarch64": 167}[platform.machine()]
operation = int(sys.argv[1])
load, equal, end = 0x20, 0x15, 0x06
rows = [(load, 0, 0, 0), (equal, 0, 5, prctl), (load, 0, 0, 16), (equal, 0, 3, 35)]
rows += [(load, 0, 0, 24), (equal, 0, operation >= 0, max(operation, 0))]
rows += [(end, 0, 0, 0x00050001), (end, 0, 0, 0x7FFF0000)]
program = b"".join(struct.pack("<HBBI", *row) for row in rows)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("rows", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, "no_new_privs"
assert libc.prctl(22, 2, ctypes.byref(Program(len(rows), program)), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[2], sys.argv[2:])
"""

#: ``PR_SET_MM_MAP`` of prctl(2); -1 is every operation of ``PR_SET_MM``.
SET_MM = {
    "PR_SET_MM": (-1, "has no prctl(PR_SET_MM_MAP): errno 1"),
    "PR_SET_MM_MAP": (14, "prctl(PR_SET_MM_MAP) is refused: errno 1"),
}


@pytest.mark.parametrize("refused", SET_MM)
def test_a_filter_that_refuses(captured: Image, refused: str) -> None:
    operation, phrase = SET_MM[refused]
    declined(captured, phrase, prefix=(sys.executable, "-c", FILTER, str(operation)))


def test_the_filter_refuses_what_it_names_alone() -> None:
    asks = "import ctypes; libc = ctypes.CDLL(None); print(libc.prctl(35, 15, ctypes.byref(ctypes.c_uint()), 0, 0))"
    for operation, answer in ((-1, "-1\n"), (14, "0\n")):
        words = [sys.executable, "-c", FILTER, str(operation), sys.executable, "-c", asks]
        assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == answer


@pytest.mark.parametrize(
    ("name", "value", "phrase"),
    [
        ("PYTHONHASHSEED", "7", "PYTHONHASHSEED"),
        ("MALLOC_ARENA_MAX", "1", "MALLOC_ARENA_MAX has changed since native code read it"),
        ("LD_PRELOAD", "libc.so.6", "LD_PRELOAD names libc.so.6, which is not loaded"),
    ],
)
def test_a_variable_that_cannot_be_derived_again(captured: Image, name: str, value: str, phrase: str) -> None:
    declined(captured, phrase, **{name: value})


@pytest.fixture
def own_native(python: str, compiled: Path, tmp_path: Path) -> Image:
    """Return an image with a snapshot, of which no other test takes the native files."""
    image = Image(tmp_path, python, compiled)
    restores.prepare(image)
    done = image.capture("--require", variables=restores.variables(image))
    assert done.returncode == 0, done.stderr
    return image


def test_a_restorer_that_is_not_run(own_native: Image) -> None:
    """As where the dynamic loader ignores LD_PRELOAD: the interpreter itself says so."""
    native = restores.native(own_native)
    shutil.copy(native / "point.so", native / "restore.so")
    manifest = json.loads((own_native.snapshot / "manifest.json").read_text())
    manifest["native"] = zlib.crc32((native / "point.so").read_bytes() * 2)
    (own_native.snapshot / "manifest.json").write_text(json.dumps(manifest))
    declined(own_native, "the dynamic loader has not run the restorer")


def test_a_restorer_of_another_version(own_native: Image) -> None:
    with (restores.native(own_native) / "restore.so").open("ab") as file:
        file.write(b"more")
    declined(own_native, "its native files are of another version")


def test_a_restorer_that_is_gone(own_native: Image) -> None:
    (restores.native(own_native) / "restore.so").unlink()
    declined(own_native, "native files")


def test_pages_are_four_kilobytes_here() -> None:
    """The file's layout, and the forgeries above, depend on it."""
    assert ctypes.CDLL(None).getpagesize() == restores.PAGE
