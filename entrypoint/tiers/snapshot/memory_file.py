"""The snapshot file: the memory of a stopped process, in the layout of ``native/format.h``.

The process is a fork of this one that stands at the snapshot point.  ``/proc/PID`` shows a process's memory to its
parent of the same user without any privilege: ``maps`` its mappings, ``mem`` the bytes, ``pagemap`` which pages of a
mapped file it has changed (bits 61 to 63, which every user may read; Documentation/admin-guide/mm/pagemap.rst).
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...kernel import proc

PAGE = 4096

MAGIC = 0x31304547414D4957

_NO_FILE, _THIS_FILE = 0xFFFFFFFF, 0xFFFFFFFE

#: ``enum mapping_flags``.
_SHARED, _GROWS_DOWN, _NO_RESERVE, _WIPE_ON_FORK = 1, 2, 4, 8

_READ, _WRITE, _EXECUTE = 1, 2, 4

#: ``struct mapping``, ``struct copy``, ``struct protect``, ``struct header``.
_MAPPING, _COPY, _PROTECT = struct.Struct("<QQQIIII"), struct.Struct("<QQQ"), struct.Struct("<QQII")
_HEADER = struct.Struct("<20Q11Q")

#: Where ``point.c`` places Python's arenas, and the restorer's own range.
ARENAS = range(0x110000000000, 0x120000000000)
_OWN = range(0x100000000000, 0x100100000000)

#: Runs of pages at least this long are mapped from the file where their owner allows it, shorter ones are copied: a
#: mapping costs about as much as the copies of a few pages, and a process may have only 65,530 (``vm.max_map_count``).
_MAPPED_PAGES = 16

#: Pages of zeros, or unchanged pages of a file, that do not end a run.
_GAP_PAGES = 4

#: Pages that are read at once.
_BLOCK = 1024

_ZERO = bytes(PAGE)

#: Bits of a ``pagemap`` entry: the page is there, swapped out, or still the file's own.
_PRESENT, _SWAPPED, _OF_FILE = 1 << 63, 1 << 62, 1 << 61

#: Fields of ``/proc/PID/stat`` in the order of ``struct memory_map``, as proc(5) counts them; brk itself is not there.
_STAT_FIELDS = (26, 27, 45, 46, 47, None, 28, 48, 49, 50, 51)


class NotCaptured(Exception):
    """There is no snapshot; the message says why."""


@dataclass(frozen=True)
class Mapping:
    """One row of ``/proc/PID/smaps``.

    Attributes:
        start, end: addresses.
        permissions: as ``maps`` writes them: ``r-xp``.
        offset: into the file, in bytes.
        path: of the file, a name in brackets, or an empty string.
        flags: the row ``VmFlags``.
    """

    start: int
    end: int
    permissions: str
    offset: int
    path: str
    flags: frozenset[str] = frozenset()

    @property
    def length(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def protection(self) -> int:
        """As ``mmap`` takes it."""
        bits = ((_READ, "r"), (_WRITE, "w"), (_EXECUTE, "x"))
        return sum(bit for bit, letter in bits if letter in self.permissions)

    @property
    def is_file(self) -> bool:
        """Whether a file is mapped."""
        return self.path.startswith("/")

    @property
    def is_kernels(self) -> bool:
        """Whether the kernel itself puts it into every process."""
        return self.path in ("[vdso]", "[vsyscall]") or self.path.startswith("[vvar")


def mappings(pid: int | str) -> list[Mapping]:
    """Return the mappings of a process, in order.

    Raises:
        OSError: the kernel does not show them.
    """
    found: list[Mapping] = []
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="surrogateescape") as file:
        for row in file:
            first = row.split(None, 1)[0]
            if first == "VmFlags:":
                last = found[-1]
                found[-1] = Mapping(
                    last.start, last.end, last.permissions, last.offset, last.path, frozenset(row.split()[1:])
                )
            elif not first.endswith(":"):
                columns = row.rstrip("\n").split(None, 5)
                start, end = (int(part, 16) for part in columns[0].split("-"))
                path = columns[5] if len(columns) == 6 else ""
                found.append(Mapping(start, end, columns[1], int(columns[2], 16), path))
    return found


def refusal(found: Sequence[Mapping]) -> str | None:
    """Return why a process with these mappings cannot be captured; ``None`` if it can."""
    forbidden = {
        "ht": "huge pages of hugetlbfs",
        "ss": "a shadow stack",
        "io": "a device's memory",
        "pf": "a device's memory",
        "dc": "memory that a fork does not get (MADV_DONTFORK)",
        "mt": "memory tags",
        "lo": "locked memory",
    }
    for mapping in found:
        if mapping.is_kernels:
            continue
        for flag, what in forbidden.items():
            if flag in mapping.flags:
                return f"it has {what} at {mapping.start:x} {mapping.path}".rstrip()
        if mapping.path.endswith(" (deleted)") or mapping.path.startswith(("/dev/", "/memfd:", "/SYSV", "anon_inode:")):
            return f"it has mapped {mapping.path}, which is no file of the image"
        if "s" in mapping.permissions and (not mapping.is_file or "w" in mapping.permissions):
            return f"it shares memory: {mapping.path or 'an anonymous mapping'}"
        if mapping.start < _OWN.stop and mapping.end > _OWN.start:
            return f"it has memory where the restorer works: {mapping.start:x}"
    return None


@dataclass
class _Run:
    """Pages next to each other that go into the file."""

    start: int
    data: list[bytes] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.data) * PAGE

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass
class _Pages:
    """Pages of the file, one behind the other; ``length`` is theirs in bytes."""

    pages: list[bytes] = field(default_factory=list)
    length: int = 0

    def append(self, data: Sequence[bytes]) -> int:
        """Add pages; return their position among these."""
        position = self.length
        self.pages += data
        self.length += sum(map(len, data))
        return position


@dataclass(frozen=True)
class Written:
    """What a snapshot file has become.

    Attributes:
        bytes: its length.
        tables_bytes: length of header and tables, which it begins with.
        mapped_bytes: pages that a restore maps from it.
        copied_bytes: pages that a restore copies.
        mappings: how many mappings a restore makes.
        files: paths of the files that a restore maps.
    """

    bytes: int
    tables_bytes: int
    mapped_bytes: int
    copied_bytes: int
    mappings: int
    files: tuple[str, ...]


class MemoryFile:
    """Writes a stopped process to a file.

    Args:
        pid: the process, a child of this one.
        may_map_heap: whether the owner of the ``brk`` heap takes it for no more than memory: glibc's malloc does; it
            trims by ``brk``, and trusts no page to be zero that it has used before (malloc/malloc.c, sysmalloc, mtrim).
    """

    def __init__(self, pid: int, *, may_map_heap: bool = True) -> None:
        self._pid = pid
        self._may_map_heap = may_map_heap
        self._mappings: list[bytes] = []
        self._copies: list[tuple[int, int, int]] = []
        self._protects: list[bytes] = []
        # Copied pages come first in the file: a restore waits for them alone, and reads them with one request.
        self._copied, self._mapped = _Pages(), _Pages()
        self._files: dict[str, int] = {}
        self._fixups: list[tuple[int, int]] = []

    def write(self, path: str, resume: int, point: int) -> Written:
        """Write the file.

        Args:
            path: the file; it must not exist.
            resume: address of ``snapshot_resume``.
            point: address of ``snapshot_state()``.

        Raises:
            NotCaptured: the process has what no other can be given.
            OSError: the kernel does not show it, or the file cannot be written.
        """
        found = mappings(self._pid)
        reason = refusal(found)
        if reason:
            raise NotCaptured(reason)
        vdso = next((mapping for mapping in found if mapping.path == "[vdso]"), None)
        if vdso is None:
            raise NotCaptured("it has no vdso")
        with (
            open(f"/proc/{self._pid}/mem", "rb", buffering=0) as memory,
            open(f"/proc/{self._pid}/pagemap", "rb", buffering=0) as pagemap,
        ):
            for mapping in found:
                if not mapping.is_kernels:
                    self._add(mapping, memory.fileno(), pagemap.fileno())
            vdso_offset = self._copied.append([os.pread(memory.fileno(), vdso.length, vdso.start)])
        return self._save(path, (vdso.start, vdso.length, vdso_offset), resume, point)

    # Positions in the page data become offsets into the file when the length of the tables is known: `_save`.

    def _add(self, mapping: Mapping, memory: int, pagemap: int) -> None:
        """Add one mapping, and those of its pages that no file has."""
        flags = _SHARED if "s" in mapping.permissions else 0
        flags |= _GROWS_DOWN if "gd" in mapping.flags else 0
        flags |= _NO_RESERVE if "nr" in mapping.flags else 0
        wiped = bool({"wf", "dp"} & mapping.flags)
        flags |= _WIPE_ON_FORK if wiped else 0
        runs = [] if wiped or "s" in mapping.permissions else list(self._runs(mapping, memory, pagemap))
        shortest = _MAPPED_PAGES * PAGE if self._may_map(mapping) else mapping.length + 1
        maps = [run for run in runs if run.length >= shortest]
        copied = [run for run in runs if run.length < shortest]
        whole = len(maps) == 1 and maps[0].length == mapping.length
        protection = mapping.protection | (_READ | _WRITE if copied else 0)
        if not whole:
            file = self._files.setdefault(mapping.path, len(self._files)) if mapping.is_file else _NO_FILE
            self._map(mapping.start, mapping.length, mapping.offset if mapping.is_file else 0, file, protection, flags)
        for run in copied:
            self._copies.append((run.start, run.length, self._copied.append(run.data)))
        if protection != mapping.protection:
            self._protects.append(_PROTECT.pack(mapping.start, mapping.length, mapping.protection, 0))
        for run in maps:
            offset = self._mapped.append(run.data)
            self._map(run.start, run.length, offset, _THIS_FILE, mapping.protection, flags & ~_GROWS_DOWN)

    def _may_map(self, mapping: Mapping) -> bool:
        """Return whether pages may be mapped from the file: a private mapping of it is not quite anonymous memory.

        After ``MADV_DONTNEED`` it reads the file's bytes again where anonymous memory reads zeros, and ``mremap``
        beyond the file's end gives pages that end the process by SIGBUS.  Allocators do both, so memory that they took
        by ``mmap`` is copied; so are stacks.  Python's arenas and libraries' data see neither, nor does glibc's heap.
        """
        if mapping.is_file or mapping.start in ARENAS:
            return True
        return mapping.path == "[heap]" and self._may_map_heap

    def _runs(self, mapping: Mapping, memory: int, pagemap: int) -> Iterator[_Run]:
        """Yield the pages that differ from what the mapping itself gives: the file's bytes, or zeros."""
        if not mapping.protection and not mapping.is_file:
            return  # reserved addresses, and guards
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(open(mapping.path, "rb", buffering=0)).fileno() if mapping.is_file else -1
            run: _Run | None = None
            gap: list[bytes] = []
            for address, page, same in self._changed(mapping, memory, pagemap, source):
                if same:
                    gap.append(page)
                    if run and len(gap) > _GAP_PAGES:
                        yield run
                        run = None
                    continue
                if run and run.end + len(gap) * PAGE == address:
                    run.data += gap
                elif run:
                    yield run
                    run = None
                gap = []
                if run is None:
                    run = _Run(address)
                run.data.append(page)
            if run:
                yield run

    def _changed(self, mapping: Mapping, memory: int, pagemap: int, source: int) -> Iterator[tuple[int, bytes, bool]]:
        """Yield address, content and whether it is what the mapping gives anyway, of pages that may have changed."""
        count = mapping.length // PAGE
        for first in range(0, count, _BLOCK):
            pages = min(_BLOCK, count - first)
            start = mapping.start + first * PAGE
            entries = os.pread(pagemap, pages * 8, start // PAGE * 8)
            bits = struct.unpack(f"<{len(entries) // 8}Q", entries)
            candidates = [bool(entry & (_PRESENT | _SWAPPED)) and not entry & _OF_FILE for entry in bits]
            if not any(candidates):
                continue
            data = _read(memory, start, pages * PAGE)
            original = os.pread(source, pages * PAGE, mapping.offset + first * PAGE) if source >= 0 else b""
            for index, candidate in enumerate(candidates):
                page = data[index * PAGE : (index + 1) * PAGE]
                before = original[index * PAGE : (index + 1) * PAGE].ljust(PAGE, b"\0") if source >= 0 else _ZERO
                yield start + index * PAGE, page, not candidate or page == before

    def _map(self, start: int, length: int, offset: int, file: int, protection: int, flags: int) -> None:
        if file == _THIS_FILE:
            self._fixups.append((len(self._mappings), offset))
        self._mappings.append(_MAPPING.pack(start, length, offset, file, protection, flags, 0))

    def _save(self, path: str, vdso: tuple[int, int, int], resume: int, point: int) -> Written:
        with open(f"/proc/{self._pid}/auxv", "rb") as file:
            auxv = file.read()
        names = b"".join(os.fsencode(name) + b"\0" for name in self._files)
        offsets, position = [], 0
        for name in self._files:
            offsets.append(position)
            position += len(os.fsencode(name)) + 1
        sizes = (
            len(self._mappings) * _MAPPING.size,
            len(self._copies) * _COPY.size,
            len(self._protects) * _PROTECT.size,
            _up(len(offsets) * 4, 8),
            _up(len(names), 8),
            len(auxv),
        )
        places = [_HEADER.size]
        for size in sizes:
            places.append(places[-1] + size)
        tables = _up(places[-1], PAGE)
        for index, offset in self._fixups:
            fields = list(_MAPPING.unpack(self._mappings[index]))
            fields[2] = tables + self._copied.length + offset
            self._mappings[index] = _MAPPING.pack(*fields)
        copies = [_COPY.pack(start, length, tables + offset) for start, length, offset in self._copies]
        total = tables + self._copied.length + self._mapped.length
        header = _HEADER.pack(
            MAGIC,
            total,
            places[0],
            len(self._mappings),
            places[1],
            len(copies),
            places[2],
            len(self._protects),
            places[3],
            len(offsets),
            places[4],
            len(names),
            places[5],
            len(auxv),
            vdso[0],
            vdso[1],
            tables + vdso[2],
            tables,
            resume,
            point,
            *self._memory_map(),
        )
        parts = [
            header,
            *self._mappings,
            *copies,
            *self._protects,
            struct.pack(f"<{len(offsets)}I", *offsets).ljust(sizes[3], b"\0"),
            names.ljust(sizes[4], b"\0"),
            auxv,
        ]
        with open(path, "xb") as file:
            file.write(b"".join(parts).ljust(tables, b"\0"))
            file.writelines(self._copied.pages)
            file.writelines(self._mapped.pages)
        return Written(total, tables, self._mapped.length, self._copied.length, len(self._mappings), tuple(self._files))

    def _memory_map(self) -> list[int]:
        """Return ``struct memory_map``: where code, data, heap, stack, arguments and environment are."""
        _, fields = proc.stat(self._pid)  # from field 3 on
        heap = [mapping for mapping in mappings(self._pid) if mapping.path == "[heap]"]
        values = [int(fields[number - 3]) if number else 0 for number in _STAT_FIELDS]
        values[5] = heap[-1].end if heap else values[4]
        return values


def _read(memory: int, start: int, length: int) -> bytes:
    data = os.pread(memory, length, start)
    if len(data) != length:
        raise OSError(f"memory at {start:x} cannot be read")
    return data


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
