"""What a snapshot is compared with at a start: each difference is named, and what is no difference declines nothing."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from warmimage.entrypoint.environment.import_environment import Contract
from warmimage.entrypoint.kernel.gpus import Accelerator
from warmimage.entrypoint.tiers.snapshot import capture, cpu_baseline, integrity, native
from warmimage.entrypoint.tiers.snapshot.capture import images_own
from warmimage.entrypoint.tiers.snapshot.identity import Identity, content, sample, sampled, times_tell
from warmimage.entrypoint.tiers.snapshot.manifest import DECLINED, MEMORY, NAME, Manifest, cpu_features, read
from warmimage.entrypoint.tiers.snapshot.memory_file import Mapping, refusal

from .harness import Image
from .plans import make_imports

VARIABLES = {"HOME": "/home/warmimage", "PATH": "/usr/bin", "LC_CTYPE": "C.UTF-8"}

READS = {"HOME": "huggingface_hub.constants", "HF_HUB_OFFLINE": "huggingface_hub.constants", "TOKEN": "some.client"}

PYTHON = "/usr/bin/python3"

#: Bytes of the file ``memory``, and of its header and tables.
SIZE, TABLES = 40960, 8192

restores_here = pytest.mark.skipif(
    os.uname().machine not in native.RESTORES, reason=f"restoring is not tested on {os.uname().machine}"
)


@pytest.fixture
def closure(tmp_path: Path) -> str:
    """The path of an image's closure."""
    file = tmp_path / "closure.json"
    file.write_text('{"modules": ["json"]}')
    return str(file)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A file that was mapped at the capture, large enough to be sampled."""
    file = tmp_path / "libengine.so"
    file.write_bytes(bytes(range(256)) * 4096)
    return file


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with a file ``memory``."""
    made = tmp_path / "snapshot"
    made.mkdir()
    (made / MEMORY).write_bytes(bytes(range(251)) * (SIZE // 251 + 1))
    os.truncate(made / MEMORY, SIZE)
    return made


@pytest.fixture
def manifest(library: Path, closure: str, directory: Path) -> Manifest:
    """A snapshot that fits here and now."""
    return Manifest(
        machine=os.uname().machine,
        baseline="x86-64-v3",
        cpu_features=tuple(cpu_features()),
        kernel=os.uname().release,
        python=PYTHON,
        closure=content(closure),
        native=native.checksum(),
        files=(sampled(str(library)),),
        contract=Contract(VARIABLES, READS),
        threads=("poller",),
        modules=5000,
        bytes=SIZE,
        tables_bytes=TABLES,
        accelerator=Accelerator.here(),
        tables=zlib.crc32((directory / MEMORY).read_bytes()[:TABLES]),
    )


@restores_here
def test_a_snapshot_fits_where_it_was_captured_and_survives_its_file(
    manifest: Manifest, closure: str, directory: Path
) -> None:
    (directory / NAME).write_text(manifest.to_json())
    again = Manifest.of(read(str(directory)))
    assert again == manifest
    assert again.mismatch(VARIABLES, PYTHON, closure) is None
    assert again.tables_problem(str(directory)) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 2}', '{"schema": 3}'])
def test_a_damaged_manifest_is_none(text: str) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        Manifest.of(text)


@pytest.mark.parametrize("part", ["environment", "files", "bytes", "closure"])
def test_a_manifest_that_lacks_a_part_is_none(manifest: Manifest, part: str) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        Manifest.of(manifest.to_json().replace(f'"{part}"', f'"{part}_of_old"'))


def test_this_cpu_has_extensions_that_are_compared() -> None:
    assert len(cpu_features()) > 5


def other_size(library: Path) -> None:
    with library.open("ab") as file:
        file.write(b"more")


def other_content(library: Path) -> None:
    data = bytearray(library.read_bytes())
    data[0] ^= 1
    library.write_bytes(data)
    os.utime(library, (1, 1))


CHANGES: dict[str, tuple[Callable[[Manifest], Manifest], str]] = {
    "closure": (lambda found: replace(found, closure=found.closure ^ 1), "from another image"),
    "python": (lambda found: replace(found, python="/opt/other/python3"), "/usr/bin/python3, and was /opt/other"),
    "machine": (lambda found: replace(found, machine="riscv64"), "on riscv64"),
    "cpu": (lambda found: replace(found, cpu_features=("avx4096",)), "lacks avx4096"),
    "native": (lambda found: replace(found, native=found.native ^ 1), "native files"),
    "GPU": (lambda found: replace(found, accelerator=Accelerator("", ("Tesla T4",))), "was Tesla T4"),
    "driver": (lambda found: replace(found, accelerator=Accelerator("999.1")), "was 999.1"),
    "environment": (
        lambda found: replace(found, contract=Contract({**VARIABLES, "TOKEN": "hf_secret"}, READS)),
        "TOKEN has changed",
    ),
}

DAMAGE: dict[str, Callable[[Path], object]] = {
    "absent": lambda library: library.unlink(),
    "size": other_size,
    "content": other_content,
}


@restores_here
@pytest.mark.parametrize("part", CHANGES)
def test_each_difference_is_named(manifest: Manifest, closure: str, part: str) -> None:
    if part in ("GPU", "driver") and Accelerator.here().driver:
        pytest.skip("a GPU is here")
    change, phrase = CHANGES[part]
    found = change(manifest).mismatch(VARIABLES, PYTHON, closure)
    assert phrase in found
    assert "hf_secret" not in found, "values may be secret"


@restores_here
@pytest.mark.parametrize("damage", DAMAGE)
def test_another_mapped_file_is_named(manifest: Manifest, closure: str, library: Path, damage: str) -> None:
    DAMAGE[damage](library)
    assert f"{library} is not the file" in manifest.mismatch(VARIABLES, PYTHON, closure)


@restores_here
def test_the_same_file_with_another_time_is_the_same(manifest: Manifest, closure: str, library: Path) -> None:
    """As builders that rewrite times leave it."""
    os.utime(library, (1, 1))
    assert manifest.mismatch(VARIABLES, PYTHON, closure) is None


@restores_here
@pytest.mark.parametrize("kernel", ["3.10.0-1160.el7", "999.1.0-next"])
def test_another_kernel_does_not_matter(manifest: Manifest, closure: str, kernel: str) -> None:
    assert replace(manifest, kernel=kernel).mismatch(VARIABLES, PYTHON, closure) is None


def test_a_sample_sees_both_ends_and_every_byte_of_a_small_file(tmp_path: Path) -> None:
    for size, places in ((100, range(100)), (1 << 22, (0, 65535, (1 << 22) - 65536, (1 << 22) - 1))):
        file = tmp_path / f"{size}.so"
        file.write_bytes(bytes(size))
        before = sample(str(file))
        for place in places:
            with file.open("r+b") as opened:
                os.pwrite(opened.fileno(), b"x", place)
                assert sample(str(file)) != before
                os.pwrite(opened.fileno(), b"\0", place)


def test_times_that_most_files_have_do_not_tell() -> None:
    own = [Identity("/a", 1, number, 0) for number in range(4)]
    same = [replace(identity, changed=1) for identity in own]
    assert times_tell([])
    assert times_tell(own)
    assert times_tell([*own[2:], *same[:2]])
    assert not times_tell([*own[3:], *same[:3]])


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


TABLES_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "first bit": (lambda file: flip(file, 0), "is damaged"),
    "last bit of the tables": (lambda file: flip(file, TABLES - 1), "is damaged"),
    "truncated": (lambda file: os.truncate(file, SIZE - 1), f"has {SIZE - 1} bytes"),
    "empty": (lambda file: os.truncate(file, 0), "has 0 bytes"),
    "longer": (lambda file: os.truncate(file, SIZE + 1), f"has {SIZE + 1} bytes"),
    "foreign": (lambda file: file.write_bytes(os.urandom(SIZE)), "is damaged"),
    "missing": (lambda file: file.unlink(), "cannot be read: No such file"),
}


@pytest.mark.parametrize("damage", TABLES_DAMAGE)
def test_damaged_tables_are_found_before_the_restore(manifest: Manifest, directory: Path, damage: str) -> None:
    cause, phrase = TABLES_DAMAGE[damage]
    cause(directory / MEMORY)
    found = manifest.tables_problem(str(directory))
    assert phrase in found
    assert str(directory / MEMORY) in found


def test_page_data_is_not_read_before_the_restore(manifest: Manifest, directory: Path) -> None:
    flip(directory / MEMORY, TABLES)
    assert manifest.tables_problem(str(directory)) is None, "that is found beside the start"


LOCALE_UNSET = {name: VARIABLES[name] for name in ("HOME", "PATH")}


@restores_here
@pytest.mark.parametrize(
    ("variables", "phrase"),
    [
        ({**VARIABLES, "UNREAD": "1"}, None),
        ({**VARIABLES, "HF_HUB_OFFLINE": "1"}, None),  # derived again
        ({**VARIABLES, "TOKEN": "hf_secret"}, "TOKEN has changed since some.client read it"),
        ({**VARIABLES, "LD_PRELOAD": "/x.so"}, "LD_PRELOAD names /x.so"),
        ({**VARIABLES, "GLIBC_TUNABLES": "1"}, "GLIBC_TUNABLES has changed since native code read it"),
        (LOCALE_UNSET, None),  # the interpreter itself sets LC_CTYPE then
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_the_environment_is_compared_by_what_was_read(
    manifest: Manifest, closure: str, variables: dict[str, str], phrase: str | None
) -> None:
    found = manifest.mismatch(variables, PYTHON, closure)
    if phrase is None:
        assert found is None
        return
    assert found
    assert phrase in found
    assert "hf_secret" not in found, "values may be secret"
    assert "warmimage.yaml" in found, "it says what to do"


@pytest.mark.parametrize(
    "name",
    [
        "GLIBC_TUNABLES",
        "MALLOC_TRIM_THRESHOLD_",
        "GOMP_SPINCOUNT",
        "MKL_DYNAMIC",
        "OPENBLAS_CORETYPE",
        "LD_AUDIT",
        "OMP_THREAD_LIMIT",
        "OMP_MAX_ACTIVE_LEVELS",
        "OMP_NESTED",
    ],
)
def test_what_native_code_read_when_it_was_loaded_holds_for_a_restored_process_alone(name: str) -> None:
    for before, after in ((VARIABLES, {**VARIABLES, name: "1"}), ({**VARIABLES, name: "2"}, VARIABLES)):
        contract = Contract(before, {})
        assert f"{name} has changed since native code read it" in contract.conflict(after, restored=True)
        assert contract.conflict(after) is None, "an engine may set it for a child, as it always could"


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOMP_CPU_AFFINITY"])
def test_what_is_derived_again_may_differ(name: str) -> None:
    assert Contract(VARIABLES, READS).conflict({**VARIABLES, name: "1"}, restored=True) is None


def test_what_is_captured_sees_the_images_own_variables_alone() -> None:
    """A pod has its user's tokens, and where its cluster's services are."""
    own = {
        "PATH": "/usr/bin",
        "HOME": "/home/warmimage",
        "PYTHONHASHSEED": "0",
        "LD_LIBRARY_PATH": "/driver",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "HF_HUB_OFFLINE": "1",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    pods = {"HF_TOKEN": "hf_x", "OPENAI_API_KEY": "sk-x", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "pod-1"}
    assert images_own({**own, **pods}, {"HF_HUB_OFFLINE", "HOSTNAME", "UNSET"}) == own
    assert images_own({**own, **pods}, {"HF_HUB_OFFLINE", "HF_TOKEN"}) == {**own, "HF_TOKEN": "hf_x"}


def test_a_baseline_needs_what_it_does_not_hide() -> None:
    features = ("sse4_2", "avx2", "avx512f", "amx_tile", "fma")
    assert cpu_baseline.required("x86-64-v3", features) == ("sse4_2", "avx2", "fma")
    assert cpu_baseline.required("", features) == features


def test_what_hides_extensions_is_taken_away_again() -> None:
    for own in ({"A": "1"}, {"GLIBC_TUNABLES": "glibc.malloc.check=1"}):
        added = cpu_baseline.for_loader("x86-64-v3", own)
        assert "-AVX512F" in added["GLIBC_TUNABLES"]
        assert cpu_baseline.without_loaders("x86-64-v3", added) == own


UNCAPTURABLE: dict[str, tuple[Mapping, str]] = {
    "shared memory": (Mapping(0x7F0000000000, 0x7F0000001000, "rw-s", 0, ""), "shares memory"),
    "a shared file": (Mapping(0x7F0000000000, 0x7F0000001000, "rw-s", 0, "/etc/passwd"), "shares memory: /etc/passwd"),
    "a device": (Mapping(0x7F0000000000, 0x7F0000001000, "rw-p", 0, "/dev/nvidia0"), "/dev/nvidia0"),
    "a deleted file": (Mapping(0x7F0000000000, 0x7F0000001000, "r--p", 0, "/lib/a.so (deleted)"), "a.so (deleted)"),
    "a memory file": (Mapping(0x7F0000000000, 0x7F0000001000, "rw-p", 0, "/memfd:jit"), "/memfd:jit"),
    "huge pages": (Mapping(0x7F0000000000, 0x7F0000200000, "rw-p", 0, "", frozenset({"ht"})), "huge pages"),
    "a shadow stack": (Mapping(0x7F0000000000, 0x7F0000001000, "rw-p", 0, "", frozenset({"ss"})), "a shadow stack"),
    "locked memory": (Mapping(0x7F0000000000, 0x7F0000001000, "rw-p", 0, "", frozenset({"lo"})), "locked memory"),
    "no fork": (Mapping(0x7F0000000000, 0x7F0000001000, "rw-p", 0, "", frozenset({"dc"})), "MADV_DONTFORK"),
    "the restorer's range": (Mapping(0x0FFFFFFFF000, 0x100000001000, "rw-p", 0, ""), "where the restorer works"),
}


@pytest.mark.parametrize("kind", UNCAPTURABLE)
def test_memory_that_no_other_process_can_be_given_is_refused_by_name(kind: str) -> None:
    mapping, phrase = UNCAPTURABLE[kind]
    fine = Mapping(0x550000000000, 0x550000001000, "r-xp", 0, "/usr/bin/python3")
    assert phrase in refusal([fine, mapping])


def test_ordinary_memory_is_not_refused() -> None:
    ordinary = [
        Mapping(0x550000000000, 0x550000001000, "r-xp", 0, "/usr/bin/python3"),
        Mapping(0x550000001000, 0x550000002000, "rw-p", 0, "[heap]"),
        Mapping(0x7F0000000000, 0x7F0000001000, "r--s", 0, "/usr/lib/gconv/gconv-modules.cache"),
        Mapping(0x7F0000001000, 0x7F0000002000, "rw-p", 0, ""),
        Mapping(0x7FFE00000000, 0x7FFE00001000, "r-xp", 0, "[vdso]", frozenset({"dc", "io"})),
    ]
    assert refusal(ordinary) is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_snapshot_is_roots_and_read_only_to_the_server(tmp_path: Path) -> None:
    source, target = tmp_path / "written", tmp_path / MEMORY
    source.write_text("memory")
    os.chown(source, 1000, 0)
    capture._keep(str(source), str(target))
    assert (target.stat().st_uid, target.read_text(), source.exists()) == (0, "memory", False)


def test_an_earlier_capture_goes_and_nothing_else(tmp_path: Path) -> None:
    for name in (NAME, integrity.NAME, MEMORY, DECLINED, "notes"):
        (tmp_path / name).touch()
    (tmp_path / ".capturing").mkdir()
    capture._clear(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_machine_that_cannot_restore_declines_at_the_capture_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    imports = tmp_path / "imports.json"
    imports.write_text(make_imports().to_json())
    monkeypatch.setattr(capture, "IMPORTS", str(imports))
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64", release="6.1"))
    directory = tmp_path / "snapshot"
    assert capture.main([str(directory)]) == 0
    said = capfd.readouterr().err.splitlines()
    assert said == ["warmimage: snapshot not captured: restoring is not tested on aarch64"]
    assert [path.name for path in directory.iterdir()] == [DECLINED]
    assert (directory / DECLINED).read_text() == "restoring is not tested on aarch64\n"
    assert capture.main([str(directory), capture.REQUIRE]) == capture.EXIT_NOT_CAPTURED
    assert "error: snapshot not captured: restoring is not tested on aarch64" in capfd.readouterr().err
    assert list(directory.iterdir()) == [], "nothing of the earlier capture stays"


def test_a_directory_of_the_node_that_hangs_is_asked_for_five_seconds(image: Image, tmp_path: Path) -> None:
    image.closure({"modules": ["json"], "files": [], "libraries": []})
    directory = tmp_path / "node"
    directory.mkdir()
    for reason in (f"there is none in {directory}", f"{directory} has not answered for 5 s"):
        ended = image.run("end:0", WARMIMAGE_SNAPSHOT_DIR=str(directory))
        assert (ended.code, ended.said) == (0, [f"snapshot skipped: {reason}"])
        if not (directory / NAME).exists():
            os.mkfifo(directory / NAME)  # to read it is to wait for ever
