"""Tier ``zygote``: a process that is forked finds itself just as one that was spawned does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import zygotes
from .harness import Image

pytestmark = pytest.mark.timeout(60)

PROBE = Path(__file__).with_name("zygote_probe.py").read_text()


@pytest.fixture
def probe(image: Image) -> Path:
    image.closure({"modules": list(zygotes.MODULES), "files": [], "libraries": []})
    return image.script("probe", PROBE)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("spawn", []),
        ("spawn", ["with_environment", "with_place"]),
        ("spawn", ["with_raised_limit"]),
        ("spawn", ["with_scheduling", "with_limits", "with_group"]),
        ("spawn", ["with_signals", "with_threads"]),
        ("spawn", ["with_file", "with_input_closed"]),
        ("spawn", ["with_terminal"]),
        ("spawn", ["with_python_state"]),
        ("forkserver", []),
        ("forkserver", ["with_environment", "with_place", "with_signals", "with_python_state"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_child_is_as_a_spawned_one(image: Image, probe: Path, tmp_path: Path, method: str, changes: list[str]) -> None:
    reports = {}
    # A process of `forkserver` is held to what `spawn` makes: nearer to its parent than a forkserver ever is.
    for tier, start in (("plain", "spawn"), ("zygote", method)):
        folder = tmp_path / "work"
        folder.mkdir()
        done = zygotes.run(
            image,
            probe,
            start,
            *changes,
            tier=tier,
            cwd=folder,
            PROBE="before",
            PROBE_OLD="old",
            PYTHONFAULTHANDLER="1",
            LANG="C.UTF-8",
        )
        assert (done.stderr, done.returncode) == ("", 0), tier
        reports[tier] = json.loads(done.stdout)
        assert (reports[tier].pop("method"), reports[tier]["argv"].pop(1)) == (start, start)
        folder.rename(tmp_path / tier)
    assert len(zygotes.forked(image)) == 1
    assert zygotes.reasons(image) == []
    differ = zygotes.differences(reports["plain"], reports["zygote"])
    assert not differ, "\n".join(differ)
