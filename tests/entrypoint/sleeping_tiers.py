"""Tiers that only sleep, and a ladder of them that is climbed in a process of its own, which reaps all its children."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from warmimage.entrypoint.settings import Settings
from warmimage.entrypoint.startup.ladder import Ladder
from warmimage.entrypoint.supervision.supervisor import Supervisor
from warmimage.entrypoint.tiers import Declined, Plain, Prepared, Tier
from warmimage.entrypoint.timeline import Timeline

from tests.entrypoint.plans import make_plan


class Sleeping(Tier):
    """Declines, or starts a command that ends with an exit code; writes down each check."""

    def __init__(self, name: str, checked: list[str], code: int | None = None) -> None:
        self.name = name
        self._checked = checked
        self._code = code

    def baked(self, settings: Settings) -> bool:
        return True

    def check(self, settings: Settings, supervisor: Supervisor) -> Prepared:
        self._checked.append(self.name)
        if self._code is None:
            raise Declined("it only sleeps")
        return Prepared(self, ["sh", "-c", f"exit {self._code}"], settings.environment, "/")


def settings(start: str = "auto") -> Settings:
    plan = make_plan(command=("sh", "-c", "exit 5"), unprobed_flags=())
    return Settings(plan, (), {"PATH": os.environ["PATH"]}, start, "off", "")


def ladder(path: Path, tiers: Sequence[Tier], start: str = "auto") -> tuple[Ladder, Supervisor]:
    timeline = Timeline(str(path), "supervisor", truncate=True)
    supervisor = Supervisor(timeline)
    return Ladder(settings(start), timeline, supervisor, tiers), supervisor


def main(path: Path) -> None:
    """Climb down from a tier that declines, over one that fails and one that declines, to ``plain``."""
    checked: list[str] = []
    tiers = [Sleeping("one", checked), Sleeping("two", checked, code=1), Sleeping("three", checked), Plain()]
    tried, supervisor = ladder(path, tiers)
    before = list(checked)
    first = tried.check()
    after = list(checked)
    with supervisor.signals():
        code = tried.start(first, 0.0)
    print(json.dumps({"before": before, "first": first.tier.name, "after": after, "code": code, "checked": checked}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
