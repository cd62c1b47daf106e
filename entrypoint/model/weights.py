"""What the engine will read of its model: which directory, which files, and in which order."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ..settings import Settings, last_value
from . import hub_cache
from .volume import INDEX_ENDING, WEIGHT_ENDINGS

#: Endings of the files that engines read before any weights: configuration, tokenizer, chat template, own code.
CONFIG_ENDINGS = (".json", ".model", ".txt", ".tiktoken", ".jinja", ".py")

#: A configuration file is smaller than this many bytes; a larger one is data of another kind.
CONFIG_BYTES = 64 << 20

#: Files of a training run that lie beside weights and end as they do; vLLM and SGLang leave them out by these names.
TRAINING_FILES = {
    "training_args.bin",
    "optimizer.bin",
    "scheduler.bin",
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
}

#: Endings that a load format reads instead of the most preferred kind there is.
FORMAT_ENDINGS = {
    "safetensors": (".safetensors",),
    "mistral": (".safetensors",),
    "sharded_state": (".safetensors",),
    "pt": (".pt",),
    "npcache": (".bin",),
    "gguf": (".gguf",),
}

#: Weights in Mistral's own format, which often lie beside the same weights in the common one, and their index.
CONSOLIDATED = "consolidated*.safetensors"
CONSOLIDATED_INDEX = CONSOLIDATED + INDEX_ENDING

_GGUF_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)")


@dataclass(frozen=True)
class Model:
    """What the engine reads of its model.

    Attributes:
        directory: the directory that it is in, empty where none was found.
        config: paths of configuration and tokenizer files, which the engine reads first.
        weights: paths of the weights, in load order.
        size: bytes of all of them.
        skipped: one line for each file that is named and is not to be read, and why.
        declined: why nothing is to be read ahead; ``None`` where something is.
        apart: whether it is on a volume without a block device, as a network's, so that the image's disk is another.
    """

    directory: str = ""
    config: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    size: int = 0
    skipped: tuple[str, ...] = ()
    declined: str | None = None
    apart: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """All paths, in the order in which the engine reads them; each file stands once."""
        return (*self.config, *self.weights)


def find(settings: Settings) -> Model:
    """Return what this start's engine will read: of the model that its arguments name, else of the plan's.

    Touches the volume, which may hang: to be called where a wait hurts nobody.  Raises nothing; a volume that cannot
    be read is a reason to decline.
    """
    told = loading(settings)
    if told.refusal:
        return Model(declined=told.refusal)
    try:
        found = _find(told)
        return replace(found, apart=_is_apart(found.directory)) if found.directory else found
    except OSError as error:
        return Model(declined=f"{error.filename or told.model}: {error.strerror}")
    except ValueError as error:  # a name that is none, such as one with a null character
        return Model(declined=f"{told.model}: {error}")


def _is_apart(directory: str) -> bool:
    """Return whether a directory is on no block device, nor in the image itself."""
    device = os.stat(directory).st_dev
    return os.major(device) == 0 and device != os.stat(__file__).st_dev


@dataclass(frozen=True)
class Loading:
    """What the engine is told about its model.

    Attributes:
        model: a path, or a name at a hub.
        base: directory that a relative path starts from.
        revision: branch, tag or commit at the hub; empty for its default.
        cache: cache directory, empty for the hub client's own.
        format: load format, ``auto`` where it is told none.
        preferred: patterns of weights that load format ``auto`` takes before all others.
        unread: load formats that read no weights through the page cache, and why.
        modelscope: whether it asks ModelScope instead of the Hugging Face Hub.
        environment: its variables.
    """

    model: str
    base: str = "/"
    revision: str = ""
    cache: str = ""
    format: str = "auto"
    preferred: tuple[str, ...] = ()
    unread: dict[str, str] = field(default_factory=dict)
    modelscope: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def refusal(self) -> str | None:
        """Why its load format is not read ahead; ``None`` where it is."""
        reason = self.unread.get(self.format)
        return f"load format {self.format}: {reason}" if reason else None


def loading(settings: Settings) -> Loading:
    """Return what this start's engine is told about its model, by its arguments, the plan and its variables."""
    flags = settings.engine.loading

    def value_of(names: Sequence[str]) -> str:
        return last_value(settings.command, _spellings(names))

    return Loading(
        model=value_of(flags.model_flags) or settings.plan.model.path,
        base=settings.directory,
        revision=value_of(flags.revision_flags),
        cache=value_of(flags.cache_flags),
        format=value_of(flags.format_flags) or "auto",
        preferred=flags.preferred_weights,
        unread=flags.unread_formats,
        modelscope=settings.environment.get(flags.modelscope_variable, "").lower() in flags.modelscope_values,
        environment=dict(settings.environment),
    )


def _spellings(flags: Iterable[str]) -> tuple[str, ...]:
    """Return flags with dashes and with underscores: vLLM takes both."""
    return tuple(dict.fromkeys(s for flag in flags for s in (flag, "--" + flag[2:].replace("-", "_"))))


def _find(told: Loading) -> Model:
    path = os.path.join(told.base, told.model)
    if os.path.isdir(path):
        return in_directory(path, told.format, preferred=told.preferred)
    if os.path.isfile(path):
        return _of_file(path)
    name, _, quantisation = told.model.partition(":")
    if "://" in told.model:
        return Model(declined=f"{told.model} is not on a volume")
    cache = os.path.join(told.base, told.cache) if told.cache else ""
    directory = hub_cache.find(name, told.revision, cache, told.environment, modelscope=told.modelscope)
    if not directory:
        where = "ModelScope" if told.modelscope else "Hugging Face"
        return Model(declined=f"{told.model} is no directory, and not in the {where} cache")
    model = in_directory(directory, told.format, quantisation, told.preferred)
    if cache and not told.modelscope and not model.config:
        # vLLM downloads weights alone into --download-dir; configuration and tokenizer are in the client's own cache.
        beside = hub_cache.find(name, told.revision, "", told.environment, modelscope=False)
        if beside:
            own = in_directory(beside, told.format)
            config = _Volume(beside)
            names = config.kept(map(os.path.basename, own.config))
            return replace(model, config=names, size=model.size + config.size)
    return model


def in_directory(
    directory: str, load_format: str = "auto", quantisation: str = "", preferred: Sequence[str] = ()
) -> Model:
    """Return what an engine reads of the model in a directory.

    Args:
        directory: the directory.
        load_format: the engine's load format.
        quantisation: part of the name of the GGUF files to read, as in ``organisation/model:Q4_K_M``.
        preferred: patterns of weights that load format ``auto`` takes before all others.

    Raises:
        OSError: the directory cannot be listed.
    """
    names = sorted(os.listdir(directory), key=_natural)
    config = [name for name in names if name.endswith(CONFIG_ENDINGS) and not name.startswith(".")]
    if quantisation:
        found = [path for path in _below(directory) if quantisation.lower() in path.lower()]
    else:
        found = _weights_among(directory, names, load_format, preferred)
    volume = _Volume(directory)
    kept_config = volume.kept(config, CONFIG_BYTES)
    kept = volume.kept(found)
    return Model(directory, kept_config, kept, volume.size, tuple(volume.skipped))


def _of_file(path: str) -> Model:
    """Return what an engine reads that is told one file, with the further parts where it is the first of a GGUF."""
    directory, name = os.path.split(path)
    part = _GGUF_PART.search(name)
    names = [name]
    if part:
        names = [
            other for other in sorted(os.listdir(directory)) if _GGUF_PART.sub("", other) == _GGUF_PART.sub("", name)
        ]
    volume = _Volume(directory)
    kept = volume.kept(names)
    return Model(directory, (), kept, volume.size, tuple(volume.skipped))


def _weights_among(directory: str, names: Sequence[str], load_format: str, preferred: Sequence[str]) -> list[str]:
    """Return the names of the weights that an engine loads, in load order."""
    candidates = [name for name in names if not name.startswith(".") and name not in TRAINING_FILES]
    own = fnmatch.filter(candidates, CONSOLIDATED)
    if load_format == "mistral" and own:
        return own
    for pattern in preferred if load_format == "auto" else ():
        found = fnmatch.filter(candidates, pattern)
        if found:
            return found
    for ending in FORMAT_ENDINGS.get(load_format, WEIGHT_ENDINGS):
        found = [name for name in candidates if name.endswith(ending)]
        if not found:
            continue
        if load_format == "sharded_state":
            return found  # each rank's own; an index would be of the weights that they were made from
        indexes = [name for name in names if name.endswith(ending + INDEX_ENDING)]
        listed = _indexed(directory, [name for name in indexes if not fnmatch.fnmatch(name, CONSOLIDATED_INDEX)])
        # Without an index, the weights in Mistral's own format are what there is, or are there once more.
        return [name for name in found if (name in listed if listed else name not in own)] or found
    return []


def _indexed(directory: str, indexes: Sequence[str]) -> set[str]:
    """Return the shards that the indexes name; empty where there is no index that can be read.

    A directory may hold the same weights twice, and the engine loads those of the index.
    """
    found: set[str] = set()
    for index in indexes:
        try:
            with open(os.path.join(directory, index), encoding="utf-8") as file:
                found.update(map(str, json.load(file)["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return set()  # what it names is not known: the engine will say so, and all shards are read
    return found


def _below(directory: str) -> list[str]:
    """Return the GGUF files in a directory and those in it, relative to it: repositories sort quantisations so."""
    found = []
    for parent, _, names in os.walk(directory):
        found += [os.path.relpath(os.path.join(parent, name), directory) for name in names if name.endswith(".gguf")]
    return sorted(found, key=_natural)


def _natural(name: str) -> tuple[str | int, ...]:
    """Return a key by which ``part-2`` comes before ``part-10``, as engines sort."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name))


class _Volume:
    """Keeps of named files those that are to be read: regular, inside the volume, each once.

    Args:
        directory: the model's directory.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        real = os.path.realpath(directory)
        self._inside = (real + "/", *((root + "/",) if (root := hub_cache.repository_of(real)) else ()))
        self._seen: set[tuple[int, int]] = set()
        self.size = 0
        self.skipped: list[str] = []

    def kept(self, names: Iterable[str], limit: int | None = None) -> tuple[str, ...]:
        """Return the paths of the files to read, those of ``limit`` bytes at most; note the others in ``skipped``."""
        found = []
        for name in names:
            path = os.path.join(self._directory, name)
            try:
                status = os.stat(path)
                real = os.path.realpath(path)
            except OSError as error:  # a link in a loop, or to nothing; a file that may not be seen
                self.skipped.append(f"{path}: {error.strerror}")
                continue
            if not real.startswith(self._inside):
                self.skipped.append(f"{path}: {real} is outside the volume")
            elif not os.path.isfile(real):
                continue  # a directory that is called as a file might be
            elif (status.st_dev, status.st_ino) not in self._seen and (limit is None or status.st_size <= limit):
                self._seen.add((status.st_dev, status.st_ino))
                self.size += status.st_size
                found.append(path)
        return tuple(found)
