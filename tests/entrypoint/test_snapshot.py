"""What a snapshot is compared with at a start, and how a restore that fails is ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from warmimage.entrypoint.environment import Contract
from warmimage.entrypoint.snapshot import criu
from warmimage.entrypoint.snapshot.capture import NotCaptured, images_own, mapped_files, refuse_uncapturable
from warmimage.entrypoint.snapshot.manifest import NAME, Manifest, cpu_features, identity

VARIABLES = {"HOME": "/home/warmimage", "PATH": "/usr/bin", "LC_CTYPE": "C.UTF-8"}

READS = {"HOME": "huggingface_hub.constants", "HF_HUB_OFFLINE": "huggingface_hub.constants", "TOKEN": "some.client"}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A file that was mapped at the capture."""
    file = tmp_path / "libengine.so"
    file.write_bytes(b"machine code")
    return file


@pytest.fixture
def manifest(library: Path) -> Manifest:
    """A snapshot that fits here and now."""
    return Manifest(
        engine={"name": "vllm", "version": "0.32.0"}, criu="4.1.1", kernel=os.uname().release,
        machine=os.uname().machine, cpu_features=tuple(cpu_features()), uid=os.getuid(), python="/usr/bin/python3",
        closure="c" * 64, files=(identity(str(library)),), contract=Contract(VARIABLES, READS), modules=5000,
        bytes=440_000_000,
    )  # fmt: skip


def test_a_snapshot_fits_where_it_was_captured_and_survives_its_file(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(manifest.to_json())
    again = Manifest.load(str(tmp_path))
    assert again == manifest
    assert again.mismatch(VARIABLES, "c" * 64) == ""


def test_this_cpu_has_extensions_that_are_compared(manifest: Manifest) -> None:
    assert len(manifest.cpu_features) > 10


CHANGES: dict[str, tuple[Callable[[Manifest], Manifest], str]] = {
    "closure": (lambda found: replace(found, closure="d" * 64), "it was captured from another image"),
    "machine": (lambda found: replace(found, machine="riscv64"), "it was captured on riscv64"),
    "cpu": (lambda found: replace(found, cpu_features=("avx4096",)), "this CPU lacks avx4096"),
    "kernel": (
        lambda found: replace(found, kernel="999.1.0-next"),
        f"kernel {os.uname().release} is older than 999.1.0-next, on which it was captured",
    ),
    "user": (lambda found: replace(found, uid=54321), f"it was captured as user 54321, and this is {os.getuid()}"),
    "file": (
        lambda found: replace(found, files=(("/no/such/lib.so", 1, 1),)),
        "/no/such/lib.so is not the file that it was captured with",
    ),
}


@pytest.mark.parametrize("part", CHANGES)
def test_each_difference_is_named(manifest: Manifest, part: str) -> None:
    change, reason = CHANGES[part]
    assert change(manifest).mismatch(VARIABLES, "c" * 64) == reason


def test_an_older_kernel_at_the_capture_does_not_matter(manifest: Manifest) -> None:
    assert replace(manifest, kernel="3.10.0-1160.el7").mismatch(VARIABLES, "c" * 64) == ""


def test_a_file_of_another_size_or_time_is_another_file(manifest: Manifest, library: Path) -> None:
    library.write_bytes(b"other machine code")
    assert manifest.mismatch(VARIABLES, "c" * 64) == f"{library} is not the file that it was captured with"


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({**VARIABLES, "UNREAD": "1"}, ""),
        ({**VARIABLES, "HF_HUB_OFFLINE": "1"}, ""),  # derived again
        ({**VARIABLES, "HOME": "/root"}, "HOME has changed since huggingface_hub.constants read it"),
        ({**VARIABLES, "TOKEN": "hf_secret"}, "TOKEN has changed since some.client read it"),
        ({**VARIABLES, "LD_PRELOAD": "/x.so"}, "LD_PRELOAD names /x.so, which is not loaded"),
        ({**VARIABLES, "LC_CTYPE": "de_DE.UTF-8"}, "LC_CTYPE has changed since native code read it"),
        ({name: VARIABLES[name] for name in ("HOME", "PATH")}, ""),  # the interpreter itself sets LC_CTYPE then
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_the_environment_is_compared_by_what_was_read(
    manifest: Manifest, variables: dict[str, str], reason: str
) -> None:
    found = manifest.mismatch(variables, "c" * 64)
    assert found == reason
    assert "hf_secret" not in found, "values may be secret"


def script(folder: Path, text: str) -> str:
    file = folder / "criu"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def test_a_restore_that_fails_gives_crius_own_reason(tmp_path: Path) -> None:
    binary = script(
        tmp_path, 'while [ "$1" != --log-file ]; do shift; done; echo "(00.1) Error (criu/x.c:1): no" >"$2"; exit 1'
    )
    with pytest.raises(criu.CannotRestore, match=r"\(criu/x.c:1\): no"):
        criu.restore(binary, str(tmp_path))


def test_a_restore_that_stands_still_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "child"
    binary = script(tmp_path, f"sleep 1000 & echo $! >{note}; wait")
    with pytest.raises(criu.CannotRestore, match="it stood still, or was given up"):
        criu.restore(binary, str(tmp_path))
    status = Path("/proc", note.read_text().strip(), "status")
    deadline = time.monotonic() + 10  # the signal has been sent; a busy machine takes its time to act on it
    while status.exists() and "State:\tZ" not in status.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert time.monotonic() < deadline, "dead, if not yet reaped by whoever adopted it"


def test_a_binary_that_may_not_be_executed_is_a_reason_at_once(tmp_path: Path) -> None:
    file = tmp_path / "criu"
    file.write_text("#!/bin/sh\n")
    with pytest.raises(criu.CannotRestore, match="criu cannot be executed: Permission denied"):
        criu.restore(str(file), str(tmp_path))


def test_what_another_container_would_not_have_cannot_be_captured(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        try:
            with pytest.raises(NotCaptured, match=r"it has .* open"):
                refuse_uncapturable(pid)
            assert any(path.endswith(".so") or ".so." in path for path, _, _ in mapped_files(pid))
            assert file.fileno()
        finally:
            criu.kill(pid)


def test_what_is_captured_sees_the_images_own_variables_alone() -> None:
    """A pod has its user's tokens, and where its cluster's services are."""
    own = {
        "PATH": "/usr/bin", "HOME": "/home/warmimage", "PYTHONHASHSEED": "0", "LD_LIBRARY_PATH": "/driver",
        "NVIDIA_VISIBLE_DEVICES": "all", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    pods = {"HF_TOKEN": "hf_x", "OPENAI_API_KEY": "sk-x", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "pod-1"}
    assert images_own({**own, **pods}, {"HF_HUB_OFFLINE", "HOSTNAME", "UNSET"}) == own
    assert images_own({**own, **pods}, {"HF_HUB_OFFLINE", "HF_TOKEN"}) == {**own, "HF_TOKEN": "hf_x"}
