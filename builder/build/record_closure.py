"""A real start, recorded: the built image runs once, and shows what its engine imports and what it compiles."""

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

#: Seconds that the start may take, its weights included.
PATIENCE = 900.0

#: The first processes are forked, so that it is seen which libraries the engine preloads into them.
_FORKED = {"WARMIMAGE_START": "zygote"}

#: Every process says what it imports.
_TRACED = {**_FORKED, "WARMIMAGE_TRACE": "imports"}

#: Modules by which the interpreter itself starts, and ours.
_NOT_THE_ENGINES = ("sitecustomize", "usercustomize", "entrypoint", "__mp_main__")


@dataclass(frozen=True)
class Recorded:
    """What real starts of an image have shown.

    Attributes:
        closure: what the engine imports.
        caches: the compile caches, or ``None``.
        directory: where the compile caches are on this machine.
    """

    closure: ClosurePlan
    caches: CachesPlan | None
    directory: Path | None


def cached(plan: Plan, model_dir: Path | None) -> Recorded | None:
    """Return what an earlier build has recorded of the same engine, base image and arguments, or ``None``.

    A recording without compile caches is not enough where this host can have them: the model may not have been there,
    or a start failed.

    Args:
        plan: the plan, with the modules that the adapter lists.
        model_dir: the model, where it is on this machine.
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
    """Start a built image, have it answer once, and keep what this shows for later builds too.

    The start that shows the imports is also the first that compiles.  Compile caches save time and decide nothing:
    without them the closure is still worth keeping.

    Args:
        client: the Docker daemon's.
        image: its tag.
        plan: its plan.
        model_dir: the model, where the image does not hold it.

    Raises:
        WarmimageError: the server does not come up here; the message says why.
    """
    target = _caches_directory(plan)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".recording-") as name:
        first = Path(name) / "1"
        found: CachesPlan | None = None
        with started(client, image, plan, model_dir, gpus_of(plan), _TRACED) as container:
            # The events come first: a collection that fails must not cost the closure.
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
    """Start an image as often as it takes to have its compile caches, and bring them into a directory.

    Args:
        client: the Docker daemon's.
        image: its tag.
        plan: its plan.
        model_dir: the model, where the image does not hold it.
        gpus: as ``docker run --gpus`` takes them; empty for none.
        directory: is made.

    Raises:
        WarmimageError: the server does not come up here, or leaves no cache; the message says why.
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
    """Start again with the compile caches so far, where more than one start is needed; return the last ones."""
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
    """Give a container whose server is ready and has answered once.

    Args:
        client: the Docker daemon's.
        image: its tag.
        plan: its plan.
        model_dir: the model, where the image does not hold it.
        gpus: as ``docker run --gpus`` takes them; empty for none.
        environment: variables of the container.
        caches: compile caches to put into it first.

    Raises:
        WarmimageError: the server does not come up; the message says why.
    """
    options = Options(
        model_dir=model_dir if plan.model.mounted else None,
        port=0,
        environment=dict(environment),
        gpus=gpus,
        name=f"warmimage-record-{uuid.uuid4().hex[:12]}",
    )
    words = container_options.create_arguments(
        container_options.needs_of(plan, ()), options, {"dev.warmimage.record": "1"}
    )
    with temporary_container.created(client, image, words, "a container of the new image") as container:
        if caches:
            compile_caches.put(container, plan, caches)
        container_options.start(container)
        with daemon.api_errors("the container cannot be followed"):
            wait_ready(container, container_options.timeline_path(plan, environment))
            ask_once(container, plan)
        yield container


@contextlib.contextmanager
def without_caches() -> Iterator[None]:
    """Turn an error of the block into one line that says why the image gets no compile caches."""
    try:
        yield
    except WarmimageError as error:
        problem = error.problems[0]
        reason = " ".join(f"{problem.what}: {problem.got}".split()).removesuffix(":")
        note(f"no compile caches in this image: {reason}")


def gpus_of(plan: Plan) -> str:
    """Return the GPUs that a container of an image gets, as ``docker run --gpus`` takes them."""
    return "all" if plan.accelerator == "cuda" else ""


def closure_of(events: Sequence[timeline.Event], listed: Sequence[str]) -> ClosurePlan:
    """Return the closure that a traced start shows.

    An import statement at the outermost level brings its nested ones along, in an order that works; so only those are
    kept, in the order in which any process ended them.

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
            names.update(dict.fromkeys(row[0] for row in rows if _is_the_engines(row[0])))
        elif event["event"] == "zygote.fallback":
            preload = event.get("preload") or preload
        elif event["event"] == "ready":
            names = after
    later = tuple(name for name in after if name not in before)
    return ClosurePlan(modules=tuple(before), later=later, preload=preload, recorded=True)


def _is_the_engines(name: str) -> bool:
    return name.partition(".")[0] not in _NOT_THE_ENGINES and all(part.isidentifier() for part in name.split("."))


def wait_ready(container: Container, path: str) -> None:
    """Wait until a container's timeline, at ``path``, says that its server is ready.

    Raises:
        WarmimageError: it has ended, or takes too long.
    """
    deadline = time.monotonic() + PATIENCE
    while not timeline.find(timeline.fetch(container, path), "ready"):
        container.reload()
        if container.status != "running":
            code = container.attrs["State"]["ExitCode"]
            last = container.logs(tail=3).decode(errors="replace").strip()
            raise WarmimageError(f"the engine ended with exit code {code}", got=last[-600:])
        if time.monotonic() > deadline:
            raise WarmimageError(f"the server was not ready after {PATIENCE:.0f} s")
        time.sleep(0.5)


def ask_once(container: Container, plan: Plan) -> None:
    """Ask for a completion: some modules are imported only then.  Where its port cannot be reached, they stay late."""
    container.reload()
    bindings = next((found for found in container.ports.values() if found), None)
    if bindings and usage.local_pid(container):  # else the port is another machine's
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
    """Return where the compile caches are kept: beside what decides the closure, the model and the GPUs count."""
    accelerator = Accelerator.here().to_dict() if plan.accelerator == "cuda" else None
    parts = [*_parts(plan), plan.model.reference, plan.model.revision, accelerator]
    return user_cache_path("warmimage") / "caches" / _digest(parts)


def _parts(plan: Plan) -> list[object]:
    """Return what decides the closure: the engine, where it runs, the model's kind, the arguments."""
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
