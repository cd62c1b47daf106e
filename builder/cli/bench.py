"""``warmimage bench``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .invocation import Json

if TYPE_CHECKING:
    from ..bench.result import Result, State
    from ..bench.session import Session, Step


def bench(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Reference or id of an image built by warmimage.")],
    engine_args: Annotated[
        list[str] | None, typer.Argument(metavar="-- ENGINE_ARGS", help="Engine arguments, unchanged.")
    ] = None,
    model_dir: Annotated[Path | None, typer.Option("--model", metavar="DIR", help="Model directory to mount.")] = None,
    arms: Annotated[
        str,
        typer.Option(
            metavar="TIER[+NAME=VALUE]...,...",
            help="Arms to compare: tiers, each with its own variables. Default: every tier of the image, plain first.",
        ),
    ] = "",
    against: Annotated[
        str, typer.Option(metavar="IMAGE2", help="One more arm: any image that serves the OpenAI API.")
    ] = "",
    against_args: Annotated[
        str | None, typer.Option(metavar="ARGUMENTS", help="Arguments of IMAGE2, in place of the engine arguments.")
    ] = None,
    against_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of IMAGE2, if warmimage did not build it.")
    ] = 8000,
    runs: Annotated[int, typer.Option("-n", "--runs", min=1, help="Runs of each arm in each state.")] = 5,
    state: Annotated[
        str, typer.Option(metavar="warm,cold", help="State of the page cache: one of them, or both.")
    ] = "warm,cold",
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="Environment variable of every container."),
    ] = None,
    gpus: Annotated[str, typer.Option(metavar="all|N|device=ID", help="GPUs for the containers.")] = "",
    host: Annotated[str, typer.Option(help="Host address to publish ports on.")] = "127.0.0.1",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="Time limit of one start.")] = 900,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the result as JSON, with every timeline."),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write the report as HTML.")] = None,
    gate: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO", min=0, help="Exit with 5 unless the last arm is RATIO times as fast as the first."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the start-up times of an image's tiers, with the page cache warm and cold.

    The arms run in turn.  Prints each arm's median and spread, and the ratio of the first arm to each other one.

    Examples:

    \b
      warmimage bench my-model:1 --model ./my-model
      warmimage bench my-model:1 --model ./my-model --arms plain,plain --state warm
      warmimage bench my-model:1 --model ./my-model --arms preload --against vllm/vllm-openai:v0.33.0 \\
        --against-args="--model /model" --gpus all --report starts.html
    """
    from ..bench import session, tables, verdict
    from ..console import product, warn
    from ..docker_api import daemon
    from ..files import write_whole
    from .options import variables

    states = _states(state)
    session.check_writable(output, report)
    request = session.Request(
        image=image,
        model_dir=model_dir,
        arms=arms,
        other=against,
        other_arguments=None if against_args is None else _split(against_args),
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
    text = result.model_dump_json(indent=1) + "\n"
    if output:
        write_whole(output, text)
    product(text if as_json else tables.as_text(result, _width()))
    if report:
        write_whole(report, tables.report(result))
    for fault in result.faults:
        warn(f"this comparison is invalid: {fault}")
    if gate is not None:
        verdict.check_gate(result, gate)


def _run(session: Session) -> Result:
    """Run a bench and show its progress: a bar on a terminal, a line per start elsewhere."""
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

    states: list[State] = []
    for name in text.split(","):
        if name == "warm":
            states.append("warm")
        elif name == "cold":
            states.append("cold")
        else:
            raise UsageError("unknown state of the page cache", where="--state", got=name, expected="warm, cold")
    return tuple(dict.fromkeys(states))


def _split(text: str) -> tuple[str, ...]:
    from ..errors import UsageError

    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"the arguments cannot be split: {error}", where="--against-args") from None


def _width() -> int:
    """Return the largest width of a table in characters: the terminal's, or 160 without one."""
    import shutil

    return max(100, shutil.get_terminal_size((160, 24)).columns)
