"""Debian's kernels, downloaded and unpacked but not installed, and the initial file system that starts a guest."""

from __future__ import annotations

import lzma
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"

KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

#: The kernel for guests, small; a meta package of Debian's that depends on the newest one.
CLOUD = "linux-image-cloud-amd64"

#: What the initial file system needs in order to see the guest's disk, where the kernel does not have it built in.
DRIVERS = ("virtio_pci", "virtio_blk")


@dataclass(frozen=True)
class Kernel:
    """A kernel that can start a guest.

    Attributes:
        release: as ``uname -r`` names it.
        image: path of the kernel.
        modules: each driver's name and its file's uncompressed content, in the order of loading.
        busybox: path of a statically linked busybox.
    """

    release: str
    image: Path
    modules: Mapping[str, bytes]
    busybox: Path


def download(suite: str, directory: Path) -> Kernel:
    """Download a suite's kernel, and unpack it.

    Args:
        suite: of Debian, such as ``bookworm``.
        directory: where to; it is made.

    Raises:
        subprocess.CalledProcessError: apt-get failed; its report is on standard error.
    """
    apt = _Apt(suite, directory)
    depends = apt.run("apt-cache", "depends", CLOUD)
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    assert found, f"{CLOUD} of {suite} depends on no kernel:\n{depends}"
    root = apt.unpacked(found[1], "busybox-static")
    release = found[1].removeprefix("linux-image-")
    (busybox,) = [path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.is_file()]
    return Kernel(release, root / "boot" / f"vmlinuz-{release}", _drivers(root), busybox)


class _Apt:
    """apt-get with one suite of Debian, and with lists and archives of its own."""

    def __init__(self, suite: str, directory: Path) -> None:
        self._directory = directory
        for name in ("lists/partial", "cache/archives/partial", "root"):
            (directory / name).mkdir(parents=True)
        (directory / "sources.list").write_text(f"deb [signed-by={KEYS}] {MIRROR} {suite} main\n", encoding="utf-8")
        settings = {
            "Dir::Etc::sourcelist": directory / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": directory / "lists",
            "Dir::Cache": directory / "cache",
            "Acquire::Languages": "none",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",  # the user _apt may not write here
        }
        self._options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        self.run("apt-get", "--quiet", "update")

    def run(self, program: str, *words: str) -> str:
        done = subprocess.run(
            [program, *self._options, *words], cwd=self._directory, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    def unpacked(self, *packages: str) -> Path:
        self.run("apt-get", "--quiet", "download", *packages)
        for package in self._directory.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, self._directory / "root"], check=True)
        return self._directory / "root"


def _drivers(root: Path) -> dict[str, bytes]:
    """Return the drivers' modules, each after those that it depends on."""
    files = {path.name.partition(".")[0].replace("-", "_"): path for path in root.glob("**/kernel/**/*.ko*")}
    content: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in content or name not in files:  # what is no file is built in
            return
        raw = files[name].read_bytes()
        module = lzma.decompress(raw) if files[name].suffix == ".xz" else raw
        depends = re.search(rb"\0depends=([^\0]*)\0", module)
        for other in depends[1].decode().split(",") if depends else ():
            add(other.replace("-", "_"))
        content[name] = module

    for driver in DRIVERS:
        add(driver)
    return content


#: Mounts what a container has, and leaves the rest to ``guest.py``.
_INIT = """#!/busybox sh
b=/busybox
$b mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
for module in {modules}; do $b insmod /modules/$module; done
until [ -b /dev/vda ]; do $b sleep 0.1; done
$b mount -t ext4 -o ro /dev/vda /image
$b mount -t devtmpfs dev /image/dev
$b mkdir /image/dev/shm
$b mount -t proc proc /image/proc
$b mount -t sysfs sys /image/sys
for directory in {writable}; do $b mount -t tmpfs -o mode=1777 tmpfs /image$directory; done
$b mkdir -m 1777 /image/run/warmimage
$b ip link set lo up
$b mkdir /image/run/guest
$b cp /guest/* /image/run/guest/
{also}
$b chroot /image {command}
$b poweroff -f
"""


def initramfs(
    kernel: Kernel, writable: Sequence[str], command: str, guest: Mapping[str, bytes], replaced: Mapping[str, str]
) -> bytes:
    """Return an initial file system that mounts a disk read-only, runs a command in it, and powers the guest off.

    Args:
        kernel: the guest's.
        writable: directories that are to be empty and writable by everybody.
        command: what to run; words of a shell.
        guest: name -> content of the files that are to be in ``/run/guest``.
        replaced: path of a file of the disk -> name of the one in ``/run/guest`` that is seen in its place.
    """
    order = " ".join(kernel.modules)
    also = "\n".join(f"$b mount --bind /image/run/guest/{name} /image{path}" for path, name in replaced.items())
    init = _INIT.format(modules=order, writable=" ".join(writable), also=also, command=command)
    entries: list[tuple[str, int, bytes]] = [(name, 0o40755, b"") for name in ("dev", "guest", "image", "modules")]
    entries += [("init", 0o100755, init.encode()), ("busybox", 0o100755, kernel.busybox.read_bytes())]
    entries += [(f"modules/{name}", 0o100644, content) for name, content in kernel.modules.items()]
    entries += [(f"guest/{name}", 0o100644, content) for name, content in guest.items()]
    return b"".join(_cpio([*entries, ("TRAILER!!!", 0, b"")]))


def _cpio(entries: Sequence[tuple[str, int, bytes]]) -> Iterator[bytes]:
    """Yield a cpio archive of the kind that kernels unpack (Documentation/driver-api/early-userspace/buffer-format).

    Args:
        entries: name, mode and content of each.
    """
    for number, (name, mode, content) in enumerate(entries, 1):
        path = os.fsencode(name) + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
        yield head + bytes(-len(head) % 4)
        yield content + bytes(-len(content) % 4)
