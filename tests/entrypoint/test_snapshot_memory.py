"""Captured memory is what its owner takes it for: each allocator allocates, trims and moves it after a restore."""

from __future__ import annotations

import glob
import json
from pathlib import Path

import pytest

from .harness import Image
from .native import restores

pytestmark = pytest.mark.timeout(180)

#: Allocator -> Debian's package, and the library in it.
PRELOADED = {
    "jemalloc": ("libjemalloc2", "libjemalloc.so.2"),
    "mimalloc": ("libmimalloc2.0", "libmimalloc.so.2*"),
}

PROGRAM = (restores.HERE / "allocations.py").read_text()


def served(image: Image, allocator: str) -> None:
    """Run the program in a restored process, and see that nothing is lost."""
    image.script("engine", PROGRAM)
    ended = image.run(allocator, **restores.variables(image))
    assert (ended.code, ended.out, ended.err) == (0, b"whole\n", b"")
    assert image.tiers == ["snapshot"]


def test_with_the_c_librarys_allocator(captured: Image) -> None:
    served(captured, "libc.so.6")


@pytest.mark.parametrize("allocator", PRELOADED)
def test_with_an_allocator_that_the_image_preloads(python: str, compiled: Path, tmp_path: Path, allocator: str) -> None:
    package, pattern = PRELOADED[allocator]
    found = glob.glob(f"/usr/lib/*-linux-gnu/{pattern}")
    if not found:
        pytest.skip(f"no {allocator} here (apt-get install {package})")
    image = Image(tmp_path, python, compiled)
    restores.prepare(image, preload=found[0])
    done = image.capture("--require", variables=restores.variables(image))
    assert done.returncode == 0, done.stderr
    served(image, f"lib{allocator}")
    assert allocator in json.dumps(json.loads((image.snapshot / "manifest.json").read_text())["files"])


def test_the_program_finds_a_lost_byte(captured: Image) -> None:
    """Before the capture's content is taken for whole, see that another content is not."""
    captured.script("engine", "import before\nbefore.BLOCKS[-1].seed += 1\n" + PROGRAM)
    ended = captured.run("libc.so.6", WARMIMAGE_START="zygote", **restores.variables(captured))
    assert ended.code == 1
    assert b"are damaged when it was restored" in ended.err
