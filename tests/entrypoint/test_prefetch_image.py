"""Prefetch of the image's own files: what tells whether they are resident, and what if nothing does."""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from warmimage.entrypoint.model import weights
from warmimage.entrypoint.pagecache import residency
from warmimage.entrypoint.pagecache.reader import Reading
from warmimage.entrypoint.startup import prefetch

from tests.support.page_cache import resident, undisturbed

from .harness import Image, evict
from .test_prefetch import MIB, Prefetched, fill, prefetched

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("sigterm_kept")]

__all__ = ["prefetched"]


def hot_files(image: Image, number: int, size: int) -> tuple[Path, list[Path]]:
    """Make files of an image and a closure that lists them."""
    files = [fill(image.root / f"hot-{at}.so", size) for at in range(number)]
    closure = image.root / "closure.json"
    closure.write_text(json.dumps({"files": list(map(str, files)), "libraries": []}))
    return closure, files


@undisturbed
def test_a_prefetch_that_was_cut_short_is_finished_by_the_next(image: Image, prefetched: Prefetched) -> None:
    closure, files = hot_files(image, 200, 4096)
    evict(*files[64:])
    ended, _ = prefetched(hot=closure)
    assert (ended["event"], ended["target"], ended["read_bytes"]) == ("prefetch.ended", "image", 200 * 4096)
    assert all(resident(path) == 4096 for path in files)
    declined, _ = prefetched(hot=closure)
    assert declined["reason"] == "51 of 200 files, spread over all, are resident"


@pytest.mark.parametrize("number", [0, 1, 64, 65, 127, 3400])
def test_samples_are_spread_over_all_files(number: int) -> None:
    files = list(map(str, range(number)))
    chosen = prefetch.spread(files)
    assert len(chosen) <= prefetch.SAMPLE + 1
    assert chosen[-1:] == files[-1:]
    gaps = [int(after) - int(before) for before, after in itertools.pairwise(chosen)]
    assert max(gaps, default=0) <= number // prefetch.SAMPLE + 1


def other_owner(monkeypatch: pytest.MonkeyPatch, fetched: Callable[[], int]) -> None:
    """Have the kernel tell nothing of any file, and give an account of reads."""
    monkeypatch.setattr(residency, "resident_part", lambda *_part: None)
    monkeypatch.setattr(residency, "fetched_bytes", fetched)


@undisturbed
def test_where_nobody_is_charged_for_reads_all_is_read(
    image: Image, prefetched: Prefetched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of root's files on such a file system every sample looks resident to the image's user."""
    closure, files = hot_files(image, 3, 3 * MIB)
    evict(*files)
    other_owner(monkeypatch, lambda: 0)
    ended, _ = prefetched(hot=closure)
    assert (ended["target"], ended["resident_bytes"], ended["read_bytes"]) == ("image", 0, 9 * MIB)
    assert all(resident(path) == 3 * MIB for path in files)


@undisturbed
def test_without_an_account_of_reads_all_is_read(
    image: Image, prefetched: Prefetched, monkeypatch: pytest.MonkeyPatch
) -> None:
    closure, _ = hot_files(image, 2, 3 * MIB)

    def refuse() -> int:
        raise FileNotFoundError(2, os.strerror(2), "/proc/thread-self/io")

    other_owner(monkeypatch, refuse)
    ended, _ = prefetched(hot=closure)
    assert (ended["target"], ended["read_bytes"], ended["reason"]) == ("image", 6 * MIB, "done")
    assert ended["failures"] == []


def test_a_failure_costs_neither_the_weights_nor_the_truth(
    image: Image, prefetched: Prefetched, monkeypatch: pytest.MonkeyPatch
) -> None:
    closure, _ = hot_files(image, 1, 10)
    monkeypatch.setattr(prefetch, "spread", lambda _files: 1 // 0)
    results: list[bool] = []
    run = prefetch.Prefetch.run
    noted = functools.wraps(run)(lambda *words: results.append(run(*words)))
    monkeypatch.setattr(prefetch.Prefetch, "run", noted)
    failed, ended = prefetched(hot=closure)
    assert (failed["event"], failed["target"]) == ("prefetch.failed", "image")
    assert failed["reason"].startswith("ZeroDivisionError")
    assert (ended["target"], ended["reason"]) == ("weights", "done")
    assert results == [False]

    monkeypatch.setattr(weights, "find", lambda _settings: 1 // 0)
    assert prefetched()[0]["reason"].startswith("ZeroDivisionError"), "and not that the volume does not answer"


def test_a_signal_may_come_while_its_own_event_is_waited_for(tmp_path: Path) -> None:
    """The handler runs in the waiter: whatever lock that holds, the handler must not want."""
    reader = Reading([str(fill(tmp_path / "file", MIB))], prefetch.volume_range, lambda: 1 << 40)
    with reader._ended._cond:  # type: ignore[attr-defined]
        reader.stop("stopping")
    assert reader.run().reason == "stopping"


def test_pieces_of_a_slow_volume_show_that_it_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part takes longer than the patience, each of its pieces less."""
    import time

    from warmimage.entrypoint.pagecache import reader

    def fetch(_descriptor: int, _offset: int, length: int) -> int:
        time.sleep(0.4)
        return length

    monkeypatch.setattr(reader, "fetch_range", fetch)
    monkeypatch.setattr(reader, "resident_bytes", lambda _path: 16 * MIB)
    monkeypatch.setattr(reader, "_LONG", 0.1)
    path = tmp_path / "shard"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    outcome = Reading([str(path)], lambda *_part: 0, lambda: 1 << 40, stall=0.8).run()
    assert (outcome.reason, outcome.read) == ("done", 16 * MIB)
