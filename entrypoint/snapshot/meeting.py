"""Where a restored process and PID 1 find each other.

The restored process knows nothing that was not there at its capture.  Both can read which mount namespace they are in,
which no two containers share, so a socket in the abstract namespace is named after that.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from .. import descriptors

#: Seconds that a restored process may take to come: it has nothing else to do.
PATIENCE = 2.0

_CREDENTIALS = struct.Struct("iII")


def _address() -> str:
    return f"\0warmimage-snapshot-{os.readlink('/proc/self/ns/mnt')}"


class Host:
    """PID 1's side.

    Raises:
        OSError: the address is taken: another PID 1 of this container waits there.
    """

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(_address())
            self._listener.listen(4)
        except OSError:
            self._listener.close()
            raise

    def send(self, pid: int, message: Any, files: Sequence[int]) -> None:
        """Wait for a process to come, and give it a message with open files.

        Raises:
            OSError: it did not come in time, or went away.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            self._listener.settimeout(max(0.001, deadline - time.monotonic()))
            channel, _ = self._listener.accept()
            with channel:
                peer, _, _ = _CREDENTIALS.unpack(
                    channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                )
                if peer != pid:
                    continue  # in a network namespace that containers share, anybody may knock
                channel.settimeout(PATIENCE)
                descriptors.send(channel, message, files)
                return

    def close(self) -> None:
        """Listen no longer."""
        self._listener.close()


def receive() -> tuple[Any, list[int]]:
    """Return what PID 1 has for this restored process: a message and open files.

    Raises:
        OSError, EOFError: nobody is there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(PATIENCE)
        channel.connect(_address())
        return descriptors.receive(channel)
