"""As much of the ELF format as the tests of the native part read, independently of its own reader."""

from __future__ import annotations

import struct
from dataclasses import dataclass

LOAD, DYNAMIC, RELRO = 1, 2, 0x6474E552
WRITABLE = 2
NEEDED, HASH, NAMES, SYMBOLS, RELA, RELA_BYTES, NAMES_BYTES, INIT_ARRAY, INIT_ARRAY_BYTES = 1, 4, 5, 6, 7, 8, 10, 25, 27


@dataclass(frozen=True)
class Segment:
    """One program header."""

    kind: int
    flags: int
    offset: int
    address: int
    file_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class Relocation:
    """One entry of ``DT_RELA``: where, the machine's own type, and the symbol's name."""

    address: int
    kind: int
    symbol: str


class Elf:
    """A shared library, or the kernel's vdso.

    Args:
        data: the file, or the image.
    """

    def __init__(self, data: bytes) -> None:
        assert data[:5] == b"\x7fELF\x02"
        self.data = data
        offset, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<H", data, 56)
        rows = (struct.unpack_from("<IIQQQQQQ", data, offset + 56 * index) for index in range(count))
        self.segments = [Segment(row[0], row[1], row[2], row[3], row[5], row[6]) for row in rows]
        (found,) = (segment for segment in self.segments if segment.kind == DYNAMIC)
        self.dynamic = [
            struct.unpack_from("<QQ", data, at) for at in range(found.offset, found.offset + found.file_bytes, 16)
        ]

    def value(self, tag: int) -> int:
        """Return the first value of a tag in the dynamic section, or 0."""
        return next((value for name, value in self.dynamic if name == tag), 0)

    def offset(self, address: int) -> int:
        """Return where an address lies in the file."""
        for segment in self.segments:
            if segment.kind == LOAD and segment.address <= address < segment.address + segment.file_bytes:
                return address - segment.address + segment.offset
        raise ValueError(f"{address:x} is not in the file")

    def symbol(self, index: int) -> tuple[str, int]:
        """Return a dynamic symbol's name and value."""
        name, _info, _other, _section, value, _size = struct.unpack_from(
            "<IBBHQQ", self.data, self.offset(self.value(SYMBOLS)) + 24 * index
        )
        start = self.offset(self.value(NAMES)) + name
        return self.data[start : self.data.index(b"\0", start)].decode(), value

    def functions(self) -> dict[str, int]:
        """Return the dynamic symbols that have a value, with their places in the file."""
        hash_table = self.value(HASH)
        if hash_table:
            count = struct.unpack_from("<II", self.data, self.offset(hash_table))[1]
        else:  # a linker puts the names right behind the symbols
            count = (self.value(NAMES) - self.value(SYMBOLS)) // 24
        found = (self.symbol(index) for index in range(count))
        return {name: self.offset(value) for name, value in found if value}

    def relocations(self) -> list[Relocation]:
        """Return all of ``DT_RELA``."""
        if not self.value(RELA):
            return []
        start, length = self.offset(self.value(RELA)), self.value(RELA_BYTES)
        rows = (struct.unpack_from("<QQq", self.data, start + at) for at in range(0, length, 24))
        return [Relocation(address, info & 0xFFFFFFFF, self.symbol(info >> 32)[0]) for address, info, _ in rows]
