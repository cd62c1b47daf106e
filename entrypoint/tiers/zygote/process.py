"""Tier ``zygote``, inside the engine's process: import the engine once, and fork its further processes from here.

Command ``zygote TIMELINE PROGRAM [ARGUMENT]...``.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Collection, Sequence
from typing import NoReturn

from ...closure import Closure, import_closure
from ...environment import import_environment
from ...import_trace.hook import ImportTrace
from ...settings import PLAN
from ...timeline import Timeline, say
from ..engine_program import EXIT_DECLINED, command_line
from ..preload import launch
from . import fd_passing, fork_safety, proctitle, specialize
from .fork_server import Birth, Companion, accompany
from .spawn_hook import Requester


def main(words: Sequence[str]) -> int:
    """Import, keep a companion, become the engine; or, forked from a companion, become what was asked for."""
    timeline_path, program, *arguments = words
    timeline = Timeline(timeline_path, "engine")
    del sys.path[0]  # this package's: the engine's own first entry takes its place
    path = list(sys.path)
    try:
        inherited = fd_passing.opened() - {0, 1, 2, timeline.descriptor}
        timeline.renumber(fd_passing.raise_above)
        proctitle.keep_writable()
        with open(PLAN, encoding="utf-8") as file:
            hidden = json.load(file)["engine"]["import_environment"]
        contract = import_engine(Closure.read(), hidden, timeline)
        beside, birth = keep_company(timeline, None, inherited)
        if not birth:
            serve(beside, contract, timeline)
            sys.orig_argv[:] = command_line(sys.executable, program, arguments)
            proctitle.rename(
                program, sys.orig_argv
            )  # before libraries start threads, which take their name from this one
            specialize.rederive(contract, timeline)
    except Exception as error:
        decline(repr(error), timeline)
    if birth:
        go_on(beside, birth, contract, path, timeline)
        return 0
    timeline.event("engine.entered")
    launch.run(program, arguments)
    return 0


def live(contract: import_environment.Contract, path: Sequence[str], timeline: Timeline, birth: Birth) -> None:
    """Go on as a process that has imported everything and now learns what it is to become: a restored one."""
    try:
        specialize.forget()  # before the companion is forked, for its children are to have forgotten, too
        beside, latest = keep_company(timeline, birth)
    except Exception as error:
        decline(repr(error), timeline, "snapshot")
    # The engine's own process keeps what imports have put into sys.path; a child of it begins as an interpreter does.
    go_on(beside, latest or birth, contract, list(sys.path) if latest is birth else path, timeline)


def go_on(
    beside: Companion, birth: Birth, contract: import_environment.Contract, path: Sequence[str], timeline: Timeline
) -> None:
    """Become what a birth says, with a companion beside."""
    engine = birth.request["target"][0] == specialize.PROGRAM
    timeline.process = "engine" if engine else "child"
    try:
        serve(beside, contract, timeline)
        specialize.prepare(birth, contract, path, timeline)
    except Exception as error:
        if engine:
            decline(repr(error), timeline, "snapshot")
        raise
    if engine:
        timeline.event("engine.entered")
    specialize.run(birth.request["target"], birth.request["words"])


def serve(beside: Companion, contract: import_environment.Contract, timeline: Timeline) -> None:
    """Turn the collector on again, see further imports, and have this process's children come from its companion."""
    gc.enable()
    ImportTrace(timeline).install()
    Requester(beside, timeline, contract).install()


def keep_company(
    timeline: Timeline, birth: Birth | None, inherited: Collection[int] = ()
) -> tuple[Companion, Birth | None]:
    """Fork a companion beside this process, and beside each process that is forked from that one.

    Args:
        timeline: gets an event where a newborn has no companion.
        birth: this process's own, ``None`` for one that was started and not born.
        inherited: open files that this process was started with: a spawned process gets none of them.

    Returns:
        In this process its companion and its birth; in each newborn the same of its own.

    Raises:
        OSError: this process, which was not forked from a companion, can have none.
    """
    while True:
        try:
            beside = accompany(birth, () if birth else inherited)
        except OSError as error:
            if not birth:
                raise
            timeline.event("companion.failed", reason=str(error))
            return Companion.absent(), birth
        if isinstance(beside, Companion):
            return beside, birth
        birth = beside


def decline(reason: str, timeline: Timeline, tier: str = "zygote") -> NoReturn:
    """End this process, of which the engine knows nothing yet, so that the next tier starts it."""
    timeline.event("tier.declined", tier=tier, reason=reason)
    say(f"{tier} skipped: {reason}")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception as error:  # an import may have put anything in its place
            timeline.event("output.lost", reason=repr(error))
    os._exit(EXIT_DECLINED)  # not by the interpreter's end, which would wait for a thread that an import has started


def import_engine(closure: Closure, hidden: dict[str, str], timeline: Timeline) -> import_environment.Contract:
    """Import the closure, with the collector off and then told that all of it stays.

    Args:
        closure: what to import.
        hidden: variables that keep the accelerator untouched meanwhile.
        timeline: gets what was found.

    Returns:
        What the imports have taken from the environment.

    Raises:
        Exception: any that an import of ours may have; where the process cannot be forked, it ends here.
    """
    preload = os.environ.get("LD_PRELOAD", "")
    if closure.preload:
        _restore_preload(preload.removeprefix(closure.preload).removeprefix(":"))
    variables = dict(os.environ)
    watch = fork_safety.Watch()
    began = time.monotonic()
    gc.disable()
    os.environ.update(hidden)
    with import_environment.Reads() as reads:
        skipped = import_closure(closure.modules, watch.look)
    made = {name: os.environ.get(name) for name in sorted(reads.written)}
    before = {name: variables[name] for name in made if name in variables}
    variables = {name: value for name, value in {**variables, **made}.items() if value is not None}
    os.environ.clear()
    os.environ.update(variables)
    pairs = (os.fsdecode(entry).partition("=") for entry in import_environment.native())
    native = {name: value for name, _, value in pairs if name not in variables}
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError):  # what imports have printed is not for every fork to print again
            stream.flush()
    gc.freeze()
    timeline.event(
        "zygote.imported",
        modules=len(sys.modules),
        seconds=round(time.monotonic() - began, 3),
        skipped=skipped,
        variables=len(reads.names),
        copied_by=sorted(reads.copied_by),
        native_threads=watch.threads,
        hidden={name: reads.names[name] for name in hidden if name in reads.names},
    )
    reason = watch.broken()
    if reason:
        decline(reason, timeline)
    return import_environment.Contract(variables, reads.names, hidden, preload, made, native, before)


def _restore_preload(own: str) -> None:
    """Leave in the environment the container's own ``LD_PRELOAD`` alone."""
    os.environ["LD_PRELOAD"] = own
    if not own:
        del os.environ["LD_PRELOAD"]
