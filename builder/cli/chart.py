"""``warmimage chart``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def chart(
    output_dir: Annotated[
        Path,
        typer.Option("--output-dir", "-o", metavar="DIR", help="Directory in which to create the chart's directory."),
    ] = Path(),
) -> None:
    """Write the Helm chart that serves images and keeps their files in each node's page cache.

    The build writes its values, values.generated.yaml.  Prints the chart's directory.

    Examples:

    \b
      warmimage chart --output-dir charts
      helm upgrade --install my-release charts/warmimage -f values.generated.yaml -f mine.yaml
    """
    from ..console import note, product
    from ..helm import chart as charts

    directory = charts.write(output_dir)
    product(str(directory))
    note(f"Next: helm upgrade --install RELEASE {directory} -f values.generated.yaml -f mine.yaml")
