"""``warmimage inspect``."""

from __future__ import annotations

from typing import Annotated

import typer

from .invocation import Json


def inspect(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Reference or id of an image built by warmimage.")],
    as_json: Json = False,
) -> None:
    """Show an image's plan, labels, sizes, start-up tiers and snapshot, and the tiers that this host cannot run."""
    from ..console import product
    from ..docker_api import daemon
    from ..image.host_compat import declined
    from ..image.read import inspect as read_back
    from ..image.show import as_text, to_json

    client = daemon.connect()
    report = read_back(client, image)
    host = declined(client, report.plan, report.snapshot, report.snapshot_absent)
    product(to_json(report, host) if as_json else as_text(report, host))
