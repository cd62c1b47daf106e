"""Run the checks in parallel, each with a time limit.  A check that fails is a finding, too."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from .finding import Finding, Observation
from .table import ITEMS, grade
from .target import Target

Facts = dict[str, Any]

#: Longest time of a whole run in seconds.  Removing leftover containers takes up to one second more.
LONGEST = 8.5


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        id: the name of its item in the table.
        probe: takes the target and the facts of earlier checks; returns ``None`` if there is nothing to report.
        needs: checks whose facts it uses.
        after: checks that must end before it begins.
        seconds: its time limit.
    """

    id: str
    probe: Callable[[Target, Facts], Observation | None]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    seconds: float = 5.0


class _Run:
    def __init__(self, checks: Sequence[Check], target: Target, longest: float) -> None:
        self.checks = checks
        self.target = target
        self.end = time.monotonic() + longest
        self.waiting = list(checks)
        self.names = {check.id for check in checks}
        self.threads: list[threading.Thread] = []
        self.running: dict[str, float] = {}
        self.facts: Facts = {}
        self.observations: dict[str, Observation | None] = {}
        self.answers: queue.SimpleQueue[tuple[str, Observation | None]] = queue.SimpleQueue()

    def run(self) -> None:
        while self.waiting or self.running:
            self._start_what_can()
            if not self.running:
                continue
            nearest = min(self.running.values())
            with suppress(queue.Empty):
                name, observation = self.answers.get(timeout=max(0.0, nearest - time.monotonic()))
                if self.running.pop(name, None):  # else it has timed out already
                    self._settle(name, observation)
                continue
            for name in [name for name, limit in self.running.items() if limit <= nearest]:
                del self.running[name]
                self._settle(name, Observation("late", "timed out"))

    def _start_what_can(self) -> None:
        for check in list(self.waiting):
            if any(name in self.names and name not in self.observations for name in (*check.needs, *check.after)):
                continue
            self.waiting.remove(check)
            missing = [name for name in check.needs if name not in self.facts]
            if missing:
                self._settle(check.id, Observation("skipped", f"not checked: needs {ITEMS[missing[0]].title}"))
                continue
            self.running[check.id] = min(self.end, time.monotonic() + check.seconds)
            # A daemon thread: a check that hangs in a system call cannot delay the report.
            thread = threading.Thread(target=self._probe, args=(check, dict(self.facts)), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _probe(self, check: Check, facts: Facts) -> None:
        try:
            observation = check.probe(self.target, facts)
        except Exception as error:
            observation = Observation("broken", f"the check failed: {type(error).__name__}: {str(error)[:200]}")
        self.answers.put((check.id, observation))

    def _settle(self, name: str, observation: Observation | None) -> None:
        self.observations[name] = observation
        if observation and observation.fact is not None:
            self.facts[name] = observation.fact


def run_checks(checks: Sequence[Check], target: Target, longest: float = LONGEST) -> list[Finding]:
    """Run checks and return the findings in the checks' order.

    Args:
        checks: the checks; they may need only each other's facts.
        target: the host and the image to check.
        longest: seconds after which checks that still run count as timed out.
    """
    run = _Run(checks, target, longest)
    try:
        run.run()
    finally:
        if "docker" in run.facts:
            _remove_containers(target)
            if any(thread.is_alive() for thread in run.threads):
                # A check may have been about to create a container.  Most checks end once their container is removed.
                end = time.monotonic() + 1
                for thread in run.threads:
                    thread.join(max(0.0, end - time.monotonic()))
                _remove_containers(target)
    observations = ((check.id, run.observations[check.id]) for check in checks)
    return [grade(name, entry) for name, entry in observations if entry]


def _remove_containers(target: Target) -> None:
    """Remove containers that a timed out or interrupted check has left."""
    with suppress(DockerException, RequestException), closing(target.client()) as client:
        label = ",".join(f"{name}={value}" for name, value in target.labels.items())
        for left in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
            with suppress(APIError):
                left.remove(force=True)
