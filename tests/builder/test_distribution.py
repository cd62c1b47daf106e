"""The installed distribution: light to install, typed, whole, and in nobody's way."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from importlib.resources import files
from importlib.util import find_spec

import pytest
import warmimage
from packaging.requirements import Requirement

#: What must come through the image alone, never onto a workstation by ``pip install warmimage``.
ENGINES = {"torch", "transformers", "vllm", "sglang", "numpy", "tensorflow", "fastapi", "uvicorn"}


def test_installing_requires_no_engine() -> None:
    requirements = [Requirement(line) for line in metadata.requires("warmimage") or []]
    needed = {entry.name for entry in requirements if entry.marker is None or entry.marker.evaluate({"extra": ""})}
    assert needed
    assert needed & ENGINES == set()


def test_every_module_of_the_builder_imports_without_an_engine() -> None:
    code = (
        "import importlib, pkgutil, sys, warmimage\n"
        "for module in pkgutil.walk_packages(warmimage.__path__, 'warmimage.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        f"found = {sorted(ENGINES)!r}\n"
        "sys.exit(', '.join(name for name in found if name in sys.modules) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_distribution_is_typed_and_holds_its_templates_and_its_entrypoint() -> None:
    assert (files("warmimage") / "py.typed").is_file()
    assert (files("warmimage.templates.image") / "Dockerfile.j2").is_file()
    assert (files("warmimage.templates.image") / "warmimage.yaml.j2").is_file()
    assert (files("warmimage.entrypoint") / "__main__.py").is_file()


def test_its_version_is_a_release_number() -> None:
    assert warmimage.__version__ == metadata.version("warmimage")
    assert re.fullmatch(r"\d+\.\d+\.\d+", warmimage.__version__)


@pytest.mark.parametrize("name", ["builder", "entrypoint", "templates"])
def test_no_folder_of_the_repository_becomes_a_top_level_module_of_the_distribution(name: str) -> None:
    entries = [str(file) for file in metadata.files("warmimage") or []]
    assert [entry for entry in entries if entry.split("/")[0] in (name, f"{name}.py")] == []


def test_the_entrypoint_is_found_under_the_distributions_name() -> None:
    assert find_spec("warmimage.entrypoint.supervision.supervisor")
