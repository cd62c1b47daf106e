"""The start-up ladder: which tier starts the engine, and when another one is tried."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import SOURCE, Image, free_port

pytestmark = pytest.mark.timeout(60)


def test_auto_starts_in_preload_and_plain_is_as_asked(image: Image) -> None:
    assert image.run(image.mark, "end:0").said == []
    assert image.run(image.mark, "end:0", WARMIMAGE_START="plain").said == []
    assert image.started == ["preload", "plain"]


def test_crash_before_ready_falls_to_plain_once(image: Image) -> None:
    ended = image.run(image.mark, "preload?kill:SIGSEGV", "end:7")
    assert image.started == ["preload", "plain"]
    assert ended.code == 7
    assert ended.said == ["preload failed: the engine was killed by SIGSEGV before it was ready; trying the next tier"]
    assert [(event["tier"], event["reason"]) for event in image.events("tier.failed")] == [
        ("preload", "the engine was killed by SIGSEGV before it was ready")
    ]


def test_failure_is_tried_once_more_and_no_more(image: Image) -> None:
    with (image.entrypoint / "tiers" / "__init__.py").open("a") as file:
        file.write("\nclass First(Preload):\n    name = 'first'\n\nTIERS = (First(), *TIERS)\n")
    shutil.rmtree(image.entrypoint / "tiers" / "__pycache__")
    image.change_plan(tiers=("first", "preload", "plain"))
    ended = image.run(image.mark, "end:1")
    assert (ended.code, image.started) == (1, ["preload", "preload"]), "plain is the third"
    assert len(ended.said) == len(image.events("tier.failed")) == 1
    ended = image.run(image.mark, "end:1", WARMIMAGE_START="preload")
    assert (ended.code, image.started[2:]) == (1, ["preload", "plain"])


@pytest.mark.parametrize(
    ("word", "code"), [("end:0", 0), ("end:2", 2), ("kill:SIGKILL", 137)], ids=["done", "usage", "killed"]
)
def test_what_no_tier_could_change_is_not_tried_again(image: Image, word: str, code: int) -> None:
    ended = image.run(image.mark, word)
    assert (ended.code, ended.said, image.started) == (code, [], ["preload"])


def test_nothing_is_tried_again_once_the_server_was_ready(image: Image) -> None:
    port = str(free_port())
    ended = image.run("--port", port, image.mark, "listen", "serve:200", "until:ready", "kill:SIGSEGV")
    assert (ended.code, image.started) == (139, ["preload"])
    assert not image.events("tier.failed")


def test_unknown_tier_is_said_and_the_ladder_is_climbed(image: Image) -> None:
    ended = image.run(image.mark, "end:3", WARMIMAGE_START="warp", WARMIMAGE_PREFETCH="off")
    assert ended.said[0] == "warp skipped: WARMIMAGE_START names no tier of this image, which has preload, plain"
    assert (ended.code, image.started) == (3, ["preload", "plain"])


def test_help_answers_at_once_without_a_model(image: Image) -> None:
    shutil.rmtree(image.model)
    ended = image.run("--help")
    assert (ended.code, ended.out) == (0, b"usage: engine\n")
    assert ended.said == ["preload skipped: --help ends before anything is worth preloading"]
    assert ended.seconds < 3


def test_preload_declines_an_image_without_a_closure(image: Image) -> None:
    (image.root / "closure.json").unlink()
    ended = image.run(image.mark, "end:3")
    assert (ended.code, image.started) == (3, ["plain"])
    assert ended.said == [f"preload skipped: the image has no {image.root}/closure.json"]


@pytest.mark.parametrize("command", [["sh", "-c", "exit 9"], ["{python}", "-c", "exit(9)"]], ids=["binary", "-c"])
def test_preload_declines_an_engine_that_it_cannot_become(image: Image, command: list[str]) -> None:
    image.write_plan(command=[word.format(python=image.python) for word in command])
    ended = image.run()
    assert (ended.code, len(ended.said)) == (9, 1)
    assert "neither a Python script on PATH nor an interpreter with -m" in ended.said[0]
    assert image.events("tier.declined")[0]["tier"] == "preload"


@pytest.mark.parametrize("wrong", ["--port=99999", "--host=999.1.1.1"])
def test_wrong_address_is_left_for_the_engine_to_refuse(image: Image, wrong: str) -> None:
    ended = image.run(wrong, "sleep:0.1", "err:bad address", "end:2")
    assert (ended.code, ended.err) == (2, b"bad address\n")


def test_damaged_closure_costs_the_server_nothing(image: Image) -> None:
    (image.root / "closure.json").write_text('{"files": [')
    ended = image.run(image.mark, "until:prefetch.ended", "end:0")
    assert (ended.code, ended.said, image.started) == (0, [], ["preload"])
    assert "JSONDecodeError" in image.events("libraries.declined")[0]["reason"]


def test_fault_of_ours_before_the_start_leaves_the_engines_own_command(image: Image) -> None:
    with (image.entrypoint / "tiers" / "preload" / "tier.py").open("a") as file:
        file.write("\nPreload.check = lambda *_arguments: 1 / 0\n")
    shutil.rmtree(image.entrypoint / "tiers" / "preload" / "__pycache__")
    ended = image.run(image.mark, "out:served", "end:3")
    assert (ended.code, ended.out, image.started) == (3, b"served\n", ["plain"])
    assert ended.said == ["supervisor skipped: ZeroDivisionError('division by zero'); starting the engine as it is"]
    assert image.events("supervisor.failed")


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_broken_plan_ends_with_70_and_one_line(image: Image, text: str | None) -> None:
    plan = image.root / "plan.json"
    if text is None:
        plan.unlink()
    else:
        plan.write_text(text)
    ended = image.run(image.mark)
    assert (ended.code, image.started) == (70, [])
    assert ended.err.count(b"\n") == 1
    assert "plan cannot be read" in ended.said[0]


HUB = """
import os
import types
def model_info(repository, *, revision):
    names = ("model.safetensors", "pytorch_model.bin")
    return types.SimpleNamespace(siblings=[types.SimpleNamespace(rfilename=name) for name in names])
def snapshot_download(repository, *, revision, local_dir, ignore_patterns):
    assert ignore_patterns == ["pytorch_model.bin"], ignore_patterns
    assert "HF_HUB_OFFLINE" not in os.environ
    if os.environ.get("REFUSED"):
        raise OSError("no route to the hub\\nsecond line")
    with open(os.path.join(local_dir, "model.safetensors"), "w") as file:
        file.write(f"{repository} {revision}")
    print("downloading")
"""


def test_download_happens_once_and_its_failure_ends_with_69(image: Image) -> None:
    (image.root / "huggingface_hub.py").write_text(HUB)
    shutil.rmtree(image.model)
    image.model.mkdir()
    image.change_plan(weights="download")
    variables = {"PYTHONPATH": str(image.root), "HF_HUB_OFFLINE": "1", "WARMIMAGE_PREFETCH": "off"}

    refused = image.run(image.mark, "end:0", REFUSED="1", **variables)
    assert (refused.code, image.started) == (69, [])
    assert refused.said == ["error: cannot download org/model at abc: no route to the hub"]
    assert refused.err.count(b"\n") == 1

    assert image.run(image.mark, "end:0", **variables).out == b"downloading\n"
    assert (image.model / "model.safetensors").read_text() == "org/model abc"
    assert image.run(image.mark, "end:0", **variables).out == b"", "the second start needs no network"
    assert image.started == ["preload", "preload"]


def test_image_without_the_hub_library_ends_with_69(image: Image) -> None:
    (image.root / "huggingface_hub.py").write_text("import no_such_module")
    image.change_plan(weights="download")
    ended = image.run(image.mark, PYTHONPATH=str(image.root))
    assert (ended.code, image.started) == (69, [])
    assert ended.said == ["error: cannot download org/model at abc: No module named 'no_such_module'"]


def test_hub_out_of_reach_does_not_make_half_a_download_a_whole_one(tmp_path: Path) -> None:
    """The real library is content with a folder that has anything in it, and only warns."""
    (tmp_path / "config.json").write_text("{}")
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{free_port()}", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, str(SOURCE / "__main__.py"), "download", "org/model", "0" * 40, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 69
    assert done.stderr.startswith("warmimage: error: cannot download org/model at 0000")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".warmimage-revision").exists()


@pytest.mark.usefixtures("in_namespace")
def test_next_tier_meets_nothing_that_the_failed_one_left_running(image: Image) -> None:
    ended = image.run("preload?leave", "preload?end:1", "alone", "end:0")
    assert (ended.code, ended.out) == (0, b"[]\n")
    assert [event["processes"] for event in image.events("engine.leftovers_killed")] == [1]
