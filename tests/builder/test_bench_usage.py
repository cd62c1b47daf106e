"""What a container has used, as control groups of both versions tell it; and how much of a machine others use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warmimage.bench import usage
from warmimage.bench.host import Load


def test_version_2_keeps_all_in_one_group(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n", encoding="ascii")
    (tmp_path / "io.stat").write_text("259:0 rbytes=4096 wbytes=1 rios=1\n259:8 rbytes=8192 wios=2\n", encoding="ascii")
    (tmp_path / "memory.peak").write_text("123456\n", encoding="ascii")
    groups = {"": tmp_path}
    assert usage._cpu(groups) == 2.5
    assert usage._read_bytes(groups) == 12288
    assert usage._memory(groups) == 123456


def test_version_1_keeps_a_group_for_each_controller(tmp_path: Path) -> None:
    groups = {"": tmp_path / "unified", **{name: tmp_path / name for name in ("cpuacct", "blkio", "memory")}}
    for group in groups.values():
        group.mkdir()
    reads = groups["blkio"] / "blkio.throttle.io_service_bytes_recursive"
    (groups["cpuacct"] / "cpuacct.usage").write_text("2500000000\n", encoding="ascii")
    (groups["memory"] / "memory.max_usage_in_bytes").write_text("123456\n", encoding="ascii")
    reads.write_text("254:0 Read 4096\n254:0 Write 1\n254:0 Total 4097\n254:16 Read 1\nTotal 4098\n", encoding="ascii")
    assert usage._cpu(groups) == 2.5
    assert usage._memory(groups) == 123456
    assert usage._read_bytes(groups) == 4097
    reads.write_text("Total 0\n", encoding="ascii")
    assert usage._read_bytes(groups) is None, "a kernel that does not count has not counted nothing"


def test_a_device_on_top_of_another_is_not_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "io.stat").write_text("253:0 rbytes=4096\n259:0 rbytes=5000\n", encoding="ascii")
    monkeypatch.setattr(usage, "_below", lambda device: {"259:0"} if device == "253:0" else set())
    assert usage._read_bytes({"": tmp_path}) == 5000


def test_sizes_are_summed_over_the_groups_processes(tmp_path: Path) -> None:
    """In groups below the container's too; a process that has ended meanwhile is left out."""
    (tmp_path / "below").mkdir()
    (tmp_path / "cgroup.procs").write_text(f"{2**22 - 1}\n", encoding="ascii")
    (tmp_path / "below" / "cgroup.procs").write_text(f"{os.getpid()}\n", encoding="ascii")
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    assert usage._sum({"": tmp_path}, "status", "VmHWM:") == pytest.approx(int(line.split()[1]) * 1024, rel=0.05)
    pss = usage._sum({"": tmp_path}, "smaps_rollup", "Pss:")
    assert pss is not None
    assert 1_000_000 < pss < int(line.split()[1]) * 1024


def test_a_reason_names_no_process_and_no_container() -> None:
    path = f"/proc/4711/smaps_rollup/docker/{'5a' * 32}/x"
    assert usage._general(path) == "/proc/PID/smaps_rollup/docker/ID/x"


def test_what_another_process_uses_is_others_and_what_the_container_uses_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        try:
            before = Load.now()
            time.sleep(1)
            after = Load.now()
        finally:
            spinning.kill()
    assert after.others_since(before, 0.0) * (os.cpu_count() or 1) > 0.3
    assert after.others_since(before, 1e9) == 0.0


def test_a_share_is_one_at_most() -> None:
    before = Load(at=0.0, busy=0.0, own={("1", "1"): 5.0}, disk_bytes=0)
    after = Load(at=1.0, busy=1000.0, own={}, disk_bytes=0)
    assert after.others_since(before, 0.0) == 1.0
    assert Load(1.0, 1.0, {("1", "1"): 6.0}, 0).others_since(before, 0.0) == 0.0
