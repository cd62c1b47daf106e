"""From plan to build context: a directory that plain ``docker build`` or ``podman build`` builds."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

from ..entrypoint.imports import Imports
from ..errors import ConfigError, WarmimageError
from ..files import replaced
from ..inputs import model
from ..plan import Plan
from ..rendering.dockerfile import dockerfile
from . import planner
from .planner import Inputs

#: The entries of a context.  A directory with other entries is not replaced.
_NAMES = frozenset(
    {"Dockerfile", "plan.json", "imports.json", "warmimage.lock", "entrypoint", "wheels", "model", "caches"}
)

#: Modes in an image.  Only BuildKit has COPY --chmod, so the context must have the right modes.
_FILE, _EXECUTABLE, _DIRECTORY = 0o644, 0o755, 0o755


def write(plan: Plan, inputs: Inputs, directory: Path, *, link: bool = False) -> None:
    """Write the context of a plan atomically; an earlier context is replaced.

    Args:
        plan: the image's plan.
        inputs: wheels and weights on this machine.
        directory: a directory that does not exist, is empty, or holds an earlier context.
        link: hard-link wheels and weights if the file system allows.  Only for a context that nobody edits: a write to
            a hard link changes the model.

    Raises:
        ConfigError: the directory is not a context, or cannot be replaced.
        WarmimageError: the context cannot be written, or the weights cannot be downloaded.
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
    """Refuse an output directory that is not a context, or that cannot be replaced."""
    if not directory.exists():
        return
    if not _is_context(directory):
        raise ConfigError(
            "the output directory is not a build context",
            where="--output-dir",
            got=str(given),
            expected="a new or empty directory, or an earlier build context",
        )
    current = Path.cwd()
    if directory in (current, *current.parents) or os.path.ismount(directory):
        raise ConfigError(
            "the output directory is in use and cannot be replaced",
            where="--output-dir",
            got=str(given),
            expected="not the current directory, one above it, or a mount point",
            fix="--output-dir context",
        )


def _is_context(directory: Path) -> bool:
    """Return whether a directory is empty, or exactly a context of this version."""
    try:
        names = set(os.listdir(directory))
        if names:
            Plan.from_json((directory / "plan.json").read_bytes())
    except (OSError, ValueError):
        return False
    return names <= _NAMES


def imports(plan: Plan) -> Imports:
    """Return the part of a plan that the closure and the snapshot depend on, as ``imports.json`` has it.

    The model's name and the port are left out, so that another one does not import and capture everything again.
    """
    baseline = (
        plan.snapshot.baseline
        if plan.snapshot
        else planner.baseline(plan.base.machine, plan.engine.name, plan.accelerator)
    )
    program = itertools.takewhile(lambda word: word not in (plan.model.path, plan.model.name), plan.engine.command)
    return Imports(
        required_modules=plan.engine.required_modules,
        native_libraries=plan.engine.native_libraries,
        import_environment=plan.engine.import_environment,
        modules=plan.closure.modules,
        later=plan.closure.later,
        preload=plan.closure.preload,
        accelerator=plan.accelerator,
        command=tuple(program),
        python=plan.python,
        user=plan.user,
        environment=tuple(sorted(plan.environment)),
        baseline=baseline,  # of an image without a snapshot, too: it may get one later
    )


def _fill(made: Path, plan: Plan, inputs: Inputs, link: bool) -> None:
    made.mkdir()
    _write(made / "Dockerfile", dockerfile(plan))
    _write(made / "plan.json", plan.to_json(indent=1) + "\n")
    _write(made / "imports.json", imports(plan).to_json(indent=1) + "\n")
    _copy_entrypoint(made / "entrypoint")
    if inputs.wheelset:
        lock = inputs.wheelset.lock
        for wheel in lock.wheels:
            _put(inputs.wheelset.directory / wheel.file, made / "wheels" / wheel.file, link)
        _write(made / "wheels" / "requirements.txt", lock.as_requirements())
        _write(made / "warmimage.lock", lock.to_json())
    if plan.weights == "bake" and inputs.model.directory:
        for file in model.files(inputs.model.directory, hub=inputs.model.revision is not None):
            _put(inputs.model.directory / file, made / "model" / file, link)
    if plan.caches and inputs.caches:
        copy_tree(inputs.caches, made / "caches")
    for directory in (made, *(path for path in made.rglob("*") if path.is_dir())):
        directory.chmod(_DIRECTORY)  # independent of the umask


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(_FILE)


def _copy_entrypoint(target: Path) -> None:
    with as_file(files("warmimage.entrypoint")) as source:
        copy_tree(source, target, "__pycache__", "py.typed", "compile.py")  # compile.py is for the wheel's build


def copy_tree(source: Path, target: Path, *ignored: str) -> None:
    """Copy a directory, with modes that every user of an image can read by.

    Args:
        source: the directory.
        target: is created.
        ignored: patterns of names to leave out.
    """
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*ignored))
    for path in (target, *target.rglob("*")):
        path.chmod(_DIRECTORY if path.is_dir() else _readable(path))


def _put(source: Path, target: Path, link: bool) -> None:
    """Put a file into the context, as a hard link if requested and possible, else as a copy.

    A hard link has the mode of the user's file.  A file that the image's user cannot read, or that everybody can write,
    is copied.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    if link and source.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH) == stat.S_IROTH:
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without hard links
            pass
    shutil.copy2(source, target)
    target.chmod(_readable(target))


def _readable(path: Path) -> int:
    return _EXECUTABLE if path.stat().st_mode & stat.S_IXUSR else _FILE
