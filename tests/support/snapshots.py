"""Starts of an image with a snapshot, and images that are derived from it: what the tests of that tier share."""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from tests.support.images import completion, container, wait_ready

#: What the server calls the model.
MODEL = "tiny-qwen2"

#: Where an image keeps its snapshot.
DIRECTORY = "/opt/warmimage/snapshot"

#: What the strictest pods take away; the seccomp profile stays the daemon's own.
NOTHING_GRANTED: dict[str, Any] = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}

#: What PID 1 says of a server that is ready.
READY = re.compile(r"warmimage: ready in ([\d.]+) s \(tier (\w+)")


@dataclass(frozen=True)
class Outcome:
    """A start that has served.

    Attributes:
        tier: in which.
        seconds: from PID 1's first line to ready.
        text: of the completion.
        log: what the container has said.
    """

    tier: str
    seconds: float
    text: str
    log: str

    @property
    def reasons(self) -> list[str]:
        """What PID 1 said of the tier ``snapshot``, a line each."""
        prefix = "warmimage: snapshot "
        return [line.removeprefix(prefix) for line in self.log.splitlines() if line.startswith(prefix)]


def wait_for_line(running: Container, seconds: float = 120) -> tuple[str, float]:
    """Wait until PID 1 says that the server is ready; return its tier, and the seconds that it took.

    Raises:
        AssertionError: the container has ended, or has not said so in time; the message has its log.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = READY.search(log := running.logs().decode(errors="replace"))
        if found:
            return found[2], float(found[1])
        running.reload()
        assert running.status == "running", log[-4000:]
        assert time.monotonic() < deadline, log[-4000:]
        time.sleep(0.05)


def serve(running: Container) -> Outcome:
    """Wait for a container's server, and ask it for a completion.

    PID 1's line comes first: until then it may still take another tier.
    """
    tier, seconds = wait_for_line(running)
    text = completion(wait_ready(running), MODEL)
    return Outcome(tier, seconds, text, running.logs().decode(errors="replace"))


def start(client: docker.DockerClient, image: str, model: Path, **words: Any) -> Outcome:
    """Start an image, ask it for a completion, and return what became of it.

    Args:
        client: the Docker daemon's.
        image: reference.
        model: directory that is mounted at ``/model``.
        words: further ones for ``docker run``, as the client takes them.
    """
    with container(client, image, model=model, **words) as running:
        return serve(running)


def engine_pid(running: Container) -> int:
    """Return the PID of a container's engine as this host, where the daemon must be too, knows it."""
    running.reload()
    first = running.attrs["State"]["Pid"]
    for pid in Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii").split():
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")  # of a fork it is a title, of one word
        if b" serve " in line:
            return int(pid)
    raise AssertionError(running.logs().decode())


@contextmanager
def derived(
    client: docker.DockerClient, source: str, lines: Sequence[str], files: Mapping[str, bytes] | None = None
) -> Iterator[str]:
    """Yield an image that is derived from another, and remove it at the end.

    Args:
        client: the Docker daemon's.
        source: reference of the other.
        lines: instructions, run as root.
        files: of the context.
    """
    tag = "warmimage-test/snapshot-derived:1"
    context = io.BytesIO()
    user = client.images.get(source).attrs["Config"]["User"]
    text = "\n".join([f"FROM {source}", "USER 0", *lines, f"USER {user}"]) + "\n"
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, content in {**(files or {}), "Dockerfile": text.encode()}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o755, 1_700_000_000
            archive.addfile(entry, io.BytesIO(content))
    client.images.build(fileobj=io.BytesIO(context.getvalue()), custom_context=True, tag=tag, rm=True)
    try:
        yield tag
    finally:
        client.images.remove(tag, force=True)


def members(client: docker.DockerClient, image: str, path: str) -> list[tarfile.TarInfo]:
    """Return what is in a directory of an image."""
    made = client.containers.create(image)
    try:
        with tarfile.open(fileobj=io.BytesIO(b"".join(made.get_archive(path)[0]))) as archive:
            return archive.getmembers()
    finally:
        made.remove()


def member(client: docker.DockerClient, image: str, path: str) -> bytes:
    """Return the content of a file of an image."""
    made = client.containers.create(image)
    try:
        with tarfile.open(fileobj=io.BytesIO(b"".join(made.get_archive(path)[0]))) as archive:
            file = archive.extractfile(archive.getmembers()[0])
            assert file, path
            return file.read()
    finally:
        made.remove()
