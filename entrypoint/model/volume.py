"""Is there a model to serve?  Asked before anything is imported, so that a forgotten volume costs no minute."""

from __future__ import annotations

import json
import os

#: Exit code of a container whose model volume cannot be served (EX_NOINPUT of sysexits.h).
EXIT_NO_MODEL = 66

#: Ending of the files that engines load weights from, in the order in which they prefer them.
WEIGHT_ENDINGS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")

INDEX_ENDING = ".index.json"


class VolumeError(Exception):
    """The model volume cannot be served; the message is one line that says what to do."""


def weight_files(directory: str) -> list[str]:
    """Return the paths of the weights that an engine would load, in load order.

    Only files of the most preferred kind are named: engines that find ``.safetensors`` do not read ``.bin``.  Names
    sort in load order (``model-00001-of-00004``).

    Raises:
        OSError: the directory cannot be listed.
    """
    names = sorted(os.listdir(directory))
    for ending in WEIGHT_ENDINGS:
        found = [name for name in names if name.endswith(ending) and not name.startswith(".")]
        if found:
            return [os.path.join(directory, name) for name in found]
    return []


def check(directory: str) -> list[str]:
    """Check that a model is there, and return the paths of its weights in load order.

    Raises:
        VolumeError: the directory is missing, unreadable or empty, or its weights are missing or incomplete.
    """
    mount = f"mount the model: -v DIR:{directory}:ro"
    try:
        weights = weight_files(directory)
        if not os.listdir(directory):
            raise VolumeError(f"the model volume {directory} is empty; {mount}")
    except FileNotFoundError:
        raise VolumeError(f"no model volume at {directory}; {mount}") from None
    except NotADirectoryError:
        raise VolumeError(f"the model volume {directory} is a file, not a directory; {mount}") from None
    except OSError as error:
        raise VolumeError(
            f"the model volume {directory} cannot be read by uid {os.getuid()}: {error.strerror}; "
            f"make it readable (chmod -R a+rX DIR) or run with --user"
        ) from None
    if not weights:
        raise VolumeError(f"no weights ({', '.join(WEIGHT_ENDINGS)}) in the model volume {directory}; {mount}")
    for path in weights:
        if not os.path.exists(path):
            raise VolumeError(f"{path} is a link out of the model volume; mount the directory that holds what it names")
        if not os.access(path, os.R_OK):
            raise VolumeError(f"{path} cannot be read by uid {os.getuid()}; make it readable (chmod -R a+rX DIR)")
    absent = missing_shards(directory)
    if absent:
        raise VolumeError(f"{absent[0]} is named by the index but missing from {directory} (missing: {len(absent)})")
    return weights


def missing_shards(directory: str) -> list[str]:
    """Return the shards that the model's index names and the directory lacks, sorted."""
    for name in sorted(os.listdir(directory)):
        if not name.endswith(WEIGHT_ENDINGS[0] + INDEX_ENDING):
            continue
        try:
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                shards = set(json.load(file)["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise VolumeError(f"{name} in the model volume {directory} is not a safetensors index: {error}") from None
        return sorted(shard for shard in map(str, shards) if not os.path.lexists(os.path.join(directory, shard)))
    return []


def survey(directory: str) -> dict[str, int]:
    """Check that a model is there, and return number and size of its weights, as ``files`` and ``bytes``.

    Raises:
        VolumeError: there is none to serve.
    """
    weights = check(directory)
    try:
        return {"files": len(weights), "bytes": sum(os.path.getsize(path) for path in weights)}
    except OSError as error:
        raise VolumeError(f"{error.filename} cannot be read: {error.strerror}") from None
