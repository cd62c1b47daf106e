"""``WARMIMAGE_TRACE=imports``: the engine's imports are in the timeline, and the engine is as it would be without."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from .harness import Image

pytestmark = pytest.mark.timeout(60)

ON = {"WARMIMAGE_TRACE": "imports", "WARMIMAGE_PREFETCH": "off"}

#: An engine that imports a package with a module inside, then spawns and forks a child that import one more each.
ENGINE = """
import multiprocessing, os, sys
import outer

def child(name):
    __import__(name)

if __name__ == "__main__":
    for method, name in (("spawn", "one"), ("fork", "two")):
        process = multiprocessing.get_context(method).Process(target=child, args=(name,), name=f"worker-{name}")
        process.start()
        process.join()
        assert process.exitcode == 0
    print(sys.path, os.environ.get("MARK"), "sitecustomize" in sys.modules, sys.modules.get("sitecustomize"))
"""


@pytest.fixture
def packages(image: Image) -> Path:
    """A folder on the engine's path with what it imports."""
    folder = image.root / "packages"
    (folder / "outer").mkdir(parents=True)
    (folder / "outer" / "__init__.py").write_text("import outer.inner\n")
    for name in ("outer/inner", "one", "two"):
        (folder / f"{name}.py").write_text("")
    return folder


def run(image: Image, packages: Path, tier: str, **variables: str) -> str:
    """Run the engine in a tier and return what it printed."""
    script = image.script("importer", ENGINE)
    script = script.rename(script.with_suffix(".py"))  # a spawned child imports it again, by its file
    image.write_plan(command=[str(script)])
    ended = image.run(PYTHONPATH=str(packages), WARMIMAGE_START=tier, **variables)
    assert ended.code == 0, ended.err
    return ended.out.decode()


def modules(image: Image) -> dict[str, set[str]]:
    """Return the modules that each process imported, by the process's name."""
    found: dict[str, set[str]] = {}
    for event in image.events("imports"):
        found.setdefault(event["process"], set()).update(row[0] for row in event["modules"])
    return found


@pytest.mark.parametrize("tier", ["plain", "preload"])
def test_every_process_of_the_engine_writes_its_imports(image: Image, packages: Path, tier: str) -> None:
    run(image, packages, tier, **ON)
    found = modules(image)
    assert {"outer", "outer.inner", "multiprocessing"} <= found["engine"]
    assert "one" in found["worker-one"]
    assert "two" in found["worker-two"]
    rows: list[list[Any]] = next(
        event["modules"] for event in image.events("imports") if event["modules"][-1][0] == "outer"
    )
    (inner, outer) = rows[-2:]
    assert (inner[0], outer[0], inner[4], outer[4]) == ("outer.inner", "outer", 1, 0)
    assert outer[1] <= inner[1]
    assert inner[1] + inner[2] <= outer[1] + outer[2] + 2e-6
    assert outer[3] == pytest.approx(outer[2] - inner[2], abs=1e-5)
    assert image.events("trace.started")[0]["what"] == "imports"
    assert len(image.events("trace.entered")) >= 3


def test_traced_engine_has_its_own_path_and_its_own_sitecustomize(image: Image, packages: Path) -> None:
    (packages / "sitecustomize.py").write_text("import os\nos.environ['MARK'] = 'the engine\\'s own'\n")
    plain = run(image, packages, "plain", WARMIMAGE_PREFETCH="off")
    assert not image.events("imports")
    assert run(image, packages, "plain", **ON) == plain
    assert "the engine's own" in plain
    assert str(packages / "sitecustomize.py") in plain
    assert image.events("imports")


def test_without_the_variable_nothing_is_traced(image: Image) -> None:
    image.write_plan(command=["env"])
    settings = {"WARMIMAGE_START": "plain", "WARMIMAGE_PREFETCH": "off"}
    untraced = image.run(**settings).out.decode().split()
    assert sorted(untraced) == sorted(f"{name}={value}" for name, value in image.environment(**settings).items())
    assert not [event for event in image.events() if event["event"].startswith("trace.")]
    traced = set(image.run(**settings, WARMIMAGE_TRACE="imports").out.decode().split()) - set(untraced)
    assert {row.partition("=")[0] for row in traced} == {"WARMIMAGE_TRACE", "WARMIMAGE_TRACE_TARGET", "PYTHONPATH"}


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"WARMIMAGE_TRACE": "everything"}, "takes 'imports' alone"),
        ({"WARMIMAGE_TRACE": "imports", "WARMIMAGE_TIMELINE": ""}, "no timeline"),
    ],
)
def test_trace_that_cannot_be_is_declined(image: Image, variables: dict[str, str], reason: str) -> None:
    image.write_plan(command=["env"])
    ended = image.run(WARMIMAGE_START="plain", WARMIMAGE_PREFETCH="off", **variables)
    assert ended.code == 0
    assert "PYTHONPATH" not in ended.out.decode()
    (line,) = ended.said
    assert line.startswith("trace skipped: ")
    assert reason in line
    if "WARMIMAGE_TIMELINE" not in variables:
        assert image.events("trace.declined")[0]["reason"] in line


def test_help_is_not_traced(image: Image) -> None:
    assert image.run("--help", **ON).out == b"usage: engine\n"
    assert not image.events("trace.started")


def test_broken_trace_costs_one_line_and_never_the_engine(image: Image, packages: Path) -> None:
    for file in image.entrypoint.rglob("hook.*"):
        file.unlink()
    script = image.script("importer", "import outer; print('served')")
    image.write_plan(command=[str(script)])
    ended = image.run(PYTHONPATH=str(packages), WARMIMAGE_START="plain", **ON)
    assert (ended.code, ended.out) == (0, b"served\n")
    (line,) = ended.said
    assert line.startswith("trace skipped: ModuleNotFoundError")


def test_events_are_json_that_names_the_thread(image: Image, packages: Path) -> None:
    text = "import threading\nthread = threading.Thread(target=__import__, args=('outer',), name='loader')\n"
    script = image.script("importer", text + "thread.start()\nthread.join()\n")
    image.write_plan(command=[str(script)])
    assert image.run(PYTHONPATH=str(packages), WARMIMAGE_START="plain", **ON).code == 0
    (event,) = [event for event in image.events("imports") if event["thread"] == "loader"]
    assert json.loads(json.dumps(event["modules"]))[-1][0] == "outer"
    assert sys.version_info >= (3, 10)
