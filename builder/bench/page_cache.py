"""A cold page cache: drop the pages of an image's layers and a model's files, and check that they are evicted."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.models.images import Image

from ..entrypoint.pagecache.syscalls import resident_bytes
from ..errors import EnvironmentLacks
from .result import Cold

#: Largest share of bytes that may stay cached in a cold run.
LIMIT = 0.02

_TRIES = 3


@dataclass(frozen=True)
class Files:
    """The regular files below some directories, each once.

    Attributes:
        paths: the files that are not empty.
        total_bytes: the sum of their sizes.
    """

    paths: tuple[str, ...]
    total_bytes: int

    @classmethod
    def under(cls, directories: Sequence[str]) -> Files:
        """Return the files under directories; links are not followed, except for the directories themselves."""
        found: dict[tuple[int, int], str] = {}
        total = 0
        for directory in directories:
            for path, status in _walk(directory):
                if status.st_size and (status.st_dev, status.st_ino) not in found:
                    found[status.st_dev, status.st_ino] = path
                    total += status.st_size
        return cls(tuple(found.values()), total)


def check(client: docker.DockerClient, images: Sequence[Image]) -> None:
    """Check that the page cache of these images' layers can be dropped from here.

    Raises:
        EnvironmentLacks: it cannot be dropped.
    """

    def lacking(got: str, expected: str) -> EnvironmentLacks:
        return EnvironmentLacks(
            "cold starts cannot be measured here", where="--state cold", got=got, expected=expected, fix="--state warm"
        )

    if os.geteuid() != 0:
        raise lacking(f"user id {os.geteuid()}", "root, who can read the image's layers")
    if not str(client.api.base_url).startswith("http+docker://localhost"):
        raise lacking("a Docker daemon over the network", "one of this machine")
    info = client.info()
    if any("rootless" in option for option in info.get("SecurityOptions") or ()):
        raise lacking("a rootless Docker daemon", "one that runs as root")
    if info["Driver"] != "overlay2":
        raise lacking(f"storage driver {info['Driver']}", "overlay2")
    for image in images:
        absent = [directory for directory in layers(image) if not os.path.isdir(directory)]
        if absent or not layers(image):
            got = f"{absent[0]} is not on this machine" if absent else "an image without layers of overlay2"
            raise lacking(got, "the directories of the image's layers")


def layers(image: Image) -> list[str]:
    """Return the host's directories of an image's layers; empty if its storage has none."""
    data = (image.attrs.get("GraphDriver") or {}).get("Data") or {}
    directories = [data.get("UpperDir", ""), *str(data.get("LowerDir") or "").split(":")]
    return [directory for directory in directories if directory]


def drop(files: Files) -> Cold:
    """Drop the files' pages from the page cache, and check that they are evicted.

    Raises:
        EnvironmentLacks: more than ``LIMIT`` of the bytes stays cached, because a process uses the files.
    """
    os.sync()  # a dirty page cannot be dropped
    left: dict[str, int] = {}
    for attempt in range(_TRIES):
        for path in left or files.paths:
            _forget(path)
        left = {path: size for path in files.paths if (size := resident_bytes(path))}
        cold = Cold(files=len(files.paths), total_bytes=files.total_bytes, resident_bytes=sum(left.values()))
        if cold.share <= LIMIT:
            return cold
        if attempt + 1 < _TRIES:
            time.sleep(0.3)  # a container that was just removed may still hold them
    largest = sorted(left, key=left.__getitem__, reverse=True)[:3]
    raise EnvironmentLacks(
        f"{cold.share:.0%} of the files stay in the page cache",
        where="--state cold",
        got=", ".join(f"{path} ({left[path]} bytes)" for path in largest),
        expected=f"{LIMIT:.0%} at most",
        fix="end what uses them (docker ps), or move the model to a disk",
    )


def _forget(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _walk(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the regular files below a directory, and the targets of its links, as in the Hub's cache."""
    for at, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(at, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                yield path, status


def model_directories(directory: Path) -> list[str]:
    """Return the directories of a model's files: its own, and those of its links' targets."""
    targets = {str(path.resolve().parent) for path in directory.rglob("*") if path.is_symlink() and path.is_file()}
    return [str(directory.resolve()), *sorted(targets)]
