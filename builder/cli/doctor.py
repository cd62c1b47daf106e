"""``warmimage doctor``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def doctor(
    image: Annotated[
        str | None, typer.Argument(metavar="IMAGE", help="Image built by warmimage to check this host against.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    gpus: Annotated[str, typer.Option(metavar="all|N|device=ID", help="GPUs to give a container of the image.")] = "",
    model_dir: Annotated[
        Path | None,
        typer.Option("--model-dir", metavar="DIR", help="Model directory to check, and to measure the reading of."),
    ] = None,
) -> None:
    """Check this host, and with IMAGE whether it would run that image well; say what to do about each finding.

    Takes less than ten seconds.  It starts small containers and removes them, and to measure disks it drops at most
    256 MiB of the image's and of the model's files from the page cache and reads them again.
    Ends with exit code 4 when something required is missing.

    Examples:

    \b
      warmimage doctor
      warmimage doctor my-model:1 --model-dir ./my-model --json
    """
    import time

    from ..console import console, product
    from ..docker_api.container_options import device_request
    from ..doctor.checks import CHECKS
    from ..doctor.probe import examine
    from ..doctor.report import exit_code, show, to_json
    from ..doctor.target import Subject
    from ..errors import UsageError

    if gpus and not image:
        raise UsageError("GPUs are given to a container of an image", where="--gpus", fix="warmimage doctor IMAGE")
    if gpus:
        device_request(gpus)
    began = time.monotonic()
    with console().status("looking"):
        findings = examine(CHECKS, Subject(image=image, model_dir=model_dir, gpus=gpus))
    seconds = time.monotonic() - began
    if as_json:
        product(to_json(image, findings, seconds))
    else:
        show(findings, seconds)
    sys.exit(exit_code(findings))


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(doctor)
