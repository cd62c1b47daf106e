"""``warmimage doctor``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .invocation import Json


def doctor(
    image: Annotated[
        str | None, typer.Argument(metavar="IMAGE", help="Image built by warmimage to check this host against.")
    ] = None,
    as_json: Json = False,
    gpus: Annotated[str, typer.Option(metavar="all|N|device=ID", help="GPUs for a container of IMAGE.")] = "",
    model_dir: Annotated[
        Path | None,
        typer.Option("--model", metavar="DIR", help="Model directory to check and to read."),
    ] = None,
) -> None:
    """Check this host, and with IMAGE how well it runs that image.  Each finding names its fix.

    Takes less than ten seconds.  Starts small containers and removes them.  To measure the disks, it drops at most
    256 MiB of the image's and of the model's files from the page cache and reads them again.
    Exits with 4 if something required is missing.

    Examples:

    \b
      warmimage doctor
      warmimage doctor my-model:1 --model ./my-model --json
    """
    import time

    from ..console import console, product
    from ..docker_api.container_options import device_request
    from ..doctor.checks import CHECKS
    from ..doctor.report import exit_code, show, to_json
    from ..doctor.run import run_checks
    from ..doctor.target import Target
    from ..errors import UsageError

    if gpus and not image:
        raise UsageError("--gpus needs an IMAGE", where="--gpus", fix="warmimage doctor IMAGE --gpus all")
    if gpus:
        device_request(gpus)
    began = time.monotonic()
    with console().status("checking"):
        findings = run_checks(CHECKS, Target(image=image, model_dir=model_dir, gpus=gpus))
    seconds = time.monotonic() - began
    if as_json:
        product(to_json(image, findings, seconds))
    else:
        show(findings, seconds)
    sys.exit(exit_code(findings))
