"""Fixtures of the tests of what runs inside an image; each process is started by every interpreter at hand."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from warmimage.entrypoint.tiers.snapshot.native import RESTORES

from .harness import NAMESPACE, SOURCE, UNPRIVILEGED, Image, interpreters, works
from .native import restores

PYTHONS = interpreters()


@pytest.fixture(scope="session", params=PYTHONS.values(), ids=[f"python{version}" for version in PYTHONS])
def python(request: pytest.FixtureRequest) -> str:
    """Return the path of an interpreter that an image may bring."""
    return str(request.param)


@pytest.fixture(scope="session")
def compiled(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the entrypoint's folder as an image has it: source with compiled bytecode."""
    folder = tmp_path_factory.mktemp("compiled") / "entrypoint"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(folder)], check=True)
    return folder


@pytest.fixture
def image(python: str, compiled: Path, tmp_path: Path) -> Image:
    """Return an image whose engine does what its arguments say."""
    return Image(tmp_path, python, compiled)


@pytest.fixture(scope="session")
def captured_once(python: str, compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Return an image with a snapshot; a test takes ``captured``, which is as the capture left it."""
    if os.uname().machine not in RESTORES:
        pytest.skip(f"restoring is not tested on {os.uname().machine}")
    image = Image(tmp_path_factory.mktemp("captured"), python, compiled)
    restores.prepare(image)
    done = image.capture("--require", variables=restores.variables(image))
    assert done.returncode == 0, done.stderr
    shutil.copytree(image.root, restores.pristine(image))
    return image


@pytest.fixture
def captured(captured_once: Image) -> Image:
    """Return an image with the tiers ``snapshot``, ``zygote``, ``preload`` and ``plain``, and with a snapshot."""
    restores.restore_files(captured_once)
    return captured_once


@pytest.fixture
def in_namespace() -> None:
    """Skip where no process may become PID 1 of a namespace of its own."""
    if not works(*NAMESPACE):
        pytest.skip("a PID namespace may not be made here (needs root or user namespaces)")


@pytest.fixture
def unprivileged() -> tuple[str, ...]:
    """Return a command prefix after which file permissions hold even for root."""
    if not works(*UNPRIVILEGED):
        pytest.skip("capabilities cannot be dropped here (needs setpriv and root)")
    return UNPRIVILEGED


@pytest.fixture
def sigterm_kept() -> Iterator[None]:
    """Put back the disposition that prefetch changes in its own process."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
