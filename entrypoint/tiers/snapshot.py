"""Tier ``snapshot``: the engine's process is restored with everything imported, and then goes on as the zygote."""

from __future__ import annotations

import os
import signal
import time

from .. import inheritance, program
from ..closure import Closure
from ..settings import SNAPSHOT, Settings
from ..snapshot import criu, meeting
from ..snapshot.manifest import Manifest
from ..supervisor import Supervisor
from ..timeline import Timeline
from .base import Declined
from .zygote import Zygote


class Snapshot(Zygote):
    """Restores the interpreter that was captured when the image was built, or on this node."""

    name = "snapshot"
    imports = False

    def baked(self, settings: Settings) -> bool:
        """Return whether the image has a snapshot, or may find one on its node."""
        return super().baked(settings) or settings.snapshot != SNAPSHOT

    def decline(self, settings: Settings) -> str:
        """Decline what the zygote declines, a container that may not restore, and a snapshot that does not fit."""
        reason = super().decline(settings)
        if reason:
            return reason
        try:
            manifest = Manifest.load(settings.snapshot)
        except FileNotFoundError:
            return f"there is none in {settings.snapshot}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"its manifest cannot be read: {error!r}"
        return criu.program()[1] or manifest.mismatch(settings.environment, Closure.digest())

    def start(self, settings: Settings, supervisor: Supervisor, timeline: Timeline) -> int:
        """Restore, hand over environment, arguments and standard streams, and return the engine's PID.

        Raises:
            Declined: it failed; nothing of it is left.
        """
        found = program.find(settings)
        binary, reason = criu.program()
        if not found or not binary:
            raise Declined(reason or program.absent(settings))
        supervisor.adopt_orphans()
        began = time.monotonic()
        pid, host = 0, None
        try:
            variables = Manifest.load(settings.snapshot).environment(settings.environment)
            host = meeting.Host()
            pid = criu.restore(binary, settings.snapshot, lambda: bool(supervisor.stop_requested))
            timeline.event("snapshot.restored", child=pid, seconds=round(time.monotonic() - began, 3))
            os.kill(pid, signal.SIGCONT)
            state = {**inheritance.gather(), "group": os.getpgid(pid), "directory": os.fsencode(settings.directory)}
            request = {
                "target": ["program", found.path],
                "words": program.command_line(found.interpreter, found.path, settings.command[1:]),
                "environment": {os.fsencode(name): os.fsencode(value) for name, value in variables.items()},
                "files": [0, 1, 2],
                "state": {**state, "ignored": [], "blocked": []},
                "timeline": settings.timeline,
            }  # fmt: skip
            host.send(pid, request, [0, 1, 2])
        except criu.CannotRestore as error:
            raise Declined(f"the restore failed: {error}") from None
        except Exception as error:  # whatever it is, the next tier can do without it
            if pid:
                criu.kill(pid)
            raise Declined(f"the restored process was not reached: {error!r}") from None
        finally:
            if host:
                host.close()
        return pid
