"""Run the checks: side by side, each bounded in time, and one that breaks is a finding of its own."""

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

from .finding import Finding, Seen
from .table import ITEMS, judge
from .target import Subject

Facts = dict[str, Any]

#: Longest time of a whole run, in seconds; to remove what is left takes up to another.
LONGEST = 8.5


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        id: its item in the table.
        look: takes the subject and the facts of earlier checks; ``None`` says that there is nothing to say.
        needs: checks whose facts it cannot do without.
        after: checks that must have ended before it begins.
        seconds: how long it may take.
    """

    id: str
    look: Callable[[Subject, Facts], Seen | None]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    seconds: float = 5.0


class _Examination:
    def __init__(self, checks: Sequence[Check], subject: Subject, longest: float) -> None:
        self.checks = checks
        self.subject = subject
        self.end = time.monotonic() + longest
        self.waiting = list(checks)
        self.names = {check.id for check in checks}
        self.threads: list[threading.Thread] = []
        self.running: dict[str, float] = {}
        self.facts: Facts = {}
        self.seen: dict[str, Seen | None] = {}
        self.answers: queue.SimpleQueue[tuple[str, Seen | None]] = queue.SimpleQueue()

    def run(self) -> None:
        while self.waiting or self.running:
            self._start_what_can()
            if not self.running:
                continue
            nearest = min(self.running.values())
            with suppress(queue.Empty):
                name, seen = self.answers.get(timeout=max(0.0, nearest - time.monotonic()))
                if self.running.pop(name, None):  # else it was given up before
                    self._settle(name, seen)
                continue
            for name in [name for name, limit in self.running.items() if limit <= nearest]:
                del self.running[name]
                self._settle(name, Seen("late", "no answer within its time"))

    def _start_what_can(self) -> None:
        for check in list(self.waiting):
            if any(name in self.names and name not in self.seen for name in (*check.needs, *check.after)):
                continue
            self.waiting.remove(check)
            lacking = [name for name in check.needs if name not in self.facts]
            if lacking:
                self._settle(check.id, Seen("skipped", f"not looked at: needs {ITEMS[lacking[0]].title}"))
                continue
            self.running[check.id] = min(self.end, time.monotonic() + check.seconds)
            # A thread of its own that nothing waits for: what hangs in a system call must not hold the report up.
            thread = threading.Thread(target=self._look, args=(check, dict(self.facts)), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _look(self, check: Check, facts: Facts) -> None:
        try:
            seen = check.look(self.subject, facts)
        except Exception as error:
            seen = Seen("broken", f"the check broke: {type(error).__name__}: {str(error)[:200]}")
        self.answers.put((check.id, seen))

    def _settle(self, name: str, seen: Seen | None) -> None:
        self.seen[name] = seen
        if seen and seen.fact is not None:
            self.facts[name] = seen.fact


def examine(checks: Sequence[Check], subject: Subject, longest: float = LONGEST) -> list[Finding]:
    """Run checks and return the findings in the checks' order.

    Args:
        checks: what to look at; a check may need only facts of others in this list.
        subject: what to look at it on.
        longest: seconds after which whatever still runs is given up.
    """
    examination = _Examination(checks, subject, longest)
    try:
        examination.run()
    finally:
        if "docker" in examination.facts:
            _remove_containers(subject)
            if any(thread.is_alive() for thread in examination.threads):
                # One that was about to create a container: its wait ends with the container, so most end now.
                end = time.monotonic() + 1
                for thread in examination.threads:
                    thread.join(max(0.0, end - time.monotonic()))
                _remove_containers(subject)
    seen = ((check.id, examination.seen[check.id]) for check in checks)
    return [judge(name, entry) for name, entry in seen if entry]


def _remove_containers(subject: Subject) -> None:
    """Remove what a check that was given up, or an interrupt, has left with the daemon."""
    with suppress(DockerException, RequestException), closing(subject.client()) as client:
        label = ",".join(f"{name}={value}" for name, value in subject.labels.items())
        for left in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
            with suppress(APIError):
                left.remove(force=True)
