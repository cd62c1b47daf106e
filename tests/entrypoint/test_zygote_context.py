"""Tier ``zygote``: all that ``multiprocessing`` offers, at every depth, and how a process can end."""

from __future__ import annotations

import pytest

from . import zygotes
from .harness import Image

pytestmark = pytest.mark.timeout(60)

#: Every kind of thing that two processes share, by a context whose name is the argument.
SHARING = """
import concurrent.futures, multiprocessing, multiprocessing.shared_memory, sys
def double(number):
    return number * 2
def fill(queue, array, lock, name, event, barrier):
    memory = multiprocessing.shared_memory.SharedMemory(name)
    with lock:
        array[0] += 1
    memory.buf[0] = 7
    queue.put(("filled", bytes(memory.buf[:1])))
    memory.close()
    barrier.wait(20)
    event.wait(20)
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=16)
    with context.Manager() as manager, context.Pool(2) as pool:
        queue, array, lock = context.Queue(), context.Array("i", [0]), context.Lock()
        event, barrier = context.Event(), context.Barrier(2)
        process = context.Process(target=fill, args=(queue, array, lock, memory.name, event, barrier))
        process.start()
        print(queue.get(timeout=20), barrier.wait(20) in (0, 1), process.is_alive())
        event.set()
        process.join(20)
        print(process.exitcode, array[:], memory.buf[0])
        shared = manager.dict(a=1)
        print(pool.map(double, range(5)), dict(shared))
    memory.close()
    memory.unlink()
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        print(list(executor.map(double, range(4))))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_share_what_multiprocessing_offers(image: Image, method: str) -> None:
    zygotes.same(image, SHARING, method)
    assert len(zygotes.forked(image)) == 6
    assert zygotes.reasons(image) == []


NESTED = """
import multiprocessing, os, sys
def line(methods, depth):
    process = multiprocessing.current_process()
    parent = multiprocessing.parent_process()
    print(depth, process.name, os.getppid() == parent.pid, parent.name, "decimal" in sys.modules, flush=True)
    descend(methods, depth + 1)
def descend(methods, depth):
    if methods:
        process = multiprocessing.get_context(methods[0]).Process(target=line, args=(methods[1:], depth))
        process.start()
        process.join()
        print(depth, process.exitcode, flush=True)
if __name__ == "__main__":
    import decimal
    descend(sys.argv[1:], 1)
"""


def test_children_of_children_are_forked_too(image: Image) -> None:
    script = image.script("nested", NESTED)
    image.closure({"modules": list(zygotes.MODULES), "files": [], "libraries": []})
    done = zygotes.run(image, script, "spawn", "forkserver", "spawn", "forkserver")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "1 SpawnProcess-1 True MainProcess True",
        "2 ForkServerProcess-1:1 True SpawnProcess-1 True",
        "3 SpawnProcess-1:1:1 True ForkServerProcess-1:1 True",
        "4 ForkServerProcess-1:1:1:1 True SpawnProcess-1:1:1 True",
        "4 0",
        "3 0",
        "2 0",
        "1 0",
    ]
    assert len(zygotes.forked(image)) == 4


ENDS = """
import atexit, multiprocessing, os, signal, sys, time
class Odd(Exception):
    pass
def normal():
    atexit.register(os.write, 1, b"at exit\\n")
    print("not flushed")
def value(code):
    sys.exit(code)
def at_once(code):
    print("lost")
    os._exit(code)
def fail():
    raise Odd("what happened")
def killed(name):
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(20)
def thread():
    import threading
    threading.Timer(0.2, print, ["a thread's last word"]).start()
ENDS = [
    (normal,), (value, 0), (value, 3), (value, 300), (value, "a word"), (value, None), (at_once, 4), (fail,), (thread,),
    (killed, "SIGTERM"), (killed, "SIGKILL"), (killed, "SIGABRT"), (killed, "SIGSEGV"), (killed, "SIGINT"),
]
if __name__ == "__main__":
    for function, *arguments in ENDS:
        process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
        process.start()
        process.join()
        print(function.__name__, arguments, process.exitcode, process.is_alive(), flush=True)
"""


def test_ends_are_those_of_spawned_processes(image: Image) -> None:
    done = zygotes.same(image, ENDS)
    assert "at exit\n" in done.stdout
    assert "Odd: what happened" in done.stderr
    assert len(zygotes.forked(image)) == 14


WAITED_FOR = """
import multiprocessing, multiprocessing.connection, os, signal, time
def wait(stubborn, ready):
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready.set()
    time.sleep(60)
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    for stubborn in (False, True):
        process = context.Process(target=wait, args=(stubborn, ready))
        process.start()
        print(process.join(0.05), process.exitcode, process.is_alive(), os.getpgid(process.pid) == os.getpgid(0))
        print(multiprocessing.connection.wait([process.sentinel], 0.05), flush=True)
        ready.wait(20)
        ready.clear()
        process.terminate()
        process.join(0.5 if stubborn else 20)
        print(process.exitcode)
        process.kill()
        print(len(multiprocessing.connection.wait([process.sentinel], 20)))
        process.join()
        print(process.exitcode, process.is_alive(), multiprocessing.active_children(), flush=True)
        process.close()
    daemon = context.Process(target=wait, args=(False, ready), daemon=True)
    daemon.start()
    print("left to its fate", flush=True)
"""


def test_children_are_waited_for_and_ended(image: Image) -> None:
    done = zygotes.same(image, WAITED_FOR)
    assert "-15\n" in done.stdout
    assert "-9 False []\n" in done.stdout
    assert len(zygotes.forked(image)) == 3


APART = """
import multiprocessing, random, uuid, tempfile
def draw(pipe):
    pipe.send([random.random(), str(uuid.uuid4()), next(tempfile._get_candidate_names()),
               bytes(multiprocessing.current_process().authkey).hex()])
if __name__ == "__main__":
    found = []
    for _ in range(3):
        receiver, sender = multiprocessing.Pipe(False)
        process = multiprocessing.get_context("spawn").Process(target=draw, args=(sender,))
        process.start()
        found.append(receiver.recv())
        process.join()
    found.append([random.random(), str(uuid.uuid4()), next(tempfile._get_candidate_names()), found[0][3]])
    print([len(set(column)) for column in zip(*found)])
"""


def test_siblings_draw_different_random_numbers(image: Image) -> None:
    assert zygotes.same(image, APART).stdout == "[4, 4, 4, 1]\n"
    assert len(zygotes.forked(image)) == 3


MODULE = """
import os, subprocess, sys
done = subprocess.run(
    [sys.executable, "-m", "package.said", "a b"], input="in", capture_output=True, text=True,
    env={**os.environ, "A": "b"}, cwd="/",
)
print(done.returncode, done.stdout, done.stderr)
for words in (["-m", "package.absent"], ["-m", "package"], ["-c", "print(1)"], ["-m", "package.failing"]):
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    print(done.returncode, done.stdout, done.stderr.splitlines()[-1:])
"""


def test_module_of_an_imported_package_is_run_by_a_fork(image: Image) -> None:
    package = image.model / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "failing.py").write_text("1 / 0")
    (package / "said.py").write_text(
        "import json, os, sys\nimport __main__\n"
        "print(json.dumps([__name__, __file__, __spec__.name, sys.argv, sys.path[0], dict(os.environ), os.getcwd(),"
        " sys.stdin.read(), __main__.__dict__ is globals(), type(__builtins__).__name__]))\nsys.exit(5)\n"
    )
    image.closure({"modules": ["package"], "files": [], "libraries": []})
    script = image.script("served", MODULE)
    variables = {"PYTHONPATH": str(image.model), "LANG": "C.UTF-8"}
    plain = zygotes.run(image, script, tier="plain", **variables).stdout
    done = zygotes.run(image, script, **variables)
    assert done.stdout == plain
    assert '5 ["__main__"' in plain
    assert [event["target"] for event in image.events("zygote.forked")] == [
        "package.said",
        "package.absent",
        "package.failing",
    ]
    assert len(zygotes.reasons(image)) == 0
