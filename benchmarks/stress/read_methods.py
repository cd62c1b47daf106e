"""Ways to make a folder's files resident, measured side by side; docs/prefetch.md has what came out.

Run as ``python -m benchmarks.stress.read_methods FOLDER [--rounds N]``.  Every way starts with the files dropped from
the page cache, and the ways take turns.  ``cat`` and ``vmtouch -t`` (Debian's package) are the bars.
"""

from __future__ import annotations

import argparse
import compileall
import mmap
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from warmimage.entrypoint.pagecache import syscalls
from warmimage.entrypoint.pagecache.syscalls import BLOCK

from tests.entrypoint.plans import make_plan

Fetch = Callable[[int, int, int], None]

#: Bytes that may be gone again at once: others on the machine need memory too.
LOST = 1 << 20

_LOCAL = threading.local()


def by_preadv(descriptor: int, offset: int, length: int) -> None:
    """Copy the block into a buffer of the thread's."""
    if not hasattr(_LOCAL, "buffer"):
        _LOCAL.buffer = bytearray(BLOCK)
    os.preadv(descriptor, [memoryview(_LOCAL.buffer)[:length]], offset)


def by_preadv_of(piece: int) -> Fetch:
    """Return the same with a buffer of ``piece`` bytes, which stays in the processor's cache."""

    def fetch(descriptor: int, offset: int, length: int) -> None:
        if len(getattr(_LOCAL, "small", b"")) != piece:
            _LOCAL.small = bytearray(piece)
        for at in range(offset, offset + length, piece):
            os.preadv(descriptor, [_LOCAL.small], at)

    return fetch


def by_populate(descriptor: int, offset: int, length: int) -> None:
    """Map the block and have the kernel touch it."""
    syscalls.populate(descriptor, offset, length)


def by_populate_with(*advice: int) -> Fetch:
    """Return the same with advice on the mapping first."""

    def fetch(descriptor: int, offset: int, length: int) -> None:
        syscalls.populate(descriptor, offset, length, *advice)

    return fetch


def by_populate_ahead(descriptor: int, offset: int, length: int) -> None:
    """Ask for the whole block first, in steps that the kernel does not cut, then map it."""
    for at in range(offset, offset + length, 128 << 10):
        syscalls.readahead(descriptor, at, 128 << 10)
    syscalls.populate(descriptor, offset, length)


def by_readahead(descriptor: int, offset: int, length: int) -> None:
    """Ask for the whole block in steps that the kernel does not cut, then wait for one page of each."""
    page = bytearray(1)
    steps = range(offset, offset + length, 128 << 10)
    for at in steps:
        syscalls.readahead(descriptor, at, 128 << 10)
    for at in steps:
        os.preadv(descriptor, [page], at)


WAYS: dict[str, Fetch] = {
    "preadv": by_preadv,
    "preadv 256 KiB": by_preadv_of(256 << 10),
    "MADV_POPULATE_READ": by_populate,
    "MADV_POPULATE_READ, sequential": by_populate_with(mmap.MADV_SEQUENTIAL),
    "MADV_POPULATE_READ, huge": by_populate_with(mmap.MADV_HUGEPAGE),
    "readahead, then populate": by_populate_ahead,
    "readahead, then wait": by_readahead,
}


def fetch_all(paths: Sequence[Path], fetch: Fetch, readers: int) -> None:
    """Fetch files, block by block, with some threads."""
    sizes = {path: path.stat().st_size for path in paths}
    parts = iter([(path, at, min(BLOCK, sizes[path] - at)) for path in paths for at in range(0, sizes[path], BLOCK)])
    lock = threading.Lock()

    def work() -> None:
        opened: tuple[Path, int] | None = None
        while True:
            with lock:
                part = next(parts, None)
            if opened and (part is None or opened[0] != part[0]):
                os.close(opened[1])
                opened = None
            if part is None:
                return
            # A file of its own: the kernel's readahead follows each open file by itself.
            opened = opened or (part[0], os.open(part[0], os.O_RDONLY))
            fetch(opened[1], *part[1:])

    threads = [threading.Thread(target=work) for _ in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def prefetch_command(folder: Path, root: str) -> list[str]:
    """Return prefetch as an image's command, for a model in a folder; the image is laid out in ``root``."""
    entrypoint = f"{root}/entrypoint"
    shutil.copytree(Path(syscalls.__file__).parent, entrypoint, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(entrypoint, quiet=1)
    plan = make_plan(str(folder), sys.executable)
    Path(root, "plan.json").write_text(plan.to_json(), encoding="utf-8")
    return [sys.executable, "-I", "-S", entrypoint, "prefetch"]


def drop(paths: Sequence[Path]) -> None:
    """Drop files from the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measured(work: Callable[[], object], paths: Sequence[Path]) -> tuple[float, float]:
    """Return wall seconds and CPU seconds of ``work``, which must leave all of ``paths`` resident."""
    drop(paths)
    held = sum(syscalls.resident_bytes(str(path)) for path in paths)
    assert held == 0, f"{held} bytes would not go"
    before = cpu()
    began = time.perf_counter()
    work()
    wall = time.perf_counter() - began
    used = cpu() - before
    missing = sum(path.stat().st_size - syscalls.resident_bytes(str(path)) for path in paths)
    if missing > LOST:
        print(f"{missing} bytes are not resident", file=sys.stderr)
    return wall, used


def cpu() -> float:
    """Return the CPU seconds of this process and of its ended children."""
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(time.ru_utime + time.ru_stime for time in times)


def main() -> None:
    """Measure all ways and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--readers", default="1,4")
    parser.add_argument("--ways", default="", help="only those whose names hold one of these words")
    parser.add_argument("--bars", action="store_true", help="only the command, and what it is held against")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        measure(words, root)


def measure(words: argparse.Namespace, root: str) -> None:
    """Measure the ways that are asked for."""
    paths = sorted(path.resolve() for path in words.folder.iterdir() if path.is_file())
    gigabytes = sum(path.stat().st_size for path in paths) / 1e9

    def command(*line: str) -> Callable[[], object]:
        return lambda: subprocess.run(line, stdout=subprocess.DEVNULL, check=True)

    def threads(fetch: Fetch, readers: int) -> Callable[[], object]:
        return lambda: fetch_all(paths, fetch, readers)

    names = [str(path) for path in paths]
    ways: dict[str, Callable[[], object]] = {
        "cat": command("cat", *names),
        "vmtouch -t": command("vmtouch", "-q", "-t", *names),
        "warmimage prefetch": command(*prefetch_command(words.folder.resolve(), root)),
    }
    for name, fetch in () if words.bars else WAYS.items():
        for readers in map(int, words.readers.split(",")):
            ways[f"{name} x{readers}"] = threads(fetch, readers)
    chosen = [name for name in ways if not words.ways or any(w in name for w in words.ways.split(","))]
    found = defaultdict(list)
    for turn in range(words.rounds):
        for name in chosen[turn % len(chosen) :] + chosen[: turn % len(chosen)]:
            found[name].append(measured(ways[name], paths))
    print(
        f"| way | GB/s | CPU s per GB | of {gigabytes:.2f} GB, medians of {words.rounds} |\n| --- | --- | --- | --- |"
    )
    for name in chosen:
        wall, used = (statistics.median(column) for column in zip(*found[name], strict=True))
        every = ", ".join(f"{result[0]:.2f}" for result in found[name])
        print(f"| {name} | {gigabytes / wall:.2f} | {used / gigabytes:.3f} | {every} s |")


if __name__ == "__main__":
    main()
