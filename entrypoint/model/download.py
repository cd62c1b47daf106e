"""Weights strategy ``download``: bring the pinned revision onto the model volume before the engine starts.

Command ``download REPOSITORY REVISION DIRECTORY``, run by PID 1 in the engine's interpreter, whose ``huggingface_hub``
does the work.  A complete download is marked, so a restart on the same volume needs no network.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Sequence

#: Exit code when the model cannot be downloaded (EX_UNAVAILABLE of sysexits.h).
EXIT_UNAVAILABLE = 69

MARKER = ".warmimage-revision"

#: Endings of the same weights in formats that no engine reads where there are ``.safetensors`` beside them.
OTHER_FORMATS = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".ot", ".onnx", ".tflite")

#: Directories in which repositories hold the same weights once more.
OTHER_DIRECTORIES = ("original/", "onnx/", "openvino/")


def unused(names: Iterable[str]) -> list[str]:
    """Return which of a repository's files repeat its weights in a format that no engine reads.

    None where no ``.safetensors`` stand at its top.  Files in other directories may be parts of the model of their own.
    """
    listed = list(names)
    if not any(name.endswith(".safetensors") and "/" not in name for name in listed):
        return []
    return [
        name
        for name in listed
        if name.startswith(OTHER_DIRECTORIES) or ("/" not in name and name.endswith(OTHER_FORMATS))
    ]


def patterns(names: Iterable[str]) -> list[str]:
    """Return ``unused`` files as the hub library's patterns."""
    return [glob.escape(name) for name in unused(names)]


def complete(directory: str, revision: str) -> bool:
    """Return whether ``directory`` holds a whole download of ``revision``."""
    try:
        with open(os.path.join(directory, MARKER), encoding="utf-8") as file:
            return file.read().strip() == revision
    except (OSError, ValueError):
        return False


def main(arguments: Sequence[str]) -> int:
    """Download, and return the exit code: 0, or 69 with one line that says why."""
    repository, revision, directory = arguments
    del sys.path[0]  # this package's: the hub library imports what the engine's interpreter would
    os.environ.pop("HF_HUB_OFFLINE", None)  # set in the image for the engine, which must not ask the hub again
    try:
        from huggingface_hub import model_info, snapshot_download

        # Without asking first, a hub out of reach is as good as a directory with anything in it.
        names = [item.rfilename for item in model_info(repository, revision=revision).siblings or []]
        snapshot_download(repository, revision=revision, local_dir=directory, ignore_patterns=patterns(names))
        with open(os.path.join(directory, MARKER), "w", encoding="utf-8") as file:
            file.write(revision + "\n")
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"warmimage: error: cannot download {repository} at {revision}: {reason}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0
