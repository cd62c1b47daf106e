"""A model hub on this machine: the few endpoints by which ``huggingface_hub`` resolves and downloads a model.

There is no hub to be reached where tests run; the client is the real one, pointed here by ``HF_ENDPOINT``.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(repository: str, directory: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve a directory as the hub model ``repository`` at one commit, and yield the endpoint's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            files = sorted(entry.name for entry in directory.iterdir())
            if path.startswith(f"/api/models/{repository}/tree/"):
                tree = [
                    {"type": "file", "path": name, "size": (directory / name).stat().st_size, "oid": "0" * 40}
                    for name in files
                ]
                return self._send(json.dumps(tree).encode(), body)
            if path.startswith(f"/api/models/{repository}"):
                siblings = [{"rfilename": name, "size": (directory / name).stat().st_size} for name in files]
                return self._send(json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode(), body)
            prefix = f"/{repository}/resolve/{COMMIT}/"
            if path.startswith(prefix) and path.removeprefix(prefix) in files:
                return self._send((directory / path.removeprefix(prefix)).read_bytes(), body)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        def _send(self, data: bytes, body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "application/json")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_words: object) -> None:
            """Keep test output quiet."""

    server = ThreadingHTTPServer((host, 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
