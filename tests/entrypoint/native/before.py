"""What a snapshot has before it is captured: memory of many kinds, with content that can be told again."""

import ctypes
import functools
import mmap
import os
import random

#: Blocks of malloc, from those in a thread's cache to those that are mapped by themselves.
SIZES = (24, 100, 1000, 5000, 33_000, 100_000, 1 << 20, 5 << 20, 40 << 20)

PAGE = 4096

LIBC = ctypes.CDLL(None)
LIBC.malloc.restype = LIBC.realloc.restype = LIBC.calloc.restype = ctypes.c_void_p
LIBC.malloc.argtypes, LIBC.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
LIBC.realloc.argtypes, LIBC.calloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t], [ctypes.c_size_t] * 2

#: A library that the snapshot maps.
OWN = ctypes.CDLL(os.path.join(os.path.dirname(os.path.abspath(__file__)), "libown.so"))


@functools.cache
def part(seed):
    """Return what a content repeats."""
    return random.Random(seed).randbytes(1 << 16)  # noqa: S311


def content(length, seed):
    """Return bytes that another process can tell, too."""
    block = part(seed)
    return (block * (length // len(block) + 1))[:length]


def of(number):
    """Return the object of a number."""
    return (str(number), [number] * (number % 50), content(number % 3000, number % 61))


class Block:
    """Memory of malloc, with content of its own."""

    def __init__(self, length, seed):
        self.length, self.seed = length, seed
        self.address = LIBC.malloc(length)
        self.fill()

    def fill(self):
        ctypes.memmove(self.address, content(self.length, self.seed), self.length)

    def is_whole(self, length=0):
        length = length or self.length
        return ctypes.string_at(self.address, length) == content(length, self.seed)

    def grow(self, length):
        """Have another length, the content being continued."""
        kept = min(self.length, length)
        self.address = LIBC.realloc(self.address, length)
        assert self.is_whole(kept), f"realloc({self.length} -> {length}) lost content"
        self.length = length
        self.fill()

    def free(self):
        LIBC.free(self.address)


BLOCKS = [
    Block(size, 1000 * index + number)
    for index, size in enumerate(SIZES)
    for number in range(1 if size > 1 << 20 else 8)
]

MAPPED = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
MAPPED.write(content(8 << 20, 7))

#: Python's own objects, in its arenas and beyond.
OBJECTS = {number: of(number) for number in range(20_000)}
LARGE = bytearray(content(3 << 20, 8))


def objects_are_whole():
    """Return whether Python's objects have the content that they were made with."""
    return bytes(LARGE) == content(3 << 20, 8) and all(found == of(number) for number, found in OBJECTS.items())


part.cache_clear()  # a restored process works out anew what it must find
