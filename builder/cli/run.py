"""``warmimage run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..config.descriptions import Start


def run(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Reference or id of an image built by warmimage.")],
    engine_args: Annotated[
        list[str] | None, typer.Argument(metavar="-- ENGINE_ARGS", help="Engine arguments, unchanged.")
    ] = None,
    model_dir: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="DIR",
            help="Model directory to mount. Read-only, unless the image downloads its model.",
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Host port; 0 takes a free one. Default: the server's port.")
    ] = None,
    host: Annotated[str, typer.Option(help="Host address to publish the port on.")] = "127.0.0.1",
    gpus: Annotated[str, typer.Option(metavar="all|N|device=ID", help="GPUs for the container.")] = "",
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="Environment variable of the container."),
    ] = None,
    start: Annotated[Start | None, typer.Option(help="Start-up tier to begin with.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Leave the container running when it is ready; print its id.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the container.")] = None,
) -> None:
    """Run an image with the mounts, ports and GPUs it needs, and report when the server is ready.

    Exits with the container's exit code.

    Examples:

    \b
      warmimage run my-model:1 --model ./my-model
      warmimage run my-model:1 --model ./my-model --gpus all --port 9000 -- --max-model-len 4096
    """
    from .. import runner
    from ..console import product
    from ..docker_api import daemon
    from ..docker_api.container_options import Options
    from .options import variables

    environment = variables(env or [])
    if start:
        environment["WARMIMAGE_START"] = start
    options = Options(
        model_dir=model_dir,
        port=port,
        host=host,
        gpus=gpus,
        environment=environment,
        arguments=tuple(engine_args or ()),
        detach=detach,
        name=name,
    )
    started = runner.run(daemon.connect(), image, options)
    if detach and started.code == 0:
        product(started.container)
    sys.exit(started.code)
