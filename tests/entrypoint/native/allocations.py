"""An engine that allocates, frees, trims and moves memory that was there before it was restored, and checks each byte.

Its argument is a name that a mapped library must have: the allocator that serves this process.
"""

import ctypes
import gc
import mmap
import random
import sys
import threading

import before
from before import BLOCKS, LIBC, MAPPED, PAGE, SIZES, Block, content


def all_whole(blocks, when):
    for block in blocks:
        assert block.is_whole(), f"{block.length} bytes are damaged {when}"


def trim():
    """Give free memory back to the kernel, as each allocator is asked to."""
    if hasattr(LIBC, "mallctl"):
        LIBC.mallctl(b"arena.4096.purge", None, None, None, ctypes.c_size_t(0))
    if hasattr(LIBC, "mi_collect"):
        LIBC.mi_collect(ctypes.c_bool(True))
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(0)


def zeros(length):
    """Return a block that must read as zeros, after which it is full."""
    address = LIBC.calloc(1, length)
    assert ctypes.string_at(address, length) == bytes(length), f"calloc({length}) is not zero"
    ctypes.memset(address, 0xA5, length)
    return address


def exercise(blocks, choose):
    """Grow, free, trim and allocate in many orders."""
    for block in list(blocks):
        block.grow(2 * block.length + PAGE)
    all_whole(blocks, "after all have grown")
    for _ in range(2):
        choose.shuffle(blocks)
        half = len(blocks) // 2
        for block in blocks[:half]:
            block.free()
        del blocks[:half]
        trim()
        all_whole(blocks, "after others were freed and trimmed")
        cleared = [zeros(size) for size in SIZES]
        for address in cleared:
            LIBC.free(address)
        trim()
        blocks += [Block(size, choose.randrange(1 << 30)) for size in SIZES[:-1] for _ in range(half // len(SIZES) + 1)]
        for block in blocks:
            block.grow(max(16, choose.choice((block.length // 2, block.length + PAGE))))
        all_whole(blocks, "after an exchange")


def mapped():
    """Give pages back that were mapped before, take them again, and have more of them."""
    assert MAPPED[:] == content(8 << 20, 7)
    MAPPED.madvise(mmap.MADV_DONTNEED, 1 << 20, 2 << 20)
    expected = bytearray(content(8 << 20, 7))
    expected[1 << 20 : 3 << 20] = bytes(2 << 20)
    assert MAPPED[:] == expected, "pages that were given back do not read as zeros"
    MAPPED[1 << 20 : 2 << 20] = expected[1 << 20 : 2 << 20] = content(1 << 20, 9)
    MAPPED.resize(16 << 20)
    expected += bytes(8 << 20)
    assert MAPPED[:] == expected, "memory that has grown does not go on with zeros"
    MAPPED[8 << 20 :] = content(8 << 20, 10)
    assert MAPPED[8 << 20 :] == content(8 << 20, 10)


def objects():
    """Have Python free its arenas, and take new ones."""
    assert before.objects_are_whole()
    for number in range(0, 20_000, 2):
        del before.OBJECTS[number]
    gc.collect()
    new = {number: [str(number) * 3, {number: number}] for number in range(200_000)}
    assert before.objects_are_whole()
    assert all(new[number] == [str(number) * 3, {number: number}] for number in new)
    del new
    gc.collect()
    before.LARGE.extend(content(9 << 20, 11))
    assert bytes(before.LARGE[3 << 20 :]) == content(9 << 20, 11)
    del before.LARGE[3 << 20 :]
    assert before.objects_are_whole()


def chooser(seed):
    """Return what makes the same choices each time."""
    return random.Random(seed)  # noqa: S311


def deep(levels):
    """Grow the stack: 400 levels take twice what it begins with, and are as many as Python 3.12 permits."""
    return levels and min([levels], key=lambda _: deep(levels - 1))


def main(allocator):
    with open("/proc/self/maps") as file:
        assert allocator in file.read(), f"{allocator} is not here"
    sys.setrecursionlimit(20_000)
    all_whole(BLOCKS, "when it was restored")
    deep(400)
    workers = [
        threading.Thread(target=exercise, args=([Block(size, size) for size in SIZES[:-2]], chooser(number)))
        for number in range(2)
    ]
    for worker in workers:
        worker.start()
    exercise(BLOCKS, chooser(5))
    for worker in workers:
        worker.join()
    mapped()
    objects()
    all_whole(BLOCKS, "at the end")
    print("whole")


if __name__ == "__main__":
    main(sys.argv[1])
