"""Build time: put CRIU's folder into the image, with a copy of the binary for each capability that it can do with.

A server's user is not root, so the capability comes as a file capability of the program.  A container that is not
granted it cannot execute that program at all (EPERM), so there is a copy for each, and one without any, for root.
``COPY`` does not carry file capabilities; a step's own layer does.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
from collections.abc import Sequence

#: Names of the copies, and the bit of each one's capability as ``linux/capability.h`` numbers it.
COPIES = {"criu-checkpoint-restore": 40, "criu-sys-admin": 21}

#: ``VFS_CAP_REVISION_2`` with the effective bit.
_HEADER = 0x02000001


def main(arguments: Sequence[str]) -> int:
    """Install the folder.

    Args:
        arguments: where it is, and where it is to be.
    """
    source, target = arguments
    shutil.rmtree(target, ignore_errors=True)  # of a base that is itself an image of ours
    shutil.copytree(source, target)
    for folder, _, names in os.walk(target):
        os.chmod(folder, 0o755)  # noqa: S103 - the server executes what is in it
        for name in names:
            path = os.path.join(folder, name)
            os.chmod(path, 0o755 if os.access(path, os.X_OK) else 0o644)
    for name, bit in COPIES.items():
        path = os.path.join(target, name)
        shutil.copyfile(os.path.join(target, "criu"), path)
        os.chmod(path, 0o755)  # noqa: S103 - executed by any user
        try:
            os.setxattr(path, "security.capability", file_capability(1 << bit))
        except OSError as error:  # a builder without SETFCAP: root can be served, other users take another tier
            os.unlink(path)
            print(f"{name} left out: {error.strerror}")
    return 0


def file_capability(mask: int) -> bytes:
    """Return the extended attribute that gives a program the capabilities of a mask, permitted and effective."""
    return struct.pack("<5I", _HEADER, mask & 0xFFFFFFFF, 0, mask >> 32, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
