"""What the command line asks of every verb: how errors are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass
class Invocation:
    """The options that decide how an error is shown.  They are read after the verb has failed.

    Attributes:
        traceback: show the traceback of an error.
        json: print errors as JSON on standard output, too.
    """

    traceback: bool = False
    json: bool = False


CURRENT = Invocation()


def _remember_json(value: bool) -> bool:
    CURRENT.json = value
    return value


#: ``--json``, the same option for every verb that has it.  Eager, so that an error of another option knows of it.
Json = Annotated[
    bool, typer.Option("--json", callback=_remember_json, is_eager=True, help="Print JSON on standard output.")
]
