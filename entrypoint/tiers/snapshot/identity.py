"""Is a file still the one of the capture?  Size and time first, and where only the time differs the content decides.

Builders and mirrors rewrite times (``rewrite-timestamp``, ``--timestamp``, squashing); a derived image replaces files.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: Bytes at the beginning and the end of a file, and at places between them, that a sample holds.
_EDGE, _PIECE, _PIECES = 1 << 16, 1 << 12, 14

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Identity:
    """A file, as it was at the capture.

    Attributes:
        path: where it is.
        size: bytes.
        changed: time of change, in seconds: image layers keep no finer one.
        checksum: CRC-32 of a sample of its content, or of all of it.
    """

    path: str
    size: int
    changed: int
    checksum: int


def sampled(path: str) -> Identity:
    """Return a file's identity with the checksum of a sample.

    Raises:
        OSError: there is no such file.
    """
    return _identity(path, sample)


def whole(path: str) -> Identity:
    """Return a file's identity with the checksum of all its content.

    Raises:
        OSError: there is no such file.
    """
    return _identity(path, content)


def _identity(path: str, checksum: Callable[[str], int]) -> Identity:
    found = os.stat(path)
    return Identity(path, found.st_size, int(found.st_mtime), checksum(path))


def times_tell(identities: Iterable[Identity]) -> bool:
    """Return whether times of change tell these files from others: not where most of them have one and the same."""
    times = Counter(identity.changed for identity in identities)
    return not times or times.most_common(1)[0][1] * 2 <= sum(times.values())


def has_size_and_time(identity: Identity) -> bool | None:
    """Return whether a file has the size and time of the capture; ``None`` where only the time differs."""
    try:
        found = os.stat(identity.path)
    except OSError:
        return False
    if found.st_size != identity.size:
        return False
    return True if int(found.st_mtime) == identity.changed else None


def sample(path: str) -> int:
    """Return the CRC-32 of a file's beginning, its end, and pieces between them: a few pages of a large library.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= 2 * _EDGE + _PIECE * _PIECES:
            return zlib.crc32(file.read())
        found = zlib.crc32(os.pread(file.fileno(), _EDGE, 0))
        step = size // (_PIECES + 1)
        for index in range(1, _PIECES + 1):
            found = zlib.crc32(os.pread(file.fileno(), _PIECE, index * step), found)
        return zlib.crc32(os.pread(file.fileno(), _EDGE, size - _EDGE), found)


def content(path: str) -> int:
    """Return the CRC-32 of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    found = 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            found = zlib.crc32(block, found)
    return found
