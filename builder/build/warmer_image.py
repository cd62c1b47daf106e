"""The image of the warmer alone, and what the command ``warm`` of other images lacks."""

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

#: User id of the image's process, as of any other image.
_USER = 1000

#: What the base image is looked into for: a Python; no image holds this distribution.
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
        tags: what it is to be called.
        base_image: a Python image, ``None`` for the default one.
        wheelhouse: folder to take wheels from, ``None`` asks the configured indexes.
        push: push every tag.
        progress: how to show the build's steps.

    Raises:
        ConfigError, EnvironmentLacks, WarmimageError: as of any build.
    """
    if push and not tags:
        raise UsageError("--push needs a tag to push", fix="--tag REGISTRY/NAME:TAG")
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


def _fill(folder: Path, found: base.Base, wheelset: wheels.Wheelset) -> None:
    """Write the build context."""
    lock = wheelset.lock
    (folder / "Dockerfile").write_text(dockerfile(found, lock), encoding="utf-8")
    with as_file(files("warmimage.entrypoint")) as source:
        shutil.copytree(source, folder / "entrypoint", ignore=shutil.ignore_patterns("__pycache__", "py.typed"))
    (folder / "wheels").mkdir()
    for wheel in lock.wheels:
        shutil.copy2(wheelset.folder / wheel.file, folder / "wheels" / wheel.file)
    (folder / "wheels" / "requirements.txt").write_text(lock.as_requirements(), encoding="utf-8")


def tell_of_face(client: docker.DockerClient, image: str, plan: Plan) -> list[str]:
    """Say in one line when the command ``warm`` of an image could not be asked over HTTP; return what it lacks."""
    absent = lacking(client, image, plan)
    if absent:
        note(
            f"the image lacks {', '.join(absent)}: its command warm works with --once alone "
            f"(run: {plan.python} -m pip install {' '.join(absent)})"
        )
    return absent


def lacking(client: docker.DockerClient, image: str, plan: Plan) -> list[str]:
    """Return the packages of the HTTP face of ``warm`` that an image does not have; none where that is not known."""
    script = f"import importlib.util as u; print(*[n for n in {PACKAGES!r} if u.find_spec(n) is None])"
    words = {"command": ["-c", script], "entrypoint": [plan.python], "network_mode": "none"}
    try:
        with (
            daemon.api_errors("it cannot be run"),
            temporary_container.created(client, image, words, "a container of the image") as container,
        ):
            container.start()
            code = int(container.wait()["StatusCode"])
            said: bytes = container.logs(stderr=False)
    except WarmimageError as error:
        reason = error.problems[0].what
    else:
        if not code:
            return str(said.decode()).split()
        reason = f"its Python ended with {code}"
    note(f"not known whether the image's command warm can be asked over HTTP: {reason}")
    return []
