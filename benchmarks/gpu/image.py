"""What an image would hold, laid out in an image's own folders on this machine, step by step as a build does it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from warmimage import engines
from warmimage.build import context, planner
from warmimage.build.planner import FOLDERS, Inputs, make_plan
from warmimage.build.record_closure import closure_of
from warmimage.config.model import Config
from warmimage.inputs.base_image import Base
from warmimage.inputs.model import Model
from warmimage.plan import ClosurePlan, Plan

ROOT = Path(FOLDERS.root)
HOME = Path(FOLDERS.home)
MODEL = Path("/model")
TIMELINE = Path("/run/warmimage/timeline.jsonl")

#: Name that the model is served by, whatever its shape: another would be another command line.
NAME = "shape"

#: Makes what follows the first process of PID and mount namespaces of its own; with it, all that it started ends.
CONTAINER = ("unshare", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child")

#: Variables by which an NVIDIA container tells where its driver is.
_OF_THE_DRIVER = ("LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "CUDA_HOME")

_SCRIPT = """\
import sys
from vllm.entrypoints.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""


@dataclass(frozen=True)
class Engine:
    """Where an unmodified vLLM is.

    Attributes:
        python: its interpreter.
        site: folder with it, for ``PYTHONPATH``; ``None`` where the interpreter finds it by itself.
        accelerator: ``cuda`` or ``cpu``.
        arguments: what it is started with beside the adapter's own command line.
        variables: its environment beside the adapter's.
    """

    python: str
    site: Path | None
    accelerator: Literal["cuda", "cpu"]
    arguments: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()

    def version(self) -> str:
        """Return vLLM's version."""
        code = "from importlib.metadata import version; print(version('vllm'))"
        environment = {**os.environ, "PYTHONPATH": str(self.site or "")}
        return subprocess.run(
            [self.python, "-c", code], capture_output=True, text=True, check=True, env=environment
        ).stdout.strip()

    def environment(self) -> dict[str, str]:
        """Return the environment of a base image that holds it."""
        given = {name: os.environ[name] for name in _OF_THE_DRIVER if os.environ.get(name)}
        path = f"{ROOT}/bin:{os.path.dirname(self.python)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, **given, **({"PYTHONPATH": str(self.site)} if self.site else {}), **dict(self.variables)}


def lay_out(engine: Engine) -> Plan:
    """Write the plan, the entrypoint and the engine's console script, and return the plan."""
    for folder in (ROOT / "bin", HOME, TIMELINE.parent):
        folder.mkdir(parents=True, exist_ok=True)
    script = ROOT / "bin" / "vllm"
    script.write_text(f"#!{engine.python}\n{_SCRIPT}", encoding="utf-8")
    script.chmod(0o755)
    config = Config(
        model=str(MODEL),
        engine="vllm",
        accelerator=engine.accelerator,
        args=engine.arguments,
        served_name=NAME,
        user=0,
    )
    model = Model(NAME, NAME, MODEL, None, "Qwen2ForCausalLM", "qwen2", 0)
    base = Base("here", "here", None, engine.python, "3.12", "", platform.machine(), engine.version(), "")
    adapter = engines.get("vllm")
    plan = make_plan(config, Inputs(adapter, model, base, None))
    caches = dict(adapter.caches["cuda"])  # where it is tried without a GPU, too
    plan = replace(plan, engine=replace(plan.engine, caches=caches))
    with as_file(files("warmimage.entrypoint")) as source:
        shutil.rmtree(ROOT / "entrypoint", ignore_errors=True)
        shutil.copytree(source, ROOT / "entrypoint", ignore=shutil.ignore_patterns("__pycache__", "py.typed"))
    _run(engine.python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(ROOT / "entrypoint"))
    _run(engine.python, str(ROOT / "entrypoint" / "bytecode.py"), env=engine.environment())
    write(plan)
    return plan


def write(plan: Plan) -> None:
    """Write the plan where PID 1 reads it."""
    (ROOT / "plan.json").write_text(plan.to_json(indent=1) + "\n", encoding="utf-8")


def serve(model: Path) -> None:
    """Put a model where the engine looks for it."""
    MODEL.unlink(missing_ok=True)
    MODEL.symlink_to(model)


def bake_closure(plan: Plan, engine: Engine, events: Sequence[dict[str, object]] = ()) -> Plan:
    """Import the closure once, as the build's step does, and return the plan with it.

    Args:
        plan: so far.
        engine: whose closure it is.
        events: a traced start's timeline; without one the plan's own closure, the adapter's modules, is taken.
    """
    if events:
        plan = replace(plan, closure=closure_of(events, plan.closure.modules))
    write(plan)
    file = ROOT / "imports.json"
    file.write_text(context.imports(plan).to_json(indent=1), encoding="utf-8")
    _run(
        engine.python,
        str(ROOT / "entrypoint"),
        "record-closure",
        str(file),
        str(ROOT / "closure.json"),
        env={**engine.environment(), **plan.environment, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return plan


def list_closure(plan: Plan) -> None:
    """Write the plan's closure as it stands, for a start that records a better one."""
    closure = {**plan.closure.to_dict(), "files": [], "libraries": []}
    (ROOT / "closure.json").write_text(json.dumps(closure), encoding="utf-8")
    write(plan)


def closure(path: Path) -> ClosurePlan:
    """Return a closure that was recorded before."""
    return ClosurePlan.from_json(path.read_bytes())


def capture(plan: Plan, engine: Engine) -> float:
    """Run the image's ``capture`` command, and return the seconds that it took; the plan gets the tier."""
    config = Config(model=str(MODEL), snapshot="require")
    plan = planner.with_snapshot(plan, planner.snapshot_plan(config, plan.base.machine))
    write(plan)
    shutil.rmtree(ROOT / "snapshot", ignore_errors=True)
    began = time.monotonic()
    run_first(engine, plan, ["capture", str(ROOT / "snapshot"), "--require"])
    return time.monotonic() - began


def collect(plan: Plan, engine: Engine) -> None:
    """Run the image's ``collect`` command: the compile caches of the start before become the image's."""
    shutil.rmtree(ROOT / "caches", ignore_errors=True)
    (ROOT / "caches").mkdir()
    run_first(engine, plan, ["collect", str(ROOT / "caches")])


def run_first(engine: Engine, plan: Plan, words: Sequence[str]) -> None:
    """Run a command of the image's own."""
    command = [*CONTAINER, engine.python, "-I", "-S", str(ROOT / "entrypoint"), *words]
    _run(*command, env={**engine.environment(), **plan.environment})


def _run(*command: str, check: bool = True, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    said = f"{done.stdout}{done.stderr}".strip()
    if said:
        print(f"{os.path.basename(command[-1])}: {said[-3000:]}", file=sys.stderr, flush=True)
    if done.returncode and check:
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(command)}")
