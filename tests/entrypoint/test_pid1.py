"""PID 1 is as good as absent: the engine's command, environment, signals, output and exit code are its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from .harness import Image, real_time_signal

pytestmark = pytest.mark.timeout(60)

OFF = {"WARMIMAGE_START": "plain", "WARMIMAGE_PREFETCH": "off"}

#: Prints the shell's own command line, environment and folder as the kernel keeps them.
REPORT = 'cat "/proc/$$/cmdline" "/proc/$$/environ"; pwd -P'


@pytest.mark.parametrize("locale", [{}, {b"LC_ALL": b"C"}, {b"LANG": b"no_SUCH"}], ids=["unset", "C", "unknown"])
def test_plain_start_is_byte_for_byte_the_engines_own_command(image: Image, locale: dict[bytes, bytes]) -> None:
    """Invariant 1: with every optimisation off, command line and environment are exactly the engine's own."""
    image.write_plan(command=["sh", "-c", REPORT, "sh"], args=["--from", "the plan", "ü"])
    arguments = [b"caf\xe9", "ünï".encode(), b"", b"a  b", b"--x=$HOME", b"-v"]
    environment = {key.encode(): value.encode() for key, value in image.environment(**OFF).items()}
    environment = {**environment, b"SECRET": b"\xff\xfe=\xe9 x\n", b"EMPTY": b"", **locale}

    by_hand = subprocess.run(
        ["sh", "-c", REPORT, "sh", "--from", "the plan", "ü", *arguments],
        env=environment,
        check=True,
        cwd=image.plan.engine.directory,
        capture_output=True,
    )
    ended = image.run(*arguments, env=environment)

    assert b"caf\xe9" in by_hand.stdout
    assert (ended.out, ended.err, ended.code) == (by_hand.stdout, b"", 0)


def test_engine_has_default_signals_and_only_the_standard_descriptors(image: Image) -> None:
    image.write_plan(command=["cat", "/proc/self/status"])
    status = dict(row.split(":\t") for row in image.run(**OFF).out.decode().splitlines())
    own = 0b11 << 31  # signals 32 and 33, which the C library keeps for itself: nobody can change what is inherited
    assert {name: int(status[name], 16) & ~own for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd")} == {
        "SigBlk": 0,
        "SigIgn": 0,
        "SigCgt": 0,
        "SigPnd": 0,
        "ShdPnd": 0,
    }
    image.write_plan(command=["ls", "/proc/self/fd"])
    assert image.run(**OFF).out.split() == [b"0", b"1", b"2", b"3"], "3 is the folder that ls reads"


@pytest.mark.parametrize(
    ("word", "code"),
    [
        *((f"end:{code}", code) for code in (0, 1, 2, 3, 77, 255)),
        ("kill:SIGKILL", 137),
        ("kill:SIGSEGV", 139),
        ("kill:SIGTERM", 143),
        (f"kill:{real_time_signal()}", 128 + real_time_signal()),
    ],
)
def test_exit_code_and_output_are_the_engines(image: Image, word: str, code: int) -> None:
    """Invariant 4: exit code, standard output and standard error are the engine's."""
    ended = image.run("out:answer", "err:problem", word, **OFF)
    assert (ended.code, ended.out, ended.err) == (code, b"answer\n", b"problem\n")


def test_engine_that_does_not_exist_is_said_with_127(image: Image) -> None:
    image.write_plan(command=["no-such-engine"])
    ended = image.run(**OFF)
    assert ended.code == 127
    assert ended.said == ["error: cannot start the engine: No such file or directory: no-such-engine"]


def test_every_signal_is_passed_on_once(image: Image) -> None:
    """Invariant 4: signals behave as if the engine were PID 1's only child."""
    names = ["SIGUSR1", "SIGHUP", "SIGINT", "SIGQUIT", "SIGWINCH", str(real_time_signal()), "SIGUSR1"]
    words = [f"count:{name}" for name in dict.fromkeys(names)]
    with image.start(*words, "trap:SIGTERM:5", "out:up", "sleep:30", **OFF) as container:
        assert container.line() == "up"
        for name in names:
            container.send(int(name) if name.isdigit() else signal.Signals[name])
            assert container.line() == f"got {name}"
        container.send(signal.SIGTERM)
        assert container.line() == "", "nothing came twice"
        assert container.end() == 5
    assert [event["name"] for event in image.events("signal")][-1] == "SIGTERM"


@pytest.mark.parametrize(("word", "code"), [("trap:SIGTERM:0", 0), ("trap:SIGTERM:3", 3), ("out:default", 143)])
def test_stop_before_ready_ends_with_the_engines_code_and_no_other_tier(image: Image, word: str, code: int) -> None:
    with image.start(image.mark, word, "out:up", "sleep:30") as container:
        while container.line() != "up":
            pass
        began = time.monotonic()
        container.send(signal.SIGTERM)
        assert container.end() == code
    assert time.monotonic() - began < 3
    assert image.started == ["preload"]


def test_signal_that_comes_before_the_engines_exec_is_not_lost() -> None:
    """The child takes half a second to put the default dispositions back; a stop comes in the middle of it."""
    driver = """
import os, subprocess, sys, time
from warmimage.entrypoint import timeline
from warmimage.entrypoint.supervision import supervisor
reset = supervisor.reset_signals
supervisor.reset_signals = lambda: (time.sleep(0.5), reset())
pid1 = supervisor.Supervisor(timeline.Timeline("", "supervisor"))
spawn = lambda: supervisor.Started(pid1.spawn(["sleep", "20"], dict(os.environ), "/"))
with pid1.signals():
    stop = subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -TERM {os.getpid()}"])
    outcome = pid1.run(spawn, None, lambda seconds: None)
print(outcome.code, outcome.stopped)
"""
    done = subprocess.run([sys.executable, "-c", driver], capture_output=True, text=True, check=False, timeout=30)
    assert (done.stdout, done.stderr) == ("143 True\n", "")


@pytest.mark.usefixtures("in_namespace")
def test_orphans_are_reaped_while_the_engine_runs(image: Image) -> None:
    ended = image.run("orphans:5", "alone", "end:4", **OFF)
    assert ended.out == b"[]\n", "each is [state, parent]; Z is a zombie"
    assert len(image.events("orphan.reaped")) == 5
    assert ended.code == 4
