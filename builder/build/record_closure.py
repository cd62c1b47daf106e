"""Record a real start: the built image runs once, which shows the engine's imports and fills its compile caches."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.models.containers import Container
from platformdirs import user_cache_path

from .. import files, server_client, timeline
from ..bench import usage
from ..console import note
from ..docker_api import container_options, daemon, temporary_container
from ..docker_api.container_options import Options
from ..entrypoint.kernel.gpus import Accelerator
from ..errors import WarmimageError
from ..plan import CachesPlan, ClosurePlan, Plan
from . import compile_caches

#: Time limit of the start in seconds, including the load of the weights.
PATIENCE = 900.0

#: Tier zygote shows which libraries the engine sets in LD_PRELOAD.
_FORKED = {"WARMIMAGE_START": "zygote"}

#: Every process writes its imports to the timeline.
_TRACED = {**_FORKED, "WARMIMAGE_TRACE": "imports"}

#: Modules of the interpreter's start, and warmimage's.
_IGNORED = ("sitecustomize", "usercustomize", "entrypoint", "__mp_main__")


@dataclass(frozen=True)
class Recorded:
    """The results of real starts of an image.

    Attributes:
        closure: what the engine imports.
        caches: the compile caches, or ``None``.
        directory: the compile caches on this machine.
    """

    closure: ClosurePlan
    caches: CachesPlan | None
    directory: Path | None


def cached(plan: Plan, model_dir: Path | None) -> Recorded | None:
    """Return the recording of an earlier build with the same engine, base image and arguments, or ``None``.

    If this host can fill compile caches, a recording without them does not count.

    Args:
        plan: the plan, with the modules that the adapter lists.
        model_dir: the model; ``None`` if it is not on this machine.
    """
    try:
        closure = ClosurePlan.from_json(_closure_file(plan).read_bytes())
    except (OSError, ValueError):
        return None
    directory = _caches_directory(plan)
    try:
        return Recorded(closure, compile_caches.read_manifest(directory), directory)
    except WarmimageError:
        return None if compile_caches.wanted(plan, model_dir) else Recorded(closure, None, None)


def record(client: docker.DockerClient, image: str, plan: Plan, model_dir: Path | None) -> Recorded:
    """Start a built image, send one request, and keep the results for this build and later ones.

    The start that shows the imports is also the first one that compiles.  If the compile caches fail, the closure is
    kept.

    Args:
        client: the Docker daemon's.
        image: its tag.
        plan: its plan.
        model_dir: the model, if the image does not hold it.

    Raises:
        WarmimageError: the server does not become ready here; the message has the reason.
    """
    target = _caches_directory(plan)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".recording-") as name:
        first = Path(name) / "1"
        found: CachesPlan | None = None
        with started(client, image, plan, model_dir, gpus_of(plan), _TRACED) as container:
            # The closure first: it must survive a failed collection.
            events = timeline.fetch(container, container_options.timeline_path(plan, _TRACED))
            closure = closure_of(events, plan.closure.modules)
            _keep_closure(plan, closure)
            with without_caches():
                if compile_caches.wanted(plan, model_dir):
                    found = compile_caches.collect(container, plan, first)
        with without_caches():
            if found:
                last, found = _compile_again(client, image, plan, model_dir, gpus_of(plan), first, found)
                with files.replaced(target) as made:
                    last.rename(made)
                return Recorded(closure, found, target)
    return Recorded(closure, None, None)


def collect(
    client: docker.DockerClient, image: str, plan: Plan, model_dir: Path | None, gpus: str, directory: Path
) -> CachesPlan:
    """Start an image until its compile caches are full, and copy them into a directory.

    Args:
        client: the Docker daemon's.
        image: its tag.
        plan: its plan.
        model_dir: the model, if the image does not hold it.
        gpus: as ``docker run --gpus`` takes them; empty for none.
        directory: is created.

    Raises:
        WarmimageError: the server does not become ready here, or leaves no cache; the message has the reason.
    """
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".compiling-") as name:
        first = Path(name) / "1"
        with started(client, image, plan, model_dir, gpus, _FORKED) as container:
            found = compile_caches.collect(container, plan, first)
        last, found = _compile_again(client, image, plan, model_dir, gpus, first, found)
        last.rename(directory)
    return found


def _compile_again(
    client: docker.DockerClient,
    image: str,
    plan: Plan,
    model_dir: Path | None,
    gpus: str,
    first: Path,
    found: CachesPlan,
) -> tuple[Path, CachesPlan]:
    """Start again with the compile caches so far, if more than one start is needed; return the last caches."""
    for number in range(2, compile_caches.starts(plan) + 1):
        following = first.with_name(str(number))
        with started(client, image, plan, model_dir, gpus, _FORKED, caches=first) as container:
            found = compile_caches.collect(container, plan, following)
        first = following
    return first, found


@contextlib.contextmanager
def started(
    client: docker.DockerClient,
    image: str,
    plan: Plan,
    model_dir: Path | None,
    gpus: str,
    environment: Mapping[str, str],
    caches: Path | None = None,
) -> Iterator[Container]:
    """Yield a container whose server is ready and has answered a request.

    Args:
        client: the Docker daemon's.
        image: its tag.
        plan: its plan.
        model_dir: the model, if the image does not hold it.
        gpus: as ``docker run --gpus`` takes them; empty for none.
        environment: variables of the container.
        caches: compile caches to copy into it first.

    Raises:
        WarmimageError: the server does not become ready; the message has the reason.
    """
    options = Options(
        model_dir=model_dir if plan.model.mounted else None,
        port=0,
        environment=dict(environment),
        gpus=gpus,
        name=f"warmimage-record-{uuid.uuid4().hex[:12]}",
    )
    arguments = container_options.create_arguments(
        container_options.needs_of(plan, ()), options, {"dev.warmimage.record": "1"}
    )
    with temporary_container.created(client, image, arguments, "a container of the new image") as container:
        if caches:
            compile_caches.put(container, plan, caches)
        container_options.start(container)
        with daemon.api_errors("the container cannot be followed"):
            wait_ready(container, container_options.timeline_path(plan, environment))
            ask_once(container, plan)
        yield container


@contextlib.contextmanager
def without_caches() -> Iterator[None]:
    """Turn an error of the block into a note that the image gets no compile caches."""
    try:
        yield
    except WarmimageError as error:
        problem = error.problems[0]
        reason = " ".join(f"{problem.what}: {problem.got}".split()).removesuffix(":")
        note(f"no compile caches in this image: {reason}")


def gpus_of(plan: Plan) -> str:
    """Return the GPUs for a container of an image, as ``docker run --gpus`` takes them."""
    return "all" if plan.accelerator == "cuda" else ""


def closure_of(events: Sequence[timeline.Event], listed: Sequence[str]) -> ClosurePlan:
    """Return the closure of a traced start.

    Only outermost imports are kept, in the order of their ends: each brings its nested imports along in an order that
    works.

    Args:
        events: the timeline.
        listed: modules that come first.
    """
    before, after = dict.fromkeys(listed), dict[str, None]()
    preload = ""
    names = before
    for event in events:
        if event["event"] == "imports":
            rows = (row for row in event["modules"] if row[4] == 0)
            names.update(dict.fromkeys(row[0] for row in rows if _belongs_to_engine(row[0])))
        elif event["event"] == "zygote.fallback":
            preload = event.get("preload") or preload
        elif event["event"] == "ready":
            names = after
    later = tuple(name for name in after if name not in before)
    return ClosurePlan(modules=tuple(before), later=later, preload=preload, recorded=True)


def _belongs_to_engine(name: str) -> bool:
    return name.partition(".")[0] not in _IGNORED and all(part.isidentifier() for part in name.split("."))


def wait_ready(container: Container, path: str) -> None:
    """Wait until a container's timeline at ``path`` has the event ``ready``.

    Raises:
        WarmimageError: the container has ended, or the time limit is over.
    """
    deadline = time.monotonic() + PATIENCE
    while not timeline.find(timeline.fetch(container, path), "ready"):
        container.reload()
        if container.status != "running":
            code = container.attrs["State"]["ExitCode"]
            last = container.logs(tail=3).decode(errors="replace").strip()
            raise WarmimageError(f"the engine exited with code {code}", got=last[-600:])
        if time.monotonic() > deadline:
            raise WarmimageError(f"the server was not ready after {PATIENCE:.0f} s")
        time.sleep(0.5)


def ask_once(container: Container, plan: Plan) -> None:
    """Request a completion, because the first request imports more modules.  Skipped if the daemon is remote."""
    container.reload()
    bindings = next((found for found in container.ports.values() if found), None)
    if bindings and usage.local_pid(container):  # else the port is on another machine
        address = ("127.0.0.1", int(bindings[0]["HostPort"]))
        with contextlib.suppress(WarmimageError):
            server_client.first_token(address, plan.model.name, time.monotonic() + 60)


def _keep_closure(plan: Plan, closure: ClosurePlan) -> None:
    file = _closure_file(plan)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(closure.to_json(indent=1) + "\n", encoding="utf-8")


def _closure_file(plan: Plan) -> Path:
    return user_cache_path("warmimage") / "closures" / f"{_digest(_parts(plan))}.json"


def _caches_directory(plan: Plan) -> Path:
    """Return the directory of the compile caches.  They depend on the closure's inputs, the model and the GPUs."""
    accelerator = Accelerator.here().to_dict() if plan.accelerator == "cuda" else None
    parts = [*_parts(plan), plan.model.reference, plan.model.revision, accelerator]
    return user_cache_path("warmimage") / "caches" / _digest(parts)


def _parts(plan: Plan) -> list[object]:
    """Return the inputs of the closure: the engine, its image, the model's architecture, the arguments."""
    return [
        plan.tool_version,
        plan.engine.to_dict(),
        plan.base.to_dict(),
        plan.accelerator,
        plan.wheels.fingerprint if plan.wheels else None,
        plan.model.architecture,
        plan.environment,
        plan.run,
        plan.closure.modules,
    ]


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
