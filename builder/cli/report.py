"""``warmimage report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    files: Annotated[list[Path], typer.Argument(metavar="TIMELINE", help="Timelines, or results of warmimage bench.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Page to write; - is standard output.")
    ] = Path("report.html"),
    png: Annotated[
        Path | None, typer.Option("--png", metavar="FILE", help="Also write the charts as a picture.")
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the report.")] = "Start-up report",
) -> None:
    """Chart where starts spend their time, as one self-contained HTML page.

    Examples:

    \b
      docker cp my-model:/run/warmimage/timeline.jsonl .
      warmimage report timeline.jsonl
      warmimage report plain.jsonl preload.jsonl --output starts.html --png starts.png
    """
    from ..console import product
    from ..errors import UsageError
    from ..report import page, picture, read

    for target in (output, png):
        if target and target.is_dir():
            raise UsageError("the report's path is a directory", where=str(target), fix=f"-o {target}/x.html")
    starts = read(files)
    picture_bytes = picture(title, starts) if png else b""  # first, so that without a renderer nothing is written
    text = page(title, starts)
    written = []
    if str(output) == "-":
        product(text)
    else:
        output.write_text(text, encoding="utf-8")
        written.append(output)
    if png:
        png.write_bytes(picture_bytes)
        written.append(png)
    for path in written if str(output) != "-" else []:
        product(str(path))
