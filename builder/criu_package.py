"""A Debian package, opened: an ``ar`` archive that holds its files as ``data.tar``."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterator

_MAGIC = b"!<arch>\n"
_HEADER = 60


def contents(package: bytes) -> dict[str, bytes]:
    """Return the contents of a package's files by their path, links followed inside the package.

    Raises:
        ValueError: it is no Debian package.
    """
    data = next((part for name, part in _members(package) if name.startswith("data.tar")), None)
    if data is None:
        raise ValueError("no data.tar in the package")
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            path = posixpath.normpath(member.name)
            if member.issym():
                links[path] = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))
            elif member.islnk():
                links[path] = posixpath.normpath(member.linkname)
            elif member.isfile():
                file = archive.extractfile(member)
                files[path] = file.read() if file else b""
    for path in links:
        target, hops = path, 0
        while target in links and hops < len(links):
            target, hops = links[target], hops + 1
        if target in files:
            files[path] = files[target]
    return files


def _members(package: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the members of an ``ar`` archive."""
    if not package.startswith(_MAGIC):
        raise ValueError("not an ar archive")
    place = len(_MAGIC)
    while place + _HEADER <= len(package):
        header = package[place : place + _HEADER]
        size = int(header[48:58])
        place += _HEADER
        yield header[:16].decode("ascii").strip().rstrip("/"), package[place : place + size]
        place += size + size % 2
