"""``warmimage init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    directory: Annotated[Path, typer.Argument(help="Directory to write into.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing warmimage.yaml.")] = False,
) -> None:
    """Write a commented warmimage.yaml and the schema that editors check it with."""
    from ..config.load import DEFAULT_FILE
    from ..config.schema import FILE_NAME, config_file_text, schema_text
    from ..console import note, product
    from ..errors import UsageError

    target = directory / DEFAULT_FILE
    if target.exists() and not force:
        raise UsageError(f"{target} exists already", fix="--force overwrites it")
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", fix=f"mkdir -p {directory}")
    (directory / FILE_NAME).write_text(schema_text(), encoding="utf-8")
    target.write_text(config_file_text(), encoding="utf-8")
    product(str(target))
    note(f"Next: name your model in {target}, then run: warmimage build")
