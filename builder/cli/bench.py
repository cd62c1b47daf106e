"""``warmimage bench``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..bench.result import Result, State
    from ..bench.session import Session, Step


def bench(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Reference or id of an image built by warmimage.")],
    engine_args: Annotated[
        list[str] | None, typer.Argument(metavar="-- ENGINE_ARGS", help="Engine arguments, unchanged.")
    ] = None,
    model_dir: Annotated[
        Path | None, typer.Option("--model-dir", metavar="DIR", help="Model directory to mount.")
    ] = None,
    arms: Annotated[
        str,
        typer.Option(
            metavar="TIER[+NAME=VALUE]...,...",
            help="Tiers to compare, each with variables of its own. Default: every tier of the image, plain first.",
        ),
    ] = "",
    against: Annotated[
        str, typer.Option(metavar="IMAGE2", help="One more arm: any image that serves the OpenAI API.")
    ] = "",
    against_args: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Its own arguments, in place of the engine arguments.")
    ] = None,
    against_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port that it listens on, where warmimage did not build it.")
    ] = 8000,
    runs: Annotated[int, typer.Option("-n", "--runs", min=1, help="Runs of each arm in each state.")] = 5,
    state: Annotated[
        str, typer.Option(metavar="warm,cold", help="State of the page cache; both, or one.")
    ] = "warm,cold",
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="Variable of every container.")
    ] = None,
    gpus: Annotated[str, typer.Option(metavar="all|N|device=ID", help="GPUs to give the containers.")] = "",
    host: Annotated[str, typer.Option(help="Host address to publish ports on.")] = "127.0.0.1",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="How long a start may take.")] = 900,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the result, with every timeline.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write the report.")] = None,
    gate: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO", min=0, help="End with 5 unless the last arm is RATIO times as fast as the first."
        ),
    ] = None,
) -> None:
    """Measure starts of an image in several tiers, in turn, with the page cache warm and cold.

    Prints medians, spread, and the ratio of the first arm to each other one.

    Examples:

    \b
      warmimage bench my-model:1 --model-dir ./my-model
      warmimage bench my-model:1 --model-dir ./my-model --arms plain,plain --state warm
      warmimage bench my-model:1 --model-dir ./my-model --arms preload --against vllm/vllm-openai:v0.33.0 \\
        --against-args="--model /model" --gpus all --report starts.html
    """
    from ..bench import session, tables, verdict
    from ..bench.result import write_whole
    from ..console import product, warn
    from ..docker_api import daemon
    from .options import variables

    states = _states(state)
    session.check_writable(json_file, report)
    request = session.Request(
        image=image,
        model_dir=model_dir,
        arms=arms,
        other=against,
        other_arguments=None if against_args is None else _words(against_args),
        other_port=against_port,
        rounds=runs,
        states=states,
        environment=variables(env or []),
        arguments=tuple(engine_args or ()),
        host=host,
        gpus=gpus,
        timeout=timeout,
    )
    result = _run(session.Session(daemon.connect(), request))
    if json_file:
        write_whole(json_file, result.model_dump_json(indent=1) + "\n")
    product(tables.as_text(result, _width()))
    if report:
        write_whole(report, tables.report(result))
    for fault in result.faults:
        warn(f"this comparison is worthless: {fault}")
    if gate is not None:
        verdict.check_gate(result, gate)


def _run(session: Session) -> Result:
    """Run a bench and show how far it is: a bar on a terminal, a line per start elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..bench.result import Run
    from ..console import console, note

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(), transient=True, disable=not console().is_terminal) as progress:
        task = progress.add_task("", total=sum(1 for _ in session.steps()))

        def begun(step: Step) -> None:
            progress.update(task, description=f"{step.state}, {step.arm}, {_round(step)}")

        def ended(step: Step, run: Run) -> None:
            note(
                f"{step.state}, {step.arm}, {_round(step)}: ready {run.figure('ready'):.2f} s, "
                f"first token {run.figure('first_token'):.2f} s"
            )
            progress.advance(task)

        return session.run(begun, ended)


def _round(step: Step) -> str:
    return f"run {step.round}" if step.round else "warm-up, discarded"


def _states(text: str) -> tuple[State, ...]:
    from ..errors import UsageError

    found: list[State] = []
    for word in text.split(","):
        known: State | None = "warm" if word == "warm" else "cold" if word == "cold" else None
        if known is None:
            raise UsageError("no such state of the page cache", where="--state", got=word, expected="warm, cold")
        found.append(known)
    return tuple(dict.fromkeys(found))


def _words(text: str) -> tuple[str, ...]:
    from ..errors import UsageError

    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"the words cannot be split: {error}", where="--against-args") from None


def _width() -> int:
    """Return how wide a table may be: the terminal's width, or plenty where there is none."""
    import shutil

    return max(100, shutil.get_terminal_size((160, 24)).columns)


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(bench)
