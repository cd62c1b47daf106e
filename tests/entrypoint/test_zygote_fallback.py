"""Tier ``zygote``: what a fork would get wrong is started anew, with an event that says why."""

from __future__ import annotations

import os

import pytest

from . import zygotes
from .harness import Image

pytestmark = pytest.mark.timeout(60)

#: Starts a process after each of its arguments has been done, and one more.
ENGINE = """
import ctypes, multiprocessing, os, signal, subprocess, sys, time
import huggingface_hub.constants, reading
def child():
    print("child", reading.VALUE, huggingface_hub.constants.HF_HUB_OFFLINE, flush=True)
def start():
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join(20)
    print(process.exitcode, flush=True)
def executable():
    multiprocessing.set_executable(os.path.join(os.path.dirname(__file__), "wrapper"))
def forked():
    pid = os.fork()
    if pid:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
def variable():
    os.environ["READ_AT_IMPORT"] = "changed"
def hash_seed():
    os.environ["PYTHONHASHSEED"] = "7"
def offline():
    os.environ["HF_HUB_OFFLINE"] = "1"
def leader():
    os.setsid()
def capability():
    ctypes.CDLL(None).prctl(24, 5, 0, 0, 0)
def namespace():
    assert ctypes.CDLL(None).unshare(0x04000000) == 0
def fork_server():
    for word in open("/proc/thread-self/children").read().split():  # it may not have its name yet
        os.kill(int(word), signal.SIGKILL)
def stopped_fork_server():
    for word in open("/proc/thread-self/children").read().split():
        os.kill(int(word), signal.SIGSTOP)
def channel():
    os.closerange(3, 2000)
    for _ in range(500):
        os.open("/dev/null", os.O_RDONLY)
def interrupted():
    def handle(*_):
        raise ValueError("a handler's")
    signal.signal(signal.SIGALRM, handle)
    stopped_fork_server()
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        start()
    except ValueError as error:
        print(error)
def many_files():
    os.pipe()
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(300)]
    done = subprocess.run([sys.executable, "-m", "package.few"], pass_fds=files, capture_output=True, text=True)
    print(done.stdout, done.stderr)
if __name__ == "__main__":
    for word in sys.argv[1:]:
        globals()[word]()
    start()
    start()
"""


def run(image: Image, *words: str, prefix: tuple[str, ...] = (), **variables: str) -> list[str]:
    (image.model / "reading.py").write_text("import os\nVALUE = os.environ.get('READ_AT_IMPORT')\n")
    hub = image.model / "huggingface_hub"
    hub.mkdir()
    (hub / "__init__.py").write_text("")
    (hub / "constants.py").write_text("import os\nHF_HUB_OFFLINE = os.environ.get('HF_HUB_OFFLINE') == '1'\n")
    package = image.model / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "few.py").write_text("import os\nprint(len(os.listdir('/proc/self/fd')) > 300)\n")
    image.closure({"modules": ["huggingface_hub.constants", "reading", "package"], "files": [], "libraries": []})
    wrapper = image.script("wrapper", "")
    wrapper.write_text(f'#!/bin/sh\necho wrapped\nexec {image.python} "$@"\n')
    script = image.script("served", ENGINE)
    done = zygotes.run(image, script, *words, prefix=prefix, PYTHONPATH=str(image.model), **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def ended(rows: list[str]) -> list[str]:
    """Return the exit codes among the rows that an engine has written."""
    return [row for row in rows if not row.startswith("child")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("variable", "READ_AT_IMPORT has changed since reading read it"),
        ("hash_seed", "PYTHONHASHSEED has changed since native code read it"),
        ("forked", "its parent is itself a fork, which has no fork server"),
    ],
)
def test_change_that_a_fork_would_miss(image: Image, change: str, reason: str) -> None:
    rows = run(image, change, READ_AT_IMPORT="before")
    assert ended(rows) == ["0", "0"]
    assert zygotes.reasons(image) == [reason, reason]
    assert rows[0] == ("child changed False" if change == "variable" else "child before False")
    assert zygotes.forked(image) == []


def test_changed_executable_is_run(image: Image) -> None:
    rows = ended(run(image, "executable"))
    assert [row for row in rows if row != "wrapped"] == ["0", "0"]
    assert rows.count("wrapped") >= 2
    assert zygotes.reasons(image) == [f"its parent has it run {image.bin / 'wrapper'}"] * 2


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give permissions away")
@pytest.mark.parametrize("change", ["capability", "namespace"])
def test_permissions_and_namespaces_are_those_of_the_parent(image: Image, change: str) -> None:
    assert ended(run(image, change)) == ["0", "0"]
    assert zygotes.reasons(image) == ["its parent has changed its user, permissions, session or namespaces"] * 2


def test_session_is_that_of_the_parent(image: Image) -> None:
    assert ended(run(image, "leader")) == ["0", "0"]
    assert zygotes.reasons(image) == ["its parent has changed its user, permissions, session or namespaces"] * 2


def test_variable_that_was_read_and_is_known_is_derived_again(image: Image) -> None:
    rows = run(image, "offline", HF_HUB_OFFLINE="0")
    assert [row.split()[2] for row in rows if row.startswith("child")] == ["True", "True"]
    assert zygotes.reasons(image) == []
    assert len(zygotes.forked(image)) == 2


@pytest.mark.parametrize("change", ["fork_server", "channel"])
def test_without_its_fork_server_a_process_goes_on(image: Image, change: str) -> None:
    assert ended(run(image, change)) == ["0", "0"]
    assert zygotes.forked(image) == []
    if change == "fork_server":
        assert "the fork server does not answer" in zygotes.reasons(image)[0]
        assert zygotes.reasons(image)[1:] == ["the fork server is gone"]


def test_handler_that_raises_while_the_fork_server_is_asked(image: Image) -> None:
    rows = run(image, "interrupted")
    assert rows[0] == "a handler's"
    assert ended(rows)[1:] == ["0", "0"]
    assert zygotes.reasons(image) == ["the fork server is gone"] * 2


def test_more_files_than_one_message_carries(image: Image) -> None:
    assert run(image, "many_files")[0] == "True"
    assert zygotes.reasons(image) == ["it is to have 303 open files, of which 250 can be handed over"]
    assert len(zygotes.forked(image)) == 2, "the fork server is none the worse for it"


def test_few_open_files_are_permitted(image: Image) -> None:
    assert ended(run(image, prefix=("prlimit", "--nofile=64"))) == ["0", "0"]
    assert len(zygotes.forked(image)) == 2


REENTRANT = """
import multiprocessing, signal, os, time
def child():
    print("child", flush=True)
def handle(*_):
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
if __name__ == "__main__":
    signal.signal(signal.SIGALRM, handle)
    (fork_server,) = open("/proc/thread-self/children").read().split()
    os.kill(int(fork_server), signal.SIGSTOP)
    if os.fork() == 0:
        time.sleep(1)
        os.kill(int(fork_server), signal.SIGCONT)
        os._exit(0)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
    print(process.exitcode)
"""


def test_handler_that_starts_a_process_while_the_fork_server_is_asked(image: Image) -> None:
    image.closure({"modules": ["decimal"], "files": [], "libraries": []})
    done = zygotes.run(image, image.script("served", REENTRANT))
    assert (done.stdout, done.returncode) == ("child\nchild\n0\n", 0)
    assert zygotes.reasons(image) == ["a signal's handler asks while its parent does"]
    assert len(zygotes.forked(image)) == 1
