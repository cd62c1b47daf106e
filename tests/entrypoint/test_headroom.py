"""How much page cache memory can hold: the host's, and that of every cgroup above."""

from __future__ import annotations

import pytest
from warmimage.entrypoint.pagecache.headroom import Limit, limits, memory_headroom

FREE = {"/proc/meminfo": "MemTotal:  900 kB\nMemAvailable:     400 kB\n"}
HOST = 400 * 1024

V1 = "/sys/fs/cgroup/memory"
V2 = "/sys/fs/cgroup"

#: In a container with a cgroup namespace, as Docker makes one where version 2 is in use.
INSIDE = {
    **FREE,
    "/proc/self/cgroup": "0::/\n",
    "/proc/self/mountinfo": "35 31 0:30 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n",
}

#: In a container on a host with version 1: the runtime mounts the container's own cgroup, and the path is the host's.
INSIDE_V1 = {
    **FREE,
    "/proc/self/cgroup": "5:cpu:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc\n",
    "/proc/self/mountinfo": (
        "40 39 0:31 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
        f"41 39 0:32 /docker/abc {V1} ro - cgroup cgroup rw,memory\n"
    ),
}

#: Below two others, all of which are seen.
NESTED = {**INSIDE, "/proc/self/cgroup": "0::/kubepods/pod1/c1\n"}


def stat(**rows: int) -> str:
    return "".join(f"{name} {value}\n" for name, value in rows.items())


@pytest.mark.parametrize(
    ("files", "headroom"),
    [
        ({}, 1 << 62),
        (FREE, HOST),
        ({**INSIDE, f"{V2}/memory.max": "max\n"}, HOST),
        ({**INSIDE, f"{V2}/memory.max": "9000\n", f"{V2}/memory.stat": stat(anon=1000, file=7000)}, 8000),
        ({**INSIDE, f"{V2}/memory.max": "9000\n", f"{V2}/memory.stat": stat(anon=1000, shmem=500)}, 7500),
        ({**INSIDE, f"{V2}/memory.max": "9000\n", f"{V2}/memory.high": "7000\n"}, 7000),
        ({**INSIDE, f"{V2}/memory.max": "9000\n", f"{V2}/memory.stat": stat(anon=9999)}, 0),
        ({**NESTED, f"{V2}/kubepods/pod1/c1/memory.max": "max\n", f"{V2}/kubepods/pod1/memory.max": "5000\n"}, 5000),
        (
            {
                **NESTED,
                f"{V2}/kubepods/pod1/c1/memory.max": "9000\n",
                f"{V2}/kubepods/memory.max": "8000\n",
                f"{V2}/kubepods/memory.stat": stat(anon=6000),
            },
            2000,
        ),
        ({**INSIDE_V1, f"{V1}/memory.limit_in_bytes": "9000\n", f"{V1}/memory.stat": stat(rss=1, total_rss=500)}, 8500),
        ({**INSIDE_V1, f"{V1}/memory.limit_in_bytes": "9223372036854771712\n"}, HOST),
        (
            {
                **INSIDE_V1,
                f"{V1}/memory.limit_in_bytes": "9223372036854771712\n",
                f"{V1}/memory.stat": stat(hierarchical_memory_limit=6000, total_rss=500),
            },
            5500,
        ),
        ({**INSIDE, "/proc/self/cgroup": "0::/../other\n", f"{V2}/memory.max": "9000\n"}, 9000),
        ({**INSIDE, "/proc/self/mountinfo": "nonsense\n35 31 - cgroup2\n", f"{V2}/memory.max": "9000\n"}, HOST),
    ],
    ids=[
        "nothing known",
        "host",
        "v2 unlimited",
        "v2",
        "v2 shared",
        "v2 high",
        "v2 full",
        "v2 pod",
        "v2 above",
        "v1",
        "v1 unlimited",
        "v1 above",
        "outside the namespace",
        "odd mounts",
    ],
)
def test_headroom_is_the_tightest_of_host_and_cgroups(files: dict[str, str], headroom: int) -> None:
    assert memory_headroom(files.get) == headroom


def test_each_limit_names_the_file_that_sets_it() -> None:
    files = {**NESTED, f"{V2}/kubepods/pod1/memory.max": "5000\n", f"{V2}/kubepods/pod1/memory.stat": stat(anon=7)}
    assert limits(files.get) == [
        Limit("/proc/meminfo", HOST, 0),
        Limit(f"{V2}/kubepods/pod1/memory.max", 5000, 7),
    ]


def test_this_machine_has_a_headroom() -> None:
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(next(row for row in file if row.startswith("MemTotal:")).split()[1]) * 1024
    assert 0 < memory_headroom() <= total
