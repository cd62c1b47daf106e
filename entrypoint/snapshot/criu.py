"""CRIU, as the image brings it: which of its binaries may be executed here, and how it dumps and restores."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from .. import seccomp
from ..settings import ROOT

FOLDER = os.path.join(ROOT, "criu")

#: Capability -> its bit, and the binary that has it as a file capability.  The first that the container has is used.
CAPABILITIES = {
    "CHECKPOINT_RESTORE": (40, "criu-checkpoint-restore"),
    "SYS_ADMIN": (21, "criu-sys-admin"),  # of engines and kernels that do not know the other
}

#: Seconds without any progress after which a restore is given up; the same while one of its processes waits for a
#: processor or a disk, so that it stands still for the machine's sake; and seconds that it may take at most.
STALL, WAIT, LONGEST = 0.5, 10.0, 60.0

#: Seconds that a killed process has to end.
_END = 1.0

_WORK_FOLDERS = ("/run/warmimage", "/dev/shm", "/tmp")  # noqa: S108 - the first that can be written


class CannotRestore(Exception):
    """There is no restored process; the message says why."""


def program() -> tuple[str, str]:
    """Return the path of the binary to execute, and why there is none: one of the two is empty."""
    status = _status("self")
    effective, bounding = int(status["CapEff"], 16), int(status["CapBnd"], 16)
    confined = status.get("NoNewPrivs") == "1"
    if not os.path.isdir(FOLDER):
        return "", "the image has no CRIU"
    for bit, binary in CAPABILITIES.values():
        if not (effective >> bit & 1 or (bounding >> bit & 1 and not confined)):
            continue
        if seccomp.clone3_filtered():
            return "", "the seccomp profile forbids clone3, as Docker's default one does without SYS_ADMIN"
        # A user who has it needs no file capability.
        return os.path.join(FOLDER, "criu" if effective >> bit & 1 else binary), ""
    if confined and any(bounding >> bit & 1 for bit, _ in CAPABILITIES.values()):
        return "", "no_new_privs keeps CRIU from its capability"
    return "", f"the container has neither capability {' nor '.join(CAPABILITIES)}"


def version() -> str:
    """Return the version of the image's CRIU, an empty string where the image does not say."""
    try:
        with open(os.path.join(FOLDER, "criu.json"), encoding="utf-8") as file:
            return str(json.load(file)["version"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def restore(binary: str, images: str, unwanted: Callable[[], bool] = lambda: False) -> int:
    """Restore a dump and return the PID of its stopped process, a child of the nearest process that adopts orphans.

    Args:
        binary: path of the binary to execute.
        images: folder of the dump.
        unwanted: asked again and again whether the restore is to be given up.

    Raises:
        CannotRestore: it failed, or stood still; nothing of it is left.
    """
    with _working_folder() as work:
        pidfile, log = os.path.join(work, "pid"), os.path.join(work, "restore.log")
        command = [
            binary, "restore", "--unprivileged", "--skip-file-rwx-check", "--shell-job", "--restore-detached",
            "--images-dir", images, "--work-dir", work, "--pidfile", pidfile, "-v1", "--log-file", log,
        ]  # fmt: skip
        try:
            # CRIU keeps what it finds out about the kernel in XDG_RUNTIME_DIR, and warns where there is none.
            pid = os.posix_spawn(
                binary, command, {"XDG_RUNTIME_DIR": work}, setpgroup=0, setsigmask=[],
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )  # fmt: skip
        except OSError as error:
            raise CannotRestore(f"{os.path.basename(binary)} cannot be executed: {error.strerror}") from None
        status = _wait(pid, unwanted)
        restored = _number_in(pidfile)
        if status == 0 and restored:
            return restored
        if restored:
            kill(restored)
        raise CannotRestore("it stood still, or was given up" if status is None else last_error(log, status))


def kill(pid: int) -> None:
    """End a process with all that it has started, and reap what of it is this process's child."""
    tree = descendants(pid)
    for each in (pid, *tree):
        with contextlib.suppress(OSError):
            os.kill(each, signal.SIGKILL)
    reap([pid, *tree])


def reap(pids: Sequence[int]) -> None:
    """Reap those children among some processes that end soon: one that hangs in the kernel is not waited for."""
    deadline = time.monotonic() + _END
    left = list(pids)
    while left:
        left = [pid for pid in left if _lives(pid)]
        if left and time.monotonic() > deadline:
            return
        time.sleep(0.001 if left else 0)


def _lives(pid: int) -> bool:
    """Return whether a process has not ended; one that has is reaped, as soon as it is a child of this one."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except OSError:
        return os.path.exists(f"/proc/{pid}")  # still the child of one that is about to end


def descendants(pid: int) -> list[int]:
    """Return the PIDs of all that a process has started, as far as it still lives."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
    except OSError:
        return []
    return [*children, *(below for child in children for below in descendants(child))]


def _wait(pid: int, unwanted: Callable[[], bool]) -> int | None:
    """Return the wait status of a restore, ``None`` for one that was ended because nothing of it moved on."""
    began = moved = waited = time.monotonic()
    before = -1
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        now = time.monotonic()
        found = [_progress(each) for each in (pid, *descendants(pid))]
        progress = sum(made for made, _ in found)
        if progress != before:
            before, moved = progress, now
        if any(waits for _, waits in found):
            waited = now
        idle = now - max(moved, waited)
        if idle > STALL or now - moved > WAIT or now - began > LONGEST or unwanted():
            kill(pid)
            return None
        time.sleep(0.002)


def _progress(pid: int) -> tuple[int, bool]:
    """Return a number that grows while a process computes or reads, and whether it waits for a processor or a disk."""
    total, waits = 0, False
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        waits = fields[0] in (b"R", b"D")
        total += int(fields[11]) + int(fields[12]) + int(fields[7])  # user and system time, and page faults
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/io", encoding="ascii") as file:
        total += sum(int(row.partition(":")[2]) for row in file)
    return total, waits


@contextlib.contextmanager
def _working_folder() -> Iterator[str]:
    """Make a folder for what CRIU writes, and remove it."""
    for parent in _WORK_FOLDERS:
        folder = os.path.join(parent, f"restore-{os.getpid()}-{time.monotonic_ns()}")
        try:
            os.mkdir(folder, 0o700)
        except OSError:
            continue
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):
                for name in os.listdir(folder):
                    os.unlink(os.path.join(folder, name))
                os.rmdir(folder)
        return
    raise CannotRestore(f"none of {', '.join(_WORK_FOLDERS)} can be written")


def _number_in(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def last_error(log: str, status: int) -> str:
    """Return CRIU's own last word."""
    with contextlib.suppress(OSError), open(log, encoding="utf-8", errors="replace") as file:
        errors = [row.partition("Error")[2].strip() for row in file if "Error" in row]
        if errors:
            return errors[0][:300]
    return f"CRIU ended with wait status {status}"


def _status(pid: str) -> Mapping[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        rows = (row.partition(":") for row in file)
        return {name: value.strip() for name, _, value in rows}
