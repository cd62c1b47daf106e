"""The native part of tier ``snapshot``: two small shared libraries without a C library, one set for each machine.

``point.so`` is loaded into the process that is captured; ``restore.so`` turns a new process into the captured one.
``compile.py`` builds them from the C sources beside it when the wheel is built.
"""

from __future__ import annotations

import os
import zlib

DIRECTORY = os.path.dirname(os.path.abspath(__file__))

#: The files of one machine.
POINT, RESTORE = "point.so", "restore.so"

#: Machines, as ``uname -m`` names them, on which images restore.  The arm64 files are built and untested.
RESTORES = ("x86_64",)


def path(name: str, machine: str = "") -> str:
    """Return the path of a native file.

    Args:
        name: ``POINT`` or ``RESTORE``.
        machine: as ``uname -m`` names it; this one by default.
    """
    return os.path.join(DIRECTORY, machine or os.uname().machine, name)


def native_digest(machine: str = "") -> str:
    """Return the SHA-256 of a machine's native files, in hexadecimal.

    Args:
        machine: as ``uname -m`` names it; this one by default.

    Raises:
        LookupError: there are none for it.
    """
    import hashlib  # PID 1 does without it: it loads OpenSSL

    return hashlib.sha256(_content(machine)).hexdigest()


def checksum() -> int:
    """Return the CRC-32 of this machine's native files.

    Raises:
        LookupError: there are none for it.
    """
    return zlib.crc32(_content(""))


def _content(machine: str) -> bytes:
    parts = []
    for name in (POINT, RESTORE):
        try:
            with open(path(name, machine), "rb") as file:
                parts.append(file.read())
        except OSError as error:
            raise LookupError(f"no native files for {machine or os.uname().machine}: {error.strerror}") from None
    return b"".join(parts)
