"""Give a reader thousands of damaged inputs, each of which ends where the next page must not be read.

Run as a script, in a process of its own since the reader may crash it: ``python fuzz.py LIBRARY WHAT FILE SEED COUNT``.
WHAT is ``tables`` or ``vdso``.  Writes how many inputs were accepted and each message with its count, as JSON.
"""

from __future__ import annotations

import collections
import ctypes
import json
import mmap
import random
import struct
import sys
from collections.abc import Callable, Iterator

PAGE = 4096

EXTREMES = (0, 1, 1 << 63, (1 << 64) - 1, PAGE - 1, PAGE, (1 << 63) - 1, (1 << 64) - PAGE, 1 << 47, 1 << 44, 0xFFFFFFFE)

#: ``struct tables``: seven pointers at most.
_TABLES_BYTES = 64

_LOWEST, _HIGHEST, _OWN = 0x10000, 0x7FFFFFFFF000, (0x100000000000, 0x100100000000)

_THIS_FILE, _NO_FILE = 0xFFFFFFFE, 0xFFFFFFFF


def mutations(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Yield damaged versions of an input; the first is the input itself.

    Args:
        data: a valid input.
        seed: of the random choices.
        count: how many, beside those cut off at each 512 bytes.
    """
    yield data
    for length in range(0, len(data), 512):
        yield data[:length]
    choose = random.Random(seed)  # noqa: S311
    for _ in range(count):
        damaged = bytearray(data)
        for _ in range(choose.choice((1, 1, 1, 2, 4))):
            # Half of them in the header, of which every word decides something.
            word = choose.randrange(0, (256 if choose.random() < 0.5 else len(data)) // 8) * 8
            kind = choose.randrange(4)
            if kind == 0:
                damaged[word + choose.randrange(8)] ^= 1 << choose.randrange(8)
            elif kind == 1:
                damaged[word : word + 8] = struct.pack("<Q", choose.choice(EXTREMES))
            elif kind == 2:
                damaged[word : word + 4] = struct.pack("<I", choose.choice(EXTREMES) & 0xFFFFFFFF)
            else:
                near = (struct.unpack_from("<Q", damaged, word)[0] + choose.choice((-PAGE, -8, -1, 1, 8, PAGE))) % (
                    1 << 64
                )
                damaged[word : word + 8] = struct.pack("<Q", near)
        yield bytes(damaged)


class Guarded:
    """Memory that ends at a page that nobody may touch.

    Args:
        length: the most that is put there, in bytes.
    """

    def __init__(self, length: int) -> None:
        pages = -(-length // PAGE)
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        start = libc.mmap(
            None, (pages + 1) * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0
        )
        self._end = start + pages * PAGE
        assert libc.mprotect(self._end, PAGE, 0) == 0

    def put(self, data: bytes) -> int:
        """Put data right before the guarded page, and return its address."""
        address: int = self._end - len(data)
        ctypes.memmove(address, data, len(data))
        return address


def checked(data: bytes) -> None:
    """Check of tables that were accepted what the restorer relies on.

    Raises:
        AssertionError: they are not what they must be.
    """
    fields = struct.unpack_from("<20Q", data)
    (
        _,
        length,
        mappings,
        mapping_count,
        copies,
        copy_count,
        protects,
        protect_count,
        paths,
        path_count,
        names,
        names_length,
        auxv,
        auxv_length,
        vdso_start,
        vdso_length,
        vdso_offset,
        *_,
    ) = fields
    texts = data[names : names + names_length]
    assert len(texts) == names_length
    assert auxv + auxv_length <= len(data)
    for index in range(path_count):
        (at,) = struct.unpack_from("<I", data, paths + 4 * index)
        assert texts[at : at + 1] == b"/"
        assert texts.find(b"\0", at) >= 0
    ranges = [(vdso_start, vdso_length, vdso_offset)]
    for index in range(mapping_count):
        start, size, offset, file, *_ = struct.unpack_from("<QQQIIII", data, mappings + 40 * index)
        ranges.append((start, size, offset if file == _THIS_FILE else 0))
        assert file in (_THIS_FILE, _NO_FILE) or file < path_count
        if file != _THIS_FILE:
            ranges[-1] = (start, size, -1)
    for index in range(copy_count):
        ranges.append(struct.unpack_from("<QQQ", data, copies + 24 * index))
    for index in range(protect_count):
        ranges.append((*struct.unpack_from("<QQ", data, protects + 24 * index), -1))
    for start, size, offset in ranges:
        assert start % PAGE == 0 == size % PAGE
        assert _LOWEST <= start < start + size <= _HIGHEST
        assert start + size <= _OWN[0] or start >= _OWN[1]
        assert offset < 0 or offset + size <= length


def tables_reader(library: ctypes.CDLL, data: bytes) -> Callable[[bytes], str]:
    """Return what gives an input to ``tables_check``, and checks what that accepts."""
    guarded, out = Guarded(len(data)), ctypes.create_string_buffer(_TABLES_BYTES)
    library.tables_check.restype = ctypes.c_char_p
    library.tables_check.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64]

    def read(damaged: bytes) -> str:
        message = library.tables_check(out, guarded.put(damaged), len(damaged))
        if message is None:
            checked(damaged)
        return (message or b"").decode()

    return read


def vdso_reader(library: ctypes.CDLL, data: bytes) -> Callable[[bytes], str]:
    """Return what gives an input to ``vdso_redirect`` as the captured vdso, today's being whole, and the other way."""
    old, today = Guarded(len(data)), Guarded(len(data))
    library.vdso_redirect.restype = ctypes.c_char_p
    library.vdso_redirect.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64]

    def read(damaged: bytes) -> str:
        first = library.vdso_redirect(old.put(damaged), len(damaged), today.put(data), len(data))
        second = library.vdso_redirect(old.put(data), len(data), today.put(damaged), len(damaged))
        return (first or second or b"").decode()

    return read


def main(path: str, what: str, input_path: str, seed: str, count: str) -> None:
    """Run all inputs."""
    library = ctypes.CDLL(path)
    with open(input_path, "rb") as file:
        data = file.read()
    read = {"tables": tables_reader, "vdso": vdso_reader}[what](library, data)
    messages = collections.Counter(read(damaged) for damaged in mutations(data, int(seed), int(count)))
    print(json.dumps({"accepted": messages.pop("", 0), "messages": messages}))


if __name__ == "__main__":
    main(*sys.argv[1:])
