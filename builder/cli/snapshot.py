"""``warmimage snapshot``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def snapshot(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Reference of an image built by warmimage.")],
    tags: Annotated[
        list[str] | None, typer.Option("--tag", "-t", metavar="REFERENCE", help="Reference to tag the new image with.")
    ] = None,
    gpus: Annotated[
        str,
        typer.Option(
            metavar="all|N|device=ID", help="GPUs for the compile caches. Default: all, if the image is for CUDA."
        ),
    ] = "",
    model_dir: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="DIR", help="Model directory for a real start that fills the engine's compile caches."
        ),
    ] = None,
    progress: Annotated[
        Literal["auto", "plain", "tty", "quiet"], typer.Option(help="How to show the build's steps.")
    ] = "auto",
) -> None:
    """Capture an image's engine after its imports and build a new image that restores it at start.

    The build does the same.  Use this verb for an image that was built with snapshot: off, or whose build could not
    capture the engine.  Needs no privilege.  Prints the new image's id.

    Examples:

    \b
      warmimage snapshot my-model:1 --tag my-model:1-snapshot
      warmimage snapshot my-model:1 --gpus device=0 --model ./my-model --tag my-model:1
    """
    from pydantic import TypeAdapter, ValidationError

    from ..build import snapshot_layer as snapshots
    from ..config.model import Tag
    from ..console import product
    from ..docker_api import daemon
    from ..docker_api.container_options import device_request
    from ..errors import UsageError

    for tag in tags or []:
        try:
            TypeAdapter(Tag).validate_python(tag)
        except ValidationError:
            raise UsageError("not an image reference", where="--tag", got=tag, expected="such as my-model:1") from None
    if gpus:
        device_request(gpus)
    product(snapshots.of_image(daemon.connect(), image, tags or [], gpus, progress, model_dir))
