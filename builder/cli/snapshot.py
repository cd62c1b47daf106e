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
        typer.Option(metavar="all|N|device=ID", help="GPUs for compile caches. Default: all, for an image on CUDA."),
    ] = "",
    model_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The model: a real start with it leaves the engine's compile caches."),
    ] = None,
    progress: Annotated[
        Literal["auto", "plain", "tty", "quiet"], typer.Option(help="How to show the build's steps.")
    ] = "auto",
) -> None:
    """Capture an image's imported engine, and build a new image with it that starts by restoring it.

    Build does the same by itself.  This is for an image that was built with snapshot: off, or whose build could not
    capture it.  It needs no privilege.  The new image's id goes to standard output.

    Examples:

    \b
      warmimage snapshot my-model:1 --tag my-model:1-snapshot
      warmimage snapshot my-model:1 --gpus device=0 --model-dir ./my-model --tag my-model:1
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
            raise UsageError("no image reference", where="--tag", got=tag, expected="such as my-model:1") from None
    if gpus:
        device_request(gpus)
    product(snapshots.of_image(daemon.connect(), image, tags or [], gpus, progress, model_dir))


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(snapshot)
