"""An engine that starts a process and prints what that one finds out about itself, as JSON.

Its arguments: the start method, then names of functions below that begin with ``with_``, called just before the start.
"""

import faulthandler
import gc
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading

VALUE = os.environ.get("PROBE_AT_IMPORT", "")
KEPT = []


def with_environment():
    """Change, add and remove variables."""
    os.environ.update(PROBE="changed", PROBE_NEW="ä=b\nc")
    os.environ.pop("PROBE_OLD", None)
    os.putenv("PROBE_UNSEEN", "only the C library knows until a process is started")
    os.environb[b"PROBE_BYTES"] = b"\xff\xfe"


def with_place():
    """Change the working directory and the mask of new files."""
    os.mkdir("probe_place")
    os.chdir("probe_place")
    os.umask(0o027)


def with_scheduling():
    """Take one processor, and be nice."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.nice(3)


def with_limits():
    """Lower some limits, and ask to be the first that memory is taken from."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (700, 800))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("321")


def with_raised_limit():
    """Have a file of a number that was not permitted when this process began."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (2000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    while not KEPT or KEPT[-1] < 1500:
        KEPT.append(os.open(os.devnull, os.O_RDONLY))


def with_signals():
    """Ignore, handle and block signals."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGWINCH])


def with_group():
    """Lead a process group."""
    os.setpgid(0, 0)


def with_file():
    """Have standard output and error go elsewhere."""
    file = os.open("probe.err", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(file, 2)
    os.close(file)


def with_input_closed():
    """Have no standard input."""
    os.close(0)


def with_terminal():
    """Have a terminal on all three standard streams, but for the report."""
    primary, secondary = os.openpty()
    KEPT.append(primary)
    for number in (0, 2):
        os.dup2(secondary, number)
    os.close(secondary)


def with_threads():
    """Have threads, which hold locks."""
    lock = threading.Lock()
    lock.acquire()
    KEPT.append(lock)
    for _ in range(4):
        threading.Thread(target=lock.acquire, daemon=True).start()


def with_python_state():
    """Change what the interpreter knows."""
    sys.path.append("/probe/path")
    sys.argv.append("added")
    gc.disable()
    gc.set_threshold(7, 8, 9)
    random.seed(1)
    sys.setrecursionlimit(3333)
    sys.modules["json.tool"] = None
    multiprocessing.current_process().authkey = b"probe"
    multiprocessing.current_process().name = "Prober"


def status(*names):
    """Return rows of what the kernel says of this process."""
    with open("/proc/self/status") as file:
        rows = dict(row.split(":", 1) for row in file)
    return {name: rows[name].strip() for name in names}


def files():
    """Return the open files by number, without those that are out of everybody's way."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + name)
            # warmimage's own are few, and cannot be inherited
            if os.get_inheritable(int(name)) or int(name) < 400:
                found[name] = [re.sub(r"\d+\]$|^.*/fd$", "", target), os.get_inheritable(int(name))]
        except OSError:
            continue
    return found


def report():
    """Return all that this process may see of itself."""
    import __main__

    with open("/proc/self/cmdline", "rb") as file:
        title = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    with open("/proc/self/comm") as file:
        comm = file.read().strip()
    parent = multiprocessing.parent_process()
    process = multiprocessing.current_process()
    return {
        "environment": dict(os.environ),
        "bytes": {repr(key): repr(os.environb[key]) for key in os.environb},
        "passed_on": subprocess.run(
            ["/bin/sh", "-c", "echo $PROBE $PROBE_NEW $PROBE_OLD $PROBE_UNSEEN"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout,
        "directory": os.getcwd(),
        "nice": os.nice(0),
        "cpus": sorted(os.sched_getaffinity(0)),
        "limits": {name: resource.getrlimit(value) for name, value in vars(resource).items() if name[:7] == "RLIMIT_"},
        "oom": open("/proc/self/oom_score_adj").read(),
        "kernel": status(
            "Umask",
            "SigBlk",
            "SigIgn",
            "SigCgt",
            "Threads",
            "NoNewPrivs",
            "CapEff",
            "Seccomp",
            "Uid",
            "Gid",
        ),
        "signals": [str(signal.getsignal(number)).partition(" at ")[0] for number in sorted(signal.valid_signals())],
        "leads": os.getpgid(0) == os.getppid(),
        "session": os.getsid(0) == os.getsid(os.getppid()),
        "files": files(),
        "terminals": [number in range(3) and os.isatty(number) for number in range(3)],
        "streams": [
            "closed"
            if stream and stream.closed
            else stream
            and [
                stream.name,
                stream.mode,
                stream.encoding,
                stream.errors,
                stream.line_buffering,
                stream.write_through,
                stream.newlines,
                stream.isatty(),
                stream.fileno(),
                type(stream.buffer).__name__,
            ]
            for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__)
        ],
        "same_streams": [sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__, sys.stdin is sys.__stdin__],
        "argv": sys.argv,
        "path": sys.path,
        "flags": list(sys.flags),
        "executable": sys.executable,
        "words": [re.sub(r"\d+", "N", word) for word in sys.orig_argv],
        "interpreter": [sys.prefix, sys.base_prefix, sys.warnoptions, sys._xoptions, sys.getrecursionlimit()],
        "main": [
            __main__.__name__,
            __main__.__file__,
            str(__main__.__spec__),
            __main__ is sys.modules["__mp_main__"],
            __main__.__dict__ is globals(),
            type(__main__.__builtins__).__name__,
        ],
        "at_import": VALUE,
        "title": re.sub(r"\d+", "N", title)[:60],
        "comm": comm,
        "exe": os.readlink("/proc/self/exe"),
        "process": [
            process.name,
            process.daemon,
            bytes(process.authkey) == b"probe" or len(process.authkey),
            process.pid == os.getpid(),
        ],
        "parent": [parent.name, parent.pid == os.getppid(), parent.is_alive()],
        "method": multiprocessing.get_start_method(),
        "threads": [
            [thread.name, thread.daemon, thread.is_alive(), thread.native_id == os.getpid()]
            for thread in threading.enumerate()
        ],
        "main_thread": threading.main_thread() is threading.current_thread(),
        "tasks": len(os.listdir("/proc/self/task")),
        "collector": [gc.isenabled(), gc.get_threshold()],
        "faulthandler": faulthandler.is_enabled(),
        "times": [sum(os.times()[2:4]), signal.getitimer(signal.ITIMER_REAL)],
        "tool": "json.tool" in sys.modules,
        "subreaper": subreaper(),
    }


def subreaper():
    """Return whether this process is given orphans, and the signal that it is sent when its parent ends."""
    import ctypes

    found = ctypes.c_int(), ctypes.c_int()
    libc = ctypes.CDLL(None)
    libc.prctl(37, ctypes.byref(found[0]), 0, 0, 0)
    libc.prctl(2, ctypes.byref(found[1]), 0, 0, 0)
    return [value.value for value in found]


def child(pipe):
    """Report to the parent."""
    pipe.send(report())


def main(method, *changes):
    """Start a process after these changes and print its report."""
    output = os.dup(1)
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(False)
    for change in changes:
        globals()[change]()
    process = context.Process(target=child, args=(sender,), name="Probed", daemon=True)
    process.start()
    sender.close()
    found = receiver.recv()
    process.join()
    found["exitcode"] = process.exitcode
    os.write(output, json.dumps(found).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
