"""The model: find it, check that it is complete, and read its configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config.model import _SERVED_NAME, Config
from ..console import phase, warn
from ..entrypoint.model.download import unused
from ..entrypoint.model.volume import WEIGHT_ENDINGS, VolumeError, missing_shards, weight_files
from ..errors import ConfigError, Problem, WarmimageError
from . import hub


@dataclass(frozen=True)
class Model:
    """The model of an image.

    Attributes:
        reference: the model as the user named it; for a directory only its name, because its path is private.
        name: the model name that the server answers to.
        directory: its files on this machine; ``None`` if they are not here.
        revision: the Hub commit, or ``None``.
        architecture: first of ``architectures`` in its ``config.json``, or ``None`` if that could not be read.
        model_type: ``model_type`` there, or ``None``.
        weight_bytes: size in bytes of its weights, with ``bake`` and ``download`` of every file that is taken; 0 when
            unknown.
    """

    reference: str
    name: str
    directory: Path | None
    revision: str | None
    architecture: str | None
    model_type: str | None
    weight_bytes: int


def resolve(config: Config) -> Model:
    """Find the configured model, on disk or on the Hub, and check its local files.

    Raises:
        ConfigError: no such model, or its files are incomplete.
        WarmimageError: the Hub is needed and cannot be reached.
    """
    path = Path(config.model).expanduser()
    if path.is_dir():
        if config.revision:
            raise ConfigError(
                "only a Hub model has revisions",
                where="revision",
                got=f"the directory {config.model}",
                expected="a Hub id",
                fix="remove --revision",
            )
        if config.weights == "download":
            raise ConfigError(
                "only a Hub model can be downloaded at start",
                where="weights",
                got=f"the directory {config.model}",
                expected="a Hub id",
                fix="--weights mount or --weights bake",
            )
        return _local(config, path.resolve())
    if path.exists() or config.model.startswith((".", "~", "/")) or config.model.count("/") > 1:
        raise ConfigError(
            "the model is not a directory",
            where="model",
            got=repr(config.model),
            expected="a directory with config.json and weights, or a Hub id OWNER/NAME",
        )
    return _on_the_hub(config)


def _local(config: Config, directory: Path) -> Model:
    problems = list(check_directory(directory))
    if problems:
        raise ConfigError(problems)
    described = _read_json(directory / "config.json")
    taken = files(directory) if config.weights == "bake" else weight_files(str(directory))
    size = sum(os.path.getsize(directory / path) for path in taken)
    return _described(config, directory.name, directory, None, described, size)


def _described(
    config: Config, reference: str, directory: Path | None, revision: str | None, described: dict[str, Any], size: int
) -> Model:
    architectures, model_type = described.get("architectures"), described.get("model_type")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    name = config.served_name or reference
    if not _SERVED_NAME.fullmatch(name):
        raise ConfigError(
            "the model's name is not a valid served name",
            where="served_name",
            got=repr(name),
            expected="letters, digits, '.', '_', '-' and '/'",
            fix="--served-name NAME",
        )
    return Model(
        reference=reference,
        name=name,
        directory=directory,
        revision=revision,
        architecture=first if isinstance(first, str) else None,
        model_type=model_type if isinstance(model_type, str) else None,
        weight_bytes=size,
    )


def check_directory(directory: Path) -> Iterator[Problem]:
    """Yield all problems of a model directory.

    Reads the header of every safetensors shard, which tells its length, and the index, but no weights.
    """
    where = f"model: {directory}"
    if not (directory / "config.json").is_file():
        yield Problem(
            "the model directory has no config.json",
            where=where,
            expected="a model as save_pretrained writes it",
            fix="name the directory that holds config.json",
        )
    else:
        try:
            _read_json(directory / "config.json")
        except ConfigError as error:
            yield from error.problems
    weights = [Path(path) for path in weight_files(str(directory))]
    if not weights:
        yield Problem("the model directory has no weights", where=where, expected=" or ".join(WEIGHT_ENDINGS))
    try:
        for shard in missing_shards(str(directory)):
            yield Problem(
                f"a shard that the index names is missing: {shard}", where=where, fix="copy or download the model again"
            )
    except VolumeError as error:
        yield Problem(str(error), where=where, fix="copy or download the model again")
    for path in weights:
        if path.suffix != ".safetensors":
            continue
        damage = _damage(path)
        if damage:
            got, expected = damage
            yield Problem(
                f"the shard {path.name} is damaged or cut off",
                where=where,
                got=got,
                expected=expected,
                fix="copy or download the model again",
            )


def _damage(shard: Path) -> tuple[str, str] | None:
    """Return the actual and the right size of a safetensors shard, or ``None`` if its length fits its header.

    Read here, because the library opens a shard only for an array package that this one does not need.
    """
    if not shard.exists():
        return "a link to a file that is not there", "a shard"
    size = shard.stat().st_size
    try:
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(min(length, size)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        needed = 8 + length + max(ends, default=0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"{size} bytes", "a readable header"
    return (f"{size} bytes", f"{needed} bytes") if size != needed else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path.name} cannot be read: {error}",
            where=f"model: {path.parent}",
            fix="copy or download the model again",
        ) from None
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path.name} is not a JSON object", where=f"model: {path.parent}", fix="copy or download the model again"
        )
    return value


def files(directory: Path, *, hub: bool = False) -> list[str]:
    """Return the files of a model that are baked, relative to its directory; linked directories are followed.

    Args:
        directory: the model's directory.
        hub: whether the Hub's client owns it, so that older weights in other formats may be there.
    """
    found = [path.relative_to(directory).as_posix() for path in _walk(directory, frozenset())]
    skipped = frozenset(unused(found)) if hub else frozenset()
    return [name for name in found if name not in skipped]


def _walk(directory: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Yield the files below a directory, except hidden ones; ``above`` ends a circle of links."""
    above |= {directory.resolve()}
    for path in sorted(directory.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and path.resolve() not in above:
            yield from _walk(path, above)


def fetch(found: Model) -> Model:
    """Return a model with its files on this machine; downloads the files of a Hub model that engines use.

    Raises:
        ConfigError: the Hub refuses.
        WarmimageError: the Hub cannot be reached, or the disk is full.
    """
    if found.directory:
        return found
    with phase(f"downloading {found.reference}"), hub.errors(found.reference, found.revision):
        return replace(found, directory=hub.download(found.reference, found.revision))


def _on_the_hub(config: Config) -> Model:
    """Resolve a Hub id to a commit.  Offline, only a mounted model works without a commit."""
    try:
        with phase(f"resolving {config.model} on the Hub"), hub.errors(config.model, config.revision):
            state = hub.look_up(config.model, config.revision)
            described = _read_json(state.config)
    except hub.HubUnreachable as error:
        if config.weights != "mount":
            raise WarmimageError(
                f"the Hub cannot be reached, and weights={config.weights} needs {config.model}",
                where="model",
                got=error.problems[0].got,
                fix=error.problems[0].fix,
            ) from None
        warn(
            f"the Hub cannot be reached: {config.model} stays at the revision that is mounted, and its architecture "
            "is not preloaded; --model DIR names files on this machine"
        )
        return _described(config, config.model, None, config.revision, {}, 0)
    size = sum(state.sizes.values()) - sum(state.sizes[name] for name in unused(state.sizes))
    return _described(config, config.model, None, state.revision, described, size)
