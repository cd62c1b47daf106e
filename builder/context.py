"""From plan to build context: a folder that plain ``docker build`` builds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path

from .errors import ConfigError, WarmimageError
from .plan import Plan
from .planner import Inputs
from .render import dockerfile


def write(plan: Plan, inputs: Inputs, directory: Path) -> None:
    """Write the context of a plan; the folder appears whole or not at all.

    Args:
        plan: what the image is.
        inputs: where wheels and weights are on this machine.
        directory: must not exist, or be empty, or hold a context written before.

    Raises:
        ConfigError: the folder holds something else.
        WarmimageError: it cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or (any(directory.iterdir()) and not _is_context(directory))):
        raise ConfigError(
            "the output folder holds something else", where="--output-dir", got=str(directory),
            expected="a new or empty folder, or a context written before",
        )  # fmt: skip
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".warmimage-") as name:
            made = Path(name) / "context"
            _fill(made, plan, inputs)
            if directory.exists():
                shutil.rmtree(directory)
            made.rename(directory)
    except OSError as error:
        raise WarmimageError(
            f"the build context cannot be written: {error.strerror}", where=str(error.filename or directory)
        ) from None


def _is_context(directory: Path) -> bool:
    return (directory / "Dockerfile").is_file() and (directory / "plan.json").is_file()


def _fill(made: Path, plan: Plan, inputs: Inputs) -> None:
    made.mkdir()
    made.chmod(0o755)
    (made / "Dockerfile").write_text(dockerfile(plan), encoding="utf-8")
    (made / "plan.json").write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")
    # The closure's step sees what it needs and no more: another port or label does not import everything again.
    imports = plan.engine.model_dump_json(
        indent=1, include={"modules", "required_modules", "native_libraries", "import_environment"}
    )
    (made / "imports.json").write_text(imports + "\n", encoding="utf-8")
    with as_file(files("warmimage.entrypoint")) as source:
        shutil.copytree(source, made / "entrypoint", ignore=shutil.ignore_patterns("__pycache__", "py.typed"))
    if inputs.wheelset:
        lock = inputs.wheelset.lock
        _link((inputs.wheelset.folder / wheel.file for wheel in lock.wheels), made / "wheels")
        (made / "wheels" / "requirements.txt").write_text(lock.as_requirements(), encoding="utf-8")
        (made / "warmimage.lock").write_text(lock.to_json(), encoding="utf-8")
    if plan.weights == "bake" and inputs.model.directory:
        _link_tree(inputs.model.directory, made / "model")


def _link(sources: Iterable[Path], folder: Path) -> None:
    """Put files into a folder: hard links where the file system allows, else copies."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        _link_file(source.resolve(), folder / source.name)


def _link_file(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


def _link_tree(source: Path, folder: Path) -> None:
    """Put a model's files into a folder, without hidden files and caches."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            (folder / relative.parent).mkdir(parents=True, exist_ok=True)
            _link_file(path.resolve(), folder / relative)
