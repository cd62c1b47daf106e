"""A snapshot is restored under kernels and on processors other than those that it was captured on.

The guests are emulated, since the host's own processor has the extensions that they are to lack.  How long a start
takes in them says nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import docker
import pytest
from warmimage.entrypoint.tiers.snapshot.manifest import NAME, Manifest, cpu_features

from tests.support.images import completion, container, wait_ready

from .kernels import KEYS, Kernel, download
from .machine import QEMU, Disk, Start, boot, make_disk

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(3600)]

#: What the server calls the model.
MODEL = "tiny-qwen2"

#: An x86-64-v3 processor of 2013: AVX2, and none of the later extensions.
OLD_CPU = "Haswell-noTSX"

#: All that QEMU emulates, and page tables of five levels.
LARGE_CPU = "max,la57=on"

MANIFEST = f"/opt/warmimage/snapshot/{NAME}"


@pytest.fixture(scope="module")
def kernel_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Kernel]:
    """Downloads the kernel of one of Debian's suites."""
    needed = (QEMU, "apt-get", "dpkg-deb", str(KEYS))
    missing = [name for name in needed if not shutil.which(name) and not os.path.exists(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return cache(lambda suite: download(suite, tmp_path_factory.mktemp("kernels") / suite))


@pytest.fixture(scope="module")
def disk(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Disk]:
    """The image with its snapshot, and the model, as one disk for all guests."""
    made = make_disk(client, transformers_image, tiny_model, tmp_path_factory.mktemp("disk") / "image")
    yield made
    made.path.unlink()  # gigabytes, which pytest would keep


@pytest.fixture(scope="module")
def manifest(disk: Disk) -> Manifest:
    """What the snapshot on the disk was captured from."""
    return Manifest.of(disk.read(MANIFEST).decode())


@pytest.fixture(scope="module")
def expected(client: docker.DockerClient, transformers_image: str, tiny_model: Path) -> str:
    """The completion that the server gives without a snapshot, on this machine."""
    variables = {"WARMIMAGE_START": "plain"}
    with container(client, transformers_image, model=tiny_model, environment=variables) as running:
        return completion(wait_ready(running), MODEL)


@pytest.mark.parametrize(
    ("suite", "series", "cpu"),
    [("bookworm", "6.1.", OLD_CPU), ("trixie", "6.12.", OLD_CPU), ("trixie", "6.12.", LARGE_CPU)],
)
def test_it_is_restored_under_another_kernel_on_a_cpu_without_avx512(
    suite: str,
    series: str,
    cpu: str,
    kernel_of: Callable[[str], Kernel],
    disk: Disk,
    manifest: Manifest,
    expected: str,
    tmp_path: Path,
) -> None:
    report = boot(disk, kernel_of(suite), cpu, Start("warmimage: ready in", MODEL), tmp_path)
    said = report.said
    print(json.dumps(said), report.console, sep="\n")
    assert said["kernel"].startswith(series)
    assert manifest.kernel == os.uname().release != said["kernel"]
    assert "avx512f" not in said["flags"]
    assert ("la57" in said["flags"]) is (cpu == LARGE_CPU)
    status = said["status"]
    confined = {name: status[name] for name in ("Uid", "NoNewPrivs", "CapEff", "CapBnd")}
    nothing = "0" * 16
    assert confined == {"Uid": "\t".join(["1000"] * 4), "NoNewPrivs": "1", "CapEff": nothing, "CapBnd": nothing}
    assert "invalid opcode" not in report.console, report.console[-2000:]
    assert "error" not in said, said
    assert [event["tier"] for event in report.events("ready")] == ["snapshot"], said["log"]
    assert report.events("snapshot.restored")
    assert said["completion"] == expected


def test_what_was_chosen_for_avx512_is_declined_by_name_without_it(
    kernel_of: Callable[[str], Kernel], disk: Disk, manifest: Manifest, tmp_path: Path
) -> None:
    of_this_cpu = replace(manifest, baseline="", cpu_features=(*manifest.cpu_features, "avx512f"))
    start = Start("snapshot skipped:", replaced={MANIFEST: of_this_cpu.to_json().encode()})
    report = boot(disk, kernel_of("bookworm"), OLD_CPU, start, tmp_path)
    assert "warmimage: snapshot skipped: this CPU lacks avx512f" in report.said["log"]
    assert not report.events("snapshot.restored")


def test_the_snapshot_was_captured_on_a_cpu_with_more(manifest: Manifest) -> None:
    more = set(cpu_features()) - set(manifest.cpu_features)
    if "avx512f" not in cpu_features():
        pytest.skip("this CPU has no AVX-512 itself: the guests show another kernel alone")
    assert "avx512f" in more
