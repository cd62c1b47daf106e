"""Servers that tests start for themselves and stop again: engines and registries in the states that users meet."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest
from warmimage.docker_api.buildkit import find_builder


def build_dockerfile(dockerfile: str, tag: str, **variables: str) -> None:
    """Build a Dockerfile that needs no context, on the daemon that ``DOCKER_HOST`` names."""
    builder = find_builder()
    command = [*builder.command, "--quiet", "--network", "none", "--tag", tag, "-"]
    environment = {**os.environ, **dict(builder.environment), **variables}
    subprocess.run(command, input=dockerfile.encode(), check=True, capture_output=True, env=environment)


@contextmanager
def old_daemon(path: Path) -> Iterator[str]:
    """Answer ``/version`` as Docker 18.09 does, on a socket."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"Version": "18.09.9", "ApiVersion": "1.39", "MinAPIVersion": "1.12"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "socket"

        def log_message(self, *_words: object) -> None:
            """Keep test output quiet."""

    class Server(ThreadingMixIn, UnixStreamServer):
        daemon_threads = True

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _process(command: Sequence[str], address: str | int, log: Path) -> Iterator[None]:
    """Run a server until the block ends, which begins when its socket or port answers."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + 60
            while not _answers(address):
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.1)
            yield
        finally:
            process.terminate()


def _answers(address: str | int) -> bool:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as asked:
        return asked.connect_ex(address if isinstance(address, str) else ("127.0.0.1", address)) == 0


@contextmanager
def registry(folder: Path, htpasswd: str) -> Iterator[str]:
    """Run Debian's docker-registry on a free port, and yield its host."""
    program = shutil.which("docker-registry")
    if not program:
        pytest.skip("docker-registry is not installed")
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = (
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
    if htpasswd:
        (folder / "htpasswd").write_text(htpasswd, encoding="utf-8")
        config += f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"
    (folder / "config.yml").write_text(config, encoding="utf-8")
    with _process([program, "serve", str(folder / "config.yml")], port, folder / "log"):
        yield f"127.0.0.1:{port}"


@contextmanager
def small_daemon(base: str, folder: Path) -> Iterator[str]:
    """Start a second daemon on a small disk, in a network namespace of its own, with a base image in it."""
    disk, socket_path = folder / "disk", folder / "small.sock"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700M", "tmpfs", str(disk)], check=True)
    command = [
        "unshare",
        "--net",
        "dockerd",
        "--host",
        f"unix://{socket_path}",
        "--data-root",
        str(disk),
        "--exec-root",
        str(folder / "exec"),
        "--pidfile",
        str(folder / "pid"),
        "--bridge",
        "none",
        "--iptables=false",
    ]
    address = f"unix://{socket_path}"
    try:
        with _process(command, str(socket_path), folder / "dockerd.log"):
            environment = {**os.environ, "DOCKER_HOST": address}
            with subprocess.Popen(["docker", "save", base], stdout=subprocess.PIPE) as saved:
                subprocess.run(["docker", "load"], stdin=saved.stdout, check=True, capture_output=True, env=environment)
            metadata = "/usr/lib/python3/dist-packages/transformers-5.0.dist-info"
            text = "Metadata-Version: 2.1\\nName: transformers\\nVersion: 5.0\\n"
            step = f"mkdir -p {metadata} && printf '{text}' > {metadata}/METADATA"
            build_dockerfile(f"FROM {base}\nRUN {step}\n", "on-small-daemon:1", DOCKER_HOST=address)
            yield address
    finally:
        for mounted in sorted(_mounts_below(disk), reverse=True):
            subprocess.run(["umount", "--lazy", mounted], check=False)


def _mounts_below(folder: Path) -> list[str]:
    rows = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    return [row.split()[1] for row in rows if row.split()[1].startswith(str(folder))]
