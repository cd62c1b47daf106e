"""``warmimage build-warmer``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def build_warmer(
    tags: Annotated[
        list[str] | None, typer.Option("--tag", "-t", metavar="REFERENCE", help="Reference to tag the image with.")
    ] = None,
    base_image: Annotated[
        str | None,
        typer.Option("--base-image", metavar="IMAGE", help="Python image. Default: the one that compose takes."),
    ] = None,
    wheelhouse: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory to take all wheels from, instead of an index.")
    ] = None,
    push: Annotated[bool, typer.Option("--push", help="Push every tag and print the registry's digest.")] = False,
    progress: Annotated[
        Literal["auto", "plain", "tty", "quiet"], typer.Option(help="How to show the build's steps.")
    ] = "auto",
) -> None:
    """Build a small image whose only task is to keep weights in the page cache of its node.

    The image contains neither engine nor model.  Use it on nodes that run other server images.  Its wheels are locked
    in warmimage-warmer.lock in the current directory.  Prints the image's reference.

    Examples:

    \b
      warmimage build-warmer --tag my-warmer:1
      docker run --rm -p 9464:9464 -v "$PWD/my-model:/model:ro" my-warmer:1 warm --budget 20Gi
    """
    from pydantic import TypeAdapter, ValidationError

    from ..build import warmer_image as images
    from ..config.model import Reference, Tag
    from ..console import product
    from ..errors import UsageError

    for kind, flag, names in ((Tag, "--tag", tags or []), (Reference, "--base-image", [base_image or "python:3"])):
        for name in names:
            try:
                TypeAdapter(kind).validate_python(name)
            except ValidationError:
                raise UsageError("not an image reference", where=flag, got=name, expected="such as name:1") from None
    product(images.build(tags or [], base_image, wheelhouse, push=push, progress=progress))
