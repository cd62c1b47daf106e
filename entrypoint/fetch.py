"""Weights strategy ``download``: bring the pinned revision onto the model volume before the engine starts.

Run by PID 1 in the engine's interpreter, whose ``huggingface_hub`` does the work: ``python fetch.py REPOSITORY REVISION
DIRECTORY``.  A complete download is marked, so a restart on the same volume needs no network.
"""

from __future__ import annotations

import os
import sys

#: Exit code when the model cannot be downloaded (EX_UNAVAILABLE of sysexits.h).
EXIT_UNAVAILABLE = 69

MARKER = ".warmimage-revision"


def complete(directory: str, revision: str) -> bool:
    """Return whether ``directory`` holds a whole download of ``revision``."""
    try:
        with open(os.path.join(directory, MARKER), encoding="utf-8") as file:
            return file.read().strip() == revision
    except OSError:
        return False


def main(repository: str, revision: str, directory: str) -> int:
    """Download, and return the exit code: 0, or 69 with one line that says why."""
    os.environ.pop("HF_HUB_OFFLINE", None)  # set in the image for the engine, which must not ask the hub again
    try:
        from huggingface_hub import model_info, snapshot_download

        model_info(repository, revision=revision)  # else a hub out of reach is as good as a folder with anything in it
        snapshot_download(repository, revision=revision, local_dir=directory)
        with open(os.path.join(directory, MARKER), "w", encoding="utf-8") as file:
            file.write(revision + "\n")
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"warmimage: error: cannot download {repository} at {revision}: {reason}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # this script's folder: its other modules must not shadow the hub library's
    sys.exit(main(*sys.argv[1:]))
