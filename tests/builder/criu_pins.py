"""Write ``builder/criu.json`` anew from Debian's archive: ``python -m tests.builder.criu_pins``.

Follows what ``criu`` links, package by package, for each processor.  A new library needs its licence here.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import posixpath
import tempfile
from pathlib import Path
from typing import Any

import requests
from warmimage import criu
from warmimage.criu_package import contents

_ARCHIVE = "http://deb.debian.org/debian"
_SUITE = "trixie"

_MACHINES = {
    "x86_64": ("amd64", "x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
    "aarch64": ("arm64", "aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
}

#: Texts of licences, which Debian's copyright files only name.
_TEXTS = ("GPL-2", "GPL-3", "LGPL-2.1", "LGPL-3")

#: SPDX expressions of the parts that are kept, from each package's copyright file.
_LICENCES = {
    "base-files": "CC0-1.0",
    "criu": "GPL-2.0-only",
    "libbsd0": "BSD-3-Clause",
    "libc6": "LGPL-2.1-or-later",
    "libffi8": "MIT",
    "libgcc-s1": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libgmp10": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "libgnutls30t64": "LGPL-2.1-or-later",
    "libhogweed6t64": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "libidn2-0": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "libjansson4": "MIT",
    "libmd0": "BSD-3-Clause",
    "libmnl0": "LGPL-2.1-or-later",
    "libnet1": "BSD-2-Clause",
    "libnettle8t64": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "libnftables1": "GPL-2.0-only",
    "libnftnl11": "GPL-2.0-or-later",
    "libnl-3-200": "LGPL-2.1-only",
    "libp11-kit0": "BSD-3-Clause",
    "libprotobuf-c1": "BSD-2-Clause",
    "libtasn1-6": "LGPL-2.1-or-later",
    "libunistring5": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "libuuid1": "BSD-3-Clause",
    "libxtables12": "GPL-2.0-or-later",
}


def pins_of(machine: str) -> dict[str, Any]:
    """Return the pinned packages of one processor."""
    architecture, triplet, loader = _MACHINES[machine]
    rows = _index(architecture)
    packages: dict[str, dict[str, Any]] = {}
    found: dict[str, bytes] = {}
    providers: dict[str, tuple[str, str]] = {}

    def open_package(name: str) -> dict[str, bytes]:
        row = rows[name]
        data = _get(f"{_ARCHIVE}/{row['Filename']}")
        if hashlib.sha256(data).hexdigest() != row["SHA256"]:
            raise SystemExit(f"{name}: not what the index says")
        source, _, version = row.get("Source", name).partition(" ")
        packages[name] = {
            "name": name, "version": row["Version"], "path": row["Filename"], "size": len(data),
            "sha256": row["SHA256"], "sha1": hashlib.sha1(data, usedforsecurity=False).hexdigest(),
            "licence": _LICENCES.get(name, ""),
            "source": f"https://snapshot.debian.org/package/{source}/{version.strip('()') or row['Version']}/",
            "files": [],
        }  # fmt: skip
        return contents(data)

    seen: set[str] = set()
    pending = ["criu"]
    while pending:  # the dependencies' dependencies: who provides which library
        name = pending.pop()
        if name in seen or name not in rows:
            continue
        seen.add(name)
        if name != "criu" and not name.startswith("lib"):
            continue
        for path, data in open_package(name).items():
            if posixpath.dirname(path) in (f"usr/lib/{triplet}", f"lib/{triplet}", "usr/sbin", "usr/lib64", "usr/lib"):
                providers.setdefault(posixpath.basename(path), (name, path))
                found[posixpath.basename(path)] = data
        for entry in rows[name].get("Depends", "").split(","):
            pending.append(entry.strip().split(" ")[0].partition(":")[0])
    wanted = ["criu", loader]
    kept: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        while wanted:
            name = wanted.pop(0)
            if name in kept:
                continue
            kept.append(name)
            package, path = providers[name]
            packages[package]["files"].append(path)
            file = Path(folder) / name
            file.write_bytes(found[name])
            wanted += criu.patchelf("--print-needed", file).split()
    open_package("base-files")
    packages["base-files"]["files"] = [f"usr/share/common-licenses/{name}" for name in _TEXTS]
    used = [packages[name] for name in sorted(packages) if packages[name]["files"]]
    for package in used:
        package["files"].sort()
        if not package["licence"]:
            raise SystemExit(f"{package['name']}: licence?")
    return {"loader": loader, "packages": used}


def _index(architecture: str) -> dict[str, dict[str, str]]:
    text = lzma.decompress(_get(f"{_ARCHIVE}/dists/{_SUITE}/main/binary-{architecture}/Packages.xz")).decode()
    rows = {}
    for block in text.split("\n\n"):
        row = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " ")
        if row:
            rows[row["Package"]] = row
    return rows


def _get(address: str) -> bytes:
    answer = requests.get(address, timeout=60)
    answer.raise_for_status()
    return answer.content


if __name__ == "__main__":
    machines = {machine: pins_of(machine) for machine in _MACHINES}
    version = next(row for row in machines["x86_64"]["packages"] if row["name"] == "criu")["version"].partition("-")[0]
    text = json.dumps({"version": version, "suite": _SUITE, "machines": machines}, indent=1)
    Path(criu.__file__).with_suffix(".json").write_text(text + "\n", encoding="utf-8")
