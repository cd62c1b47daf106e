"""Disks made of images, and guests of emulated processors that start them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import docker
from warmimage import timeline

from tests.support.images import MESSAGES

from .kernels import Kernel, initramfs

QEMU = "qemu-system-x86_64"

#: Programs that are in ``sbin``, which a user's PATH may lack.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))

#: Bytes of a disk beside its files.
_SLACK = 512 << 20

#: Seconds that one guest may take: an emulated processor is slow, and so may this machine be.
_LONGEST = 1500

GUEST = Path(__file__).with_name("guest.py")

#: Port of the guest's report; its console is the first one.
_PORT = "/dev/ttyS1"


@dataclass(frozen=True)
class Disk:
    """An image as a disk.

    Attributes:
        path: of the file system.
        config: the image's configuration.
    """

    path: Path
    config: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """The image's variables."""
        return dict(entry.split("=", 1) for entry in self.config["Env"])

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        words = ["debugfs", "-R", f"cat {path}", str(self.path)]
        done = subprocess.run(words, env={**os.environ, "PATH": _PATH}, capture_output=True, check=True)
        assert done.stdout, f"{path} is not on the disk: {done.stderr.decode()}"  # the exit code does not say it
        return done.stdout


@dataclass(frozen=True)
class Start:
    """What a guest is to do.

    Attributes:
        until: the text to wait for in the image's output.
        model: name to ask a completion of; empty to ask for none.
        variables: beside the image's own.
        replaced: path of a file of the image -> the content to see there.
    """

    until: str
    model: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    replaced: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a guest did.

    Attributes:
        said: its own report, as ``guest.py`` writes it.
        console: what kernel and image wrote.
    """

    said: Mapping[str, Any]
    console: str

    def events(self, name: str) -> list[Mapping[str, Any]]:
        """Return the timeline's events of a name."""
        return [event for event in self.said["timeline"] if event["event"] == name]


def make_disk(client: docker.DockerClient, image: str, model: Path, directory: Path) -> Disk:
    """Make a file system of an image's files.

    Args:
        client: of the daemon that has the image.
        image: its reference.
        model: directory that is to be at ``/model``.
        directory: where to; it is made.
    """
    root = directory / "root"
    root.mkdir(parents=True)
    made = client.containers.create(image)
    try:
        with subprocess.Popen(["tar", "-x", "--numeric-owner", "-p", "-C", root], stdin=subprocess.PIPE) as tar:
            assert tar.stdin
            for chunk in cast("Iterable[bytes]", made.export()):  # its stubs say text
                tar.stdin.write(chunk)
    finally:
        made.remove()
    assert tar.returncode == 0, "the image's files were not unpacked"
    for name in ("dev", "model", "proc", "run", "sys", "tmp"):
        (root / name).mkdir(exist_ok=True)
    shutil.copytree(model, root / "model", dirs_exist_ok=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n", encoding="utf-8")  # as every runtime writes it
    disk = directory / "disk.ext4"
    size = int(subprocess.check_output(["du", "-s", "--block-size=1", root]).split()[0]) * 11 // 10 + _SLACK
    words = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(disk), f"{size >> 10}k"]
    subprocess.run(words, env={**os.environ, "PATH": _PATH}, stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(root)
    return Disk(disk, client.images.get(image).attrs["Config"])


def boot(disk: Disk, kernel: Kernel, cpu: str, start: Start, directory: Path) -> Report:
    """Start a guest, and return what it did once it has powered itself off.

    Args:
        disk: its only one; read-only.
        kernel: its own.
        cpu: the processor, as QEMU names it.
        start: what it is to do.
        directory: for the files of this guest; it exists.

    Raises:
        AssertionError: it did not report; the message has the console's end.
    """
    home, python = disk.environment["HOME"], disk.config["Entrypoint"][0]
    guest = {"guest.py": GUEST.read_bytes(), "case.json": json.dumps(_case(disk, start)).encode()}
    names = {path: f"replaced-{number}" for number, path in enumerate(start.replaced)}
    guest.update((names[path], content) for path, content in start.replaced.items())
    initial, console, report = (directory / name for name in ("initramfs", "console", "report"))
    writable = ("/run", "/tmp", "/dev/shm", home)
    initial.write_bytes(initramfs(kernel, writable, f"{python} -I -S /run/guest/guest.py", guest, names))
    words = [
        QEMU,
        "-accel",
        "tcg,thread=multi",
        "-machine",
        "q35",
        "-cpu",
        cpu,
        "-smp",
        "2",
        "-m",
        "4096",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        f"file:{console}",
        "-serial",
        f"file:{report}",
        "-drive",
        f"file={disk.path},format=raw,if=virtio,readonly=on",
        "-kernel",
        str(kernel.image),
        "-initrd",
        str(initial),
        "-append",
        "console=ttyS0 loglevel=7 panic=-1",
    ]
    try:
        done = subprocess.run(words, stderr=subprocess.PIPE, text=True, timeout=_LONGEST, check=False)
        ended = f"QEMU ended with exit code {done.returncode}: {done.stderr}"
    except subprocess.TimeoutExpired:
        ended = f"it has not ended after {_LONGEST} s"
    finally:
        initial.unlink()
    shown = console.read_text(errors="replace") if console.exists() else ""
    text = report.read_text() if report.exists() else ""
    assert text.strip(), f"the guest has not reported; {ended}\n{shown[-4000:]}"
    return Report(json.loads(text), shown)


def _case(disk: Disk, start: Start) -> dict[str, Any]:
    """Return what ``guest.py`` reads."""
    body = {"model": start.model, "messages": MESSAGES, "temperature": 0, "max_tokens": 24}
    return {
        "command": [*disk.config["Entrypoint"], *(disk.config["Cmd"] or [])],
        "environment": {**disk.environment, **start.variables},
        "directory": disk.config["WorkingDir"],
        "timeline": timeline.DEFAULT_PATH,
        "until": start.until,
        "request": {"url": "http://127.0.0.1:8000/v1/chat/completions", "body": body} if start.model else None,
        "port": _PORT,
    }
