"""How much of a file is resident, as far as the kernel tells it to this user.

Of a file of another owner that may only be read, as an image's files are to the image's user, it tells nothing.  There
samples are taken: single pages are read, and the kernel says whether it charged this thread for fetching them.  Each
look takes other pages than the one before, as those it has read are resident now.  Some file systems charge nobody, and
look resident whatever is; whether one does is tried out before a sample of it is believed.
"""

from __future__ import annotations

import os

from .syscalls import STRIDE, fetched_bytes, resident_range

EXACT, SAMPLED, UNKNOWN = "exact", "sampled", "unknown"

#: How often at most it is tried in one process whether a file system charges its readers.
_TRIALS = 5


class Residency:
    """Looks at files; keeps what it has learned of their file systems."""

    def __init__(self) -> None:
        self._charged: set[int] = set()
        self._trials: dict[int, int] = {}

    def of_file(self, path: str, length: int) -> tuple[int, str]:
        """Return how many of a file's first ``length`` bytes are resident, and how that is known.

        Raises:
            OSError: the file cannot be read.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if length == 0:
                return 0, EXACT
            told = resident_part(descriptor, 0, length)
            if told is not None:
                return told, EXACT
            return self._sampled(descriptor, 0, length)
        finally:
            os.close(descriptor)

    def of_part(self, path: str, descriptor: int, offset: int, length: int) -> int:
        """Return how many bytes of a part of an open file are resident, 0 where that cannot be told.

        Raises:
            OSError: the file cannot be opened once more.
        """
        told = resident_part(descriptor, offset, length)
        if told is not None:
            return told
        own = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # samples turn readahead off
        try:
            return self._sampled(own, offset, length)[0]
        finally:
            os.close(own)

    def _sampled(self, descriptor: int, offset: int, length: int) -> tuple[int, str]:
        device = os.fstat(descriptor).st_dev
        try:
            found, of = self._samples(descriptor, offset, length)
            if found < of:
                self._charged.add(device)
            elif device not in self._charged and not self._charges(descriptor, device, offset, length):
                return 0, UNKNOWN
        except OSError:  # this kernel keeps no account of reads
            return 0, UNKNOWN
        return length * found // of, SAMPLED

    def _samples(self, descriptor: int, offset: int, length: int) -> tuple[int, int]:
        """Return how many of one page in every ``STRIDE`` bytes were resident, and how many were read."""
        page = bytearray(1)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no readahead: a sample fetches its own page alone
        end = offset + length
        begins = range(offset, end, STRIDE)
        found = 0
        fetched = fetched_bytes()
        for begin in begins:
            os.preadv(descriptor, [page], begin + int.from_bytes(os.urandom(4), "little") % min(STRIDE, end - begin))
            before, fetched = fetched, fetched_bytes()
            found += before == fetched
        return found, len(begins)

    def _charges(self, descriptor: int, device: int, offset: int, length: int) -> bool:
        """Return whether reads of a file system are charged: drops a little of a file, and reads it again."""
        if self._trials.get(device, 0) >= _TRIALS:
            return False
        self._trials[device] = self._trials.get(device, 0) + 1
        size = min(STRIDE, length)
        os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)  # not what somebody maps
        before = fetched_bytes()
        os.preadv(descriptor, [bytearray(size)], offset)
        if fetched_bytes() == before:
            return False
        self._charged.add(device)
        return True


def resident_part(descriptor: int, offset: int, length: int) -> int | None:
    """Return how many bytes of a part of an open file are resident, ``None`` where the kernel does not tell.

    Args:
        descriptor: the open file.
        offset: where the part begins, whole pages.
        length: its length in bytes, as far as the file goes.
    """
    try:
        return resident_range(descriptor, offset, length)
    except OSError:
        return None
