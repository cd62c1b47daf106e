"""The harness's own parts that need no GPU; that it says why it measures nothing here."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import machine, shapes
from benchmarks.gpu.session import Session
from benchmarks.gpu.start import Arm


def test_without_a_gpu_it_says_so_and_does_nothing(tmp_path: Path) -> None:
    if not machine.missing("cuda"):
        pytest.skip("this machine has a GPU")
    command = [sys.executable, "-m", "benchmarks.gpu", "--output", str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("skipped: ")
    assert not (tmp_path / "results").exists()


def test_an_arm_is_read_from_its_name() -> None:
    arm = Arm.parse("own/warm/cold+WARMIMAGE_TRACE=imports@20")
    assert (arm.name, arm.load) == ("own-warm-cold", 20.0)
    environment = arm.environment()
    assert environment["WARMIMAGE_START"] == "plain"
    assert environment["WARMIMAGE_PREFETCH"] == environment["WARMIMAGE_CACHES"] == "off"
    assert environment["WARMIMAGE_TRACE"] == "imports"
    with pytest.raises(ValueError, match="no arm"):
        Arm.parse("plain/lukewarm/cold")


def test_figures_that_are_worth_nothing_are_named(tmp_path: Path) -> None:
    session = Session(tmp_path, {}, 0.0)
    good = {"bench": "0.5b", "arm": "own-warm-warm", "tier": "plain", "said": {"hits": 1}, "completion_sha256": "a"}
    session.add(good)
    session.add({**good, "arm": "own-empty-cold", "said": {"hits": 0}})
    assert session.problems() == []
    session.add({**good, "arm": "snapshot-baked-warm", "tier": "zygote"})
    session.add({**good, "arm": "plain-warm-warm", "said": {"hits": 0}, "completion_sha256": "b"})
    session.add({"bench": "7b", "arm": "plain-warm-warm", "error": "TimeoutError"})
    assert session.problems() == [
        "7b plain-warm-warm: TimeoutError",
        "0.5b snapshot-baked-warm: came up in tier zygote",
        "0.5b plain-warm-warm: the engine took no compiled code from its caches",
        "0.5b: its arms gave 2 different completions",
    ]


def test_a_model_is_whole_and_says_only_what_its_tokenizer_knows(tmp_path: Path) -> None:
    folder = shapes.make("tiny", tmp_path / "tiny")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    data = (folder / "model-00001-of-00001.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    assert set(index["weight_map"]) == set(header) - {"__metadata__"}
    assert len(data) == 8 + length + index["metadata"]["total_size"]
    begin, end = header["model.embed_tokens.weight"]["data_offsets"]
    hidden = header["model.embed_tokens.weight"]["shape"][1]
    last = data[8 + length + end - 2 * hidden : 8 + length + end]
    assert not any(last), "no logit for what the tokenizer has no word for"
    assert any(data[8 + length + begin : 8 + length + begin + 2 * hidden])
