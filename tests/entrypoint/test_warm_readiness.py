"""``warm`` says that it is ready when everything is resident, and not before: files that cannot be read, and pins."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from warmimage.entrypoint.pagecache.residency import EXACT, Residency
from warmimage.entrypoint.pagecache.syscalls import resident_bytes
from warmimage.entrypoint.timeline import Timeline
from warmimage.entrypoint.warm import command
from warmimage.entrypoint.warm.loop import Warmer
from warmimage.entrypoint.warm.options import Options
from warmimage.entrypoint.warm.pins import Pins
from warmimage.entrypoint.warm.reading import Reading
from warmimage.entrypoint.warm.targets import Found, Places
from warmimage.entrypoint.warm.tracker import TrackedFile, Tracker

from tests.support.page_cache import undisturbed

from .harness import SOURCE, evict
from .warming import MIB, events, model, wait_for, warming

pytestmark = pytest.mark.timeout(180)


class Guarded:
    """Looks at files, slowly, and is refused some of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.refused = {str(path)}
        self.looks = 0
        of_file = Residency.of_file

        def look(residency: Residency, path: str, length: int) -> tuple[int, str]:
            self.looks += 1
            time.sleep(0.02)
            if path in self.refused:
                raise PermissionError(13, os.strerror(13), path)
            return of_file(residency, path, length)

        monkeypatch.setattr(Residency, "of_file", look)


def test_a_file_that_may_not_be_read_is_never_ready_and_is_when_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is less than a hundredth of all: while the next look has not come to it, it must not pass for that."""
    *_, small = model(tmp_path / "model", 4 * MIB, 4 * MIB, 4 * MIB, 1000)
    guarded = Guarded(monkeypatch, small)
    with warming(tmp_path, [tmp_path / "model"], interval=0.01) as (warmer, timeline):
        while guarded.looks < 50:  # ten passes
            state = warmer.state()
            assert (state.ready, state.complete) == (False, False), state.reason
        assert warmer.state().reason == f"weights: {small}: Permission denied"
        assert not events(timeline, "warm.ready")
        guarded.refused.clear()
        wait_for(lambda: warmer.state().ready)
        assert warmer.state().targets["weights"].problems == ()


def test_a_new_file_is_ready_only_after_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one, that turns out not to be readable, where nothing was ready before."""
    folder = tmp_path / "model"
    folder.mkdir()
    guarded = Guarded(monkeypatch, folder / "model-00003-of-00003.safetensors")
    with warming(tmp_path, [folder], interval=0.01) as (warmer, _):
        wait_for(lambda: warmer.state().targets["weights"].problems)
        looks = guarded.looks
        model(tmp_path / "made", 4 * MIB, 4 * MIB, 100)
        (tmp_path / "made").rename(folder)  # all at once
        while guarded.looks < looks + 20:
            state = warmer.state()
            assert (state.ready, state.complete) == (False, False), state.reason


def test_files_are_found_and_given_their_share_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In between, a new file would want nothing."""
    model(tmp_path / "model", MIB)
    seen: list[bool] = []
    set_budget = Tracker.set_budget

    def slow(tracker: Tracker, size: int) -> int:
        asking = threading.Thread(target=tracker.totals)
        asking.start()
        asking.join(0.1)
        seen.append(asking.is_alive())
        return set_budget(tracker, size)

    monkeypatch.setattr(Tracker, "set_budget", slow)
    with warming(tmp_path, [tmp_path / "model"]) as (warmer, _):
        wait_for(lambda: warmer.state().complete)
    assert seen
    assert all(seen), "who asks waits until both are done"


def test_an_error_of_reading_stays_until_the_file_is_resident() -> None:
    tracker = Tracker(["weights"])
    listed = [("/a", 100 * MIB), ("/b", 1000)]
    for number in range(2):
        tracker.set_files("weights", listed, [], "")
        tracker.set_budget(1 << 40)
        first, second = tracker.files("weights")
        tracker.looked("weights", first, first.size, EXACT)
        if number == 0:
            tracker.looked("weights", second, 0, EXACT)
            tracker.failed(second, "Input/output error")
        tracker.looked("weights", second, 0, EXACT)
        (found,) = tracker.totals().values()
        assert (found.problems, found.warm) == (("/b: Input/output error",), False)
    tracker.looked("weights", second, 1000, EXACT)
    assert tracker.totals()["weights"].warm


def test_a_file_that_another_user_may_not_read_is_named(tmp_path: Path, unprivileged: tuple[str, ...]) -> None:
    _, small = model(tmp_path / "model", 4 * MIB, 1000)
    small.chmod(0)
    words = [*unprivileged, sys.executable, "-I", "-S", str(SOURCE), "warm", "--once", "--targets", "weights"]
    environment = {**os.environ, "WARMIMAGE_TIMELINE": str(tmp_path / "timeline.jsonl")}
    done = subprocess.run(
        [*words, "--dir", str(tmp_path / "model")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 75
    assert done.stderr.splitlines()[-1].endswith(f"weights: {small}: Permission denied")


def test_what_is_wrong_with_one_target_costs_the_others_nothing(tmp_path: Path) -> None:
    model(tmp_path / "model", MIB)

    class Broken(Places):
        def find(self, target: str) -> Found:
            if target == "image":
                raise UnicodeError("no text")
            return super().find(target)

    places = Broken((str(tmp_path / "model"),))
    with warming(tmp_path, [tmp_path / "model"], places, targets=("image", "weights")) as (warmer, timeline):
        wait_for(lambda: warmer.state().targets["weights"].warm_after)
        assert warmer.state().targets["image"].problems == ("UnicodeError('no text')",)
        assert not warmer.state().ready
    assert not events(timeline, "warm.failed")


def test_before_the_first_look_nothing_is_claimed(tmp_path: Path) -> None:
    written = Timeline(str(tmp_path / "timeline"), "warm", truncate=True)
    warmer = Warmer(Options(), Places(), written, threading.Event())
    assert warmer.state().reason == "not warm yet: nothing has been looked at yet"
    written.close()


@undisturbed
def test_what_is_not_kept_is_forgotten_when_all_is_resident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = model(tmp_path / "model", 4 * MIB)
    evict(path)
    monkeypatch.setattr(Reading, "run", lambda *_words: None)
    with warming(tmp_path, [tmp_path / "model"], interval=0.02) as (warmer, timeline):
        wait_for(lambda: "does not keep it" in warmer.state().reason and warmer._stretch > 1)
        path.read_bytes()  # somebody else does
        wait_for(lambda: warmer.state().complete)
        wait_for(lambda: events(timeline, "warm.ready"))
        assert warmer.state().reason.startswith("warm: ")
        assert (warmer._kept, warmer._stretch) == ("", 1)


# -- pins


@undisturbed
def test_what_is_not_resident_is_not_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locking would read it: past every limit, and out of others' memory."""
    first, second = model(tmp_path / "model", MIB, 8 * MIB)
    evict(second)
    monkeypatch.setattr(Reading, "run", lambda *_words: None)
    with warming(tmp_path, [tmp_path / "model"], lock=True) as (warmer, timeline):
        wait_for(lambda: events(timeline, "warm.locked"))
        assert warmer.state().locked == first.stat().st_size + len("{}")
    assert resident_bytes(str(second)) == 0
    warmer._pins.keep([])


@undisturbed
def test_nothing_is_pinned_where_memory_has_become_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    first, second = model(tmp_path / "model", MIB, 8 * MIB)
    evict(second)

    def cut(reading: Reading, jobs: Any, control: Any) -> None:
        del reading, jobs, control
        warmer._cut = "memory has become less: so it is"

    monkeypatch.setattr(Reading, "run", cut)
    monkeypatch.setattr(Pins, "keep", lambda _pins, files, _go=None: kept.append(list(files)))
    with warming(tmp_path, [tmp_path / "model"], lock=True) as (warmer, timeline):
        wait_for(lambda: len(events(timeline, "warm.ended")) > 1)
        assert kept == []
        assert first.exists()
        second.read_bytes()
        wait_for(lambda: kept)  # the next pass is cut no more


def test_pinning_ends_when_it_is_told_to(tmp_path: Path) -> None:
    paths = model(tmp_path / "model", MIB, MIB)
    files = [TrackedFile(str(path), MIB, share=MIB) for path in paths]
    answers = iter([True, False])
    pins = Pins()
    pins.keep(files, lambda: next(answers))
    assert (pins.size, pins.refused) == (MIB, "")
    pins.keep([])


def test_it_ends_within_the_time_that_docker_gives() -> None:
    assert command._PATIENCE + command._LAST + command._TICK < 9


def test_no_label_is_said_after_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's last report may come after the end has taken the label away."""
    said: list[bool] = []
    monkeypatch.setattr(command.Label, "say", lambda _label, warm: said.append(warm))
    environment = {"WARMIMAGE_TIMELINE": str(tmp_path / "timeline.jsonl")}
    process = command._Process(Options(node_label="warm"), environment)
    process._tell(True)
    process._stop.set()
    process._tell(True)
    assert said == [True, False]
