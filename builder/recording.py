"""The closure, from a real start: run the built image once, and see what every process of the engine imports."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import docker
from docker.models.containers import Container
from platformdirs import user_cache_path
from pydantic import ValidationError

from . import containers, temporary, timeline
from .bench import asking, usage
from .containers import Options
from .errors import WarmimageError
from .plan import ClosurePlan, Plan

#: Seconds that the start may take, its weights included.
PATIENCE = 900.0

#: The first processes are forked, so that it is seen which libraries the engine preloads into them; all are traced.
_ENVIRONMENT = {"WARMIMAGE_START": "zygote", "WARMIMAGE_TRACE": "imports"}

#: Modules by which the interpreter itself starts, and ours.
_NOT_THE_ENGINES = ("sitecustomize", "usercustomize", "entrypoint", "__mp_main__")


def cached(plan: Plan) -> ClosurePlan | None:
    """Return what an earlier build has recorded of the same engine, base image and arguments, or ``None``."""
    try:
        return ClosurePlan.model_validate_json(_cache_file(plan).read_bytes())
    except (OSError, ValidationError):
        return None


def record(client: docker.DockerClient, image: str, plan: Plan, model_dir: Path | None) -> ClosurePlan:
    """Start a built image, have it answer once, and return what its processes imported; it is kept for later builds.

    Args:
        client: the engine.
        image: its tag.
        plan: its plan.
        model_dir: the model, where the image does not hold it.

    Raises:
        WarmimageError: the server does not come up here; the message says why.
    """
    options = Options(
        model_dir=model_dir if plan.model.mounted else None, port=0, environment=dict(_ENVIRONMENT),
        gpus="all" if plan.accelerator == "cuda" else "", name=f"warmimage-record-{uuid.uuid4().hex[:12]}",
    )  # fmt: skip
    words = containers.create_arguments(client, containers.needs_of(plan, ()), options, {"dev.warmimage.record": "1"})
    with temporary.created(client, image, words, "a container of the new image") as container:
        containers.start(container)
        wait_ready(container, containers.timeline_path(plan, _ENVIRONMENT))
        ask_once(container, plan)
        events = timeline.fetch(container, containers.timeline_path(plan, _ENVIRONMENT))
    found = closure_of(events, plan.closure.modules)
    file = _cache_file(plan)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return found


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
        elif event["event"] == "zygote.passed":
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
            asking.first_token(address, plan.model.name, time.monotonic() + 60)


def _cache_file(plan: Plan) -> Path:
    """Return the file of what decides the closure: the engine, where it runs, the model's kind, the arguments."""
    parts = [
        plan.tool_version, plan.engine.model_dump(mode="json"), plan.base.model_dump(mode="json"), plan.accelerator,
        plan.wheels.fingerprint if plan.wheels else None, plan.model.architecture, plan.environment, plan.run,
        plan.closure.modules,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return user_cache_path("warmimage") / "closures" / f"{digest[:32]}.json"
