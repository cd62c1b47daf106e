"""The ``warmimage`` command.  Modules here define verbs and no more; they import what a verb needs when it runs."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from . import bench, build, chart, doctor, init, inspect, render, report, run, snapshot, warm, warmer

if TYPE_CHECKING:
    from ..errors import Problem

app = typer.Typer(
    name="warmimage",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 build or network failure, 2 usage, 3 configuration invalid, 4 environment lacking, "
    "5 gate failed; run returns the container's.",
)
init.add_to(app)
render.add_to(app)
build.add_to(app)
snapshot.add_to(app)
chart.add_to(app)
run.add_to(app)
inspect.add_to(app)
bench.add_to(app)
report.add_to(app)
doctor.add_to(app)
warm.add_to(app)
warmer.add_to(app)

_verbosity = 0


def _print_version(value: bool) -> None:
    if value:
        from .. import __version__

        typer.echo(f"warmimage {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="-vv shows tracebacks.")] = 0,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Build container images for GPU model servers that start sooner, without changing the server."""
    global _verbosity
    _verbosity = verbose


def main() -> None:
    """Run the command line and end the process with a documented exit code."""
    from ..errors import Problem, WarmimageError

    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that what is half-done is removed
    try:
        app()
    except WarmimageError as error:
        _report(error.problems)
        code = error.exit_code
        failure: BaseException = error
    except KeyboardInterrupt as error:
        code, failure = 130, error
    except OSError as error:
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        _report([Problem(what, fix="check that the path is there and may be written" if error.filename else "")])
        code, failure = 1, error
    except Exception as error:
        fix = "warmimage -vv shows the traceback; please report it"
        _report([Problem(f"internal error: {type(error).__name__}: {error}", fix=fix)])
        code, failure = 1, error
    if _verbosity >= 2 or os.environ.get("WARMIMAGE_DEBUG"):
        traceback.print_exception(failure)
    sys.exit(code)


def _report(problems: Sequence[Problem]) -> None:
    """Show what is wrong: to a person, and where JSON was asked for also to the program that asked."""
    from dataclasses import asdict

    from ..console import fail, product

    own = sys.argv[: sys.argv.index("--")] if "--" in sys.argv else sys.argv
    if "--json" in own:
        product(json.dumps({"errors": [asdict(problem) for problem in problems]}))
    for problem in problems:
        fail(str(problem))
