"""Engines run in tier ``zygote`` and in tier ``plain``, in the way that PID 1 runs them, and compared."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .harness import Image

#: What the tests' closure imports: modules that start nothing.
MODULES = ("json.decoder", "decimal", "asyncio", "concurrent.futures.process", "ctypes", "multiprocessing.managers")


def zygote_words(image: Image, script: Path, *words: str) -> list[str]:
    """Return the command line by which the tier runs a script; its modules are those of the image's closure."""
    return [image.python, image.main, "zygote", str(image.timeline), str(script), *words]


def run(
    image: Image,
    script: Path,
    *words: str,
    tier: str = "zygote",
    prefix: Sequence[str] = (),
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end in a tier; the timeline is that of this run."""
    image.timeline.unlink(missing_ok=True)
    command = zygote_words(image, script, *words) if tier == "zygote" else [str(script), *words]
    return subprocess.run(
        [*prefix, *command],
        cwd=cwd or image.root,
        env=image.environment(**variables),
        stdin=stdin,
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )


def reasons(image: Image) -> list[str]:
    """Return why processes were started anew, not forked."""
    return [event["reason"] for event in image.events("zygote.fallback")]


def forked(image: Image) -> list[int]:
    """Return the processes that fork servers have forked."""
    return [event["child"] for event in image.events("zygote.forked")]


def differences(expected: Any, found: Any, place: str = "") -> list[str]:
    """Return where two reports differ, each with its place and both values."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = sorted({*expected, *found})
        return [row for key in keys for row in differences(expected.get(key), found.get(key), f"{place}/{key}")]
    return [] if expected == found else [f"{place}: plain {expected!r}, zygote {found!r}"]


def same(image: Image, text: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script in both tiers, see to it that it says and ends the same, and return its end in tier ``zygote``."""
    image.closure({"modules": list(MODULES), "files": [], "libraries": []})
    script = image.script("served", text)
    plain = run(image, script, *words, tier="plain", **variables)
    done = run(image, script, *words, **variables)
    assert (done.stdout, done.stderr, done.returncode) == (plain.stdout, plain.stderr, plain.returncode)
    assert done.stdout
    return done
