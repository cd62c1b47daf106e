"""The start-up ladder: try tiers from the fastest down until one brings the server up."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence

from ..settings import Settings
from ..supervision.readiness import ReadinessProbe
from ..supervision.supervisor import Outcome, Supervisor
from ..tiers import TIERS, Declined, Prepared, Tier
from ..tiers.engine_program import EXIT_DECLINED
from ..timeline import Timeline, say

#: Exit code by which command-line parsers (argparse, click) refuse an argument: no other tier would take it either.
EXIT_USAGE = 2


class Ladder:
    """Tries tiers one after the other, from the one asked for down.

    Each tier is checked once, when all before it have declined or failed.

    Args:
        settings: what this start is to do.
        timeline: where its events go.
        supervisor: runs the engine.
        tiers: the tiers, the fastest first; the last one never declines.
    """

    def __init__(
        self, settings: Settings, timeline: Timeline, supervisor: Supervisor, tiers: Sequence[Tier] = TIERS
    ) -> None:
        self._settings = settings
        self._timeline = timeline
        self._supervisor = supervisor
        self._baked = [tier for tier in tiers if tier.baked(settings)]
        self._waiting: list[Tier] = []
        self._declined: list[str] = []

    def check(self) -> Prepared:
        """Check the tiers, and return the first that can start the engine; those that decline become events.

        Raises:
            LookupError: all tiers decline.
        """
        self._waiting = self._asked_for()
        prepared = self._next()
        if not prepared:
            raise LookupError("no tier can start the engine")
        return prepared

    def start(self, first: Prepared, began: float) -> int:
        """Start the engine in the best tier that works, stay until it ends, and return the container's exit code.

        Args:
            first: the tier to start with, as ``check`` has returned it.
            began: monotonic time in seconds at which the container's PID 1 began.
        """
        retried = False
        code = 0
        for prepared in self._attempts(first):
            tier = prepared.tier
            try:
                outcome = self._run(prepared, began)
            except Declined as error:
                self._decline(tier.name, str(error))
                stopped = self._supervisor.take_signals()
                if stopped:
                    return 128 + stopped
                continue
            code = outcome.code
            if code == EXIT_DECLINED and tier.may_decline_late and not outcome.ready and not outcome.stopped:
                self._declined.append(tier.name)
                self._clear()
                continue
            self._timeline.event("engine.ended", code=code, signal=outcome.signal, ready=outcome.ready)
            if outcome.problem:
                self._fail(tier, outcome.problem)
            elif retried or self._settings.unprobed or not worth_retrying(tier, outcome):
                return code  # where readiness cannot be seen, a server that served for days would be started again
            else:
                retried = True
                self._fail(tier, f"the engine {outcome} before it was ready")
        return code

    def _attempts(self, first: Prepared) -> Iterator[Prepared]:
        """Yield the tiers to start the engine in; the next one is checked when it is asked for."""
        prepared: Prepared | None = first
        while prepared:
            yield prepared
            prepared = self._next()

    def _asked_for(self) -> list[Tier]:
        """Return the tiers to try: those of the image, from the one asked for down to ``plain``."""
        names = [tier.name for tier in self._baked]
        start = self._settings.start
        if start == "auto":
            return list(self._baked)
        if start in names:
            return self._baked[names.index(start) :]
        self._decline(start, f"WARMIMAGE_START names no tier of this image, which has {', '.join(names)}")
        return list(self._baked)

    def _next(self) -> Prepared | None:
        """Check the tiers that have not been checked; return the first that can start the engine, ``None`` for none."""
        while self._waiting:
            tier = self._waiting.pop(0)
            try:
                return tier.check(self._settings, self._supervisor)
            except Declined as error:
                self._decline(tier.name, str(error))
        return None

    def _fail(self, tier: Tier, reason: str) -> None:
        """Note that a tier's engine has ended, and end what it has left running."""
        self._timeline.event("tier.failed", tier=tier.name, reason=reason)
        say(f"{tier.name} failed: {reason}; trying the next tier")
        self._clear()

    def _clear(self) -> None:
        """End what a tier's engine has left running."""
        left = self._supervisor.clear()
        if left:
            self._timeline.event("engine.leftovers_killed", processes=left)

    def _decline(self, tier: str, reason: str) -> None:
        self._declined.append(tier)
        self._timeline.event("tier.declined", tier=tier, reason=reason)
        say(f"{tier} skipped: {reason}")

    def _run(self, prepared: Prepared, began: float) -> Outcome:
        """Start the engine and wait for its end, with its readiness as an event.

        Raises:
            Declined: the tier cannot start the engine after all.
        """
        settings, tier = self._settings, prepared.tier
        reason = settings.quick or settings.unprobed
        probe = None if reason else ReadinessProbe(settings.host, settings.port, settings.engine.health_path)
        if settings.unprobed:
            self._timeline.event("probe.declined", reason=settings.unprobed)
            say(f"ready not reported: {settings.unprobed}")
        self._timeline.event("tier.started", tier=tier.name, port=settings.port)

        def on_ready(seconds: float) -> None:
            total = time.monotonic() - began
            self._timeline.event("ready", tier=tier.name, seconds=round(total, 3), engine_seconds=round(seconds, 3))
            self._supervisor.stop_helpers()
            declined = f"; skipped: {', '.join(self._declined)}" if self._declined else ""
            say(f"ready in {total:.2f} s (tier {tier.name}{declined})")

        return self._supervisor.run(lambda: prepared.start(self._supervisor), probe, on_ready)


def worth_retrying(tier: Tier, outcome: Outcome) -> bool:
    """Return whether the next tier should be tried after this one's engine has ended.

    Only a failure that an optimisation could have caused: one before the server was ready, which nobody asked for,
    and which is neither the engine's refusal of an argument nor a kill from outside.
    """
    if not tier.may_fail or outcome.ready or outcome.stopped:
        return False
    return outcome.signal != signal.SIGKILL and outcome.code not in (0, EXIT_USAGE)
