"""Images with a snapshot: prepared, put back as they were captured, and damaged in their tables."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from warmimage.entrypoint.tiers.snapshot.integrity import BLOCK

from ..harness import Image

HERE = Path(__file__).parent

#: What the closure imports; ``before`` is a module of the tests.
MODULES = (
    "before",
    "json.decoder",
    "decimal",
    "asyncio",
    "ctypes",
    "concurrent.futures.process",
    "multiprocessing.managers",
    "random",
    "uuid",
    "tempfile",
    "logging",
    "mmap",
    "subprocess",
)

PAGE = 4096

#: ``struct header`` and ``struct mapping`` (native/format.h).
HEADER, MAPPING = struct.Struct("<20Q"), struct.Struct("<QQQIIII")

THIS_FILE, NO_FILE = 0xFFFFFFFE, 0xFFFFFFFF

#: Places in the header.
FILE_LENGTH, MAPPINGS, MAPPING_COUNT, COPIES, COPY_COUNT, VDSO_START, VDSO_OFFSET, TABLES_LENGTH = (
    1,
    2,
    3,
    4,
    5,
    14,
    16,
    17,
)


def modules(image: Image) -> Path:
    """Return the directory of the image's own modules."""
    return image.root / "modules"


def variables(image: Image) -> dict[str, str]:
    """Return the variables of an image with modules of its own."""
    return {"PYTHONPATH": str(modules(image))}


def pristine(image: Image) -> Path:
    """Return the directory where the image is kept as it was captured."""
    return image.root.with_name("pristine")


def prepare(image: Image, **closure: object) -> None:
    """Give an image modules of its own, a library that they map, a closure, and all tiers.

    Args:
        image: the image.
        closure: what the closure has beside the modules.
    """
    modules(image).mkdir()
    shutil.copy(HERE / "before.py", modules(image))
    shutil.copy(native(image) / "point.so", modules(image) / "libown.so")
    image.change_plan(tiers=("snapshot", "zygote", "preload", "plain"))
    image.closure({"modules": list(MODULES), "files": [], "libraries": [], **closure})


def native(image: Image) -> Path:
    """Return the directory of the image's native files."""
    return image.entrypoint / "tiers" / "snapshot" / "native" / os.uname().machine


def restore_files(image: Image) -> None:
    """Put everything back as it was captured, and forget earlier starts."""
    image.timeline.unlink(missing_ok=True)
    image.marker.unlink(missing_ok=True)
    for path in (image.snapshot, modules(image), image.bin):
        shutil.rmtree(path)
        shutil.copytree(pristine(image) / path.name, path)
    shutil.copy(pristine(image) / "plan.json", image.root)


def rewrite(image: Image, change: Callable[[bytearray], bytearray | None]) -> None:
    """Change a snapshot file, and have manifest and checksums take it for whole.

    Args:
        image: whose snapshot.
        change: gets the file's content, and changes it or returns another.
    """
    path = image.snapshot / "memory"
    data = bytearray(path.read_bytes())
    data = change(data) or data
    path.write_bytes(data)
    fields = HEADER.unpack_from(data)
    manifest = json.loads((image.snapshot / "manifest.json").read_text())
    tables = bytes(data[: fields[TABLES_LENGTH]])
    manifest.update(bytes=len(data), tables_bytes=len(tables), tables=zlib.crc32(tables))
    (image.snapshot / "manifest.json").write_text(json.dumps(manifest))
    checks = json.loads((image.snapshot / "checks.json").read_text())
    checks["blocks"] = [zlib.crc32(data[start : start + BLOCK]) for start in range(0, len(data), BLOCK)]
    (image.snapshot / "checks.json").write_text(json.dumps(checks))


def set_mapping(data: bytearray, index: int, start: int) -> None:
    """Move a mapping to another address."""
    at = HEADER.unpack_from(data)[MAPPINGS] + MAPPING.size * index
    struct.pack_into("<Q", data, at, start)


def with_more_mappings(data: bytearray, count: int) -> bytearray:
    """Return a snapshot file that maps further single pages, each of another protection than the one before."""
    fields = list(HEADER.unpack_from(data))
    old = fields[TABLES_LENGTH]
    table = bytearray(data[fields[MAPPINGS] : fields[MAPPINGS] + fields[MAPPING_COUNT] * MAPPING.size])
    added = (
        MAPPING.pack(0x200000000000 + PAGE * index, PAGE, 0, NO_FILE, 1 + index % 2 * 2, 0, 0) for index in range(count)
    )
    table += b"".join(added)
    moved = -(-len(table) // PAGE) * PAGE
    for at in range(0, fields[MAPPING_COUNT] * MAPPING.size, MAPPING.size):
        row = list(MAPPING.unpack_from(table, at))
        row[2] += moved if row[3] == THIS_FILE else 0
        MAPPING.pack_into(table, at, *row)
    for index in range(fields[COPY_COUNT]):
        at = fields[COPIES] + 24 * index + 16
        struct.pack_into("<Q", data, at, struct.unpack_from("<Q", data, at)[0] + moved)
    fields[MAPPINGS], fields[MAPPING_COUNT] = old, fields[MAPPING_COUNT] + count
    for place in (FILE_LENGTH, VDSO_OFFSET, TABLES_LENGTH):
        fields[place] += moved
    HEADER.pack_into(data, 0, *fields)
    return data[:old] + table.ljust(moved, b"\0") + data[old:]
