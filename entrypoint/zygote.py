"""Tier ``zygote``, inside the engine's process: import the engine once, and fork its further processes from here.

Run as a script: ``python zygote.py TIMELINE PROGRAM [ARGUMENT]...``.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time

if not __package__:
    if getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, "")  # the place of this script's folder, which PYTHONSAFEPATH leaves out
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    __package__ = "entrypoint"

from . import environment, forkable, launch, newborn, title
from .closure import Closure, import_closure
from .companion import Birth, Companion, accompany
from .imports import ImportTrace
from .program import EXIT_DECLINED
from .requester import Requester
from .settings import PLAN
from .timeline import Timeline, say


def main() -> None:
    """Import, keep a companion, become the engine; or, forked from a companion, become what was asked for."""
    timeline_path, program, *arguments = sys.argv[1:]
    timeline = Timeline(timeline_path, "engine")
    del sys.path[0]  # this package's: the engine's own first entry takes its place
    path = list(sys.path)
    title.keep_writable()
    with open(PLAN, encoding="utf-8") as file:
        hidden = json.load(file)["engine"]["import_environment"]
    contract = import_engine(Closure.read(), hidden, timeline)
    birth: Birth | None = None
    while True:  # in the engine's process and in each newborn once; a companion stays inside `accompany`
        beside = accompany(birth.files if birth else [])
        if isinstance(beside, Companion):
            break
        birth = beside
    gc.enable()
    ImportTrace(timeline).install()
    Requester(beside, timeline, contract).install()
    if birth:
        timeline.process = "child"
        newborn.prepare(birth, contract, path, timeline)
        newborn.run(birth.request["target"], birth.request["words"])
        return
    newborn.rederive(contract, timeline)
    title.rename(program, [sys.executable, program, *arguments])
    timeline.event("engine.entered")
    launch.run(program, arguments)


def import_engine(closure: Closure, hidden: dict[str, str], timeline: Timeline) -> environment.Contract:
    """Import the closure, with the collector off and then told that all of it stays.

    Args:
        closure: what to import.
        hidden: variables that keep the accelerator untouched meanwhile.
        timeline: gets what was found.

    Returns:
        What the imports have taken from the environment.

    Raises:
        SystemExit: with ``EXIT_DECLINED``, where the process cannot be forked then.
    """
    preload = os.environ.get("LD_PRELOAD", "")
    if closure.preload:
        _restore_preload(preload.removeprefix(closure.preload).removeprefix(":"))
    variables = dict(os.environ)
    watch = forkable.Watch()
    began = time.monotonic()
    gc.disable()
    with environment.Reads() as reads:
        os.environ.update(hidden)
        skipped = import_closure(closure.modules, watch.look)
        os.environ.clear()
        os.environ.update(variables)
    gc.freeze()
    timeline.event(
        "zygote.imported", modules=len(sys.modules), seconds=round(time.monotonic() - began, 3), skipped=skipped,
        variables=len(reads.names), copied_by=sorted(reads.copied_by), native_threads=watch.threads,
    )  # fmt: skip
    reason = watch.broken()
    if reason:
        timeline.event("tier.declined", tier="zygote", reason=reason)
        say(f"zygote skipped: {reason}")
        sys.exit(EXIT_DECLINED)
    return environment.Contract(variables, reads.names, hidden, preload)


def _restore_preload(own: str) -> None:
    """Leave in the environment the container's own ``LD_PRELOAD`` alone."""
    os.environ["LD_PRELOAD"] = own
    if not own:
        del os.environ["LD_PRELOAD"]


if __name__ == "__main__":
    main()
