"""docs/benchmarks.md and the figures in README.md, from the results in docs/measurements/bench."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from warmimage.bench import tables
from warmimage.bench.result import Comparison, Result, State, load
from warmimage.console import human_bytes

DOCS = Path(__file__).resolve().parents[2] / "docs"
RESULTS = DOCS / "measurements" / "bench"

#: Around the figures in README.md.
BEGIN, END = "<!-- figures: begin; written by `make docs` -->", "<!-- figures: end -->"

_PAGE = """\
# Benchmarks

{header}
Each section is one result of `warmimage bench` with all of its arms; it links to the result as JSON.
[measuring.md](measuring.md) explains the method and the columns.
To repeat a measurement: `make bench`, or `warmimage bench` with an image of your own.
In results of November 2026 CRIU restored the snapshot; [snapshot.md](snapshot.md#what-it-brings) has the figures of the
present restore.

{sections}
## Against vLLM #40331

vLLM's pull request [#40331](https://github.com/vllm-project/vllm/pull/40331) was the origin of warmimage. Its author
measured three starts of each kind, cold and warm, on one H200, from the command line to the first completion.
It was merged and reverted within a day ([why](architecture.md#the-race-that-preload-cannot-have)).
Rows of different machines and models are not comparable with each other. The changes within a row are.

{origin}
"""

#: vLLM #40331 by its author's own figures: model, then before, after and change, with the page cache cold, then warm.
_ORIGIN = (
    ("Qwen2.5-0.5B-Instruct", "78.93 s", "69.89 s", "-11.5%", "45.67 s", "42.65 s", "-6.6%"),
    ("Qwen2.5-7B-Instruct", "92.44 s", "73.72 s", "-20.2%", "49.59 s", "46.88 s", "-5.5%"),
)

_NONE = "No result has been committed yet.\n"


def results() -> list[tuple[Path, Result]]:
    """Return the committed results by file, in the order of their names."""
    return [(path, load(path)) for path in sorted(RESULTS.glob("*.json"))]


def page_text(header: str) -> str:
    """Return docs/benchmarks.md."""
    found = results()
    sections = "".join(_section(path, result) for path, result in found) or _NONE
    return _PAGE.format(header=header, sections=sections, origin=_origin_table([result for _, result in found]))


def _title(result: Result) -> str:
    image = result.images[0]
    accelerator = {"cpu": "CPU", "cuda": "CUDA"}.get(str(image.accelerator), image.accelerator)
    return f"{image.engine} {image.engine_version} on {accelerator}, {result.model.name}"


def _section(path: Path, result: Result) -> str:
    image, host = result.images[0], result.host
    facts = [
        ("result", f"[{path.name}](measurements/bench/{path.name})"),
        ("date", result.date),
        ("machine", f"{host.cpus} CPUs ({host.cpu}), {human_bytes(host.memory_bytes)} of memory"),
        ("GPU", ", ".join(host.gpus) or "none"),
        ("software", f"Linux {host.kernel}, {host.docker}, warmimage {result.tool_version}"),
        ("image", f"{image.method}, Python {image.python_version}, {human_bytes(image.size_bytes)}"),
        ("model", f"{result.model.name}, {human_bytes(result.model.weight_bytes or 0)} of weights"),
        ("engine arguments", " ".join(f"`{word}`" for word in result.arms[0].arguments) or "none"),
    ]
    parts = [f"## {_title(result)}\n\n", _table(("what", "value"), facts), "\n"]
    for grid in tables.grids(result):
        parts += [f"{grid.title}:\n\n", _table(grid.columns, grid.rows), "\n"]
    notes = [f"- {note}\n" for note in tables.notes(result)]
    return "".join([*parts, *notes, "\n" if notes else ""])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _origin_table(found: Sequence[Result]) -> str:
    columns = ("measured by", "model", "cold before", "after", "change", "warm before", "after", "change")
    rows = [("vLLM #40331, H200", *written) for written in _ORIGIN]
    for result in found:
        first, last = result.arms[0].name, result.arms[-1].name
        who = f"warmimage, {_title(result).partition(',')[0]}, `{last}` against `{first}`"
        if {"cold", "warm"} <= set(result.states):
            rows.append((who, result.model.name, *_change(result, "cold"), *_change(result, "warm")))
    return _table(columns, rows).rstrip("\n")


def _change(result: Result, state: State) -> tuple[str, str, str]:
    """Return the medians of the first arm and the last in one state, and the change where there is one."""
    before, after = (result.cell(state, result.arms[at].name).figures["first_token"].median for at in (0, -1))
    change = f"{(after - before) / before:+.1%}" if _last(result, state).conclusive else "no conclusion"
    return f"{before:.2f} s", f"{after:.2f} s", change


def _last(result: Result, state: State) -> Comparison:
    """Return how the last arm compares with the first in one state."""
    wanted = (state, result.arms[-1].name, "first_token")
    return next(entry for entry in result.comparisons if (entry.state, entry.other, entry.figure) == wanted)


def readme_text(text: str) -> str:
    """Return README.md with fresh figures."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "README.md has lost the marks around its figures"  # noqa: PT018 - both or none
    return f"{before}{BEGIN}\n{figures_text([result for _, result in results()])}{END}{after}"


def without_figures(text: str) -> str:
    """Return README.md without its figures."""
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", "", text, flags=re.DOTALL)


def figures_text(results: Sequence[Result]) -> str:
    """Return README.md's figures: the last arm of each result against its first, and nothing else."""
    entries = [(result, _last(result, state)) for result in results if not result.faults for state in result.states]
    if not entries:
        return "No speed is claimed here yet: no result has been committed.\n"
    columns = {
        "time to the first token": [_title(result) for result, _ in entries],
        "page cache": [entry.state for _, entry in entries],
        **_arm_column("without", [(result, entry, entry.first) for result, entry in entries]),
        **_arm_column("with", [(result, entry, entry.other) for result, entry in entries]),
        "times as fast (95 %)": [_times_as_fast(entry) for _, entry in entries],
    }
    return _table(list(columns), list(zip(*columns.values(), strict=True)))


def _arm_column(title: str, cells: Sequence[tuple[Result, Comparison, str]]) -> dict[str, list[str]]:
    """Return a column of medians by its title, which names the arm if all rows have the same; else each cell does."""
    medians = [f"{result.cell(entry.state, arm).figures['first_token'].median:.2f} s" for result, entry, arm in cells]
    arms = [arm for _, _, arm in cells]
    if len(set(arms)) == 1:
        return {f"{title}: `{arms[0]}`": medians}
    return {title: [f"{median}, `{arm}`" for median, arm in zip(medians, arms, strict=True)]}


def _times_as_fast(entry: Comparison) -> str:
    return f"{entry.ratio:.2f} ({entry.low:.2f} to {entry.high:.2f})" if entry.conclusive else "no difference was shown"
