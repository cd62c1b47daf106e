"""Archives that the Docker API streams: one file read, or a directory copied to this machine."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, cast

from docker.errors import NotFound
from docker.models.containers import Container

from ..errors import WarmimageError
from . import daemon


class Stream:
    """Chunks of bytes, read as a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def fetch(container: Container, source: str, target: Path, what: str) -> None:
    """Copy the regular files of a container's directory here, through the API: the daemon may be on another machine.

    Files are readable by everybody, and executable where they were.

    Args:
        container: the container.
        source: path of the directory in it.
        target: the directory to create on this machine.
        what: what they are, for an error: ``the snapshot``.

    Raises:
        WarmimageError: they cannot be fetched.
    """
    target.mkdir()
    target.chmod(0o755)
    with daemon.api_errors(f"{what} cannot be fetched"):
        chunks, _ = container.get_archive(source)
        try:
            with tarfile.open(fileobj=cast(IO[bytes], Stream(chunks)), mode="r|") as archive:
                for member in archive:
                    content = archive.extractfile(member) if member.isreg() else None
                    relative = PurePosixPath(*PurePosixPath(member.name).parts[1:])
                    if not content or ".." in relative.parts:
                        continue
                    file = target / relative
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with open(file, "wb") as copy:
                        shutil.copyfileobj(content, copy, 1 << 20)
                    file.chmod(0o755 if member.mode & 0o100 else 0o644)
        except tarfile.TarError as error:
            raise WarmimageError(f"{what} cannot be fetched", got=str(error)) from None


def read(container: Container, path: str) -> bytes | None:
    """Return the content of one regular file of a container, which need not run; ``None`` where there is none.

    Args:
        container: the container.
        path: the file's path in it.

    Raises:
        WarmimageError: it cannot be fetched.
    """
    with daemon.api_errors(f"{path} cannot be fetched"):
        try:
            chunks, _ = container.get_archive(path)
        except NotFound:
            return None
        try:
            with tarfile.open(fileobj=cast(IO[bytes], Stream(chunks)), mode="r|") as archive:
                member = archive.next()
                source = archive.extractfile(member) if member and member.isreg() else None
                return source.read() if source else None
        except tarfile.TarError as error:
            raise WarmimageError(f"{path} cannot be fetched", got=str(error)) from None
