"""CPython's own tests of ``multiprocessing``, run in a process that tier ``zygote`` has given a fork server.

And in one that tier ``snapshot`` has restored, which then does the same.

The tests are those of the interpreter's own ``test`` package; where an installation has none (Debian keeps it in
``libpython3-testsuite``), there is nothing to run.  Each process that they start is forked from the fork server, which
the timeline must show, or the test fails.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from warmimage.entrypoint.tiers.snapshot.native import RESTORES

from ..entrypoint.harness import SOURCE, Image, interpreters

SUITES = Path(__file__).with_name("suites")

#: Pattern of test ids -> why they are not run.
SKIPS = {
    "*.WithThreads*": "the same tests for multiprocessing.dummy, whose processes are threads: none is started",
}

#: Seconds for one suite.
PATIENCE = 600

#: Modules that the closure of the tests imports before anything is forked.
CLOSURE = ["json", "decimal", "asyncio", "concurrent.futures", "ctypes", "unittest", "test.support"]

#: What a snapshot has beside: what the test modules themselves import.
CAPTURED = [
    "multiprocessing.pool",
    "multiprocessing.managers",
    "multiprocessing.synchronize",
    "multiprocessing.shared_memory",
    "multiprocessing.heap",
    "multiprocessing.sharedctypes",
    "multiprocessing.dummy",
    "concurrent.futures.process",
    "test.support.os_helper",
    "test.support.socket_helper",
    "test.support.threading_helper",
    "array",
    "logging",
    "queue",
    "random",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "unittest.mock",
]


@dataclass(frozen=True)
class Suite:
    """Test modules that are run in one process.

    Attributes:
        modules: their names; those that the interpreter does not have are left out.
        forks: processes that must have been forked from fork servers, at least.
        only: patterns of the ids of the tests to run.
    """

    modules: tuple[str, ...]
    forks: int
    only: tuple[str, ...] = ("*",)


SPAWN = Suite(("of_spawn",), 300)
FORKSERVER = Suite(("of_forkserver",), 300)
POOLS = Suite(
    (
        "test.test_concurrent_futures.test_process_pool",
        "test.test_concurrent_futures.test_shutdown",
        "test.test_concurrent_futures.test_deadlock",
        "test.test_concurrent_futures.test_init",
        "test.test_concurrent_futures",
    ),
    100,
    ("*ProcessPool*Spawn*", "*ProcessPool*Forkserver*"),
)
SUBPROCESS = Suite(("test.test_subprocess",), 0)


@cache
def has(python: str, module: str) -> bool:
    """Return whether an interpreter has a module, a package with tests of its own not being one."""
    found = f"import importlib.util as u; s = u.find_spec({module!r}); raise SystemExit(not s or bool("
    found += "s.submodule_search_locations))"
    return subprocess.run([python, "-c", found], capture_output=True, check=False).returncode == 0


def pythons() -> list[Any]:
    """Return the interpreters that have CPython's tests; all but one of them are for a run that has the time."""
    able = {version: path for version, path in interpreters().items() if has(path, "test._test_multiprocessing")}
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    first = own if own in able else next(reversed(able), "")
    return [
        pytest.param(path, id=f"python{version}", marks=[] if version == first else pytest.mark.slow)
        for version, path in able.items()
    ] or [pytest.param("", id="none", marks=pytest.mark.skip(reason="no interpreter here has its own test package"))]


#: A parameter of each test below.
PYTHONS = pythons()


class Run:
    """A suite that runs in a tier.

    Args:
        folder: where its files go.
        python: the interpreter.
        suite: what to run.
        tier: ``snapshot``, ``zygote`` or ``plain``.
    """

    def __init__(self, folder: Path, python: str, suite: Suite, tier: str) -> None:
        folder.mkdir()
        self.image = Image(folder, python, SOURCE)
        self.image.closure({"modules": CLOSURE, "files": [], "libraries": []})
        shutil.copytree(SUITES, self.image.bin, dirs_exist_ok=True)
        self._output, self._log = folder / "output.json", folder / "log"
        modules = [name for name in suite.modules if name.startswith("of_") or has(python, name)]
        choice = json.dumps({"modules": modules, "only": suite.only, "skips": SKIPS})
        own = {"LANG": "C.UTF-8", "HOME": str(folder)}
        environment = {**self.image.environment(), **own}
        launch = self._restored(own) if tier == "snapshot" else self._launched(tier)
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [python, *launch, str(self._output), choice],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _launched(self, tier: str) -> list[str]:
        """Return what an interpreter is to run, the suite's own arguments aside."""
        zygote = [self.image.main, "zygote", str(self.image.timeline)]
        return [*(zygote if tier == "zygote" else []), str(self.image.bin / "driver.py")]

    def _restored(self, variables: dict[str, str]) -> list[str]:
        """Capture a snapshot, and return how PID 1 restores it."""
        self.image.script("driver", (SUITES / "driver.py").read_text())
        self.image.change_plan(tiers=("snapshot", "plain"))
        self.image.write_plan(command=["driver"])
        self.image.closure({"modules": [*CLOSURE, *CAPTURED], "files": [], "libraries": []})
        done = self.image.capture("--require", variables=variables)
        assert done.returncode == 0, done.stderr
        return ["-I", "-S", str(self.image.entrypoint)]

    def ends(self) -> dict[str, list[Any]]:
        """Wait for its end, and return how each test has ended: a word, the details, and seconds."""
        try:
            code = self._process.wait(PATIENCE)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-60:])
        assert code == 0, tail
        ends: dict[str, list[Any]] = json.loads(self._output.read_text())
        return ends


def failed(ends: Mapping[str, list[Any]]) -> list[str]:
    """Return the tests that have failed."""
    return [name for name, (word, *_) in ends.items() if word == "failed"]


def check(folder: Path, python: str, suites: Mapping[str, Suite], tier: str = "zygote") -> None:
    """Run suites side by side in a tier; a test that fails again by itself, and not in plain, is our fault."""
    runs = {name: Run(folder / name, python, suite, tier) for name, suite in suites.items()}
    for name, run in runs.items():
        suite, began = suites[name], time.monotonic()
        ends = run.ends()
        assert len(ends) > suite.forks // 2
        events = Counter(event["event"] for event in run.image.events())
        print(f"{name}: {Counter(word for word, *_ in ends.values())}, {events}, {time.monotonic() - began:.0f} s")
        assert events["engine.entered"] == 1
        assert events["snapshot.restored"] == (tier == "snapshot")
        assert events["zygote.forked"] >= suite.forks, "the tests' processes were not forked"
        assert not events["zygote.fallback"], {event["reason"] for event in run.image.events("zygote.fallback")}
        # As CPython's own CI does it: some of these tests know the time, and fail on a machine that is busy.
        again = _alone(folder / f"{name}-again", python, suite, failed(ends), tier)
        plain = _alone(folder / f"{name}-plain", python, suite, again, "plain")
        faults = {test: ends[test][1] for test in again if test not in plain}
        assert not faults, "\n".join(f"{test}\n{text}" for test, text in faults.items())


def _alone(folder: Path, python: str, suite: Suite, tests: Iterable[str], tier: str) -> list[str]:
    """Run some of a suite's tests once more, and return those that fail."""
    chosen = tuple(tests)
    return failed(Run(folder, python, Suite(suite.modules, 0, chosen), tier).ends()) if chosen else []


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("python", PYTHONS)
def test_multiprocessing(python: str, tmp_path: Path) -> None:
    check(tmp_path, python, {"spawn": SPAWN, "forkserver": FORKSERVER})


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("python", PYTHONS)
def test_process_pools(python: str, tmp_path: Path) -> None:
    if not any(has(python, name) for name in POOLS.modules):
        pytest.skip("this interpreter has no test.test_concurrent_futures")
    check(tmp_path, python, {"pools": POOLS})


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("python", PYTHONS)
def test_subprocess(python: str, tmp_path: Path) -> None:
    check(tmp_path, python, {"subprocess": SUBPROCESS})


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("python", PYTHONS)
def test_multiprocessing_in_a_restored_process(python: str, tmp_path: Path) -> None:
    if os.uname().machine not in RESTORES:
        pytest.skip(f"restoring is not tested on {os.uname().machine}")
    check(tmp_path, python, {"spawn": SPAWN, "forkserver": FORKSERVER}, "snapshot")


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("python", PYTHONS)
def test_process_pools_and_subprocesses_in_a_restored_process(python: str, tmp_path: Path) -> None:
    if os.uname().machine not in RESTORES:
        pytest.skip(f"restoring is not tested on {os.uname().machine}")
    pools = {"pools": POOLS} if any(has(python, name) for name in POOLS.modules) else {}
    check(tmp_path, python, {**pools, "subprocess": SUBPROCESS}, "snapshot")
