"""The report: what it makes of timelines, and what it says to files that are none."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from warmimage.errors import ConfigError
from warmimage.report import Start, Table, charts, page, picture, read
from warmimage.report.svg import Chart, cut, fitting, ticks_of
from warmimage.report.view import Span, View, views
from warmimage.report.words import of_event, seconds, size
from warmimage.timeline import Event

from tests.browser.screenshots import STARTS


def event(name: str, at: float, pid: int = 1, process: str = "supervisor", /, **fields: Any) -> Event:
    return {"t": at, "pid": pid, "process": process, "event": name, **fields}


#: A start in which prefetch ends, the engine spawns a worker, and something is declined.
EVENTS = [
    event("started", 100.0, wall=1000.5),
    event("tier.declined", 100.1, tier="preload", reason="no closure"),
    event("tier.started", 100.25, tier="plain", port=8000),
    event("process.started", 100.3, child=1, parent=0, name="python", began=99.8),
    event("process.started", 100.3, child=7, parent=1, name="python", began=100.2),
    event("process.started", 100.3, child=8, parent=1, name="python", began=100.25),
    event(
        "usage",
        100.5,
        cpu_seconds=0.5,
        memory_bytes=10,
        read_bytes=1000,
        processes=[[7, 0.1, 4, 900], [8, 0.2, 6, 100]],
    ),
    event("prefetch.ended", 101.0, 7, "prefetch", target="weights", seconds=0.6, files=2, failures=[]),
    event(
        "usage",
        101.0,
        cpu_seconds=1.5,
        memory_bytes=30,
        read_bytes=3000,
        processes=[[7, 0.2, 4, 900], [8, 0.95, 26, 100]],
    ),
    event("process.ended", 101.2, child=7, cpu_seconds=0.2, read_bytes=900),
    event("process.started", 101.2, child=9, parent=8, name="python", began=101.1),
    event("process.renamed", 101.5, child=9, name="worker"),
    event(
        "imports",
        102.0,
        8,
        "engine",
        thread="MainThread",
        modules=[["a.b", 100.6, 0.2, 0.2, 1], ["a", 100.5, 0.5, 0.3, 0]],
    ),
    event("engine.listening", 104.0),
    event("ready", 105.0, tier="plain", seconds=5.0, engine_seconds=4.75),
    event("signal", 500.0, name="SIGTERM"),
]


@pytest.fixture
def view() -> View:
    """The start, seen from its container's creation."""
    return View(Start("one", EVENTS, created=999.5))


def test_zero_is_the_containers_creation_and_all_phases_fill_the_time_to_ready(view: View) -> None:
    assert (view.zero, view.ready, view.end) == (99.0, 6.0, 6.0)
    spans = view.phases
    assert [span.name for span in spans] == ["container", "checks", "loading", "health"]
    assert spans[0].began == 0
    assert spans[-1].ended == pytest.approx(6.0)
    assert all(before.ended == after.began for before, after in itertools.pairwise(spans))


def test_without_the_creation_zero_is_the_begin_of_pid_1_as_the_kernel_knows_it() -> None:
    view = View(Start("one", EVENTS))
    assert view.zero == 99.8
    assert [(span.name, round(span.ended - span.began, 6)) for span in view.phases][:2] == [
        ("PID 1", 0.2),
        ("checks", 0.25),
    ]
    assert view.phases[-1].ended == pytest.approx(view.ready)


def test_zero_means_the_same_in_all_starts_of_a_page() -> None:
    known, unknown, empty = Start("a", EVENTS, 999.5), Start("b", EVENTS), Start("c", [], None)
    assert {view.zero for view in views([known, unknown])} == {99.8}
    assert views([known, empty])[0].zero == 99.0


def test_lanes_have_names_times_and_what_they_did(view: View) -> None:
    lanes = {lane.pid: lane for lane in view.lanes()}
    assert [(lane.pid, lane.name) for lane in view.lanes()] == [
        (1, "supervisor"),
        (7, "prefetch"),
        (8, "engine"),
        (9, "worker"),
    ]
    assert lanes[7].began == pytest.approx(1.2)
    assert lanes[7].left is True
    assert lanes[7].ended == pytest.approx(2.2)
    assert (lanes[8].ended, lanes[8].left) == (6.0, False)
    (span,) = lanes[7].spans
    assert (span.name, round(span.began, 6), round(span.ended, 6)) == ("prefetch: weights", 1.4, 2.0)
    assert [span.name for span in lanes[8].spans] == ["a"], "outermost imports alone"
    assert "signal" not in [mark.name for mark in lanes[1].marks], "it came long after ready"


def test_load_is_the_processor_time_between_two_looks(view: View) -> None:
    engine = next(lane for lane in view.lanes() if lane.pid == 8)
    assert [round(row[2], 6) for row in engine.load()] == [0.8, 1.5]


def test_figures_are_those_of_all_processes(view: View) -> None:
    assert view.figures() == [
        ("CPU time", "1.5 s"),
        ("read from storage", "3.0 kB"),
        ("peak memory", "30 B"),
        ("processes", "4"),
    ]
    assert View(Start("old", [EVENTS[0], EVENTS[-2]])).figures() == []


def test_decisions_say_what_and_why(view: View) -> None:
    ((at, what, reason),) = view.decisions()
    assert (round(at, 6), what, reason) == (1.1, "preload declined", "no closure")


def test_imports_are_sorted_by_their_begin(view: View) -> None:
    (imports,) = view.imports()
    assert [(module.name, round(module.began, 6), module.depth) for module in imports.modules] == [
        ("a", 1.5, 0),
        ("a.b", 1.6, 1),
    ]


def test_start_that_never_became_ready_is_drawn_to_its_last_event() -> None:
    events = [*EVENTS[:3], event("engine.ended", 103.0, code=1, signal=0, ready=False)]
    text = page("Broken", [Start("broken", events)])
    assert "not ready after 3.00 s" in text


def test_page_without_a_trace_or_usage_says_how_to_get_them() -> None:
    text = page("Old", [Start("old", [EVENTS[0], EVENTS[2], EVENTS[-2]])])
    assert "WARMIMAGE_TRACE=imports" in text
    assert "no event <code>usage</code>" in text
    assert "Nothing was declined" in text


def test_page_shows_starts_without_a_timeline_and_none_at_all() -> None:
    assert "no timeline" in page("Against", [Start("other image", []), Start("one", EVENTS)])
    assert "<h1>Nothing</h1>" in page("Nothing", [])


def test_page_shows_tables() -> None:
    table = Table("Figures <1>", ("arm", "median"), (("plain", "6.10 s"), ("preload", "5.49 s")))
    text = page("Bench", [Start("one", EVENTS)], [table])
    assert "Figures &lt;1&gt;" in text
    assert '<td class="number">5.49 s</td>' in text


def test_page_of_a_bench_has_a_row_for_each_start() -> None:
    text = page("Bench", [Start(f"run {number}", EVENTS) for number in range(1, 13)])
    assert '<ul class="starts"' not in text
    assert text.count('<th scope="row">run ') == 2 * 12, "phases, and what was declined"
    assert "The first 6 starts are drawn." in text


def test_page_refers_to_nothing_outside() -> None:
    text = page("Two starts", read(STARTS))
    assert "default-src 'none'" in text
    for word in ("http://", "https://", "url(", "@import", '<link rel="stylesheet', " src="):
        assert word not in text, word


def test_script_is_short() -> None:
    text = page("One", [Start("one", EVENTS)])
    assert 50 < text.partition("<script>")[2].partition("</script>")[0].count("\n") < 300


def test_overlapping_spans_get_rows_of_their_own() -> None:
    spans = [Span(name, *times, "checks") for name, times in (("a", (0, 2)), ("b", (1, 3)), ("c", (2, 4)))]
    assert [[span.name for span in row] for row in charts.rows_of(spans)] == [["a", "c"], ["b"]]


def test_words() -> None:
    assert [seconds(value) for value in (0.0003, 0.042, 7.694, 754.2)] == ["0.3 ms", "42 ms", "7.69 s", "754 s"]
    assert size(1234567) == "1.2 MB"
    assert of_event(event("x", 1.0, read_bytes=2000, seconds=0.5, empty=[], failures=["a", "b"])) == (
        "read bytes: 2.0 kB\nseconds: 500 ms\nfailures: a, b"
    )


def test_labels_are_cut_or_shortened_to_their_room() -> None:
    assert (cut("transformers", 200), cut("transformers", 50), cut("transformers", 15)) == (
        "transformers",
        "transfo…",
        "",
    )
    assert [fitting("loading 6.10 s", "loading", room) for room in (100, 60, 20)] == ["loading 6.10 s", "loading", ""]


@pytest.mark.parametrize("span", [0.004, 0.9, 7.3, 61.0, 3700.0])
def test_axis_has_a_few_round_ticks_from_zero(span: float) -> None:
    ticks = ticks_of(span)
    assert ticks[0] == 0
    assert 3 <= len(ticks) <= 8
    assert ticks[-1] < span


def test_times_are_percentages_of_the_width() -> None:
    assert [Chart("x", 8.0).at(time) for time in (0, 2, 8)] == ["0%", "25%", "100%"]


# Files.


def test_bench_result_is_read_as_its_runs(tmp_path: Path) -> None:
    runs = [{"arm": "plain", "state": "cold", "round": 2, "asked": 999.0, "created": 0.5, "events": EVENTS}]
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"schema_version": 1, "runs": runs}, indent=1))
    (start,) = read([path])
    assert (start.name, start.created, len(start.events)) == ("plain, cold, run 2", 999.5, len(EVENTS))


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "timeline.jsonl" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        path.write_text(json.dumps(EVENTS[0]))
    assert [start.name for start in read(paths)] == ["timeline (1)", "timeline (2)"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("", "an empty file"),
        ("not JSON\n", "no JSON line"),
        ('{"a": 1}\n[1]\n"x"\n', "no event"),
        ('{"event": "ready", "t": "soon"}\n', "no event"),
        ('{"runs": []}', "no event"),
        ('{"runs": [{"events": 3}]}', "no event"),
    ],
)
def test_file_without_a_timeline_is_one_clear_error(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "timeline.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read([path])
    (problem,) = caught.value.problems
    assert words in str(problem)
    assert str(path) in str(problem)
    assert "fix: docker cp" in str(problem)


def test_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is a directory"):
        read([tmp_path])


# The picture.


def test_picture_is_a_png_of_the_same_drawing() -> None:
    made = picture("Two starts", read(STARTS))
    assert made.startswith(b"\x89PNG")
    assert len(made) > 20_000
    assert made != picture("Two starts", read(STARTS), dark=True)


def test_without_the_renderer_the_fix_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "resvg_py.py").write_text("raise ImportError('no wheel here')")
    script = "import sys; sys.path.insert(0, sys.argv.pop(1)); from warmimage.cli import main; main()"
    words = ["report", str(STARTS[0]), "--output", str(tmp_path / "r.html"), "--png", str(tmp_path / "r.png")]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr
    assert "pip install 'warmimage[png]'" in done.stderr
    assert not list(tmp_path.glob("r.*"))


# The command.


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run([sys.executable, "-m", "warmimage", *words], capture_output=True, text=True, check=False)


def test_command_writes_the_page_where_it_is_told(tmp_path: Path) -> None:
    target = tmp_path / "starts.html"
    done = run("report", *map(str, STARTS), "--title", "Two <starts>", "--output", str(target))
    assert (done.returncode, done.stdout) == (0, f"{target}\n"), done.stderr
    assert "<h1>Two &lt;starts&gt;</h1>" in target.read_text(encoding="utf-8")
    printed = run("report", *map(str, STARTS), "--title", "Two <starts>", "--output", "-")
    assert printed.stdout.rstrip("\n") == target.read_text(encoding="utf-8").rstrip("\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["missing.jsonl"], 3, "No such file"),
        (["."], 3, "this is a directory"),
        ([str(STARTS[0]), "--output", "."], 2, "the report's path is a directory"),
        ([], 2, "Missing argument"),
    ],
)
def test_command_refuses_what_it_cannot_draw(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    script = [sys.executable, "-m", "warmimage", "report", *words]
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
