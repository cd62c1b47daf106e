"""A slow network volume for tests, and what its server was asked for."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

MB = 1_000_000

#: Share of pages that may be asked for again though nobody reads anything twice; who reads twice comes to 1.
TAKEN_BACK = 0.02

_SERVER = Path(__file__).with_name("slow_volume_server.py")


@dataclass(frozen=True)
class Volume:
    """A mounted volume.

    Attributes:
        path: where it is mounted.
        folder: what it passes through.
        log: its requests.
    """

    path: Path
    folder: Path
    log: Path

    def forget(self) -> None:
        """Empty the log."""
        os.truncate(self.log, 0)

    def requests(self) -> list[tuple[str, int, int]]:
        """Return name, offset and size of each request to read."""
        rows = [row.split("\t") for row in self.log.read_text(encoding="utf-8").splitlines()]
        return [(name, int(offset), int(size)) for name, offset, size in rows]

    def again(self) -> float:
        """Return the share of its pages that were asked for more than once.

        Not always 0 when everything is right: a page that the kernel takes back is fetched again, and on a busy machine
        a few of thousands are.
        """
        pages: Counter[tuple[str, int]] = Counter()
        for name, offset, size in self.requests():
            end = min(offset + size, (self.folder / name).stat().st_size)
            pages.update((name, page) for page in range(offset // 4096, -(-end // 4096)))
        return sum(count - 1 for count in pages.values()) / max(1, len(pages))

    def files_read(self) -> dict[str, int]:
        """Return how many different bytes of each file were asked for."""
        pages: dict[str, set[int]] = {}
        for name, offset, size in self.requests():
            pages.setdefault(name, set()).update(range(offset // 4096, -(-(offset + size) // 4096)))
        sizes = {name: (self.folder / name).stat().st_size for name in pages}
        return {
            name: sum(max(0, min(4096, sizes[name] - page * 4096)) for page in found) for name, found in pages.items()
        }

    def hang(self, hanging: bool = True) -> None:
        """Let reading never answer, or answer again."""
        marker = Path(f"{self.folder}.hang")
        if hanging:
            marker.touch()
        else:
            marker.unlink(missing_ok=True)


@contextmanager
def mounted(folder: Path, at: Path, *, rate: float = 0, delay: float = 0, keep: bool = True) -> Iterator[Volume]:
    """Mount a folder as a slow volume until the block ends; skip where FUSE is not to be had.

    Args:
        folder: what it passes through.
        at: where to mount it.
        rate: bytes per second, 0 for any.
        delay: seconds that each request takes before its first byte.
        keep: whether what was read stays in the page cache when a file is opened again.
    """
    if not _may_mount():
        pytest.skip("FUSE file systems cannot be mounted here (needs root, /dev/fuse, and Debian's fuse3)")
    at.mkdir(parents=True, exist_ok=True)
    log = at.with_name(f"{at.name}.log")
    log.touch()
    words = [str(folder), str(at), "--log", str(log), "--rate", str(rate), "--delay", str(delay)]
    words += ["--keep"] if keep else []
    volume = Volume(at, folder, log)
    with subprocess.Popen([sys.executable, str(_SERVER), *words]) as server:
        try:
            deadline = time.monotonic() + 20
            while not os.path.ismount(at):
                assert server.poll() is None, "the FUSE server has ended"
                assert time.monotonic() < deadline, "the FUSE file system did not appear"
                time.sleep(0.02)
            yield volume
        finally:
            volume.hang(False)
            subprocess.run(["umount", "--lazy", str(at)], check=False)
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()


def _may_mount() -> bool:
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK) and bool(ctypes.util.find_library("fuse3"))
