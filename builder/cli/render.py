"""``warmimage render``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Given, takes_configuration


@takes_configuration
def render(
    given: Given,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-o", metavar="DIR", help="Directory to write a complete build context to."),
    ] = None,
) -> None:
    """Print the Dockerfile, or write a complete build context for plain docker build.

    Examples:

    \b
      warmimage render --model ./my-model --accelerator cpu
      warmimage render --model ./my-model --output-dir context && docker build context
    """
    from ..build import context, planner
    from ..config import load
    from ..console import note, product
    from ..inputs import wheels
    from ..rendering.dockerfile import dockerfile

    config = load.load(given.file, given.values, given.origins)
    inputs = planner.resolve(config, given.lock_file)
    plan = planner.make_plan(config, inputs)
    if output_dir is None:
        product(dockerfile(plan))
        return
    context.write(plan, inputs, output_dir)
    wheels.write_lock(inputs.wheelset, given.lock_file)
    product(str(output_dir))
    secrets = "".join(f" --secret {secret}" for secret in config.secrets)
    note(f"Next: docker build --network {config.network}{secrets} {output_dir}")
