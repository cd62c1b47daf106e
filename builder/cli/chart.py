"""``warmimage chart``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def chart(
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", metavar="DIR", help="Folder to put the folder warmimage into.")
    ] = Path(),
) -> None:
    """Write the Helm chart that serves images and keeps their files in each node's memory.

    Build writes the values for it, values.generated.yaml.  The chart's folder goes to standard output.

    Examples:

    \b
      warmimage chart --output-dir charts
      helm upgrade --install my-release charts/warmimage -f values.generated.yaml -f mine.yaml
    """
    from ..console import note, product
    from ..helm import chart as charts

    written = charts.write(output_dir)
    product(str(written))
    note(f"Next: helm upgrade --install RELEASE {written} -f values.generated.yaml -f mine.yaml")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(chart)
