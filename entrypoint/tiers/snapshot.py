"""Tier ``snapshot``: the engine's process is restored with everything imported, and then goes on as the zygote."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from typing import Any

from .. import inheritance, inquiry, program
from ..closure import Closure
from ..settings import SNAPSHOT, Settings
from ..snapshot import criu, manifest, meeting
from ..snapshot.manifest import Manifest
from ..snapshot.verification import Verification
from ..supervisor import Supervisor
from ..timeline import Timeline
from .base import Declined
from .zygote import Zygote

#: Seconds for which damage is asked for as the reason of a restore that has failed anyway.
_AFTERMATH = 0.2

#: Seconds within which a folder of the node must have answered.
_PATIENCE = 5.0


class Snapshot(Zygote):
    """Restores the interpreter that was captured when the image was built, or on this node."""

    name = "snapshot"
    imports = False

    def __init__(self) -> None:
        self._manifest: Manifest | None = None

    def baked(self, settings: Settings) -> bool:
        """Return whether the image has a snapshot, or may find one on its node."""
        return super().baked(settings) or settings.snapshot != SNAPSHOT

    def decline(self, settings: Settings, supervisor: Supervisor) -> str:
        """Decline what the zygote declines, a container that may not restore, and a snapshot that does not fit."""
        reason = super().decline(settings, supervisor)
        found = program.find(settings)
        if reason or not found:
            return reason or program.absent(settings)
        try:
            self._manifest = _load(settings.snapshot, supervisor)
        except Declined as error:
            return str(error)
        return criu.program()[1] or self._manifest.mismatch(
            settings.environment, Closure.digest(), found.interpreter, criu.version()
        )

    def start(self, settings: Settings, supervisor: Supervisor, timeline: Timeline) -> int:
        """Restore, hand over environment, arguments and standard streams, and return the engine's PID.

        Raises:
            Declined: it failed; nothing of it is left.
        """
        found = program.find(settings)
        binary, reason = criu.program()
        if not self._manifest:
            raise Declined("its manifest was not read")
        if not found or not binary:
            raise Declined(reason or program.absent(settings))
        supervisor.adopt_orphans()
        try:
            with closing(Verification(settings.snapshot)) as verification, closing(meeting.Host()) as host:
                pid = _restore(binary, settings.snapshot, supervisor, verification, timeline)
                try:
                    host.send(pid, _request(settings, self._manifest, found, pid), [0, 1, 2])
                except BaseException:
                    criu.kill(pid)
                    raise
                return pid
        except Declined:
            raise
        except Exception as error:  # whatever it is, the next tier can do without it
            raise Declined(f"the restored process was not reached: {error!r}") from None


def _load(folder: str, supervisor: Supervisor) -> Manifest:
    """Return the manifest in a folder.

    A folder of the node may be a network volume, which could hang PID 1, and then that took no signal.

    Raises:
        Declined: it cannot be had.
    """

    def text() -> str:
        try:
            return manifest.read(folder)
        except FileNotFoundError:
            return ""

    try:
        found = text() if folder == SNAPSHOT else inquiry.ask(supervisor, "snapshot", text, _PATIENCE)
        if found:
            return Manifest.of(found)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        raise Declined(f"its manifest cannot be read: {error!r}") from None
    raise Declined(f"{folder} has not answered for {_PATIENCE:g} s" if found is None else f"there is none in {folder}")


def _restore(binary: str, images: str, supervisor: Supervisor, verification: Verification, timeline: Timeline) -> int:
    """Restore, and return the PID of the process once its dump was found whole.

    Raises:
        Declined: the restore failed, was given up, or is of a dump that is damaged; nothing of it is left.
    """

    def unwanted() -> bool:
        return bool(supervisor.stop_requested or verification.answer())

    began = time.monotonic()
    try:
        pid = criu.restore(binary, images, unwanted)
    except criu.CannotRestore as error:
        raise Declined(verification.answer(_AFTERMATH) or f"the restore failed: {error}") from None
    restored = time.monotonic()
    while verification.answer(0.02) is None and not unwanted() and time.monotonic() - began < criu.LONGEST:
        pass
    problem = verification.answer()
    stopped = supervisor.stop_requested  # there is no engine yet that the signal could have been passed on to
    if problem != "" or stopped:
        criu.kill(pid)
        raise Declined(problem or ("a stop signal has come" if stopped else "it was not verified in time"))
    timeline.event(
        "snapshot.restored", child=pid, seconds=round(restored - began, 3),
        verified_seconds=round(time.monotonic() - restored, 3),
    )  # fmt: skip
    os.kill(pid, signal.SIGCONT)
    return pid


def _request(settings: Settings, made: Manifest, found: program.Program, pid: int) -> dict[str, Any]:
    """Return what a restored process is to become: the engine's own program, as PID 1 would have started it."""
    variables = made.environment(settings.environment)
    state = {**inheritance.gather(), "group": os.getpgid(pid), "directory": os.fsencode(settings.directory)}
    return {
        "target": ["program", found.path],
        "words": program.command_line(found.interpreter, found.path, settings.command[1:]),
        "environment": {os.fsencode(name): os.fsencode(value) for name, value in variables.items()},
        "files": [0, 1, 2],
        "state": {**state, "ignored": [], "blocked": []},
        "timeline": settings.timeline,
    }
