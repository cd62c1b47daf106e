"""What the restorer leaves to the restored process: arguments, environment and times (``struct handover``)."""

from __future__ import annotations

import ctypes
import mmap
import struct
from dataclasses import dataclass

from ...kernel import proc

#: The restorer's own range, which is unmapped once everything of it has been read (``native/format.h``).
OWN_START, OWN_END = 0x100000000000, 0x100100000000

_HANDOVER = struct.Struct("<5Q")

#: ``struct prctl_mm_map`` (include/uapi/linux/prctl.h): addresses, auxv (none), and no descriptor of an executable.
_MEMORY_MAP = struct.Struct("<11QQII")
_PR_SET_MM, _PR_SET_MM_MAP = 35, 14

#: Fields of ``/proc/self/stat`` (proc(5)) for its first five addresses, and for stack and arguments.
_CODE_TO_HEAP, _STACK_AND_ARGUMENTS = (26, 27, 45, 46, 47), (28, 48, 49)


@dataclass(frozen=True)
class Handover:
    """What PID 1 executed, as the kernel passed it.

    Attributes:
        arguments: those behind the restorer's own.
        variables: the environment.
        began: monotonic time in seconds of the restorer's first instruction.
        mapped: the same when all memory was in place.
    """

    arguments: tuple[bytes, ...]
    variables: dict[bytes, bytes]
    began: float
    mapped: float

    @classmethod
    def take(cls, address: int) -> Handover:
        """Read it, and unmap the restorer with all that it has.

        Args:
            address: as ``snapshot_point`` returned it.
        """
        began, mapped, count, variable_count, length = _HANDOVER.unpack(ctypes.string_at(address, _HANDOVER.size))
        texts = ctypes.string_at(address + _HANDOVER.size, length).split(b"\0")
        pairs = (text.partition(b"=") for text in texts[count : count + variable_count])
        variables: dict[bytes, bytes] = {}
        for name, equals, value in pairs:
            if name and equals:
                variables.setdefault(name, value)  # of two with one name, the first counts, as for getenv()
        libc = ctypes.CDLL(None)
        libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        libc.munmap(OWN_START, OWN_END - OWN_START)
        return cls(tuple(texts[:count]), variables, began / 1e9, mapped / 1e9)


def show_environment(variables: dict[bytes, bytes]) -> mmap.mmap:
    """Have ``/proc/PID/environ`` show an environment, as agents and ``ps e`` read it: the captured one is the build's.

    Args:
        variables: the environment.

    Returns:
        The memory that the kernel shows, which must stay open.

    Raises:
        OSError: the kernel refuses, as it did not when the restorer asked for the same.
    """
    text = b"".join(name + b"=" + value + b"\0" for name, value in variables.items()) or b"\0"
    room = mmap.mmap(-1, len(text), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    room.write(text)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    _, fields = proc.stat()  # from field 3 on
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    before, after = (
        [int(fields[number - 3]) for number in numbers] for numbers in (_CODE_TO_HEAP, _STACK_AND_ARGUMENTS)
    )
    packed = _MEMORY_MAP.pack(*before, libc.sbrk(0), *after, start, start + len(text), 0, 0, 0xFFFFFFFF)
    if libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, packed, ctypes.c_ulong(len(packed)), 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_MM_MAP) refused")
    return room
