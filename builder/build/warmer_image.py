"""The warmer image, and the packages that the command ``warm`` of other images misses."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

import docker
from platformdirs import user_cache_path

from .. import __version__
from ..config.model import Config
from ..console import human_bytes, note, phase
from ..docker_api import buildkit, daemon, temporary_container
from ..docker_api.buildkit import Progress
from ..engines import EngineAdapter
from ..entrypoint.warm.http_api import PACKAGES
from ..entrypoint.warm.options import PORT
from ..errors import UsageError, WarmimageError
from ..inputs import base_image as base
from ..inputs import wheels
from ..inputs.lock import Lock
from ..plan import MODEL_PATH, Plan
from ..rendering.templates import environment
from .planner import FOLDERS

LOCK_FILE = Path("warmimage-warmer.lock")

#: User id of the image's process, the same as in other images.
_USER = 1000

#: An adapter without an engine: the base image needs only a Python.
_WARMER = EngineAdapter(
    name="the warmer",
    distribution="warmimage-warmer",
    version=__version__,
    requirements={"cpu": PACKAGES},
    python=">=3.10,<3.14",
    command=("python3", "-I", "-S"),
    health_path="/healthz",
    modules=(),
    required_modules=(),
)


def build(
    tags: Sequence[str], base_image: str | None, wheelhouse: Path | None, *, push: bool, progress: Progress
) -> str:
    """Build the image of the warmer and return its reference.

    Args:
        tags: the image's tags.
        base_image: a Python image, ``None`` for the default one.
        wheelhouse: directory to take wheels from; ``None`` for the configured indexes.
        push: push every tag.
        progress: how to show the build's steps.

    Raises:
        ConfigError, EnvironmentLacks, WarmimageError: as in every build.
    """
    if push and not tags:
        raise UsageError("--push needs a tag", fix="--tag REGISTRY/NAME:TAG")
    if wheelhouse:
        wheels.check_wheelhouse(wheelhouse)
    builder = buildkit.find_builder()
    client = daemon.connect()
    config = Config(model="none", base_image=base_image, accelerator="cpu", method="compose", wheelhouse=wheelhouse)
    found = base.resolve(config, _WARMER, client)
    wheelset = wheels.resolve(PACKAGES, wheels.Target.of(found, config.accelerator), wheelhouse, LOCK_FILE)
    cache = user_cache_path("warmimage")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="warmer-") as name:
        _fill(Path(name), found, wheelset)
        with phase("image built", spinner=False):
            reference = buildkit.build(builder, Path(name), tags, (), "none", progress)
    wheels.write_lock(wheelset, LOCK_FILE)
    shown = tags[0] if tags else reference
    with daemon.api_errors(f"cannot inspect {shown}"):
        note(f"image: {human_bytes(daemon.size_bytes(client.images.get(shown)))}")
    if push:
        with phase(f"pushed {', '.join(tags)}"):
            reference = next(iter([daemon.push(client, tag) for tag in tags]))
    note("Next:")
    note(f"  docker run --rm -p {PORT}:{PORT} -v DIR:{MODEL_PATH}:ro {shown}")
    return reference


def dockerfile(found: base.Base, lock: Lock) -> str:
    """Return the Dockerfile of the warmer's image."""
    return (
        environment()
        .get_template("image/Warmer.Dockerfile.j2")
        .render(
            base=found,
            lock=lock,
            folders=FOLDERS,
            python=f"{FOLDERS.engine}/bin/python",
            user=_USER,
            port=PORT,
            model=MODEL_PATH,
            version=__version__,
        )
    )


def _fill(directory: Path, found: base.Base, wheelset: wheels.Wheelset) -> None:
    """Write the build context."""
    lock = wheelset.lock
    (directory / "Dockerfile").write_text(dockerfile(found, lock), encoding="utf-8")
    with as_file(files("warmimage.entrypoint")) as source:
        shutil.copytree(source, directory / "entrypoint", ignore=shutil.ignore_patterns("__pycache__", "py.typed"))
    (directory / "wheels").mkdir()
    for wheel in lock.wheels:
        shutil.copy2(wheelset.directory / wheel.file, directory / "wheels" / wheel.file)
    (directory / "wheels" / "requirements.txt").write_text(lock.as_requirements(), encoding="utf-8")


def note_missing_packages(client: docker.DockerClient, image: str, plan: Plan) -> list[str]:
    """Print a note if an image lacks packages for the HTTP API of ``warm``, and return them."""
    absent = lacking(client, image, plan)
    if absent:
        note(
            f"the image lacks {', '.join(absent)}: its command warm works only with --once "
            f"(run: {plan.python} -m pip install {' '.join(absent)})"
        )
    return absent


def lacking(client: docker.DockerClient, image: str, plan: Plan) -> list[str]:
    """Return the packages for the HTTP API of ``warm`` that an image lacks; empty if it cannot be inspected."""
    script = f"import importlib.util as u; print(*[n for n in {PACKAGES!r} if u.find_spec(n) is None])"
    arguments = {"command": ["-c", script], "entrypoint": [plan.python], "network_mode": "none"}
    try:
        with (
            daemon.api_errors("the image cannot be run"),
            temporary_container.created(client, image, arguments, "a container of the image") as container,
        ):
            container.start()
            code = int(container.wait()["StatusCode"])
            output: bytes = container.logs(stderr=False)
    except WarmimageError as error:
        reason = error.problems[0].what
    else:
        if not code:
            return str(output.decode()).split()
        reason = f"its Python exited with {code}"
    note(f"cannot check whether the image's command warm has its HTTP API: {reason}")
    return []
