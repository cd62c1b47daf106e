"""``warmimage warm``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def warm(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Model directories.")],
    budget: Annotated[
        str, typer.Option(metavar="BYTES", help="Bytes that may be resident, such as 20Gi. Default: what memory holds.")
    ] = "",
    rate: Annotated[str, typer.Option(metavar="BYTES", help="Bytes per second to read at most. Default: any.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read models into this machine's page cache, and say what of them is resident.

    The same code as the command warm of an image.  Reads what an engine would, and not what is resident already;
    pauses while others wait for memory or storage.  Ends with exit code 1 when not everything is resident.

    Examples:

    \b
      warmimage warm ./my-model
      warmimage warm ./my-model --budget 20Gi --rate 500M --json
    """
    from .. import warm_local
    from ..console import product
    from ..errors import UsageError

    for directory in directories:
        if not directory.is_dir():
            raise UsageError("no model directory", where="DIR", got=str(directory), expected="a folder that is there")
    warmed = warm_local.warm(directories, _bytes("--budget", budget), _bytes("--rate", rate))
    if as_json:
        product(warmed.to_json())
    else:
        warm_local.show(warmed)
    sys.exit(0 if warmed.state.complete else 1)


def _bytes(flag: str, text: str) -> int | None:
    """Return the bytes that an option names, ``None`` for one that was not given."""
    from ..entrypoint.warm.sizes import parse
    from ..errors import UsageError

    try:
        return parse(text) if text else None
    except ValueError as error:
        raise UsageError(str(error), where=flag, got=text, expected="an amount, such as 21474836480 or 20Gi") from None


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(warm)
