"""The lock: the exact wheels of an image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from packaging.utils import parse_wheel_filename
from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ConfigError

FILE_NAME = "warmimage.lock"


class Wheel(BaseModel):
    """One locked wheel."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    file: str
    size: int
    sha256: str


class Lock(BaseModel):
    """All wheels of an image, and the inputs of their resolution.

    Attributes:
        requirements: the requirement lines.
        accelerator: the accelerator: an index for CPUs has other wheels for the same lines.
        python: the Python version.
        platform: the newest allowed platform tag.
        wheels: sorted by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    requirements: tuple[str, ...]
    accelerator: str
    python: str
    platform: str
    wheels: tuple[Wheel, ...]

    @property
    def installer(self) -> str:
        """File name of the pip wheel that installs the others."""
        return next(wheel.file for wheel in self.wheels if wheel.name == "pip")

    @property
    def total_bytes(self) -> int:
        """Size of all wheels in bytes."""
        return sum(wheel.size for wheel in self.wheels)

    def covers(self, requirements: Sequence[str], accelerator: str, python: str, platform: str) -> bool:
        """Return whether this lock was made from the same inputs."""
        inputs = (tuple(requirements), accelerator, python, platform)
        return (self.requirements, self.accelerator, self.python, self.platform) == inputs

    def as_requirements(self, *, with_installer: bool = False) -> str:
        """Return the lock as a requirements file with hashes, as ``pip install --require-hashes`` reads it."""
        wanted = [wheel for wheel in self.wheels if with_installer or wheel.name != "pip"]
        return "".join(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wanted)

    def fingerprint(self) -> str:
        """Return the SHA-256 over the locked wheels, in hexadecimal."""
        return hashlib.sha256(self.as_requirements(with_installer=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the file's text."""
        return self.model_dump_json(indent=2) + "\n"


def from_directory(directory: Path, requirements: Sequence[str], accelerator: str, python: str, platform: str) -> Lock:
    """Lock the wheels in a directory."""
    wheels = []
    for path in directory.glob("*.whl"):
        name, version, _, _ = parse_wheel_filename(path.name)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        wheels.append(
            Wheel(name=name, version=str(version), file=path.name, size=path.stat().st_size, sha256=digest.hexdigest())
        )
    wheels.sort(key=lambda wheel: wheel.name)
    return Lock(
        requirements=tuple(requirements),
        accelerator=accelerator,
        python=python,
        platform=platform,
        wheels=tuple(wheels),
    )


def read(path: Path) -> Lock | None:
    """Return the lock in a file, or ``None`` if there is no file.

    Raises:
        ConfigError: the file is not a lock of this version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"the lock cannot be read: {reason}", where=str(path), fix=f"rm {path}") from None
    try:
        lock = Lock.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            "this version of warmimage did not write the lock",
            where=str(path),
            got=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            fix=f"rm {path}  (the next build writes it)",
        ) from None
    return lock
