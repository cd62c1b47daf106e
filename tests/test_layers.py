"""The layers that ``[tool.importlinter]`` in pyproject.toml declares hold in the installed wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import warmimage

PROJECT = Path(__file__).parents[1] / "pyproject.toml"

LINT = "import sys; from importlinter.cli import lint_imports as lint; sys.exit(lint(sys.argv[1], cache_dir=None))"


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    """Check the package that a process started in ``directory`` imports."""
    command = [sys.executable, "-c", LINT, str(PROJECT)]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_no_module_imports_from_a_higher_layer_or_in_a_cycle(tmp_path: Path) -> None:
    done = lint(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken." in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("errors.py", "from . import cli", "warmimage.errors -> warmimage.cli"),
        ("doctor/table.py", "from ..runner import run", "warmimage.doctor.table -> warmimage.runner"),
        ("entrypoint/settings.py", "from ..plan import Plan", "warmimage.entrypoint.settings -> warmimage.plan"),
        (
            "entrypoint/tiers/base.py",
            "def late(): from .snapshot import tier",
            "warmimage.entrypoint.tiers.base -> warmimage.entrypoint.tiers.snapshot.tier",
        ),
        ("bench/statistics.py", "from . import verdict", "No cycles are allowed in warmimage.bench."),
        ("newcomer.py", "", "newcomer"),
    ],
    ids=["upward", "sideways", "entrypoint-to-builder", "in-a-function", "cycle", "without-a-layer"],
)
def test_a_wrong_import_is_found(module: str, line: str, broken: str, tmp_path: Path) -> None:
    copy = tmp_path / "warmimage"
    shutil.copytree(Path(warmimage.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with open(copy / module, "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert broken in done.stdout
