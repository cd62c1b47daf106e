"""The server of a slow volume: a FUSE file system that passes a folder through, read-only, at a rate and with a delay.

Run as a script: ``slow_volume_server.py FOLDER MOUNT --log FILE [--rate BYTES] [--delay SECONDS] [--keep]``.  Each
request to read is a line of the log: path, offset, size.  While the file ``FOLDER.hang`` exists, reading never answers.
"""

from __future__ import annotations

import argparse
import errno
import os
import threading
import time

import mfusepy


class PassThrough(mfusepy.Operations):  # type: ignore[misc]
    """Passes requests on, each after its delay, all of them together at a rate.

    Args:
        folder: what is passed through.
        log: where requests are noted.
        rate: bytes per second, 0 for any.
        delay: seconds that each request takes before its first byte.
    """

    use_ns = True

    def __init__(self, folder: str, log: int, rate: float, delay: float) -> None:
        self._folder, self._log, self._rate, self._delay = folder, log, rate, delay
        self._free = 0.0
        self._lock = threading.Lock()

    def _path(self, path: str) -> str:
        return self._folder + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, object]:
        status = os.lstat(self._path(path))
        fields = ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns")
        found: dict[str, object] = {name.removesuffix("_ns"): getattr(status, name) for name in fields}
        return found

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._path(path))]

    def readlink(self, path: str) -> str:
        return os.readlink(self._path(path))

    def open(self, path: str, flags: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise mfusepy.FuseOSError(errno.EROFS)
        return os.open(self._path(path), os.O_RDONLY)

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        os.write(self._log, f"{path[1:]}\t{offset}\t{size}\n".encode())
        with self._lock:  # one line, as a network's: each waits for those before it
            now = time.monotonic()
            self._free = max(now, self._free) + (size / self._rate if self._rate else 0)
            until = self._free + self._delay
        data = os.pread(fh, size, offset)
        time.sleep(max(0.0, until - time.monotonic()))
        while os.path.exists(f"{self._folder}.hang"):
            time.sleep(0.05)
        return data


def main() -> None:
    """Mount, and serve until it is unmounted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("mount")
    parser.add_argument("--log", required=True)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("--keep", action="store_true", help="the page cache outlives a close")
    words = parser.parse_args()
    log = os.open(words.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    operations = PassThrough(words.folder.rstrip("/"), log, words.rate, words.delay)
    # allow_other: containers have another user.
    mfusepy.FUSE(
        operations, words.mount, foreground=True, ro=True, allow_other=True, kernel_cache=words.keep, max_threads=16
    )


if __name__ == "__main__":
    main()
