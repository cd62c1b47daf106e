"""The timeline: every line an event, in order, and a file that cannot be written costs nothing."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest

from .harness import Image, free_port

pytestmark = pytest.mark.timeout(60)


def test_every_line_is_an_event_on_one_clock(image: Image) -> None:
    """Invariant 5: every decision and phase is one JSON line, on one monotonic clock."""
    image.timeline.write_text("left over from the last start\n")
    image.run("--port", str(free_port()), "listen", "serve:200", "until:ready", "until:prefetch.ended", "end:0")
    events = [json.loads(row) for row in image.timeline.read_text().splitlines()]
    assert all(list(event)[:4] == ["t", "pid", "process", "event"] for event in events)
    assert {event["process"] for event in events} == {"supervisor", "prefetch", "engine"}
    for process in ("supervisor", "prefetch", "engine"):
        mine = [event for event in events if event["process"] == process]
        assert len({event["pid"] for event in mine}) == 1
        assert all(earlier["t"] <= later["t"] for earlier, later in pairwise(mine))
    assert events[0]["event"] == "started"
    assert events[-1] == {**events[-1], "event": "ended", "code": 0}


def test_values_of_flags_and_variables_stay_out_of_it(image: Image) -> None:
    image.run("--api-key=s3cret-a", "--token", "s3cret-b", "end:1", PASSWORD="s3cret-c")
    assert image.events("started")[0]["flags"] == ["--api-key", "--token"]
    assert "s3cret" not in image.timeline.read_text()


@pytest.mark.parametrize("name", [b"no/such/folder/t.jsonl", b"caf\xe9/t.jsonl"], ids=["missing", "not UTF-8"])
def test_unwritable_file_costs_one_line(image: Image, tmp_path: Path, name: bytes) -> None:
    environment = {key.encode(): value.encode() for key, value in image.environment().items()}
    environment[b"WARMIMAGE_TIMELINE"] = os.fsencode(tmp_path) + b"/" + name
    ended = image.run(image.mark, "out:answer", "end:3", env={**environment, b"WARMIMAGE_START": b"plain"})
    assert (ended.code, ended.out, ended.err.count(b"\n")) == (3, b"answer\n", 1)
    assert ended.said[0].startswith("timeline not written: No such file or directory: ")
    image.marker.unlink()
    ended = image.run(image.mark, "end:0", env=environment)
    assert (ended.code, len(ended.said), image.started) == (0, 1, ["preload"]), "the engine's process says it no more"


def test_full_disk_ends_it_with_one_line_of_each_process(image: Image) -> None:
    ended = image.run("end:3", WARMIMAGE_TIMELINE="/dev/full", WARMIMAGE_START="plain", WARMIMAGE_PREFETCH="off")
    assert (ended.code, ended.said) == (3, ["timeline ends here: No space left on device: /dev/full"])


def test_too_little_shared_memory_is_said_before_the_engine_fails_on_it(image: Image) -> None:
    image.write_plan(shared_memory=1 << 60)
    (line,) = image.run("end:0").said
    assert line.startswith("/dev/shm has ")
    assert line.endswith(f"run with --shm-size {1 << 60}")
    (event,) = image.events("shared_memory.small")
    assert 0 < event["bytes"] < event["wanted_bytes"] == 1 << 60
    assert image.run("--help").said == ["preload skipped: --help ends before anything is worth preloading"]
