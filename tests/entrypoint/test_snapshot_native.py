"""The native part: readers that crash on no input, a vdso that leads to today's functions, a reproducible build."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warmimage.entrypoint.tiers.snapshot.manifest import MEMORY
from warmimage.entrypoint.tiers.snapshot.memory_file import PAGE, mappings
from warmimage.entrypoint.tiers.snapshot.native import RESTORES

from .harness import SOURCE, Image
from .native import elf
from .native.elf import Elf

pytest.importorskip("ziglang", reason="the compiler is not installed (pip install ziglang)")

NATIVE = Path(__file__).parents[2] / "entrypoint" / "tiers" / "snapshot" / "native"

FUZZ = Path(__file__).with_name("native") / "fuzz.py"

#: Damaged inputs for each seed.
INPUTS = 6000

SEEDS = (1, 2)

#: The compiler traps what the C standard leaves undefined: the child ends by a signal.
SANITIZED = (
    "-std=c11",
    "-O1",
    "-shared",
    "-fPIC",
    "-fno-stack-protector",
    "-nostdlib",
    "-fsanitize=undefined",
    "-fsanitize-trap=undefined",
)

Compiler = Callable[..., Path]


@pytest.fixture(scope="session")
def compiled_for_tests(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """Return what compiles sources of the native part with the sanitizer into a library."""

    def compile_library(*sources: str, replaced: tuple[str, str, str] = ("", "", "")) -> Path:
        directory = tmp_path_factory.mktemp("sanitized")
        shutil.copytree(NATIVE, directory / "native", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        name, before, after = replaced
        if name:
            text = (directory / "native" / name).read_text()
            assert text.count(before) == 1, "the source has changed: change this test with it"
            (directory / "native" / name).write_text(text.replace(before, after))
        output = directory / "library.so"
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", *SANITIZED, "-o", str(output), *sources],
            cwd=directory / "native",
            check=True,
        )
        return output

    return compile_library


@pytest.fixture(scope="session")
def readers(compiled_for_tests: Compiler) -> Path:
    """The readers of tables and vdso, in one library."""
    return compiled_for_tests("tables.c", "vdso.c", "memory.c")


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Header and tables of a snapshot of this interpreter."""
    if os.uname().machine not in RESTORES:
        pytest.skip(f"nothing is captured on {os.uname().machine}")
    image = Image(tmp_path_factory.mktemp("captured"), sys.executable, SOURCE)
    image.closure({"modules": ["json", "decimal"], "files": [], "libraries": []})
    done = image.capture("--require")
    assert done.returncode == 0, done.stderr
    length = json.loads((image.snapshot / "manifest.json").read_text())["tables_bytes"]
    return (image.snapshot / MEMORY).read_bytes()[:length]


def vdso() -> tuple[int, bytes]:
    """Return where this process's vdso is, and its content."""
    (found,) = (mapping for mapping in mappings("self") if mapping.path == "[vdso]")
    return found.start, ctypes.string_at(found.start, found.length)


def fuzz(library: Path, what: str, data: bytes, seed: int, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "input"
    file.write_bytes(data)
    return subprocess.run(
        [sys.executable, str(FUZZ), str(library), what, str(file), str(seed), str(INPUTS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_tables_are_refused_and_never_followed(readers: Path, tables: bytes, seed: int, tmp_path: Path) -> None:
    done = fuzz(readers, "tables", tables, seed, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["accepted"] > 100, "the undamaged ones, and those with another page offset, say"
    assert sum(found["messages"].values()) > INPUTS // 4
    assert len(found["messages"]) >= 12, "most of the messages"


#: Checks of the readers, each left out: the fuzzing must find that.
LEFT_OUT: dict[str, tuple[str, tuple[str, str, str]]] = {
    "tables inside the file": (
        "tables",
        ("tables.c", "return offset <= end && length <= end - offset;", "return offset != end + 1;"),
    ),
    "end of the last path": (
        "tables",
        ("tables.c", "if (header->names_length && tables->names[header->names_length - 1])", "if (0)"),
    ),
    "path inside its table": (
        "tables",
        ("tables.c", 'if (tables->paths[i] >= header->names_length) return "a path lies outside its table";', ""),
    ),
    "the restorer's own range": (
        "tables",
        ("tables.c", "return start + length <= OWN_START || start >= OWN_END;", "return 1;"),
    ),
    "symbols inside the vdso": (
        "vdso",
        ("vdso.c", "if (image->count > (length - symbols) / sizeof(struct elf_symbol))", "if (0)"),
    ),
    "functions inside the vdso": (
        "vdso",
        ("vdso.c", 'if (at > old_length - MACHINE_JUMP) return "a function of the vdso lies outside it";', ""),
    ),
}


@pytest.mark.parametrize("check", LEFT_OUT)
def test_a_reader_without_one_of_its_checks_is_found(
    compiled_for_tests: Compiler, tables: bytes, tmp_path: Path, check: str
) -> None:
    what, replaced = LEFT_OUT[check]
    library = compiled_for_tests("tables.c", "vdso.c", "memory.c", replaced=replaced)
    done = fuzz(library, what, tables if what == "tables" else vdso()[1], SEEDS[0], tmp_path)
    assert done.returncode < 0 or "AssertionError" in done.stderr


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_vdso_is_refused_and_never_followed(readers: Path, seed: int, tmp_path: Path) -> None:
    done = fuzz(readers, "vdso", vdso()[1], seed, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["accepted"] > 100
    assert set(found["messages"]) >= {"the vdso is no ELF image", "the vdso has no symbols"}


def test_a_name_at_the_end_of_a_vdso_is_not_read_beyond_it(readers: Path, tmp_path: Path) -> None:
    """The image's last bytes are the beginning of a name that is known, and no zero ends it."""
    _, data = vdso()
    library = Elf(data)
    names = bytearray(data)
    tail = b"__vdso_clock_gettim"
    start = library.offset(library.value(elf.NAMES))
    names[-len(tail) :] = tail
    at = next(
        entry
        for entry in range(0, len(data), 8)
        if names[entry : entry + 16] == struct.pack("<QQ", elf.NAMES_BYTES, library.value(elf.NAMES_BYTES))
    )
    struct.pack_into("<Q", names, at + 8, len(data) - start)
    symbols = library.offset(library.value(elf.SYMBOLS))
    for index in range(1, 4):
        struct.pack_into("<I", names, symbols + 24 * index, len(data) - len(tail) - start)
    done = fuzz(readers, "vdso", bytes(names), 1, tmp_path)
    assert done.returncode == 0, done.stderr


# --- The vdso -------------------------------------------------------------------------------------------------------

on_x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="looks at x86-64 instructions")


class Redirected:
    """A captured vdso that was redirected to the one of this process.

    Args:
        library: the readers.
        captured: its content.
        today: where today's is, and its length.
    """

    def __init__(self, library: Path, captured: bytes, today: tuple[int, int]) -> None:
        self._memory = mmap.mmap(-1, len(captured), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory.write(captured)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.captured = Elf(captured)
        readers = ctypes.CDLL(str(library))
        readers.vdso_redirect.restype = ctypes.c_char_p
        readers.vdso_redirect.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64]
        self.problem: bytes | None = readers.vdso_redirect(self.start, len(captured), *today)

    def code(self, name: str) -> bytes:
        """Return a function's first instructions."""
        return ctypes.string_at(self.start + self.captured.functions()[name], 12)

    def clock(self) -> float:
        """Call the function that reads the monotonic clock."""
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
        now = (ctypes.c_int64 * 2)()
        function = kind(self.start + self.captured.functions()["__vdso_clock_gettime"])
        assert function(time.CLOCK_MONOTONIC, ctypes.addressof(now)) == 0
        return float(now[0] + now[1] / 1e9)


def jump(target: int) -> bytes:
    """Return ``mov $target,%rax; jmp *%rax``."""
    return b"\x48\xb8" + struct.pack("<Q", target) + b"\xff\xe0"


def system_call(number: int) -> bytes:
    """Return ``mov $number,%eax; syscall; ret``."""
    return b"\xb8" + struct.pack("<I", number) + b"\x0f\x05\xc3"


def check_clock(redirected: Redirected) -> None:
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    now = redirected.clock()
    assert before <= now <= time.clock_gettime(time.CLOCK_MONOTONIC)


@on_x86_64
def test_each_function_leads_to_todays(readers: Path) -> None:
    start, data = vdso()
    redirected = Redirected(readers, data, (start, len(data)))
    assert redirected.problem is None
    for name in ("__vdso_clock_gettime", "__vdso_gettimeofday", "clock_gettime", "__vdso_getcpu"):
        assert redirected.code(name) == jump(start + Elf(data).functions()[name])
    check_clock(redirected)


@on_x86_64
def test_a_captured_vdso_of_another_size_leads_to_todays(readers: Path) -> None:
    start, data = vdso()
    redirected = Redirected(readers, data + bytes(2 * PAGE), (start, len(data)))
    assert redirected.problem is None
    assert redirected.code("__vdso_clock_gettime") == jump(start + Elf(data).functions()["__vdso_clock_gettime"])
    check_clock(redirected)


@on_x86_64
def test_a_function_that_todays_lacks_becomes_its_system_call(readers: Path) -> None:
    start, data = vdso()
    forged = data.replace(b"__vdso_clock_gettime\0", b"__vdso_clock_renamed\0")
    assert forged != data
    buffer = ctypes.create_string_buffer(forged, len(forged) + PAGE)
    address = -(-ctypes.addressof(buffer) // PAGE) * PAGE
    ctypes.memmove(address, forged, len(forged))
    redirected = Redirected(readers, data, (address, len(forged)))
    assert redirected.problem is None
    assert redirected.code("__vdso_clock_gettime")[:8] == system_call(228)
    assert redirected.code("__vdso_gettimeofday")[:2] == b"\x48\xb8", "the others are still there"
    check_clock(redirected)
    assert start


@on_x86_64
def test_without_a_vdso_every_function_becomes_its_system_call(readers: Path) -> None:
    _, data = vdso()
    redirected = Redirected(readers, data, (0, 0))
    assert redirected.problem is None
    for name, number in (("__vdso_clock_gettime", 228), ("__vdso_gettimeofday", 96), ("__vdso_getcpu", 309)):
        assert redirected.code(name)[:8] == system_call(number)
    check_clock(redirected)


# --- The build ------------------------------------------------------------------------------------------------------


def build(source: Path, folder: Path) -> dict[str, bytes]:
    """Compile as the wheel does, with a compiler that remembers nothing, and return what that gives."""
    folder.mkdir()
    caches = {name: str(folder / name) for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")}
    subprocess.run(
        [sys.executable, str(source / "compile.py"), str(folder / "out")], env={**os.environ, **caches}, check=True
    )
    return {str(path.relative_to(folder / "out")): path.read_bytes() for path in (folder / "out").glob("*/*.so")}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All libraries for all machines, by machine and name."""
    return build(NATIVE, tmp_path_factory.mktemp("built") / "build")


def test_the_build_is_reproducible(built: dict[str, bytes], tmp_path: Path) -> None:
    """Elsewhere, from sources with other times."""
    copy = tmp_path / "sources"
    shutil.copytree(NATIVE, copy, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    assert build(copy, tmp_path / "again") == built
    assert len(built) == 4


#: Relocation types of each machine: a symbol's address, and the library's own address plus a number.
GLOB_DAT, RELATIVE = {"x86_64": 6, "aarch64": 1025}, {"x86_64": 8, "aarch64": 1027}


def test_libraries_need_no_other_and_have_nothing_to_relocate(built: dict[str, bytes]) -> None:
    """The restorer's code is mapped a second time at its own address, where no loader has relocated anything."""
    for path, data in built.items():
        machine, _, name = path.partition("/")
        library = Elf(data)
        assert library.value(elf.NEEDED) == 0, path
        init = range(library.value(elf.INIT_ARRAY), library.value(elf.INIT_ARRAY) + library.value(elf.INIT_ARRAY_BYTES))
        for relocation in library.relocations():
            if relocation.kind == RELATIVE[machine]:
                assert relocation.address in init, f"{path} has a pointer in its data"
            else:
                assert (relocation.kind, relocation.symbol) == (GLOB_DAT[machine], "__rseq_offset"), path
        if name == "restore.so":
            assert writable(library) == [], "it has data that is written"


def writable(library: Elf) -> list[elf.Segment]:
    """Return the segments that stay writable after the loader's work."""
    kept = [segment for segment in library.segments if segment.kind == elf.RELRO]

    def is_closed(segment: elf.Segment) -> bool:
        return any(
            part.address <= segment.address and segment.address + segment.file_bytes <= part.address + part.memory_bytes
            for part in kept
        )

    written = [part for part in library.segments if part.kind == elf.LOAD and part.flags & elf.WRITABLE]
    return [segment for segment in written if not is_closed(segment)]


def test_the_capturing_library_has_data_that_is_written(built: dict[str, bytes]) -> None:
    """What the test above looks for is found where it is."""
    found: Any = writable(Elf(built["x86_64/point.so"]))
    assert found
