"""What a restored process must not go on believing, and what no two processes may draw alike."""

from __future__ import annotations

import importlib.util
import os
import platform
import random
import sys
import tempfile
import time
import uuid
from multiprocessing import synchronize
from pathlib import Path
from typing import Any

import pytest
from warmimage.entrypoint.tiers.zygote import specialize


def test_a_folder_that_was_absent_at_the_capture_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "plugins"
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    assert importlib.util.find_spec("added_on_the_node") is None
    folder.mkdir()
    (folder / "added_on_the_node.py").write_text("")
    specialize.invalidate_host_caches()
    assert importlib.util.find_spec("added_on_the_node") is not None


def test_the_hosts_name_and_its_time_zone_are_those_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    stale: Any = platform.uname()._replace(node="the-build-container")
    monkeypatch.setattr(platform, "_uname_cache", stale)
    vars(platform)["_platform_cache"][("terse", "aliased")] = "stale"
    monkeypatch.setenv("TZ", "ABC-7")
    specialize.invalidate_host_caches()
    assert platform.node() == os.uname().nodename
    assert vars(platform)["_platform_cache"].get(("terse", "aliased")) != "stale"
    assert time.timezone == -7 * 3600
    monkeypatch.undo()
    time.tzset()


def test_two_processes_of_one_state_draw_different_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas: the same state, and the same PID, by which these generators see that they must begin anew."""
    state = random.Random(1).getstate()  # noqa: S311 - names of files

    def restored() -> list[str]:
        names: Any = tempfile._RandomNameSequence()  # type: ignore[attr-defined]
        names.rng.setstate(state)
        monkeypatch.setattr(tempfile, "_name_sequence", names)
        monkeypatch.setattr(synchronize.SemLock, "_rand", names)
        monkeypatch.setattr(uuid, "_last_timestamp", 1)
        monkeypatch.setattr(uuid, "_node", 1)
        specialize.reseed()
        assert (vars(uuid)["_last_timestamp"], vars(uuid)["_node"]) == (None, None)
        return [next(vars(tempfile)["_get_candidate_names"]()), vars(synchronize.SemLock)["_make_name"].__func__()]

    first, second = restored(), restored()
    assert [name for name in first if name in second] == []
