"""Whatever stands in the way of a restore: the server comes up in the next tier, and one line says why."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from warmimage import timeline

from tests.support.images import container, wait_ended, wait_for_event
from tests.support.snapshots import DIRECTORY, NOTHING_GRANTED, Outcome, derived, engine_pid, member, serve, start

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

#: Seconds that a restore may take which does not come about.
DETOUR = 0.2

MEMORY = f"{DIRECTORY}/memory"

#: Changes files of an image, as root; ``change`` is what a fault does.
SCRIPT = """
import json, os, pathlib, struct
memory, manifest = pathlib.Path("{memory}"), pathlib.Path("{directory}/manifest.json")
def flip(path, position):
    with open(path, "r+b") as file:
        byte = os.pread(file.fileno(), 1, position)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1]), position)
{change}
"""

FLIPS_TABLES = "flip(memory, json.loads(manifest.read_text())['tables_bytes'] - 4096)"

#: In a text that nothing reads but a person, so that nothing but the verification can find it.
FLIPS_DATA = (
    "data = memory.read_bytes(); at = data.index(b'Copyright (c) 2001'); assert at > 4096\n"
    "while at >= 0: flip(memory, at); at = data.find(b'Copyright (c) 2001', at + 1)"
)

LACKS = "facts = json.loads(manifest.read_text()); facts['cpu_features'].append('avx4096')\n"

#: Faults of the image that are found before the restore: what makes the derived one, and what the line says.
DECLINED = {
    "truncated": ("os.truncate(memory, 1 << 20)", "has 1048576 bytes"),
    "empty": ("os.truncate(memory, 0)", "has 0 bytes"),
    "foreign": ("memory.write_bytes(pathlib.Path('/bin/sh').read_bytes())", "bytes, and had"),
    "missing": ("memory.unlink()", "memory cannot be read"),
    "tables": (FLIPS_TABLES, "memory is damaged"),
    "header": ("flip(memory, 9)", "memory is damaged"),
    "no manifest": ("manifest.unlink()", f"there is none in {DIRECTORY}"),
    "another CPU": (LACKS + "manifest.write_text(json.dumps(facts))", "this CPU lacks avx4096"),
}


@pytest.fixture(scope="module")
def plain(client: docker.DockerClient, transformers_image: str, tiny_model: Path) -> str:
    """The completion of the engine in tier ``plain``."""
    return start(client, transformers_image, tiny_model, environment={"WARMIMAGE_START": "plain"}).text


@contextmanager
def changed(client: docker.DockerClient, image: str, change: str) -> Iterator[str]:
    """Yield an image that is derived from another by a script, and run as the other is."""
    python = client.images.get(image).attrs["Config"]["Entrypoint"][0]
    script = SCRIPT.format(memory=MEMORY, directory=DIRECTORY, change=change)
    with derived(
        client, image, ["COPY change.py /tmp/change.py", f"RUN {python} /tmp/change.py"], {"change.py": script.encode()}
    ) as made:
        yield made


def outcome(client: docker.DockerClient, image: str, model: Path, **words: Any) -> tuple[Outcome, list[timeline.Event]]:
    """Start an image, ask it for a completion, and return what became of it, and the timeline."""
    with container(client, image, model=model, **{**NOTHING_GRANTED, **words}) as running:
        found = serve(running)
        return found, wait_for_event(running, "ready")


def check_declined(found: tuple[Outcome, list[timeline.Event]], reason: str, plain: str) -> None:
    """See that the next tier serves, that one line names the reason, and that it took no time."""
    served, events = found
    assert (served.tier, served.text) == ("zygote", plain), served.log
    (line,) = served.reasons
    assert line.startswith("skipped: ")
    assert reason in line
    assert timeline.find(events, "snapshot.restored") == []
    assert timeline.find(events, "tier.failed") == []
    (declined,) = timeline.find(events, "tier.declined")
    (following,) = timeline.find(events, "tier.started")[-1:]
    assert following["t"] - began(events) < DETOUR, events
    assert reason in declined["reason"]


def began(events: Sequence[timeline.Event]) -> float:
    """Return when the tier was tried: its restore's start where there was one, else the timeline's first event."""
    tried = [event["t"] for event in timeline.find(events, "tier.started") if event["tier"] == "snapshot"]
    return float(tried[0] if tried else events[0]["t"])


def check_failed(found: tuple[Outcome, list[timeline.Event]], reason: str, plain: str) -> None:
    """See that the restored engine was ended before it was ready, that the next tier serves, and one line says why."""
    served, events = found
    assert (served.tier, served.text) == ("zygote", plain), served.log
    (line,) = served.reasons
    assert line.startswith("failed: ")
    assert reason in line
    (failed,) = timeline.find(events, "tier.failed")
    assert (failed["tier"], len(timeline.find(events, "ready"))) == ("snapshot", 1)


#: Those that are in every run; tests/entrypoint has the others, too, without Docker.
QUICK = ("truncated", "tables", "another CPU")


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in DECLINED]
)
def test_found_before_the_restore(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str, fault: str
) -> None:
    change, reason = DECLINED[fault]
    with changed(client, transformers_image, change) as image:
        check_declined(outcome(client, image, tiny_model), reason, plain)


def test_damaged_pages(client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str) -> None:
    """The engine would serve with them: the verification beside its start ends it before it counts as ready."""
    with changed(client, transformers_image, FLIPS_DATA) as image:
        check_failed(outcome(client, image, tiny_model), f"{MEMORY} is damaged", plain)


@pytest.mark.slow
def test_pages_of_zeros(client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str) -> None:
    """As a sparse copy of a file leaves it: of the right size, its tables whole, and nothing behind them."""
    change = (
        "facts = json.loads(manifest.read_text())\n"
        "os.truncate(memory, facts['tables_bytes']); os.truncate(memory, facts['bytes'])"
    )
    with changed(client, transformers_image, change) as image:
        served, _ = outcome(client, image, tiny_model)
    assert (served.tier, served.text) == ("zygote", plain), served.log
    assert len(served.reasons) == 1


def test_a_replaced_library(client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str) -> None:
    """A file of the same size, and of another time and content: its beginning, where each library differs."""
    files = json.loads(member(client, transformers_image, f"{DIRECTORY}/manifest.json"))["files"]
    path = next(path for path, *_ in files if "/safetensors/" in path)
    build_id = f"data = open('{path}', 'rb').read(); flip('{path}', data.index(b'GNU\\0', 64) + 4)"
    with changed(client, transformers_image, build_id) as image:
        check_declined(outcome(client, image, tiny_model), f"{path} is not the file that it was captured with", plain)


def test_a_library_with_another_time_alone(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str
) -> None:
    """As a builder that rewrites timestamps leaves every file."""
    files = json.loads(member(client, transformers_image, f"{DIRECTORY}/manifest.json"))["files"]
    touched = f"for path in {[path for path, *_ in files]!r}: os.utime(path, (1, 1))"
    with changed(client, transformers_image, touched) as image:
        served, _ = outcome(client, image, tiny_model)
    assert (served.tier, served.reasons, served.text) == ("snapshot", [], plain)


def test_a_replaced_module(client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str) -> None:
    files = json.loads(member(client, transformers_image, f"{DIRECTORY}/checks.json"))["files"]
    path = next(path for path, *_ in files if path.endswith("/transformers/__init__.py"))
    with changed(client, transformers_image, f"open('{path}', 'a').write('# patched')") as image:
        check_failed(outcome(client, image, tiny_model), f"{path} is not the file of the capture", plain)


#: Docker's words for a filter that allows everything but prctl(PR_SET_MM, ...), which answers EPERM.
NO_MEMORY_MAP = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {
            "names": ["prctl"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "args": [{"index": 0, "value": 35, "op": "SCMP_CMP_EQ"}],
        },
    ],
}


def test_a_kernel_without_pr_set_mm(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str
) -> None:
    """As sandboxes are, and kernels without CONFIG_CHECKPOINT_RESTORE: a seccomp filter refuses it here."""
    words = {"security_opt": ["no-new-privileges", f"seccomp={json.dumps(NO_MEMORY_MAP)}"]}
    found = outcome(client, transformers_image, tiny_model, **words)
    check_declined(found, "this kernel or its seccomp profile has no prctl(PR_SET_MM_MAP)", plain)


#: ``security.capability`` of a file that gains CAP_NET_RAW, which Docker leaves to a container: <linux/capability.h>.
GAINS = (
    "os.setxattr(os.path.realpath('{python}'), 'security.capability', struct.pack('<5I', 0x2000001, 1 << 13, 0, 0, 0))"
)


def test_a_loader_that_ignores_the_restorer(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str
) -> None:
    """As it does for a program that gains a capability (``AT_SECURE``)."""
    python = client.images.get(transformers_image).attrs["Config"]["Entrypoint"][0]
    with changed(client, transformers_image, GAINS.format(python=python)) as image:
        found = outcome(client, image, tiny_model, cap_drop=[], security_opt=[])
    check_declined(found, "the dynamic loader has not run the restorer", plain)


@contextmanager
def noexec(directory: Path) -> Iterator[Path]:
    """Yield a directory from which nothing may be executed."""
    if os.geteuid():
        pytest.skip("only root mounts a file system")
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,nosuid,nodev,size=1g", "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_directory_of_the_node_that_is_mounted_noexec(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str, tmp_path: Path
) -> None:
    """Nothing of the snapshot's file is executed: code is mapped from the image's own files."""
    with noexec(tmp_path / "node") as node:
        bind = {str(node): {"bind": "/node", "mode": "rw"}}
        words: dict[str, Any] = {"user": "0", "volumes": bind, "network_mode": "none", "remove": True}
        client.containers.run(transformers_image, ["capture", "/node", "--require"], **words)
        # Docker mounts what is to be read-only once more, and then without noexec.
        volumes = {
            str(node): {"bind": "/node", "mode": "rw"},
            str(tiny_model): {"bind": "/model", "mode": "ro"},
        }
        words = {**NOTHING_GRANTED, "volumes": volumes, "environment": {"WARMIMAGE_SNAPSHOT_DIR": "/node"}}
        with container(client, transformers_image, **words) as running:
            found = serve(running)
            mounts = running.exec_run(["grep", " /node ", "/proc/mounts"]).output.decode()
    assert "noexec" in mounts
    assert (found.tier, found.reasons, found.text) == ("snapshot", [], plain), found.log


MAX_MAP_COUNT = Path("/proc/sys/vm/max_map_count")


@contextmanager
def most_mappings(number: int) -> Iterator[None]:
    """Let every process of this host have no more mappings than a number."""
    before = MAX_MAP_COUNT.read_text(encoding="ascii")
    try:
        MAX_MAP_COUNT.write_text(str(number), encoding="ascii")
    except OSError as error:
        pytest.skip(f"vm.max_map_count cannot be set: {error}")
    try:
        yield
    finally:
        MAX_MAP_COUNT.write_text(before, encoding="ascii")


@pytest.mark.slow  # not for its time: it is the whole host's, and nothing else may be at work
def test_too_few_mappings_allowed(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str
) -> None:
    """A restored process has more mappings than a started one, so that a limit between the two is found."""
    counts = []
    for tier in ("zygote", "snapshot"):
        with container(client, transformers_image, model=tiny_model, environment={"WARMIMAGE_START": tier}) as running:
            serve(running)
            counts.append(Path(f"/proc/{engine_pid(running)}/maps").read_text(encoding="utf-8").count("\n"))
    zygote, restored = counts
    assert zygote + 20 < restored
    with most_mappings(zygote + 15):
        found = outcome(client, transformers_image, tiny_model)
    check_declined(found, "no memory (cgroup limit, RLIMIT_AS, vm.overcommit_memory or vm.max_map_count)", plain)


#: Starts that are stopped in their midst.
STOPS = 16


def test_stopped_at_any_moment(client: docker.DockerClient, transformers_image: str, tiny_model: Path) -> None:
    """It ends as a started engine does, and leaves no process: by the engine's own code, or by the signal."""
    moments = random.Random(14)  # noqa: S311 - moments
    words: dict[str, Any] = {"model": tiny_model, **NOTHING_GRANTED}
    for _ in range(STOPS):
        with container(client, transformers_image, **words) as running:
            time.sleep(moments.uniform(0, 0.6))
            stopped = time.monotonic()
            running.kill(signal.SIGTERM)
            code = wait_ended(running, 30)
            log = running.logs().decode()
            assert code in (0, 128 + signal.SIGTERM), log
            assert time.monotonic() - stopped < 10, log
            assert "Traceback" not in log
            assert "snapshot failed" not in log
