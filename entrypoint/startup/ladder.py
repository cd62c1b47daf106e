"""The start-up ladder: try tiers from the fastest down until one brings the server up."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from functools import cached_property

from ..settings import Settings
from ..supervision.readiness import ReadinessProbe
from ..supervision.supervisor import Outcome, Supervisor
from ..tiers import TIERS, Declined, Plain, Tier
from ..tiers.engine_program import EXIT_DECLINED
from ..timeline import Timeline, say

#: Exit code by which command-line parsers (argparse, click) refuse an argument: no other tier would take it either.
EXIT_USAGE = 2


class Ladder:
    """Climbs down from the rung asked for.

    Args:
        settings: what this start is to do.
        timeline: where its events go.
        supervisor: runs the engine.
        tiers: the rungs, from the fastest down; the last one never declines.
    """

    def __init__(
        self, settings: Settings, timeline: Timeline, supervisor: Supervisor, tiers: Sequence[Tier] = TIERS
    ) -> None:
        self._settings = settings
        self._timeline = timeline
        self._supervisor = supervisor
        self._tiers = tiers
        self._declined: list[str] = []
        self._reasons: dict[str, str] = {}

    @property
    def first(self) -> Tier:
        """The tier that will be tried first."""
        return next(tier for tier in self._rungs if not self._reason(tier))

    def start(self, began: float) -> int:
        """Start the engine in the best tier that works, stay until it ends, and return the container's exit code.

        Args:
            began: monotonic time in seconds at which the container's PID 1 began.
        """
        retried = False
        code = 0
        for tier in self._rungs:
            reason = self._reason(tier)
            if reason:
                self._decline(tier.name, reason)
                continue
            try:
                outcome = self._run(tier, began)
            except Declined as error:
                self._decline(tier.name, str(error))
                if self._supervisor.stop_requested:
                    return 128 + self._supervisor.stop_requested
                continue
            code = outcome.code
            if code == EXIT_DECLINED and tier.may_decline_late and not outcome.ready and not outcome.stopped:
                self._declined.append(tier.name)
                self._clear()
                continue
            self._timeline.event("engine.ended", code=code, signal=outcome.signal, ready=outcome.ready)
            if outcome.problem:
                self._fail(tier, outcome.problem)
                continue
            if retried or self._settings.unprobed or not worth_retrying(tier, outcome):
                return code  # where readiness cannot be seen, a server that served for days would be started again
            retried = True
            self._fail(tier, f"the engine {outcome} before it was ready")
        return code

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

    def _reason(self, tier: Tier) -> str:
        """Return why a tier declines, asked once."""
        if tier.name not in self._reasons:
            self._reasons[tier.name] = tier.decline(self._settings, self._supervisor)
        return self._reasons[tier.name]

    @cached_property
    def _rungs(self) -> list[Tier]:
        """Return the tiers to try: those baked in, from the one asked for down to ``plain``."""
        baked = [tier for tier in self._tiers if tier.baked(self._settings)]
        names = [tier.name for tier in baked]
        start = self._settings.start
        if start == "auto":
            return baked
        if start in names:
            return baked[names.index(start) :]
        self._decline(start, f"WARMIMAGE_START names no tier of this image, which has {', '.join(names)}")
        return baked

    def _decline(self, tier: str, reason: str) -> None:
        self._declined.append(tier)
        self._timeline.event("tier.declined", tier=tier, reason=reason)
        say(f"{tier} skipped: {reason}")

    def _run(self, tier: Tier, began: float) -> Outcome:
        settings = self._settings
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

        return self._supervisor.run(
            lambda: tier.start(settings, self._supervisor, self._timeline), probe, on_ready, tier.verified
        )


def worth_retrying(tier: Tier, outcome: Outcome) -> bool:
    """Return whether the next tier should be tried after this one's engine has ended.

    Only a failure that an optimisation could have caused: one before the server was ready, which nobody asked for,
    and which is neither the engine's refusal of an argument nor a kill from outside.
    """
    if isinstance(tier, Plain) or outcome.ready or outcome.stopped:
        return False
    return outcome.signal != signal.SIGKILL and outcome.code not in (0, EXIT_USAGE)
