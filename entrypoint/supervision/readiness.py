"""Is the server ready?  A health probe for an event loop: it never blocks, so signals are forwarded at once."""

from __future__ import annotations

import errno
import socket
import time

#: Seconds between questions to a server that listens and says that it is not ready: each is a line in its log.
UNREADY_INTERVAL = 0.25


class ReadinessProbe:
    """Asks ``http://HOST:PORT/PATH`` again and again until it answers 200.

    The owner's loop waits until ``descriptor`` is ready or ``wait()`` seconds have passed, then calls ``step()``.

    Args:
        host: address of the server, as numbers.
        port: TCP port of the server.
        path: health path, such as ``/health``.
        interval: seconds between two questions.
        patience: seconds after which a question without an answer is dropped and asked again.
    """

    def __init__(self, host: str, port: int, path: str, interval: float = 0.02, patience: float = 5.0) -> None:
        self._address = (host, port)
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode()
        self._interval = interval
        self._patience = patience
        self._socket: socket.socket | None = None
        self._answer = b""
        self._sent = False
        self._deadline = 0.0
        self.listening = False
        self.ready = False

    @property
    def descriptor(self) -> int:
        """The socket to wait for, or -1 between two questions."""
        return self._socket.fileno() if self._socket else -1

    @property
    def writes(self) -> bool:
        """Whether the socket is waited for to become writable, not readable."""
        return not self._sent

    def wait(self) -> float:
        """Seconds until ``step`` has something to do even if the socket stays silent."""
        return max(0.0, self._deadline - time.monotonic())

    def step(self) -> None:
        """Go on with the question in progress, or ask a new one when it is time."""
        late = time.monotonic() >= self._deadline
        if self._socket is None:
            if late:
                self._ask()
        elif not self._sent:
            self._send(self._socket, late)
        else:
            self._receive(self._socket, late)

    def close(self) -> None:
        """Drop the question in progress."""
        if self._socket:
            self._socket.close()
        self._socket = None

    def _ask(self) -> None:
        self._answer, self._sent = b"", False
        self._deadline = time.monotonic() + self._patience
        try:
            self._socket = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            if self._socket.connect_ex(self._address) not in (0, errno.EINPROGRESS):
                self._again()
        except OSError:  # no descriptor or no such address family: asked again later, like no answer
            self._again()

    def _send(self, connection: socket.socket, late: bool) -> None:
        refused = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if refused or late or _connected_to_itself(connection):
            return self._again()
        try:
            connection.send(self._request)
        except BlockingIOError:
            return None
        except OSError:
            return self._again()
        self.listening = self._sent = True
        return None

    def _receive(self, connection: socket.socket, late: bool) -> None:
        try:
            part = connection.recv(4096)
        except BlockingIOError:
            return self._again() if late else None
        except OSError:
            return self._again()
        self._answer += part
        status, line_ended, _ = self._answer.partition(b"\r\n")
        if line_ended or not part:
            self.ready = status.split(b" ")[1:2] == [b"200"]
            self._again()
        return None

    def _again(self) -> None:
        self.close()
        self._deadline = time.monotonic() + (UNREADY_INTERVAL if self.listening else self._interval)


def _connected_to_itself(connection: socket.socket) -> bool:
    """Return whether a connection is its own peer, as can be on a free port of the range that ports are given from."""
    try:
        return bool(connection.getsockname() == connection.getpeername())
    except OSError:
        return False  # not connected yet
