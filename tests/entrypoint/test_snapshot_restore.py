"""A restored process is to the engine what a started one is: compared with tier ``plain``, on this machine."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from .conftest import PYTHONS
from .harness import Image, free_port, works
from .native import restores
from .zygotes import differences

pytestmark = pytest.mark.timeout(120)

PROBE = (restores.HERE / "probe.py").read_text()

#: Starts that are stopped in their midst, for all interpreters together.
STOPS = 50


@pytest.fixture
def probe(captured: Image) -> Image:
    """Return an image whose engine says what it finds out about itself."""
    captured.script("engine", PROBE)
    return captured


def report(image: Image, what: str, *words: str, tier: str = "snapshot", **options: Any) -> Any:
    """Run the probe in a tier, and return what it says."""
    image.timeline.unlink(missing_ok=True)
    start = {} if tier == "snapshot" else {"WARMIMAGE_START": tier}
    ended = image.run(what, *words, **{**restores.variables(image), **start, **options})
    assert (ended.code, ended.err) == (0, b""), ended
    assert image.tiers == [tier]
    return json.loads(ended.out)


#: Ignores one of the C library's own signals, as a daemon may that starts the container, and becomes a command.
IGNORE = """
import ctypes, os, sys
syscall = ctypes.CDLL(None, use_errno=True).syscall
syscall(13, 32, (ctypes.c_uint64 * 4)(1), 0, 8)
os.execvp(sys.argv[1], sys.argv[1:])
"""

#: Ways in which a container is started, each with a command prefix.
CONTAINERS: Mapping[str, Sequence[str]] = {
    "as it is": (),
    "umask": ("sh", "-c", 'umask 027; exec "$@"', "sh"),
    "limits": ("prlimit", "--nofile=777:888", "--core=0", "--stack=4194304:"),
    "nice": ("nice", "-n", "7"),
    "processor": ("taskset", "-c", "0"),
    "signal 32 ignored": (sys.executable, "-c", IGNORE),
    "nothing granted": ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_a_container_gives_is_the_engines(probe: Image, container: str) -> None:
    prefix = CONTAINERS[container]
    if prefix and not works(*prefix):
        pytest.skip(f"{prefix[0]} cannot do this here")
    words = ("given,interpreter", "--from", "ü", "", "a  b")
    found = [
        report(probe, *words, tier=tier, prefix=prefix, PROBE="ä=b", PROBE_EMPTY="", LANG="C.UTF-8")
        for tier in ("plain", "snapshot")
    ]
    assert differences(*found) == []
    assert found[0]["given"]["environment"], "there is something to compare"


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize("user", [1000, 54321])
def test_any_user_restores_without_a_privilege(probe: Image, user: int, tmp_path: Path) -> None:
    """As Kubernetes' restricted pods run: another user, nothing granted, no new privileges."""
    prefix = ("setpriv", f"--reuid={user}", "--regid=0", "--clear-groups", "--bounding-set=-all", "--no-new-privs")
    for directory in (probe.root, *probe.root.parents):
        if directory == Path("/tmp"):
            break
        directory.chmod(directory.stat().st_mode | 0o055)
    if subprocess.run([*prefix, probe.python, "-c", ""], check=False, capture_output=True).returncode:
        pytest.skip("this interpreter is not for every user")
    probe.timeline.touch()
    probe.timeline.chmod(0o666)
    options = {"prefix": prefix, "WARMIMAGE_PREFETCH": "off", **restores.variables(probe)}
    ended = probe.run("given,memory", **options)
    assert (ended.code, ended.err) == (0, b"")
    assert probe.tiers == ["snapshot"]
    given = json.loads(ended.out)["given"]
    assert given["users"] == [[user] * 3, [0] * 3, []]
    assert given["status"]["NoNewPrivs"] == "1"
    assert int(given["status"]["CapEff"], 16) == 0


def test_an_engine_works_as_one_that_was_started(probe: Image) -> None:
    found = [report(probe, "work", tier=tier, PROBE="known") for tier in ("plain", "snapshot")]
    assert differences(*found) == []
    assert found[1]["work"]["run"] == "known\n"
    assert len(probe.events("zygote.forked")) >= 2, "the pool's processes were forked"
    assert probe.events("zygote.fallback") == []


def test_random_numbers_are_those_of_one_start(probe: Image) -> None:
    first, second = (report(probe, "draws")["draws"] for _ in range(2))
    assert [name for name in first if first[name] == second[name]] == []


def test_nothing_of_the_restorer_is_left(probe: Image) -> None:
    found = report(probe, "memory")["memory"]
    assert (found["restorer"], found["executable_and_writable"]) == ([], [])
    assert (found["heap"], found["stack"], found["vdso"]) == (True, True, True)
    assert not [path for path in found["open"] if str(probe.root) in path], "no file of the snapshot stays open"


def test_streams_are_the_containers(probe: Image) -> None:
    environment = probe.environment(**restores.variables(probe))
    done = subprocess.run(
        [probe.python, "-I", "-S", str(probe.entrypoint), "read,given"],
        env=environment,
        input="by pipe\nö\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.startswith("by pipe\nö\n{")
    assert (done.stderr, done.returncode, probe.tiers) == ("to standard error\n", 0, ["snapshot"])


def test_the_containers_own_preloaded_libraries_are_the_engines_variable(
    python: str, compiled: Path, tmp_path: Path
) -> None:
    image = Image(tmp_path, python, compiled)
    restores.prepare(image)
    image.script("engine", PROBE)
    own = {**restores.variables(image), "LD_PRELOAD": str(restores.modules(image) / "libown.so")}
    done = image.capture("--require", variables=own, environment=["LD_PRELOAD"])
    assert done.returncode == 0, done.stderr
    found = report(image, "given,memory", **own)
    assert ["LD_PRELOAD", own["LD_PRELOAD"]] in found["given"]["environment"]
    assert "restore.so" not in json.dumps(found)


@pytest.mark.parametrize(("word", "code"), [("end:0", 0), ("end:3", 3), ("kill:SIGKILL", 137), ("kill:SIGSEGV", 139)])
def test_the_exit_code_of_a_server_is_the_engines(captured: Image, word: str, code: int) -> None:
    words = ("listen", "serve:200", "until:ready", "out:served", word, "--port", str(free_port()))
    ended = captured.run(*words, **restores.variables(captured))
    assert (ended.code, ended.out) == (code, b"served\n")
    assert captured.tiers == ["snapshot"]
    assert captured.events("ready")[0]["tier"] == "snapshot"
    assert [row for row in ended.said if "tier snapshot)" in row] == ended.said, "nothing else is said"


def test_every_signal_reaches_it_once(captured: Image) -> None:
    names = ["SIGUSR1", "SIGHUP", "SIGINT", "SIGQUIT", "SIGWINCH", "SIGUSR1"]
    words = [f"count:{name}" for name in dict.fromkeys(names)]
    with captured.start(*words, "trap:SIGTERM:5", "out:up", "sleep:30", **restores.variables(captured)) as container:
        assert container.line() == "up"
        for name in names:
            container.send(signal.Signals[name])
            assert container.line() == f"got {name}"
        container.send(signal.SIGTERM)
        assert container.line() == "", "nothing came twice"
        assert container.end() == 5
    assert captured.tiers == ["snapshot"]


def test_two_at_once(captured: Image, tmp_path: Path) -> None:
    """Each has its own memory: what one writes, the other does not see."""
    captured.script(
        "engine",
        "import sys, before\nbefore.LARGE[:9] = sys.argv[1].encode() * 9\n"
        "print('up', flush=True); sys.stdin.read()\n"
        "import time; time.sleep(0.3)\n"
        "print(bytes(before.LARGE[:9]).decode(), before.OBJECTS[7][0])\n",
    )
    common = {**restores.variables(captured), "WARMIMAGE_PREFETCH": "off"}
    first_log, second_log = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    with (
        captured.start("a", **common, WARMIMAGE_TIMELINE=str(first_log)) as first,
        captured.start("b", **common, WARMIMAGE_TIMELINE=str(second_log)) as second,
    ):
        assert (first.line(), second.line()) == ("up", "up")
        assert (first.line(), second.line()) == ("aaaaaaaaa 7", "bbbbbbbbb 7")
        assert (first.end(), second.end()) == (0, 0)
    for log in (first_log, second_log):
        assert '"snapshot.restored"' in log.read_text()


@pytest.mark.usefixtures("in_namespace")
def test_a_stop_at_any_moment_ends_the_container(captured: Image) -> None:
    """It comes while the restorer works, before, or after; nothing is started after it, and nothing hangs."""
    moments = random.Random(captured.python)  # noqa: S311
    restored = 0
    for _ in range(STOPS // len(PYTHONS) + 1):
        captured.timeline.unlink(missing_ok=True)
        with captured.start("sleep:30", **restores.variables(captured), WARMIMAGE_PREFETCH="off") as container:
            wait_for_event(captured.timeline, "tier.started")
            time.sleep(moments.uniform(0, 0.06))
            container.send(signal.SIGTERM)
            began = time.monotonic()
            assert container.end() == 143
            assert time.monotonic() - began < 5
        assert captured.tiers == ["snapshot"]
        restored += bool(captured.events("snapshot.restored"))
    print(f"{restored} of {STOPS // len(PYTHONS) + 1} had been restored")


def wait_for_event(timeline: Path, name: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if timeline.exists() and f'"{name}"' in timeline.read_text():
            return
        time.sleep(0.001)
    pytest.fail(f"no {name} in 10 s")
