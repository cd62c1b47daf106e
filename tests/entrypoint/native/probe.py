"""An engine that says what it finds out about itself, as JSON, its argument has names of functions below."""

import asyncio
import concurrent.futures
import ctypes
import decimal
import glob
import json
import locale
import multiprocessing
import os
import random
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid


def text(path):
    """Return what a file has."""
    with open(path) as file:
        return file.read()


def given():
    """What the container gives a process."""
    status = dict(row.split(":\t", 1) for row in text("/proc/self/status").splitlines() if ":\t" in row)
    os.umask(mask := os.umask(0))
    return {
        "environment": sorted(
            [os.fsdecode(name), os.fsdecode(value)]
            for name, value in os.environb.items()
            if not name.startswith(b"WARMIMAGE_")
        ),
        "getenv": ctypes.CDLL(None).getenv(b"PROBE") != 0,
        "directory": os.getcwd(),
        "umask": mask,
        "users": [os.getresuid(), os.getresgid(), os.getgroups()],
        "limits": {
            name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")
        },
        "files": sorted(f for f in os.listdir("/proc/self/fd") if int(f) < 3),
        "nice": os.nice(0),
        "processors": sorted(os.sched_getaffinity(0)),
        "status": {name: status[name] for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Groups")},
        "signals": {name: int(status[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")},
    }


def interpreter():
    """What the interpreter itself tells."""
    return {
        "argv": sys.argv,
        "orig_argv": sys.orig_argv,
        "executable": sys.executable,
        "path": sys.path,
        "main": [__name__, __file__, __spec__ is None],
        "flags": str(sys.flags),
        "exe": os.readlink("/proc/self/exe"),
        "streams": [
            [s.encoding, s.errors, s.mode, s.fileno(), s.line_buffering] for s in (sys.stdin, sys.stdout, sys.stderr)
        ],
        "locale": locale.setlocale(locale.LC_CTYPE),
        "recursion": sys.getrecursionlimit(),
        "handlers": {number: str(signal.getsignal(number)) for number in range(1, 32)},
        "name": text("/proc/self/comm"),
        "line": text("/proc/self/cmdline").replace("\0", " ").strip(),
    }


def work():
    """What an engine does: threads, processes, clocks, timers, errors."""
    found = []
    threads = [threading.Thread(target=found.append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
        thread.join()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        squares = list(pool.map(lambda number: number**2, range(100)))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        powers = pool.map(pow_of, range(20))
    with tempfile.NamedTemporaryFile() as file:
        assert abs(time.time() - os.stat(file.name).st_mtime) < 60
    began = time.monotonic()
    rung = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    time.sleep(0.05)

    async def wait():
        await asyncio.sleep(0.01)
        process = await asyncio.create_subprocess_exec("echo", "child", stdout=subprocess.PIPE)
        return (await process.communicate())[0].decode()

    child = asyncio.run(wait())
    pid = os.fork()
    if pid == 0:
        os._exit(42)
    try:
        raise ValueError("caught")
    except ValueError as error:
        caught = [str(error), error.__traceback__.tb_lineno > 0]
    import sqlite3  # of no closure: it is loaded by a restored process

    return {
        "threads": found,
        "squares": squares,
        "powers": powers,
        "child": child,
        "caught": caught,
        "alarm": rung,
        "run": subprocess.run(["sh", "-c", "echo $PROBE; exit 3"], stdout=subprocess.PIPE, check=False).stdout.decode(),
        "waited": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]),
        "slept": time.monotonic() - began < 20,
        "database": sqlite3.connect(":memory:").execute("select 6 * 7").fetchone(),
        "decimal": str(decimal.Decimal(1) / 7),
        "float": repr(1 / 3),
        "main": threading.current_thread() is threading.main_thread(),
        "tid": threading.get_native_id() == os.getpid() == int(os.readlink("/proc/self")),
    }


def pow_of(number):
    """Of a pool's process: it is this script's own function."""
    return number**3


def draws():
    """Random numbers: no two processes have the same."""
    return {
        "random": random.random(),  # noqa: S311
        "uuid1": str(uuid.uuid1()),
        "uuid4": str(uuid.uuid4()),
        "secret": secrets.token_hex(),
        "kernel": os.urandom(8).hex(),
        "name": next(tempfile._get_candidate_names()),
        "key": multiprocessing.current_process().authkey.hex(),
        "sampled": random.sample(range(10**9), 3),
        "libc": [ctypes.CDLL(None).arc4random() for _ in range(2)]
        if hasattr(ctypes.CDLL(None), "arc4random")
        else secrets.randbits(64),
    }


def memory():
    """What the restorer must not leave behind."""
    maps = [row.split() for row in text("/proc/self/maps").splitlines()]
    starts = [int(row[0].partition("-")[0], 16) for row in maps]
    return {
        "restorer": [f"{start:x}" for start in starts if 0x100000000000 <= start < 0x100100000000],
        "executable_and_writable": [row for row in maps if "wx" in row[1]],
        "open": [os.readlink(path) for path in glob.glob("/proc/self/fd/*") if os.path.lexists(path)],
        "heap": any(row[-1] == "[heap]" for row in maps),
        "stack": any(row[-1] == "[stack]" for row in maps),
        "vdso": any(row[-1] == "[vdso]" for row in maps),
    }


if __name__ == "__main__":
    if "read" in sys.argv[1]:
        print(sys.stdin.read(), end="")
        print("to standard error", file=sys.stderr)
    functions = [globals()[name] for name in sys.argv[1].split(",") if name != "read"]
    print(json.dumps({function.__name__: function() for function in functions}))
