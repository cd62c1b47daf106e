"""CRIU's folder: packages opened, pinned content and nothing else taken, a folder that is whole or not there."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from warmimage import criu
from warmimage.criu_package import contents
from warmimage.errors import EnvironmentLacks, WarmimageError

#: Any program that is linked dynamically stands for CRIU, and for its libraries.
PROGRAM = Path(sys.executable).resolve().read_bytes()


def package(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Return a Debian package."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": lzma.compress(b"odd"),
        "data.tar.xz": lzma.compress(packed.getvalue(), preset=0),
    }
    made = b"!<arch>\n"
    for name, data in members.items():
        made += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return made


def test_a_package_is_opened_and_its_links_are_followed() -> None:
    made = package(
        {"usr/lib/liba.so.1.2": b"library", "usr/share/doc/a/copyright": b"free"},
        {"usr/lib/liba.so.1": "liba.so.1.2", "usr/lib/liba.so": "liba.so.1", "etc/gone": "/elsewhere", "x": "x"},
    )
    found = contents(made)
    assert found["usr/lib/liba.so"] == found["usr/lib/liba.so.1"] == found["usr/lib/liba.so.1.2"] == b"library"
    assert "etc/gone" not in found
    assert "x" not in found


@pytest.mark.parametrize("data", [b"", b"<html>", b"!<arch>\n"])
def test_what_is_no_package_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an ar archive|no data\.tar"):
        contents(data)


def test_pins_are_complete() -> None:
    pinned = criu.pins()
    assert set(pinned["machines"]) == {"x86_64", "aarch64"}
    for machine in pinned["machines"].values():
        names = [Path(path).name for row in machine["packages"] for path in row["files"]]
        assert len(set(names)) == len(names)
        assert {"criu", "libc.so.6", machine["loader"], "GPL-2", "LGPL-2.1"} <= set(names)
        for row in machine["packages"]:
            assert re.fullmatch("[0-9a-f]{64}", row["sha256"])
            assert re.fullmatch("[0-9a-f]{40}", row["sha1"])
            assert row["path"].startswith("pool/main/")
            assert row["licence"]


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[list[str], dict[str, bytes]]]:
    """Two origins of one package, an empty cache, and what was asked for; the second origin alone has the package."""
    loader = "ld-linux-x86-64.so.2"
    data = package({"usr/sbin/criu": PROGRAM, f"usr/lib/{loader}": b"loader", "usr/share/doc/criu/copyright": b"GPL"})
    row = {
        "name": "criu", "version": "9.9-1", "path": "pool/main/c/criu.deb", "size": len(data), "source": "",
        "sha256": hashlib.sha256(data).hexdigest(), "sha1": hashlib.sha1(data, usedforsecurity=False).hexdigest(),
        "licence": "GPL-2.0-only", "files": ["usr/sbin/criu", f"usr/lib/{loader}"],
    }  # fmt: skip
    machines = {"x86_64": {"loader": loader, "packages": [row]}}
    monkeypatch.setattr(criu, "pins", lambda: {"version": "9.9", "suite": "test", "machines": machines})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = {f"/second/{row['sha1']}": data}
    asked: list[str] = []
    with serving(served, asked) as address:
        monkeypatch.setattr(criu, "ORIGINS", (f"{address}/first/{{path}}", f"{address}/second/{{sha1}}"))
        yield asked, served


@contextmanager
def serving(served: Mapping[str, bytes], asked: list[str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            data = served.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_folder_is_made_once_from_the_origin_that_has_the_package(
    archive: tuple[list[str], dict[str, bytes]],
) -> None:
    asked, served = archive
    made = criu.prepare("x86_64")
    assert [path.split("/")[1] for path in asked] == ["first", "second"]
    assert made.version == "9.9"
    program = made.folder / "criu"
    assert program.stat().st_mode & 0o777 == 0o755
    assert criu.patchelf("--print-interpreter", program).strip() == "/opt/warmimage/criu/lib/ld-linux-x86-64.so.2"
    assert criu.patchelf("--print-rpath", program).strip() == "/opt/warmimage/criu/lib"
    assert (made.folder / "lib" / "ld-linux-x86-64.so.2").read_bytes() == b"loader"
    assert (made.folder / "licenses" / "criu").read_bytes() == b"GPL"
    facts = json.loads((made.folder / "criu.json").read_text(encoding="utf-8"))
    assert facts["version"] == "9.9"
    assert facts["packages"][0]["licence"] == "GPL-2.0-only"
    assert facts["packages"][0]["origin"].endswith("/first/pool/main/c/criu.deb")
    served.clear()
    assert criu.prepare("x86_64") == made
    assert len(asked) == 2


def test_another_content_is_refused_and_leaves_nothing(
    archive: tuple[list[str], dict[str, bytes]], tmp_path: Path
) -> None:
    _, served = archive
    for path in served:
        served[path] += b"more"
    with pytest.raises(WarmimageError, match=r"CRIU cannot be downloaded: no criu 9\.9-1") as caught:
        criu.prepare("x86_64")
    assert "HTTP 404" in str(caught.value)
    assert "not the pinned content" in str(caught.value)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_processor_that_debian_has_no_criu_for_is_lacking() -> None:
    with pytest.raises(EnvironmentLacks, match="there is no CRIU for riscv64 images"):
        criu.prepare("riscv64")
