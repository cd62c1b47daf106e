"""``warmimage build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import Given, takes_configuration


@takes_configuration
def build(
    given: Given,
    push: Annotated[bool, typer.Option("--push", help="Push every tag and print the registry's digest.")] = False,
    progress: Annotated[
        Literal["auto", "plain", "tty", "quiet"], typer.Option(help="How to show the build's steps.")
    ] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan as JSON; build and write nothing.")
    ] = False,
    values: Annotated[
        Path | None,
        typer.Option(
            "--values",
            metavar="FILE",
            help="Where to write values for the Helm chart. Default: values.generated.yaml in the lock's directory.",
        ),
    ] = None,
    no_values: Annotated[bool, typer.Option("--no-values", help="Do not write values for the Helm chart.")] = False,
) -> None:
    """Build a container image that serves a model with an unmodified engine and starts faster.

    The image never contains a secret, or the weights of a mounted model.  Prints the image's digest reference.

    Examples:

    \b
      warmimage build --model ./my-model --engine transformers --accelerator cpu --tag my-model:1
      warmimage build --model ./my-model --engine vllm --base-image vllm/vllm-openai:v0.33.0 --tag my-model:1
      warmimage build --model Qwen/Qwen3-8B --weights bake --tag registry.example.com/qwen:1 --push
    """
    from ..build import pipeline
    from ..config import load
    from ..console import product
    from ..errors import UsageError
    from ..helm.values import FILE_NAME

    if values and no_values:
        raise UsageError("--values and --no-values exclude each other", fix="remove one of them")
    config = load.load(given.file, given.values, given.origins)
    if dry_run:
        product(pipeline.dry_run(config, given.lock_file))
        return
    target = None if no_values else values or given.lock_file.with_name(FILE_NAME)
    product(pipeline.build(config, given.lock_file, push=push, progress=progress, values_file=target))
