"""The arguments of ``fork_exec`` by name, as each interpreter's ``subprocess`` and ``multiprocessing`` pass them."""

from __future__ import annotations

import json
import sys

import pytest
from warmimage.entrypoint.tiers.zygote import fork_exec

from .harness import Image

#: Notes what arrives at ``fork_exec``, and starts the process all the same.
CALLS = """
import _posixsubprocess, json, multiprocessing.util, os, subprocess, sys
sys.path.insert(0, {root!r})
from entrypoint.tiers.zygote import fork_exec
own, calls = _posixsubprocess.fork_exec, []
def note(args, executables, *rest):
    calls.append(fork_exec.parse(rest))
    return own(args, executables, *rest)
_posixsubprocess.fork_exec = note
subprocess._fork_exec = note
subprocess._USE_POSIX_SPAWN = False
true = ["/bin/true"]
read_end, write_end = os.pipe()
options = dict(stdin=read_end, stdout=write_end, stderr=write_end, cwd="/", env={{"A": "b"}}, pass_fds=[write_end])
subprocess.Popen(true, **options).wait()
call = calls.pop()
found = [
    call.stdin_read == read_end, call.stdout_write == write_end, call.stderr_write == write_end,
    (call.stdin_write, call.stdout_read, call.stderr_read) == (-1, -1, -1),
    call.env == [b"A=b"], os.fsdecode(call.cwd) == "/",
    set(call.pass_fds) == {{write_end, call.error_pipe_write}}, call.error_pipe_read >= 0,
    call.restore_signals is True, fork_exec.is_plain(call),
]
os.waitpid(multiprocessing.util.spawnv_passfds(b"/bin/true", true, [write_end]), 0)
call = calls.pop()
found += [call.pass_fds == (write_end,), call.cwd is None, call.env is None, fork_exec.is_plain(call)]
wishes = [
    dict(close_fds=False), dict(start_new_session=True), dict(umask=0o22), dict(preexec_fn=lambda: None),
    dict(user=os.getuid()), dict(group=os.getgid()),
]
if sys.version_info >= (3, 11):
    wishes.append(dict(process_group=0))
for wish in wishes:
    try:
        subprocess.Popen(true, **wish).wait()
    except (OSError, subprocess.SubprocessError):
        pass  # a user without the right to ask for it
    found.append(not fork_exec.is_plain(calls.pop()))
print(json.dumps(found))
"""


@pytest.mark.timeout(60)
def test_each_argument_has_its_name(image: Image) -> None:
    done = image.python_run("-c", CALLS.format(root=str(image.root)))
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert all(found), found
    assert len(found) >= 20


@pytest.mark.parametrize("count", [0, 18, 20, 22])
def test_an_unknown_number_of_arguments_is_refused(count: int) -> None:
    version = "{}.{}".format(*sys.version_info)
    with pytest.raises(fork_exec.UnknownSignature, match=f"^fork_exec of Python {version} has {count} arguments"):
        fork_exec.parse((None,) * count)
