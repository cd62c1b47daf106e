"""A session on the machine: arms in turn, and results on disk after every run."""

from __future__ import annotations

import contextlib
import json
import statistics
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from warmimage.plan import Plan

from .image import Engine
from .start import Arm, start


class Session:
    """Collects runs.

    Args:
        output: folder for the results: ``results.json``, and ``files.tgz`` with timelines and logs.
        facts: of the machine.
        deadline: monotonic time after which no run is begun.
    """

    def __init__(self, output: Path, facts: dict[str, Any], deadline: float) -> None:
        self.output = output
        self._facts = facts
        self._deadline = deadline
        self._runs: list[dict[str, Any]] = []
        self._steps: dict[str, float] = {}
        self._files = Path("/tmp", f"gpu-files-{time.time_ns()}")
        self._began = time.monotonic()
        output.mkdir(parents=True, exist_ok=True)

    def folder(self, name: str) -> Path:
        """Return a folder for the files of one run."""
        return self._files / name

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step of the preparation."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._steps[name] = round(time.monotonic() - began, 2)
            self._say(f"{name}: {self._steps[name]} s")
            self._write()

    def bench(self, name: str, rounds: int, arms: Sequence[Arm], plan: Plan, engine: Engine, model: Path) -> None:
        """Start arms in turn, as often as asked for, as long as there is time; each round begins with another arm."""
        failed: set[str] = set()
        for number in range(rounds):
            shift = number % len(arms)
            for arm in (*arms[shift:], *arms[:shift]):
                if arm.name in failed:
                    continue
                if time.monotonic() > self._deadline:
                    self._say(f"{name} {arm.name}: no time left")
                    return
                folder = self.folder(f"{name}-{arm.name}-{number}-{len(self._runs)}")
                try:
                    seen = start(arm, plan, engine, model, folder)
                except Exception as error:
                    seen = {"arm": arm.name, "error": repr(error)[:600]}
                run = {"bench": name, "round": number, **seen}
                if "error" in run:
                    failed.add(arm.name)  # an arm that cannot start must not take the others' time
                self.add(run)

    def add(self, run: dict[str, Any]) -> None:
        """Keep a run."""
        self._runs.append(run)
        line = {key: run.get(key) for key in ("ready", "first_token", "tier", "said", "compilers", "later_imports")}
        for key in ("declined", "passed", "caches", "prefetch", "phases", "error", "load", "tail"):
            if run.get(key):
                line[key] = run[key]
        self._say(f"{run['bench']} {run['arm']}: {json.dumps(line)}")
        self._write()

    def problems(self) -> list[str]:
        """Return what makes the figures worthless: starts that failed, other tiers, other answers, caches not taken."""
        found = [f"{run['bench']} {run['arm']}: {run['error']}" for run in self._runs if "error" in run]
        for run in self._runs:
            tier, caches = run["arm"].split("-")[:2]
            wanted = {"own": "plain"}.get(tier, tier)
            if run["bench"] == "decline" or "error" in run:
                continue
            if run["tier"] != wanted:
                found.append(f"{run['bench']} {run['arm']}: came up in tier {run['tier']}")
            if run["bench"] not in ("record", "compile") and caches != "empty" and not run["said"]["hits"]:
                found.append(f"{run['bench']} {run['arm']}: the engine took no compiled code from its caches")
        for name, arms in self._by_arm().items():
            said = {run["completion_sha256"] for runs in arms.values() for run in runs if "completion_sha256" in run}
            if len(said) > 1:
                found.append(f"{name}: its arms gave {len(said)} different completions")
        return found

    def show(self) -> None:
        """Print medians and ratios to plain."""
        for name, arms in self._by_arm().items():
            for arm, runs in arms.items():
                ready = [run["ready"] for run in runs if "ready" in run]
                token = [run["first_token"] for run in runs if "first_token" in run]
                if ready and token:
                    print(
                        f"{name:6} {arm:24} n={len(ready)} ready {statistics.median(ready):7.2f} "
                        f"({min(ready):.2f} to {max(ready):.2f}) first token {statistics.median(token):7.2f}"
                    )
            said = {str(run.get("completion_sha256"))[:8] for runs in arms.values() for run in runs}
            print(f"{name}: completions {', '.join(sorted(said))}")

    def _by_arm(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        found: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for run in self._runs:
            found.setdefault(run["bench"], {}).setdefault(run["arm"], []).append(run)
        return found

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:6.1f}] {text}", flush=True)

    def _write(self) -> None:
        data = {"machine": self._facts, "steps": self._steps, "runs": self._runs}
        temporary = self.output / "results.json.tmp"
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        temporary.rename(self.output / "results.json")
        if self._files.exists():
            with tarfile.open(self.output / "files.tgz.tmp", "w:gz", compresslevel=3) as archive:
                archive.add(self._files, "files")
            (self.output / "files.tgz.tmp").rename(self.output / "files.tgz")
