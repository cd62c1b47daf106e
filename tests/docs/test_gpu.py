"""The tables of docs/gpu.md agree with the committed runs."""

from __future__ import annotations

import json
import re
import statistics
from collections import defaultdict

from .readme import ROOT

DOCS = ROOT / "docs"


def test_each_cell_is_of_committed_runs() -> None:
    cells = set()
    for file in (DOCS / "measurements").glob("gpu-*.json"):
        seconds = defaultdict(list)
        for run in json.loads(file.read_text(encoding="utf-8"))["runs"]:
            seconds[run["bench"], run["model"], run["arm"]].append(run["first_token"])
        cells |= {f"{statistics.median(arm):.1f} ({min(arm):.1f} to {max(arm):.1f})" for arm in seconds.values()}
    shown = re.findall(r"\d+\.\d \(\d+\.\d to \d+\.\d\)", (DOCS / "gpu.md").read_text(encoding="utf-8"))
    assert len(shown) > 10
    assert set(shown) <= cells
