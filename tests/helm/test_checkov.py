"""Security rules of others: checkov finds nothing but what ``checkov.yaml`` gives a reason for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from platformdirs import user_cache_path

from .cases import CASES, rendered

#: In an environment of its own, for its hundred requirements would decide on those of the project.
CHECKOV = "checkov==3.3.30"


@pytest.fixture(scope="module")
def checkov() -> Path:
    """The program, installed once for this user."""
    folder = user_cache_path("warmimage-tests") / CHECKOV
    program = folder / "bin" / "checkov"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", CHECKOV]
        subprocess.run(install, check=True, capture_output=True)
        (folder / "installed").touch()
    return program


@pytest.mark.slow
def test_every_finding_has_a_reason(checkov: Path, tmp_path: Path) -> None:
    """No rule fails in any case but those that are waived, and none is waived that never fails."""
    waived = yaml.safe_load((Path(__file__).parent / "checkov.yaml").read_text(encoding="utf-8"))
    assert all(len(rule["reason"]) > 40 for rule in waived.values())
    for file in CASES:
        (tmp_path / file.name).write_text(yaml.safe_dump_all(rendered(file)), encoding="utf-8")
    command = [str(checkov), "--directory", str(tmp_path), "--framework", "kubernetes", "--quiet", "--compact"]
    command += ["--skip-download", "--output", "json"]
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    results = json.loads(done.stdout)["results"]["failed_checks"]
    used, unexplained = set(), []
    for each in results:
        rule, resource = each["check_id"], each["resource"].partition(".app.kubernetes.io/")[0]
        if rule in waived and re.search(waived[rule]["only"], resource):
            used.add(rule)
        else:
            unexplained.append(f"{rule} {each['check_name']}: {resource} in {each['file_path']}")
    assert unexplained == []
    assert set(waived) == used, "waived, and never found"
