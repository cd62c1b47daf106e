"""``warmimage warm``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .invocation import Json


def warm(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Model directories.")],
    budget: Annotated[
        str,
        typer.Option(
            metavar="BYTES", help="Largest amount to keep cached, such as 20Gi. Default: as much as memory holds."
        ),
    ] = "",
    rate: Annotated[
        str, typer.Option(metavar="BYTES", help="Largest read rate per second, such as 500M. Default: unlimited.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Load models into this machine's page cache and report how much is cached.

    Reads the files that an engine reads, and skips data that is already cached.  Pauses while other processes wait for
    memory or storage.  Exits with 1 if not everything is cached.  An image's command warm runs the same code.

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
            raise UsageError(
                "the model directory is missing", where="DIR", got=str(directory), expected="an existing directory"
            )
    warmed = warm_local.warm(directories, _bytes("--budget", budget), _bytes("--rate", rate))
    if as_json:
        product(warmed.to_json())
    else:
        warm_local.show(warmed)
    sys.exit(0 if warmed.state.complete else 1)


def _bytes(flag: str, text: str) -> int | None:
    """Return the number of bytes that an option names; ``None`` for an option that was not given."""
    from ..entrypoint.warm.sizes import parse
    from ..errors import UsageError

    try:
        return parse(text) if text else None
    except ValueError as error:
        raise UsageError(str(error), where=flag, got=text, expected="an amount, such as 21474836480 or 20Gi") from None
