"""Wheels: resolved and downloaded on this machine by pip, so that its configuration, index, proxy and CA apply.

The build itself installs them from the context, with no network.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from ..console import human_bytes, note, phase, warn
from ..errors import ConfigError, EnvironmentLacks, WarmimageError
from . import lock as locks
from .base_image import Base
from .lock import Lock

#: Old names of manylinux tags (PEP 600), by the C library's minor version that they stand for.
_LEGACY_TAGS = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True)
class Target:
    """The interpreter and the accelerator that wheels are for."""

    python: str
    glibc: str
    machine: str
    accelerator: str

    @classmethod
    def of(cls, base: Base, accelerator: str) -> Target:
        """Return the target that a base image's Python is."""
        return cls(base.python_version, base.glibc, base.machine, accelerator)

    @property
    def platforms(self) -> list[str]:
        """The platform tags that the target takes, the newest first (PEP 600)."""
        tags = []
        for minor in range(int(self.glibc.split(".")[1]), 4, -1):
            tags.append(f"manylinux_2_{minor}_{self.machine}")
            if minor in _LEGACY_TAGS:
                tags.append(f"{_LEGACY_TAGS[minor]}_{self.machine}")
        return [*tags, f"linux_{self.machine}"]

    @property
    def pip_arguments(self) -> list[str]:
        """How pip is told to choose wheels for this target."""
        abi = f"cp{self.python.replace('.', '')}"
        words = ["--only-binary=:all:", "--python-version", self.python, "--implementation", "cp"]
        for tag in (abi, "abi3", "none"):
            words += ["--abi", tag]
        for tag in self.platforms:
            words += ["--platform", tag]
        return words


@dataclass(frozen=True)
class Wheelset:
    """Locked wheels, the folder that holds them, and whether the lock was made just now."""

    lock: Lock
    folder: Path
    fresh: bool = False


def resolve(requirements: Sequence[str], target: Target, wheelhouse: Path | None, lock_file: Path) -> Wheelset:
    """Return the wheels for ``requirements``, as ``lock_file`` has them where it was made from the same inputs.

    Args:
        requirements: requirement lines.
        target: the interpreter they are for.
        wheelhouse: folder to take wheels from, and from nowhere else; ``None`` asks the configured indexes.
        lock_file: the lock of an earlier build; it need not exist.

    Raises:
        ConfigError: the wheelhouse is missing or incomplete, or a requirement has no wheel for the target.
        EnvironmentLacks: pip is missing.
        WarmimageError: an index cannot be reached, or a locked wheel has changed.
    """
    if wheelhouse:
        check_wheelhouse(wheelhouse)
    wanted = [*requirements, "pip"]
    newest = target.platforms[0]
    locked = locks.read(lock_file)
    if locked and not locked.covers(wanted, target.accelerator, target.python, newest):
        note(f"{lock_file}: resolved for other inputs, resolving anew")
        locked = None
    if locked:
        return Wheelset(locked, _download(locked.as_requirements(with_installer=True), target, wheelhouse, exact=True))
    folder = _download("\n".join(wanted) + "\n", target, wheelhouse, exact=False)
    made = locks.from_folder(folder, wanted, target.accelerator, target.python, newest)
    _warn_of_cuda(made)
    return Wheelset(made, folder, fresh=True)


def _warn_of_cuda(made: Lock) -> None:
    """Say when an image for CPUs would carry CUDA, as the default index's PyTorch does."""
    size = sum(wheel.size for wheel in made.wheels if wheel.name.startswith("nvidia-"))
    if made.accelerator == "cpu" and size:
        warn(
            f"the image is for CPUs, its wheels hold {human_bytes(size)} of CUDA: give pip PyTorch's index for CPUs "
            "(pip config set global.extra-index-url https://download.pytorch.org/whl/cpu), then remove the lock"
        )


def check_wheelhouse(wheelhouse: Path) -> None:
    """Refuse a wheelhouse that is no folder.

    Raises:
        ConfigError: it is none.
    """
    if not wheelhouse.is_dir():
        raise ConfigError(
            "the wheelhouse is not a folder",
            where="wheelhouse",
            got=str(wheelhouse),
            expected="a folder of wheels",
            fix="pip download --dest DIR REQUIREMENTS, then --wheelhouse DIR",
        )


def _download(requirements: str, target: Target, wheelhouse: Path | None, *, exact: bool) -> Path:
    """Download wheels into a cache folder named by their requirements; a complete folder is used again.

    Resolving afresh (not ``exact``) always asks the indexes again: there may be newer wheels.
    """
    folder = _cache_folder(requirements, target, wheelhouse)
    if exact and folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="partial-") as name:
        partial = Path(name) / "wheels"
        partial.mkdir()
        listed = Path(name) / "requirements.txt"
        listed.write_text(requirements, encoding="utf-8")
        command = [*_pip(target), "download", "--dest", str(partial), "-r", str(listed), *target.pip_arguments]
        command += ["--no-deps", "--require-hashes"] if exact else []
        command += ["--no-index", "--find-links", str(wheelhouse)] if wheelhouse else []
        with phase(f"wheels for Python {target.python} ({'locked' if exact else 'resolving'})"):
            run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise _pip_error(run.stderr, target, wheelhouse)
        if not exact:
            # Name the folder by what was resolved: the next build, locked, finds it without asking anyone.
            made = locks.from_folder(partial, (), target.accelerator, target.python, target.platforms[0])
            folder = _cache_folder(made.as_requirements(with_installer=True), target, wheelhouse)
        with contextlib.suppress(OSError):  # another build filled the same folder meanwhile, with the same wheels
            partial.rename(folder)
        return folder


def _cache_folder(requirements: str, target: Target, wheelhouse: Path | None) -> Path:
    """Return the folder that keeps the wheels of these requirements."""
    key = hashlib.sha256(f"{requirements}{target}{wheelhouse}".encode()).hexdigest()[:16]
    return user_cache_path("warmimage") / "wheels" / key


def _pip(target: Target) -> list[str]:
    """Return the command that runs pip so that environment markers mean the target's Python."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    if subprocess.run([*command, "--version"], capture_output=True, check=False).returncode:
        raise EnvironmentLacks("pip is missing from warmimage's own environment", fix=f"{sys.executable} -m ensurepip")
    if sys.platform != "linux" or platform.machine() != target.machine:
        warn(
            f"wheels are resolved on {sys.platform} {platform.machine()} for linux {target.machine}: conditions in "
            "requirements are read as for this machine; the build checks them"
        )
    if own == target.python:
        return command
    other = shutil.which(f"python{target.python}", path=os.environ.get("PATH"))
    # A version manager's stand-in may be there without the version that it stands in for.
    if other and subprocess.run([other, "-c", ""], capture_output=True, check=False).returncode == 0:
        return [*command, "--python", other]
    warn(
        f"no python{target.python} here: conditions in requirements are read as for Python {own}; the build checks them"
    )
    return command


def _pip_error(output: str, target: Target, wheelhouse: Path | None) -> WarmimageError:
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    got = (errors[-1] if errors else output.strip()[-300:])[:400]
    if "No matching distribution" in got or "ResolutionImpossible" in got:
        unreachable = any(word in output for word in ("Failed to establish", "Name or service", "ConnectionError"))
        if unreachable and not wheelhouse:
            return WarmimageError(
                "the package index cannot be reached",
                got=got,
                fix="check pip's index and proxy, or use --wheelhouse DIR",
            )
        where = f"wheelhouse: {wheelhouse}" if wheelhouse else "requirements"
        return ConfigError(
            f"no wheel fits Python {target.python} on {target.machine}, glibc {target.glibc}",
            where=where,
            got=got,
            fix="another --base-image or engine_version" + (", or the wheel in the wheelhouse" if wheelhouse else ""),
        )
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in output:
        return WarmimageError("a locked wheel has changed", got=got, fix=f"rm {locks.FILE_NAME} to resolve anew")
    return WarmimageError("pip could not download the wheels", got=got)


def write_lock(wheelset: Wheelset | None, lock_file: Path) -> None:
    """Keep a lock that was made just now, for the next build."""
    if wheelset and wheelset.fresh:
        try:
            lock_file.write_text(wheelset.lock.to_json(), encoding="utf-8")
        except OSError as error:  # the product is there: a lock that cannot be kept takes nothing from it
            warn(f"the lock cannot be written: {error.strerror}: {lock_file}")
            return
        note(f"{lock_file}: {len(wheelset.lock.wheels)} wheels locked with hashes")
