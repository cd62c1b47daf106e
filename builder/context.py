"""From plan to build context: a folder that plain ``docker build`` builds."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

from . import model
from .errors import ConfigError, WarmimageError
from .plan import Plan
from .planner import Inputs
from .render import dockerfile
from .replacing import replaced

#: Everything at the top of a context: a folder that holds more is not ours to replace.
_NAMES = frozenset(
    {"Dockerfile", "plan.json", "imports.json", "warmimage.lock", "entrypoint", "wheels", "criu", "model"}
)


def write(plan: Plan, inputs: Inputs, directory: Path, *, link: bool = False) -> None:
    """Write the context of a plan; the folder appears whole or not at all, and one written before is kept until then.

    Args:
        plan: what the image is.
        inputs: where wheels and weights are on this machine.
        directory: must not exist, or be empty, or hold a context written before.
        link: put wheels and weights there as hard links where the file system allows; for a context that nobody edits,
            because whoever writes into such a file writes into the model.

    Raises:
        ConfigError: the folder holds something else, or cannot be replaced.
        WarmimageError: it cannot be written, or weights to bake cannot be downloaded.
    """
    given, directory = directory, directory.resolve()
    _check_output(given, directory)
    if plan.weights == "bake":
        inputs = replace(inputs, model=model.fetch(inputs.model))
    try:
        with replaced(directory) as made:
            _fill(made, plan, inputs, link)
    except OSError as error:
        raise WarmimageError(
            f"the build context cannot be written: {error.strerror or error}", where=str(error.filename or given)
        ) from None


def _check_output(given: Path, directory: Path) -> None:
    """Refuse an output folder that is not ours, or that another cannot take the place of."""
    if not directory.exists():
        return
    if not _is_context(directory):
        raise ConfigError(
            "the output folder holds something else", where="--output-dir", got=str(given),
            expected="a new or empty folder, or a context written before",
        )  # fmt: skip
    current = Path.cwd()
    if directory in (current, *current.parents) or os.path.ismount(directory):
        raise ConfigError(
            "the output folder is in use and cannot be replaced", where="--output-dir", got=str(given),
            expected="neither the current folder, nor one above it, nor a mount point", fix="--output-dir context",
        )  # fmt: skip


def _is_context(directory: Path) -> bool:
    """Return whether a folder is empty, or a context that this version wrote and nothing else."""
    try:
        names = set(os.listdir(directory))
        if names:
            Plan.model_validate_json((directory / "plan.json").read_bytes())
    except (OSError, ValueError):
        return False
    return names <= _NAMES


def _fill(made: Path, plan: Plan, inputs: Inputs, link: bool) -> None:
    made.mkdir()
    made.chmod(0o755)
    (made / "Dockerfile").write_text(dockerfile(plan), encoding="utf-8")
    (made / "plan.json").write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")
    # The closure's step sees what it needs and no more: another port or label does not import everything again.
    imports = {
        **plan.engine.model_dump(include={"required_modules", "native_libraries", "import_environment"}),
        **plan.closure.model_dump(include={"modules", "later", "preload"}),
    }
    (made / "imports.json").write_text(json.dumps(imports, indent=1) + "\n", encoding="utf-8")
    with as_file(files("warmimage.entrypoint")) as source:
        shutil.copytree(source, made / "entrypoint", ignore=shutil.ignore_patterns("__pycache__", "py.typed"))
    if inputs.wheelset:
        lock = inputs.wheelset.lock
        for wheel in lock.wheels:
            _put(inputs.wheelset.folder / wheel.file, made / "wheels" / wheel.file, link)
        (made / "wheels" / "requirements.txt").write_text(lock.as_requirements(), encoding="utf-8")
        (made / "warmimage.lock").write_text(lock.to_json(), encoding="utf-8")
    if inputs.criu:
        for source in sorted(inputs.criu.folder.rglob("*")):
            if source.is_file():
                _put(source, made / "criu" / source.relative_to(inputs.criu.folder), link)
    if plan.weights == "bake" and inputs.model.directory:
        for file in model.files(inputs.model.directory, hub=inputs.model.revision is not None):
            _put(inputs.model.directory / file, made / "model" / file, link)


def _put(source: Path, target: Path, link: bool) -> None:
    """Put a file into the context, as a hard link where that is wanted and the file system allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:  # another file system, or one without hard links
            pass
    shutil.copy2(source, target)
