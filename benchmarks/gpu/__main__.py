"""``python -m benchmarks.gpu``: prepare what an image would hold, then start its arms in turn, on a machine with a GPU.

Stages: ``prepare`` lays everything out and makes the models; ``record`` makes a first start with empty caches, traced,
and keeps its closure and its compile caches; ``capture`` makes the snapshot; ``bench`` measures.  Results are written
after every run, so that a machine that goes away takes nothing with it.  ``compile`` starts all models once more,
``decline`` what was made for another machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from warmimage import timeline
from warmimage.plan import Plan

from . import image, machine, shapes
from .image import ROOT, Engine
from .session import Session
from .start import Arm, start

STAGES = ("prepare", "record", "capture", "compile", "bench", "decline")

#: The arms of docs/gpu.md, in the order of their worth: model, rounds, arms in turn.
BENCH = (
    "0.5b:3:own/warm/warm,plain/warm/warm,zygote/warm/warm,snapshot/baked/warm",
    "7b:3:own/warm/cold,snapshot/baked/cold,own/warm/warm,snapshot/baked/warm",
    "0.5b:3:own/empty/cold,snapshot/baked/cold",
)


def main() -> int:
    """Run the stages asked for; return 0, also where there is nothing to measure on, or 1 if a figure is worthless."""
    options = _options()
    reason = machine.missing(options.accelerator)
    if reason:
        print(f"skipped: {reason}")
        return 0
    arguments = tuple(options.engine_args.split())
    variables = tuple((name, value) for name, _, value in (pair.partition("=") for pair in options.env))
    engine = Engine(options.python, options.site, options.accelerator, arguments, variables)
    session = Session(options.output, machine.facts(), time.monotonic() + options.budget)
    models = {name: options.models_dir / name for name in options.models.split(",")}
    stages = options.stages.split(",")
    making: threading.Thread | None = None
    problems: list[str] = []
    if "prepare" in stages:
        first, *others = models
        with session.step("layout"):
            plan = image.lay_out(engine)
        with session.step("model"):
            shapes.make(first, models[first])
        making = threading.Thread(target=lambda: [shapes.make(name, models[name]) for name in others])
        making.start()
        if options.closure:
            plan = replace(plan, closure=image.closure(options.closure))
            image.list_closure(plan)
        if options.caches:
            shutil.copytree(options.caches, ROOT / "caches", dirs_exist_ok=True)
    plan = Plan.from_json((ROOT / "plan.json").read_bytes())
    if "record" in stages:
        _record(session, plan, engine, models, listed=bool(options.closure))
        plan = Plan.from_json((ROOT / "plan.json").read_bytes())
    if making:
        with session.step("other models"):
            making.join()
    if "capture" in stages:
        with session.step("capture"):
            image.capture(plan, engine)
        plan = Plan.from_json((ROOT / "plan.json").read_bytes())
    if "compile" in stages:
        _compile(session, plan, engine, [models[name] for name in (options.compile or options.models).split(",")])
    if "bench" in stages:
        for group in options.bench or BENCH:
            name, rounds, arms = group.split(":")
            session.bench(name, int(rounds), [Arm.parse(arm) for arm in arms.split(",")], plan, engine, models[name])
    if "decline" in stages:
        problems += _decline(session, plan, engine, next(iter(models.values())))
    session.show()
    problems += session.problems() if engine.accelerator == "cuda" else []
    for problem in problems:
        print(f"PROBLEM: {problem}")
    return 1 if problems else 0


def _record(session: Session, plan: Plan, engine: Engine, models: dict[str, Path], *, listed: bool) -> None:
    """Make a first start, traced: its imports become the closure, and what it compiled the image's caches.

    Args:
        session: gets the runs.
        plan: the image's.
        engine: where it is.
        models: their folders by name; the first is started.
        listed: whether a closure is there already, and is to be completed.
    """
    if not listed:
        with session.step("listed modules"):
            plan = image.bake_closure(plan, engine)
    folder = session.folder("record")
    arm = Arm.parse("zygote/warm/warm+WARMIMAGE_TRACE=imports")
    found = start(arm, plan, engine, next(iter(models.values())), folder)
    session.add({"bench": "record", **found})
    if "error" in found:
        raise SystemExit("the first start failed")
    with session.step("collect"):
        image.collect(plan, engine)
    events = timeline.parse((folder / "timeline.jsonl").read_text().splitlines())
    with session.step("closure"):
        plan = image.bake_closure(plan, engine, events)
    (session.output / "closure.json").write_text(plan.closure.to_json(), encoding="utf-8")


def _compile(session: Session, plan: Plan, engine: Engine, models: list[Path]) -> None:
    """Start models again, with what is compiled so far, and add to the image's caches what is compiled only then.

    A start that finds compiled graphs keeps Triton's kernels elsewhere than one that has compiled the graphs itself.
    """
    for model in models:
        arm = Arm.parse("snapshot/warm/warm")
        session.add({"bench": "compile", **start(arm, plan, engine, model, session.folder(f"compile-{model.name}"))})
        with session.step(f"collect {model.name}"):
            image.collect(plan, engine)


def _decline(session: Session, plan: Plan, engine: Engine, model: Path) -> list[str]:
    """Start with compile caches of another driver.

    Returns:
        What was wrong: they must be declined by name, and the server must come up from its snapshot all the same.
    """
    manifest = ROOT / "caches" / "manifest.json"
    before = manifest.read_text()
    data = json.loads(before)
    data["accelerator"] |= {"driver": "000.00"}
    manifest.write_text(json.dumps(data))
    try:
        found = start(Arm.parse("snapshot/baked/warm"), plan, engine, model, session.folder("decline"))
        session.add({"bench": "decline", **found})
    finally:
        manifest.write_text(before)
    reasons = [str(event.get("reason")) for event in found["caches"]]
    problems = [] if any("000.00" in reason for reason in reasons) else [f"decline: no reason names 000.00: {reasons}"]
    return problems if found["tier"] == "snapshot" else [*problems, f"decline: came up in tier {found['tier']}"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/gpu"), help="folder for the results")
    parser.add_argument("--stages", default=",".join(STAGES), help=f"of {', '.join(STAGES)}; default: all")
    parser.add_argument("--python", default=sys.executable, help="the engine's interpreter")
    parser.add_argument("--site", type=Path, help="folder with vLLM, for PYTHONPATH")
    parser.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--engine-args", default="", help="vLLM's arguments beside the adapter's")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="variable of the image")
    parser.add_argument("--models", default="0.5b,7b", help=f"of {', '.join(shapes.SHAPES)}; the first is recorded")
    parser.add_argument("--models-dir", type=Path, default=Path("/opt/models"))
    parser.add_argument("--compile", help="the models of that stage; default: all")
    parser.add_argument("--caches", type=Path, help="compile caches that were collected before on such a machine")
    parser.add_argument("--closure", type=Path, help="closure of a recording before, instead of a traced start")
    parser.add_argument(
        "--bench", action="append", metavar="MODEL:ROUNDS:TIER/CACHES/PAGES,...", help=f"default: {'; '.join(BENCH)}"
    )
    parser.add_argument("--budget", type=float, default=570.0, help="seconds after which no run is begun")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
