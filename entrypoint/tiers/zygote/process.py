"""Tier ``zygote``, inside the engine's process: import the engine once, and fork its further processes from here.

Command ``zygote TIMELINE PROGRAM [ARGUMENT]...``.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Collection, Sequence
from typing import NoReturn

from ...closure import Closure, import_closure
from ...environment import import_environment
from ...import_trace.hook import ImportTrace
from ...settings import read_plan
from ...timeline import Timeline, say
from ..engine_program import EXIT_DECLINED, command_line
from ..preload import launch
from . import fd_passing, fork_safety, proctitle, specialize
from .fork_server import ForkRequest, ForkServer, start_fork_server
from .spawn_hook import SpawnHook


def main(argv: Sequence[str]) -> int:
    """Import, fork a fork server, become the engine; or, forked from that one, become what was asked for."""
    timeline_path, program, *arguments = argv
    timeline = Timeline(timeline_path, "engine")
    del sys.path[0]  # this package's: the engine's own first entry takes its place
    path = list(sys.path)
    try:
        inherited = fd_passing.open_fds() - {0, 1, 2, timeline.descriptor}
        timeline.renumber(fd_passing.move_high)
        proctitle.keep_writable()
        hidden = read_plan().engine.import_environment
        contract = import_engine(Closure.read(), hidden, timeline)
        fork_server, fork_request = start_or_specialize(timeline, None, inherited)
        if not fork_request:
            serve(fork_server, contract, timeline)
            sys.orig_argv[:] = command_line(sys.executable, program, arguments)
            # Before libraries start threads, which take their name from this one.
            proctitle.rename(program, sys.orig_argv)
            specialize.reapply_environment(contract, timeline)
    except Exception as error:
        decline(repr(error), timeline)
    if fork_request:
        become(fork_server, fork_request, contract, path, timeline)
        return 0
    timeline.event("engine.entered")
    launch.run(program, arguments)
    return 0


def resume_restored(
    contract: import_environment.Contract, path: Sequence[str], timeline: Timeline, fork_request: ForkRequest
) -> None:
    """Go on as a process that has imported everything and now learns what it is to become: a restored one."""
    try:
        specialize.invalidate_host_caches()  # before the fork, so that the fork server has none of them either
        fork_server, latest = start_or_specialize(timeline, fork_request)
    except Exception as error:
        decline(repr(error), timeline, "snapshot")
    # The engine's own process keeps what imports have put into sys.path; a child of it begins as an interpreter does.
    become(fork_server, latest or fork_request, contract, list(sys.path) if latest is fork_request else path, timeline)


def become(
    fork_server: ForkServer,
    fork_request: ForkRequest,
    contract: import_environment.Contract,
    path: Sequence[str],
    timeline: Timeline,
) -> None:
    """Become what a request asks for."""
    engine = fork_request.request["target"][0] == specialize.PROGRAM
    timeline.process = "engine" if engine else "child"
    try:
        serve(fork_server, contract, timeline)
        specialize.apply_request(fork_request, contract, path, timeline)
    except Exception as error:
        if engine:
            decline(repr(error), timeline, "snapshot")
        raise
    if engine:
        timeline.event("engine.entered")
    specialize.run(fork_request.request["target"], fork_request.request["argv"])


def serve(fork_server: ForkServer, contract: import_environment.Contract, timeline: Timeline) -> None:
    """Turn the collector on, trace further imports, and have this process's children forked by its fork server."""
    gc.enable()
    ImportTrace(timeline).install()
    SpawnHook(fork_server, timeline, contract).install()


def start_or_specialize(
    timeline: Timeline, fork_request: ForkRequest | None, inherited: Collection[int] = ()
) -> tuple[ForkServer, ForkRequest | None]:
    """Fork a fork server from this process, and from each process that is forked by that one.

    Args:
        timeline: gets an event where a forked child can have no fork server.
        fork_request: what this process was forked for, ``None`` for one that was not forked by a fork server.
        inherited: open files that this process was started with: a spawned process gets none of them.

    Returns:
        In this process its fork server and its request; in each forked child the same of its own.

    Raises:
        OSError: this process can have no fork server, and was not forked by one.
    """
    while True:
        try:
            fork_server = start_fork_server(fork_request, () if fork_request else inherited)
        except OSError as error:
            if not fork_request:
                raise
            timeline.event("fork_server.failed", reason=str(error))
            return ForkServer.missing(), fork_request
        if isinstance(fork_server, ForkServer):
            return fork_server, fork_request
        fork_request = fork_server


def decline(reason: str, timeline: Timeline, tier: str = "zygote") -> NoReturn:
    """End this process, of which the engine knows nothing yet, so that the next tier starts it."""
    timeline.event("tier.declined", tier=tier, reason=reason)
    say(f"{tier} skipped: {reason}")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception as error:  # an import may have put anything in its place
            timeline.event("output.dropped", reason=repr(error))
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
    safety = fork_safety.ForkSafety()
    began = time.monotonic()
    gc.disable()
    os.environ.update(hidden)
    with import_environment.Reads() as reads:
        skipped = import_closure(closure.modules, safety.check)
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
        native_threads=safety.threads,
        hidden={name: reads.names[name] for name in hidden if name in reads.names},
    )
    reason = safety.reason()
    if reason:
        decline(reason, timeline)
    return import_environment.Contract(variables, reads.names, hidden, preload, made, native, before)


def _restore_preload(own: str) -> None:
    """Leave in the environment the container's own ``LD_PRELOAD`` alone."""
    os.environ["LD_PRELOAD"] = own
    if not own:
        del os.environ["LD_PRELOAD"]
