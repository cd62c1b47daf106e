"""Tier ``snapshot``: the captured interpreter is mapped back, and goes on as the engine's process, a zygote."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...settings import SNAPSHOT, Settings
from ...supervision import bounded_call
from ...supervision.supervisor import Started, Supervisor
from .. import engine_program
from ..base import Declined, Prepared, Tier
from ..engine_program import EXIT_DECLINED
from ..zygote.tier import check_choice
from . import manifest, native
from .integrity import Verification
from .manifest import MEMORY, Manifest
from .protocol import OWN_PRELOAD, RESTORED

#: Seconds within which a directory of the node must have answered.
_PATIENCE = 5.0

#: Seconds that a restore may take: with nothing in the page cache it reads the copied pages from storage.
_LONGEST = 60.0

#: Seconds in which a process that has closed its report must have ended: its pipe closes before it can be waited for.
_TO_END = 0.15

#: What Python executes where the dynamic loader has not run the restorer.
_FALLBACK = f"raise SystemExit({EXIT_DECLINED})"

#: Why that may be.
_NOT_LOADED = "the dynamic loader has not run the restorer (LD_PRELOAD is ignored here)"


class Snapshot(Tier):
    """Restores the interpreter that was captured when the image was built, or on this node."""

    name = "snapshot"
    may_decline_late = True

    def baked(self, settings: Settings) -> bool:
        """Return whether the image has a snapshot, or may find one on its node."""
        return super().baked(settings) or settings.snapshot != SNAPSHOT

    def check(self, settings: Settings, supervisor: Supervisor) -> Restore:
        """Decline what the zygote declines, and a snapshot that does not fit image, host or environment."""
        check_choice(settings)
        program = engine_program.find(settings)
        found = _load(settings.snapshot, supervisor)
        reason = found.mismatch(settings.environment, program.interpreter) or found.tables_problem(settings.snapshot)
        if reason:
            raise Declined(reason)
        return Restore(
            tier=self,
            command=[program.path, *settings.command[1:]],
            environment=_with_restorer(settings.environment),
            directory=settings.directory,
            prefetched=settings.snapshot,
            interpreter=program.interpreter,
            timeline=settings.timeline,
        )


@dataclass(frozen=True)
class Restore(Prepared):
    """A snapshot that fits; ``command`` is what the restored process becomes.

    Attributes:
        interpreter: path of the engine's interpreter.
        timeline: path of the timeline.
    """

    interpreter: str = field(kw_only=True)
    timeline: str = field(kw_only=True)

    def start(self, supervisor: Supervisor) -> Started:
        """Execute the restorer, and wait until Python runs in the restored process.

        Raises:
            Declined: it was not restored, and has ended.
        """
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            pid = supervisor.spawn(self._restorer(write_end), self.environment, self.directory)
            os.close(write_end)
            write_end = -1
            _await_report(pid, read_end, supervisor)
        finally:
            os.close(read_end)
            if write_end >= 0:
                os.close(write_end)
        try:
            return Started(pid, Verification(supervisor, self.prefetched))
        except OSError as error:
            _end(pid)
            raise Declined(f"it cannot be verified: {error}") from None

    def _restorer(self, report: int) -> list[str]:
        """Return the command line that the restorer takes; ``report`` is the fd that it reports to."""
        os.set_inheritable(report, True)
        return [
            self.interpreter,
            "-I",
            "-S",
            "-c",
            _FALLBACK,
            native.path(native.RESTORE),
            os.path.join(self.prefetched, MEMORY),
            # Its own number, and the count of executions: the restorer raises the last digit.
            f"{report}/0",
            str(report),
            self.timeline,
            *self.command,
        ]


def _with_restorer(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the engine's environment with the restorer in place of the container's own ``LD_PRELOAD``."""
    preload = {OWN_PRELOAD: environment["LD_PRELOAD"]} if "LD_PRELOAD" in environment else {}
    return {**environment, **preload, "LD_PRELOAD": native.path(native.RESTORE)}


def _load(directory: str, supervisor: Supervisor) -> Manifest:
    """Return the manifest in a directory.

    A directory of the node may be a network volume, which could hang PID 1, and then that took no signal.

    Raises:
        Declined: there is no usable one.
    """

    def text() -> str:
        try:
            return manifest.read(directory)
        except FileNotFoundError:
            return ""

    try:
        found = text() if directory == SNAPSHOT else bounded_call.ask(supervisor, "snapshot", text, _PATIENCE)
        if found:
            return Manifest.of(found)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        raise Declined(f"its manifest cannot be read: {error!r}") from None
    if found is None:
        raise Declined(f"{directory} has not answered for {_PATIENCE:g} s")
    raise Declined(_reason_for_none(directory))


def _reason_for_none(directory: str) -> str:
    """Return why there is no snapshot in a directory, as the capture wrote it down."""
    try:
        with open(os.path.join(directory, manifest.DECLINED), encoding="utf-8") as file:
            return f"none was captured: {file.read().strip()}"
    except OSError:
        return f"there is none in {directory}"


def _await_report(pid: int, read_end: int, supervisor: Supervisor) -> None:
    """Wait until the process says that Python runs in it.

    Raises:
        Declined: it cannot be restored, has ended, takes too long, or a stop signal has come; it is ended.
    """
    text = b""
    deadline = time.monotonic() + _LONGEST
    while not supervisor.take_signals() and time.monotonic() < deadline:
        if not select.select([read_end], [], [], 0.05)[0]:
            continue
        block = os.read(read_end, 4096)
        text += block
        if text.endswith(RESTORED):
            return
        if not block:
            break
    else:
        _end(pid)
        reason = "a stop signal has come" if supervisor.take_signals() else f"it was not restored in {_LONGEST:g} s"
        raise Declined(reason)
    status = _end(pid, _TO_END)
    if text:
        raise Declined(text.decode(errors="backslashreplace"))
    if os.WIFSIGNALED(status):
        raise Declined(f"the restore was killed by {signal.Signals(os.WTERMSIG(status)).name}")
    code = os.WEXITSTATUS(status)
    raise Declined(_NOT_LOADED if code == EXIT_DECLINED else f"the restore ended with exit code {code}")


def _end(pid: int, seconds: float = 0.0) -> int:
    """Wait for the end of a process that is this one's child, and return its wait status.

    Args:
        pid: the process.
        seconds: how long it may take before it is killed.
    """
    deadline = time.monotonic() + seconds
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    return os.waitpid(pid, 0)[1]
