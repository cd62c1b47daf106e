"""The HTTP API of ``warm``: what probes, scrapes and people are told, and how the process ends."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warmimage.entrypoint.pagecache.syscalls import resident_bytes
from warmimage.entrypoint.warm.http_api import PACKAGES

from tests.support.page_cache import resident, undisturbed

from .harness import SOURCE, evict
from .warming import MIB, Sidecar, events, model, sidecar, wait_for

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in PACKAGES), reason="needs the packages of the HTTP API"
    ),
]


def scrape(made: Sidecar) -> dict[str, float]:
    """Return the samples of one scrape by name and labels."""
    status, text = made.ask("/metrics")
    assert status == 200
    rows = (row.rpartition(" ") for row in text.splitlines() if row and not row.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def of(samples: dict[str, float], name: str, target: str = "weights") -> float:
    return samples[f'warmimage_warm_{name}{{target="{target}"}}']


@undisturbed
def test_a_sidecar_becomes_ready_says_what_is_resident_and_ends_at_once(tmp_path: Path) -> None:
    (path,) = model(tmp_path / "model", 6 * MIB)
    evict(path)
    with sidecar(tmp_path, "--dir", str(tmp_path / "model"), "--targets", "weights", "--on-exit", "drop") as made:
        wait_for(lambda: made.ask("/readyz")[0] == 200)
        assert made.ask("/readyz")[1].startswith("warm: 6.0 MiB of 6.0 MiB are resident")
        assert resident(path) == 6 * MIB
        samples = scrape(made)
        assert of(samples, "wanted_bytes") == of(samples, "resident_bytes") == 6 * MIB + 2
        assert of(samples, "missing_bytes") == of(samples, "unknown_bytes") == of(samples, "over_budget_bytes") == 0
        assert samples["warmimage_warm_ready"] == samples["warmimage_warm_complete"] == 1
        assert of(samples, "time_to_warm_seconds") > 0
        told = json.loads(made.ask("/status")[1])
        assert told["targets"]["weights"]["resident"] == 6 * MIB + 2
        assert (told["phase"], told["ready"], told["complete"]) == ("waiting", True, True)
        assert made.ask("/nothing")[0] == 404
        made.process.send_signal(signal.SIGTERM)
        assert made.process.wait(20) == 0
    assert resident_bytes(str(path)) == 0
    assert [event["event"] for event in events(made.timeline)][-2:] == ["warm.dropped", "warm.stopped"]


@undisturbed
def test_every_scrape_while_it_warms_adds_up_and_only_grows(tmp_path: Path) -> None:
    paths = model(tmp_path / "model", 20 * MIB, 20 * MIB)
    evict(*paths)
    words = ("--dir", str(tmp_path / "model"), "--targets", "weights,image", "--rate", "12Mi")
    with sidecar(tmp_path, *words) as made:
        seen, ready = [], []
        while not ready or not ready[-1]:
            status, _ = made.ask("/readyz")
            samples = scrape(made)
            ready.append(status == 200)
            seen.append(of(samples, "resident_bytes"))
            parts = [of(samples, f"{name}_bytes") for name in ("resident", "unknown", "missing", "over_budget")]
            assert sum(parts) == of(samples, "wanted_bytes")
            assert not ready[-1] or samples["warmimage_warm_complete"] == 1
            time.sleep(0.02)
    assert seen == sorted(seen)
    assert len(set(seen)) > 2, "it was seen to grow"
    assert ready[0] is False


def test_metrics_pass_the_linter(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    model(tmp_path / "model", MIB)
    with sidecar(tmp_path, "--dir", str(tmp_path / "model"), "--targets", "weights") as made:
        wait_for(lambda: made.ask("/readyz")[0] == 200)
        text = made.ask("/metrics")[1]
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_not_ready_for_a_reason_until_the_deadline(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with sidecar(tmp_path, "--dir", str(tmp_path / "model"), "--targets", "weights", "--deadline", "3") as made:
        status, text = wait_for(lambda: made.ask("/readyz"))
        assert status == 503
        wait_for(lambda: "no weights in" in made.ask("/readyz")[1])
        wait_for(lambda: made.ask("/readyz")[0] == 200)
        status, text = made.ask("/readyz")
        assert (status, text) == (200, f"ready all the same after 3 s: weights: no weights in {tmp_path / 'model'}\n")
        assert made.ask("/healthz") == (200, "ok\n")
        wait_for(lambda: events(made.timeline, "warm.overdue"))


def test_a_port_that_is_taken_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-I", "-S", str(SOURCE), "warm", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 69
    assert done.stderr == f"warmimage: error: warm: port {port}: Address already in use; another one: --port\n"
