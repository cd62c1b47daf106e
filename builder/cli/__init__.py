"""The ``warmimage`` command.  Modules here define verbs and no more; a verb imports what it needs when it runs."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import bench, build, build_warmer, chart, doctor, init, inspect, render, report, run, snapshot, warm
from .invocation import CURRENT

if TYPE_CHECKING:
    from ..errors import Problem

#: All verbs, in the order of ``warmimage --help``: the function, and what that list shows (45 characters at most).
_COMMANDS: dict[str, tuple[Callable[..., Any], str]] = {
    "init": (init.init, "Write a commented warmimage.yaml"),
    "render": (render.render, "Print the Dockerfile or write the context"),
    "build": (build.build, "Build an image"),
    "snapshot": (snapshot.snapshot, "Add a start-up snapshot to an image"),
    "chart": (chart.chart, "Write the Helm chart"),
    "run": (run.run, "Run an image"),
    "inspect": (inspect.inspect, "Show what an image contains"),
    "bench": (bench.bench, "Compare start-up times"),
    "report": (report.report, "Chart start-up timelines"),
    "doctor": (doctor.doctor, "Check this host"),
    "warm": (warm.warm, "Load models into the page cache"),
    "build-warmer": (build_warmer.build_warmer, "Build the page-cache warmer image"),
}

#: Names of the verbs.
VERBS = tuple(_COMMANDS)

app = typer.Typer(
    name="warmimage",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 success, 1 build or network failure, 2 usage error, 3 invalid configuration, "
    "4 requirement missing on this machine, 5 gate missed; run returns the container's exit code.",
)
for _name, (_verb, _summary) in _COMMANDS.items():
    app.command(_name, short_help=_summary)(_verb)


def _print_version(value: bool) -> None:
    if value:
        from .. import __version__

        typer.echo(f"warmimage {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Build container images for GPU model servers that start faster, with an unmodified server."""
    CURRENT.traceback, CURRENT.json = verbose, False


def main() -> None:
    """Run the command line and end the process with a documented exit code."""
    from ..errors import Problem, WarmimageError

    # As an exception, so that temporary containers and files are removed.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
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
        fix = "check that the path exists and that you may write to it" if error.filename else ""
        _report([Problem(what, fix=fix)])
        code, failure = 1, error
    except Exception as error:
        fix = "warmimage -v shows the traceback; please report it"
        _report([Problem(f"internal error: {type(error).__name__}: {error}", fix=fix)])
        code, failure = 1, error
    if CURRENT.traceback or os.environ.get("WARMIMAGE_DEBUG"):
        traceback.print_exception(failure)
    sys.exit(code)


def _report(problems: Sequence[Problem]) -> None:
    """Show errors on standard error, and after ``--json`` on standard output as JSON, too."""
    from dataclasses import asdict

    from ..console import fail, product

    if CURRENT.json:
        product(json.dumps({"errors": [asdict(problem) for problem in problems]}))
    for problem in problems:
        fail(str(problem))
