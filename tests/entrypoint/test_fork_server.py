"""Fork servers, and the open files that go to forked children: each in a process that does nothing else."""

from __future__ import annotations

import json

import pytest

from .harness import Image

pytestmark = pytest.mark.timeout(60)

#: What each script below begins with.
BEGIN = """
import fcntl, itertools, json, os, random, resource, signal, sys, time
sys.path.insert(0, {root!r})
from entrypoint.tiers.zygote import fd_passing, fork_server
"""

#: Places files in every way that three can lie across each other, and in many that six can.
PLACING = """
def place(files):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        high = {}
        for have in files.values():  # each file says which one it is
            fd = os.memfd_create("file")
            os.write(fd, str(have).encode())
            high[have] = fd_passing.move_high(fd)
        for have, fd in high.items():
            os.dup2(fd, have, inheritable=False)
            os.close(fd)
        fd_passing.install(files)
        found = {wanted: os.pread(wanted, 10, 0).decode() for wanted in files}
        good = found == {wanted: str(have) for wanted, have in files.items()}
        good = good and all(os.get_inheritable(wanted) for wanted in files)
        left = set(range(20, 40)) & fd_passing.open_fds()
        code = 0 if good and left == set(files) else 2
    finally:
        os._exit(code)
failed = []
for haves in itertools.permutations(range(20, 23)):
    for wanted in itertools.permutations(range(20, 23)):
        files = dict(zip(wanted, haves))
        if place(files):
            failed.append(files)
random.seed(1)
for _ in range(60):
    numbers = list(range(20, 30))
    files = dict(zip(random.sample(numbers, 6), random.sample(numbers, 6)))
    if place(files):
        failed.append(files)
print(json.dumps(failed))
"""

#: Has processes forked, with files above all numbers that fork servers and timelines have.
FORKING = """
import ctypes
libc = ctypes.CDLL(None)
def subreaper():
    found = ctypes.c_int()
    libc.prctl(37, ctypes.byref(found), 0, 0, 0)
    return found.value
report = {}
while True:
    server = fork_server.start_fork_server(None)
    break
if isinstance(server, fork_server.ForkRequest):
    os.write(server.files[0], json.dumps([server.request, os.getppid(), len(server.files)]).encode())
    os._exit(7)
before = [len(fd_passing.open_fds()), subreaper()]
reader, writer = os.pipe()
answers = []
for number in range(3):
    pid = server.fork({"number": number, "parent": os.getpid()}, [writer])
    answers.append([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), json.loads(os.read(reader, 1000))])
report["answers"] = [
    code == 7 and request == {"number": number, "parent": parent} and parent == os.getpid() and files == 1
    for number, (code, (request, parent, files)) in enumerate(answers)
]
os.close(reader), os.close(writer)
report["left"] = [len(fd_passing.open_fds()), subreaper()] == before
try:
    server.fork({}, [0] * 251)
except fork_server.Refused as error:
    report["refused"] = str(error)
report["ended"] = [server.ended]
server.end()
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    report["ended"].append("no child is left")
report["ended"].append(server.ended)
try:
    server.fork({}, [])
except fork_server.Refused as error:
    report["gone"] = str(error)
print(json.dumps(report))
"""

#: A program that closes what it does not know, and opens files of its own in that place.
CLOSING = """
server = fork_server.start_fork_server(None)
assert isinstance(server, fork_server.ForkServer)
os.closerange(3, 1000)
strangers = [os.open("/dev/null", os.O_RDONLY) for _ in range(600)]
try:
    server.fork({}, [])
except fork_server.Refused as error:
    print(json.dumps([str(error), all(fd_passing.open_fds() >= {fd} for fd in strangers), server.ended]))
"""

#: Numbers that are asked for are not those that a fork server's channel has.
TAKEN = """
print(json.dumps([
    fd_passing.move_high(os.open("/dev/null", os.O_RDONLY)),
    fd_passing.move_high(os.open("/dev/null", os.O_RDONLY), [3, 500, 499]),
    os.get_inheritable(501),
]))
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
print(json.dumps(fd_passing.move_high(os.open("/dev/null", os.O_RDONLY), [3])))
"""


def run(image: Image, text: str) -> list[str]:
    done = image.python_run("-W", "error", "-c", BEGIN.format(root=str(image.root)) + text)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.splitlines()


def test_files_get_the_numbers_asked_for(image: Image) -> None:
    assert run(image, PLACING) == ["[]"]


def test_fork_server_forks_children_of_its_parent(image: Image) -> None:
    assert json.loads(run(image, FORKING)[0]) == {
        "answers": [True, True, True],
        "left": True,
        "refused": "it is to have 251 open files, of which 250 can be handed over",
        "ended": [False, "no child is left", True],
        "gone": "its parent has closed the fork server's channel",
    }


def test_channel_that_was_closed_is_not_taken_for_a_strangers_file(image: Image) -> None:
    assert json.loads(run(image, CLOSING)[0]) == ["its parent has closed the fork server's channel", True, True]


def test_numbers_that_are_asked_for_are_left_free(image: Image) -> None:
    assert [json.loads(row) for row in run(image, TAKEN)] == [[400, 501, False], 84]
