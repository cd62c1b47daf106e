"""What a snapshot is compared with at a start, and how a restore that fails is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from warmimage.entrypoint.environment import Contract
from warmimage.entrypoint.snapshot import capture, criu
from warmimage.entrypoint.snapshot.capture import NotCaptured, images_own, mapped_files, refuse_uncapturable
from warmimage.entrypoint.snapshot.manifest import NAME, Manifest, cpu_features, identity, read
from warmimage.entrypoint.tiers import Declined
from warmimage.entrypoint.tiers import snapshot as restoring

from .harness import Image

VARIABLES = {"HOME": "/home/warmimage", "PATH": "/usr/bin", "LC_CTYPE": "C.UTF-8"}

READS = {"HOME": "huggingface_hub.constants", "HF_HUB_OFFLINE": "huggingface_hub.constants", "TOKEN": "some.client"}

#: What is compared beside the environment: the image's closure, interpreter and CRIU.
HERE = {"closure": "c" * 64, "python": "/usr/bin/python3", "criu": "4.1.1"}


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
    again = Manifest.of(read(str(tmp_path)))
    assert again == manifest
    assert again.mismatch(VARIABLES, **HERE) == ""


def test_this_cpu_has_extensions_that_are_compared(manifest: Manifest) -> None:
    assert len(manifest.cpu_features) > 10


CHANGES: dict[str, tuple[Callable[[Manifest], Manifest], str]] = {
    "closure": (lambda found: replace(found, closure="d" * 64), "it was captured from another image"),
    "python": (
        lambda found: replace(found, python="/opt/other/bin/python3"),
        "the engine's interpreter is /usr/bin/python3, and was /opt/other/bin/python3",
    ),
    "criu": (lambda found: replace(found, criu="3.17"), "CRIU is 4.1.1, and was 3.17"),
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
    assert change(manifest).mismatch(VARIABLES, **HERE) == reason


def test_an_older_kernel_at_the_capture_does_not_matter(manifest: Manifest) -> None:
    assert replace(manifest, kernel="3.10.0-1160.el7").mismatch(VARIABLES, **HERE) == ""


def test_a_file_of_another_size_or_time_is_another_file(manifest: Manifest, library: Path) -> None:
    library.write_bytes(b"other machine code")
    assert manifest.mismatch(VARIABLES, **HERE) == f"{library} is not the file that it was captured with"


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
    found = manifest.mismatch(variables, **HERE)
    assert found == reason
    assert "hf_secret" not in found, "values may be secret"


@pytest.mark.parametrize(
    "name",
    [
        "GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "GOMP_SPINCOUNT", "MKL_DYNAMIC", "OPENBLAS_CORETYPE", "LD_AUDIT",
        "OMP_THREAD_LIMIT", "OMP_MAX_ACTIVE_LEVELS", "OMP_NESTED",
    ],
)  # fmt: skip
def test_what_native_code_read_when_it_was_loaded_holds_for_a_restored_process_alone(
    manifest: Manifest, name: str
) -> None:
    for changed in ({**VARIABLES, name: "1"}, VARIABLES):
        before = replace(
            manifest, contract=Contract({**VARIABLES, name: "2"} if changed is VARIABLES else VARIABLES, {})
        )
        assert before.mismatch(changed, **HERE) == f"{name} has changed since native code read it"
        assert before.contract.broken(changed) == "", "an engine may set it for a child, as it always could"


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOMP_CPU_AFFINITY"])
def test_what_is_derived_again_may_differ(manifest: Manifest, name: str) -> None:
    assert manifest.mismatch({**VARIABLES, name: "1"}, **HERE) == ""


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


KILLS = """
import ctypes, subprocess, time
from warmimage.entrypoint.snapshot import criu
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # as PID 1 adopts orphans
for _ in range(20):
    process = subprocess.Popen(["sh", "-c", "sleep 1000 & wait"])
    while not criu.descendants(process.pid):
        time.sleep(0.001)
    criu.kill(process.pid)
    process.returncode = -9
    print(open("/proc/thread-self/children").read(), end="")
"""


def test_who_is_killed_is_reaped_with_all_that_it_started() -> None:
    done = subprocess.run([sys.executable, "-c", KILLS], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_who_waits_for_a_processor_does_not_stand_still() -> None:
    for command, waits in ((["sh", "-c", "while :; do :; done"], True), (["sleep", "1000"], False)):
        with subprocess.Popen(command) as process:
            try:
                time.sleep(0.3)
                assert criu._progress(process.pid)[1] is waits
            finally:
                process.kill()


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


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_dump_is_roots_and_read_only_to_the_server_and_can_be_captured_again(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("pages-1.img", "checks.json", NAME)]
    for file in files:
        file.write_text("dumped")
        file.chmod(0o600)
    for path in (tmp_path, *files):
        os.chown(path, 1000, 0)
    capture._make_readable(str(tmp_path))
    found = [(path.stat().st_uid, path.stat().st_mode & 0o777) for path in (tmp_path, *files)]
    assert found == [(0, 0o755), (0, 0o644), (0, 0o644), (0, 0o644)]
    (tmp_path / "notes").touch()
    capture._clear(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes"], "the user could not write over root's files"


def test_a_child_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criu, "_END", 0.05)
    pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    try:
        criu.reap([pid, 1])
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it lives on, and this process too"
    finally:
        criu.kill(pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@pytest.mark.parametrize(
    ("stopped", "answer", "reason"),
    [(signal.SIGTERM, "", "a stop signal has come"), (0, "pages-1.img is damaged", "pages-1.img is damaged")],
)
def test_a_restored_process_that_is_not_to_go_on_is_ended(
    monkeypatch: pytest.MonkeyPatch, stopped: int, answer: str, reason: str
) -> None:
    """No engine is known yet: a stop signal that came before it is known would be lost."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    monkeypatch.setattr(criu, "restore", lambda *_arguments: pid)
    supervisor: Any = SimpleNamespace(stop_requested=stopped)
    verified: Any = SimpleNamespace(answer=lambda _seconds=0.0: answer)
    timeline: Any = None
    with pytest.raises(Declined, match=reason):
        restoring._restore("criu", "/images", supervisor, verified, timeline)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_folder_of_the_node_that_hangs_is_asked_for_five_seconds(image: Image, tmp_path: Path) -> None:
    image.closure({"modules": ["json"], "files": [], "libraries": []})
    folder = tmp_path / "node"
    folder.mkdir()
    for reason in (f"there is none in {folder}", f"{folder} has not answered for 5 s"):
        ended = image.run("end:0", WARMIMAGE_SNAPSHOT_DIR=str(folder))
        assert (ended.code, ended.said) == (0, [f"snapshot skipped: {reason}"])
        if not (folder / NAME).exists():
            os.mkfifo(folder / NAME)  # to read it is to wait for ever
