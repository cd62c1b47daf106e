"""The supervisor and the ladder alone: signals are put back, and each tier is checked once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from warmimage.entrypoint.supervision.supervisor import Supervisor
from warmimage.entrypoint.tiers import TIERS, Plain
from warmimage.entrypoint.timeline import Timeline

from . import sleeping_tiers
from .sleeping_tiers import Sleeping, ladder

pytestmark = pytest.mark.timeout(60)


def events(path: Path, name: str) -> list[str]:
    """Return the tiers of the events of a name."""
    rows = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [row["tier"] for row in rows if row["event"] == name]


def test_each_tier_is_checked_once_and_only_when_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "timeline"
    done = subprocess.run(
        [sys.executable, "-m", sleeping_tiers.__name__, str(path)], capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout) == {
        "before": [],
        "first": "two",
        "after": ["one", "two"],
        "code": 5,
        "checked": ["one", "two", "three"],
    }
    assert events(path, "tier.declined") == ["one", "three"]
    assert events(path, "tier.started") == ["two", "plain"]
    assert events(path, "tier.failed") == ["two"]


def test_tiers_above_the_one_asked_for_are_not_checked(tmp_path: Path) -> None:
    checked: list[str] = []
    tiers = [Sleeping("one", checked, code=0), Sleeping("two", checked, code=0), Plain()]
    tried, _ = ladder(tmp_path / "timeline", tiers, start="two")
    assert tried.check().tier.name == "two"
    assert checked == ["two"]


def test_the_tiers_keep_nothing_of_a_start(tmp_path: Path) -> None:
    tried, _ = ladder(tmp_path / "timeline", TIERS)
    assert tried.check().tier.name == "plain"
    assert [vars(tier) for tier in TIERS] == [{}] * len(TIERS)


def test_signals_are_taken_within_the_block_alone() -> None:
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    supervisor = Supervisor(Timeline("", "supervisor"))
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == handlers
    fds = os.listdir("/proc/self/fd")
    with supervisor.signals():
        assert signal.getsignal(signal.SIGTERM) != handlers[signal.SIGTERM]
        assert supervisor.take_signals() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert supervisor.take_signals() == signal.SIGTERM
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == handlers
    assert os.listdir("/proc/self/fd") == fds
