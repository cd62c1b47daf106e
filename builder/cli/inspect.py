"""``warmimage inspect``."""

from __future__ import annotations

from typing import Annotated

import typer


def inspect(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Reference or id of an image built by warmimage.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show an image's plan, labels, size by purpose, start tiers, snapshot, and what this host would decline."""
    from ..console import product
    from ..docker_api import daemon
    from ..image.host_compat import declined
    from ..image.read import inspect as read_back
    from ..image.show import as_text, to_json

    client = daemon.connect()
    report = read_back(client, image)
    host = declined(client, report.plan, report.snapshot, report.snapshot_absent)
    product(to_json(report, host) if as_json else as_text(report, host))


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(inspect)
