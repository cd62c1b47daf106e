"""Where a model that the engine is told by name lies on this machine: the Hugging Face cache, the ModelScope cache."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

Environment = Mapping[str, str]

#: A model's name at a hub.
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


def find(name: str, revision: str, cache: str, environment: Environment, *, modelscope: bool) -> str:
    """Return the directory of a model that a hub's client has downloaded, or an empty string.

    Only looks: nothing is downloaded, and no network is asked.

    Args:
        name: the model's name at the hub, ``organisation/model``.
        revision: branch, tag or commit; empty for the hub's default.
        cache: the cache directory that the engine was told, empty for the client's own.
        environment: the engine's variables, by which the client finds its own.
        modelscope: whether the engine asks ModelScope.

    Raises:
        OSError: the cache cannot be read.
    """
    if not _NAME.fullmatch(name):
        return ""  # no hub's name; and no path made of it may leave the cache
    if modelscope:
        candidates = _modelscope_directories(name, revision or "master", cache, environment)
    else:
        candidates = _hugging_face_directories(name, revision or "main", cache or hub_cache(environment))
    return next((directory for directory in candidates if os.path.isdir(directory)), "")


def hub_cache(environment: Environment) -> str:
    """Return the Hugging Face cache: ``HF_HUB_CACHE``, else below ``HF_HOME``, else below the user's own cache."""
    explicit = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    if explicit:
        return _expanded(explicit, environment)
    user_cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or os.path.join(user_cache, "huggingface")
    return _expanded(os.path.join(home, "hub"), environment)


def repository_of(directory: str) -> str:
    """Return the directory of a hub's repository in its cache that ``directory`` is a snapshot of, or an empty string.

    There a snapshot's files are links into ``blobs`` beside it.
    """
    repository = os.path.dirname(os.path.dirname(directory))
    inside = os.path.basename(os.path.dirname(directory)) == "snapshots" and "--" in os.path.basename(repository)
    return repository if inside else ""


def _hugging_face_directories(name: str, revision: str, cache: str) -> Iterator[str]:
    repository = os.path.join(cache, "models--" + name.replace("/", "--"))
    if ".." not in revision.split("/"):
        try:
            with open(os.path.join(repository, "refs", revision), encoding="ascii", errors="replace") as file:
                commit = file.read().strip()  # what is no commit's name is no directory's either
        except (FileNotFoundError, NotADirectoryError):
            commit = revision  # no branch or tag, so a commit
        if commit and "/" not in commit and commit != "..":
            yield os.path.join(repository, "snapshots", commit)


def _modelscope_directories(name: str, revision: str, cache: str, environment: Environment) -> Iterator[str]:
    """Yield the places of the layouts that ModelScope's client has had; it masks the dots of a name."""
    owner, _, model = name.partition("/")
    masked = model.replace(".", "___")
    if cache:
        bases = [cache]
    elif environment.get("MODELSCOPE_CACHE"):
        bases = [_expanded(environment["MODELSCOPE_CACHE"], environment)]
    else:
        bases = [_expanded("~/.cache/modelscope/hub", environment), _expanded("~/.cache/modelscope", environment)]
    for base in bases:
        if "/" not in revision and revision != "..":
            yield os.path.join(base, "models", name.replace("/", "--"), "snapshots", revision)
        for below in ("models", "", "hub/models", "hub"):
            for spelling in dict.fromkeys((masked, model)):
                yield os.path.join(base, below, owner, spelling)


def _expanded(path: str, environment: Environment) -> str:
    if path == "~" or path.startswith("~/"):
        return (environment.get("HOME") or os.path.expanduser("~")) + path[1:]
    return path
