"""Wheels: pip resolves and downloads them on this machine, so that its configuration, index, proxy and CA apply.

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
        """Return the target of a base image's Python."""
        return cls(base.python_version, base.glibc, base.machine, accelerator)

    @property
    def platforms(self) -> list[str]:
        """The target's platform tags, the newest first (PEP 600)."""
        tags = []
        for minor in range(int(self.glibc.split(".")[1]), 4, -1):
            tags.append(f"manylinux_2_{minor}_{self.machine}")
            if minor in _LEGACY_TAGS:
                tags.append(f"{_LEGACY_TAGS[minor]}_{self.machine}")
        return [*tags, f"linux_{self.machine}"]

    @property
    def pip_arguments(self) -> list[str]:
        """Arguments of pip that choose wheels for this target."""
        abi = f"cp{self.python.replace('.', '')}"
        arguments = ["--only-binary=:all:", "--python-version", self.python, "--implementation", "cp"]
        for tag in (abi, "abi3", "none"):
            arguments += ["--abi", tag]
        for tag in self.platforms:
            arguments += ["--platform", tag]
        return arguments


@dataclass(frozen=True)
class Wheelset:
    """Locked wheels, their directory, and whether the lock is new."""

    lock: Lock
    directory: Path
    fresh: bool = False


def resolve(requirements: Sequence[str], target: Target, wheelhouse: Path | None, lock_file: Path) -> Wheelset:
    """Return the wheels for ``requirements``, from ``lock_file`` if it has the same inputs.

    Args:
        requirements: requirement lines.
        target: the interpreter of the wheels.
        wheelhouse: directory to take all wheels from; ``None`` for the configured indexes.
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
        note(f"{lock_file}: resolved for other inputs, resolving again")
        locked = None
    if locked:
        return Wheelset(locked, _download(locked.as_requirements(with_installer=True), target, wheelhouse, exact=True))
    directory = _download("\n".join(wanted) + "\n", target, wheelhouse, exact=False)
    made = locks.from_directory(directory, wanted, target.accelerator, target.python, newest)
    _warn_of_cuda(made)
    return Wheelset(made, directory, fresh=True)


def _warn_of_cuda(made: Lock) -> None:
    """Warn if an image for CPUs would contain CUDA, as the default index's PyTorch does."""
    size = sum(wheel.size for wheel in made.wheels if wheel.name.startswith("nvidia-"))
    if made.accelerator == "cpu" and size:
        warn(
            f"the image is for CPUs, its wheels hold {human_bytes(size)} of CUDA: give pip PyTorch's index for CPUs "
            "(pip config set global.extra-index-url https://download.pytorch.org/whl/cpu), then remove the lock"
        )


def check_wheelhouse(wheelhouse: Path) -> None:
    """Refuse a wheelhouse that is not a directory.

    Raises:
        ConfigError: it is none.
    """
    if not wheelhouse.is_dir():
        raise ConfigError(
            "the wheelhouse is not a directory",
            where="wheelhouse",
            got=str(wheelhouse),
            expected="a directory of wheels",
            fix="pip download --dest DIR REQUIREMENTS, then --wheelhouse DIR",
        )


def _download(requirements: str, target: Target, wheelhouse: Path | None, *, exact: bool) -> Path:
    """Download wheels into a cache directory named by their requirements, and reuse a complete directory.

    Resolving afresh (not ``exact``) always asks the indexes again: there may be newer wheels.
    """
    directory = _cache_directory(requirements, target, wheelhouse)
    if exact and directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="partial-") as name:
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
            # Name the directory by the resolved wheels: the next build, with a lock, finds it without a network.
            made = locks.from_directory(partial, (), target.accelerator, target.python, target.platforms[0])
            directory = _cache_directory(made.as_requirements(with_installer=True), target, wheelhouse)
        with contextlib.suppress(OSError):  # another build has filled the same directory with the same wheels
            partial.rename(directory)
        return directory


def _cache_directory(requirements: str, target: Target, wheelhouse: Path | None) -> Path:
    """Return the cache directory of these requirements' wheels."""
    key = hashlib.sha256(f"{requirements}{target}{wheelhouse}".encode()).hexdigest()[:16]
    return user_cache_path("warmimage") / "wheels" / key


def _pip(target: Target) -> list[str]:
    """Return the command that runs pip with environment markers for the target's Python."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    if subprocess.run([*command, "--version"], capture_output=True, check=False).returncode:
        raise EnvironmentLacks("pip is missing from warmimage's own environment", fix=f"{sys.executable} -m ensurepip")
    if sys.platform != "linux" or platform.machine() != target.machine:
        warn(
            f"wheels are resolved on {sys.platform} {platform.machine()} for linux {target.machine}: conditions in "
            "requirements are evaluated for this machine; the build checks them"
        )
    if own == target.python:
        return command
    other = shutil.which(f"python{target.python}", path=os.environ.get("PATH"))
    # A version manager's shim may exist without the version that it stands for.
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
            f"no wheel matches Python {target.python} on {target.machine}, glibc {target.glibc}",
            where=where,
            got=got,
            fix="another --base-image or engine_version" + (", or the wheel in the wheelhouse" if wheelhouse else ""),
        )
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in output:
        return WarmimageError("a locked wheel has changed", got=got, fix=f"rm {locks.FILE_NAME} to resolve again")
    return WarmimageError("pip could not download the wheels", got=got)


def write_lock(wheelset: Wheelset | None, lock_file: Path) -> None:
    """Write a new lock for the next build."""
    if wheelset and wheelset.fresh:
        try:
            lock_file.write_text(wheelset.lock.to_json(), encoding="utf-8")
        except OSError as error:  # the image is built: a missing lock does not harm it
            warn(f"the lock cannot be written: {error.strerror}: {lock_file}")
            return
        note(f"{lock_file}: {len(wheelset.lock.wheels)} wheels locked with hashes")
