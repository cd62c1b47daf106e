"""Tier ``zygote`` as PID 1 sees it: what declines it by name, its end, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import zygotes
from .harness import Image
from .test_preload import REPORT

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def three(image: Image) -> Image:
    """Return an image that has the tiers ``zygote``, ``preload`` and ``plain``."""
    image.change_plan(tiers=("zygote", "preload", "plain"))
    image.write_plan(start_method_variable="START_METHOD", start_methods=["spawn"])
    image.closure({"modules": list(zygotes.MODULES), "files": [], "libraries": []})
    return image


def tiers(image: Image) -> list[str]:
    return [event["tier"] for event in image.events("tier.started")]


def declined(image: Image) -> list[str]:
    return [event["reason"] for event in image.events("tier.declined")]


def module(image: Image, name: str, text: str) -> None:
    (image.model / f"{name}.py").write_text(text)
    image.closure({"modules": ["decimal", name, "json.decoder"], "files": [], "libraries": []})


def test_engine_comes_up_and_its_processes_are_known(three: Image) -> None:
    assert three.run("out:here", "end:0").out == b"here\n"
    assert tiers(three) == ["zygote"]
    (imported,) = three.events("zygote.imported")
    assert imported["skipped"] == []
    assert imported["modules"] > 50


def test_absent_module_is_skipped_with_an_event(three: Image) -> None:
    three.closure({"modules": ["decimal", "no_such_module", "asyncio"], "files": [], "libraries": []})
    assert three.run("end:0").code == 0
    assert tiers(three) == ["zygote"]
    assert three.events("zygote.imported")[0]["skipped"] == [
        {"module": "no_such_module", "reason": "ModuleNotFoundError: No module named 'no_such_module'"}
    ]


@pytest.mark.parametrize("closure", [{}, {"modules": []}, []], ids=str)
def test_image_without_a_closure(three: Image, closure: object) -> None:
    three.closure(closure)
    assert three.run("end:0").code == 0
    assert tiers(three) == ["preload"]
    assert declined(three)[0].startswith("the image has no closure (")


def test_choice_of_the_user_wins(three: Image) -> None:
    assert three.run("end:0", START_METHOD="fork").code == 0
    assert tiers(three) == ["preload"]
    assert declined(three) == ["START_METHOD=fork is the user's own choice of a start method"]


def test_start_that_ends_at_once(three: Image) -> None:
    assert three.run("--help").out == b"usage: engine\n"
    assert "zygote" not in tiers(three)
    assert declined(three)[0] == "--help ends before an import is worth sharing"


@pytest.mark.parametrize(
    ("text", "offence"),
    [
        (
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(9,), daemon=False, name='poller').start()",
            "Python thread poller",
        ),
        ("import socket\nLISTENER = socket.create_server(('127.0.0.1', 0))", "listening socket 0100007F:"),
        ("import subprocess\nCHILD = subprocess.Popen(['sleep', '2'])", "child process "),
    ],
)
def test_import_that_leaves_what_a_fork_would_lose(three: Image, text: str, offence: str) -> None:
    module(three, "unfit", text)
    ended = three.run("out:here", "end:0", PYTHONPATH=str(three.model))
    assert (ended.code, ended.out) == (0, b"here\n")
    assert tiers(three) == ["zygote", "preload"]
    assert offence in declined(three)[0]
    assert declined(three)[0].endswith("(import of unfit)")
    assert [row for row in ended.said if "import of unfit" in row]


def test_import_that_ends_the_interpreter(three: Image) -> None:
    module(three, "deadly", "import os\nif 'zygote' in __import__('sys').orig_argv: os._exit(9)\n")
    assert three.run("out:here", "end:0", PYTHONPATH=str(three.model)).out == b"here\n"
    assert tiers(three) == ["zygote", "preload"]


def test_words_printed_by_an_import_come_once(three: Image) -> None:
    module(three, "chatty", "print('a word')\n")
    script = three.script("engine", FORKING)
    done = zygotes.run(three, script, PYTHONPATH=str(three.model))
    assert done.stdout == "a word\nchild\n"
    assert len(zygotes.forked(three)) == 1


FORKING = """
import multiprocessing
def child():
    print("child")
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
"""


@pytest.mark.parametrize("word", ["end:0", "end:2", "end:3", "kill:SIGTERM", "kill:SIGKILL", "kill:SIGSEGV"])
def test_exit_codes_are_those_of_plain(three: Image, word: str) -> None:
    plain = three.run(word, WARMIMAGE_START="plain")
    ended = three.run(word)
    assert tiers(three)[0] == "zygote"
    assert ended.code == plain.code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_during_the_import_ends_as_under_plain(three: Image, number: int) -> None:
    slow = f"import time\nopen({str(three.marker)!r}, 'w').close()\ntime.sleep(20)\n"
    module(three, "slow", slow)
    three.script("engine", slow)
    codes = {}
    for tier in ("plain", "zygote"):
        three.marker.unlink(missing_ok=True)
        with three.start(WARMIMAGE_START=tier, PYTHONPATH=str(three.model), WARMIMAGE_PREFETCH="off") as running:
            until(three.marker.exists)
            running.send(number)
            codes[tier] = running.end()
        assert tiers(three) == [tier]
    assert codes["zygote"] == codes["plain"]


def until(holds: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


FAMILY = """
import multiprocessing, os, time
def child(depth):
    if depth:
        multiprocessing.get_context("spawn").Process(target=child, args=(depth - 1,)).start()
    print(os.getpid(), flush=True)
    time.sleep(60)
if __name__ == "__main__":
    child(2)
"""


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_fork_servers_end_with_their_processes(three: Image) -> None:
    script = three.script("served", FAMILY)
    with subprocess.Popen(
        zygotes.zygote_words(three, script), env=three.environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        family = [int(process.stdout.readline()) for _ in range(3)]
        try:
            assert process.pid in family
            fork_servers = {pid: [kid for kid in children(pid) if name(kid) == "fork-server"] for pid in family}
            assert [len(found) for found in fork_servers.values()] == [1, 1, 1]
            for pid in (process.pid, *(pid for pid in family if pid != process.pid)):
                (fork_server,) = fork_servers[pid]
                os.kill(pid, signal.SIGKILL)
                until(
                    lambda fork_server=fork_server: (
                        not Path(f"/proc/{fork_server}").exists() or state(fork_server) == "Z"
                    )
                )
        finally:
            for pid in family:
                if Path(f"/proc/{pid}").exists():
                    os.kill(pid, signal.SIGKILL)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


MANY = """
import json, multiprocessing, os, threading, time
def child(number, queue):
    queue.put([number, os.getppid() == multiprocessing.parent_process().pid])
def one(context, number, queue):
    process = context.Process(target=child, args=(number, queue))
    process.start()
    process.join()
    while process.exitcode is None:  # CPython's start() in another thread has waited for it, and has yet to note it
        time.sleep(0.001)
    assert process.exitcode == 0, process.exitcode
    ended.append(process)
def close():  # not beside start() in another thread: Python 3.10 stumbles there over what has been closed
    while ended:
        ended.pop().close()
def count():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [len(os.listdir("/proc/self/fd")), len(file.read().split())]
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    ended = []
    one(context, -1, queue)
    queue.get()
    close()
    before = count()
    for number in range(50):
        one(context, number, queue)
        close()
    found = [queue.get() for _ in range(50)]
    threads = [threading.Thread(target=one, args=(context, number, queue)) for number in range(50, 100)]
    for thread in threads:
        thread.start()
    found += [queue.get() for _ in threads]
    for thread in threads:
        thread.join()
    close()
    print(json.dumps([sorted(found) == [[number, True] for number in range(100)], before, count()]))
"""


@pytest.mark.timeout(180)
def test_hundred_children_leave_nothing_behind(three: Image) -> None:
    done = zygotes.run(three, three.script("served", MANY))
    assert done.stderr == ""
    ours, before, after = json.loads(done.stdout)
    assert ours, "each has come once, as a child of its parent"
    assert after == before, "open files, and children with the fork server"
    assert len(zygotes.forked(three)) == 101


ENGINE = """
import gc, multiprocessing, sys, threading
def files():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        if int(name) < 400 and os.path.exists("/proc/self/fd/" + name):
            found[name] = os.get_inheritable(int(name))
    return found
def text(name):
    with open("/proc/self/" + name) as file:
        return file.read().replace("\\0", " ").strip()
import json, os
found = json.loads(sys.stdin.read())
found.update(
    builtins=type(__builtins__).__name__, files=files(), comm=text("comm"), title=text("cmdline")[:60],
    threads=[thread.name for thread in threading.enumerate()], collector=[gc.isenabled(), gc.get_threshold()],
    limits=text("limits"), process=multiprocessing.current_process().name, orphans=os.getppid(),
    methods=[multiprocessing.get_start_method(True), multiprocessing.get_all_start_methods()],
    mask=[text("status").partition(name + ":")[2].split()[0] for name in ("Umask", "SigBlk", "SigIgn", "SigCgt")],
)
print(json.dumps(found))
"""


def test_engine_finds_itself_as_under_plain(three: Image) -> None:
    """As the existing report of what a script can know about how it is run, and what the kernel knows of it."""
    report = REPORT.replace("print(json.dumps({", "FOUND = ({").replace("}))\nsys.exit(3)", "})\n")
    script = three.script("served", report + ENGINE.replace("json.loads(sys.stdin.read())", "FOUND"))
    for words in ([], ["-m", "x", "a b"]):
        plain = zygotes.run(three, script, *words, tier="plain", LANG="C.UTF-8", PYTHONFAULTHANDLER="1")
        done = zygotes.run(three, script, *words, LANG="C.UTF-8", PYTHONFAULTHANDLER="1")
        assert (done.stderr, done.returncode, plain.returncode) == ("", 0, 0), plain.stderr
        differ = zygotes.differences(json.loads(plain.stdout), json.loads(done.stdout))
        assert not differ, "\n".join(differ)
