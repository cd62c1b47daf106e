"""``warm`` on a network volume, a FUSE file system that the tests serve: one that hangs, and one that tells nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from warmimage.entrypoint.warm import readiness
from warmimage.entrypoint.warm.http_api import PACKAGES

from tests.support.slow_volume import mounted

from .harness import SOURCE
from .warming import MIB, events, model, sidecar, wait_for, warming

pytestmark = pytest.mark.timeout(180)


def test_a_volume_that_hangs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "STALL", 0.5)
    model(tmp_path / "model", 4 * MIB)
    with mounted(tmp_path / "model", tmp_path / "mount") as volume:
        volume.hang()
        with warming(tmp_path, [volume.path]) as (warmer, _):
            wait_for(lambda: "does the volume hang?" in warmer.state().reason)
            assert str(volume.path) in warmer.state().reason
            volume.hang(False)
            wait_for(lambda: warmer.state().complete)


@pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in PACKAGES), reason="needs the HTTP API")
def test_a_hung_volume_keeps_nobody_from_asking_or_stopping(tmp_path: Path) -> None:
    model(tmp_path / "model", 4 * MIB)
    with mounted(tmp_path / "model", tmp_path / "mount") as volume:
        volume.hang()
        words = ("--dir", str(volume.path), "--targets", "weights", "--deadline", "4", "--on-exit", "drop")
        with sidecar(tmp_path, *words) as made:
            assert made.ask("/healthz")[0] == 200
            assert made.ask("/readyz")[0] == 503
            wait_for(lambda: made.ask("/readyz")[0] == 200)
            assert made.ask("/metrics")[0] == 200
            made.process.send_signal(signal.SIGTERM)
            assert made.process.wait(25) == 0
            assert [event["event"] for event in events(made.timeline)][-1] == "warm.stopped"


def test_what_the_kernel_tells_nothing_of_is_unknown_and_is_read_once(
    tmp_path: Path, unprivileged: tuple[str, ...]
) -> None:
    (path,) = model(tmp_path / "model", 6 * MIB)
    path.chmod(0o444)
    os.chown(path, 65534, 65534)
    timeline = tmp_path / "timeline.jsonl"
    with mounted(tmp_path / "model", tmp_path / "mount") as volume:
        command = [*unprivileged, sys.executable, "-I", "-S", str(SOURCE), "warm", "--once", "--targets", "weights"]
        environment = {**os.environ, "WARMIMAGE_TIMELINE": str(timeline)}
        done = subprocess.run([*command, "--dir", str(volume.path)], env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert b"of 6.0 MiB the kernel does not tell this user" in done.stderr
        (looked,) = events(timeline, "warm.looked")
        assert looked["unknown_bytes"] == 6 * MIB
        asked = sum(size for name, _, size in volume.requests() if name == path.name)
        assert 6 * MIB <= asked <= 10 * MIB, "once, and what was tried"


def test_a_slow_volume_on_a_workstation_is_shown_as_json(tmp_path: Path) -> None:
    model(tmp_path / "model", 6 * MIB)
    with mounted(tmp_path / "model", tmp_path / "mount") as volume:
        command = [str(Path(sys.executable).parent / "warmimage"), "warm", str(volume.path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert {Path(file["path"]).name: (file["resident"], file["known"]) for file in told["files"]} == {
            "config.json": (2, "exact"),
            "model-00001-of-00001.safetensors": (6 * MIB, "exact"),
        }
        asked = [(offset, size) for name, offset, size in volume.requests() if name.endswith(".safetensors")]
        assert sum(size for _, size in asked) == 6 * MIB, "each byte once"
