"""A plugin for vLLM that writes down how each process of the engine sees itself.

It is mounted into a container beside the unmodified engine, which loads it in every process that it has
(``vllm.general_plugins``).  Not imported by any test: it runs in the engine's interpreter.
"""

from __future__ import annotations

import ctypes
import gc
import json
import locale
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import threading
import warnings

import psutil
import torch
from huggingface_hub import constants

FOLDER = "/tmp/probe"


def record() -> None:
    """Write this process's facts to ``FOLDER``, one file each."""
    os.makedirs(FOLDER, exist_ok=True)
    process = multiprocessing.current_process()
    facts = {
        "role": process.name if process.name != "MainProcess" else os.path.basename(sys.argv[0]),
        "pid": os.getpid(),
        "random": [random.random(), torch.initial_seed()],  # noqa: S311
        "same": {**interpreter(), **process_state(), **engine()},
    }
    with open(f"{FOLDER}/{os.getpid()}.json", "w", encoding="utf-8") as file:
        json.dump(facts, file, default=repr)


def interpreter() -> dict[str, object]:
    """Return what Python says."""
    process = multiprocessing.current_process()
    parent = multiprocessing.parent_process()
    return {
        "argv": sys.argv,
        "path": sys.path,
        "flags": flags(),
        "executable": sys.executable,
        "orig_argv": [re.sub(r"(_fd|_handle)=\d+", r"\1=N", word) for word in sys.orig_argv],
        "main": getattr(sys.modules["__main__"], "__file__", None),
        "spec": getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", None),
        "daemon": process.daemon,
        "parent": parent and [parent.name, parent.pid == os.getppid()],
        "start_method": multiprocessing.get_start_method(allow_none=True),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "collector": [gc.isenabled(), gc.get_threshold(), gc.get_debug()],
        "streams": [
            [stream.encoding, stream.errors, stream.line_buffering, stream.write_through, stream.isatty()]
            for stream in (sys.stdin, sys.stdout, sys.stderr)
        ],
        "recursion": sys.getrecursionlimit(),
        "locale": locale.setlocale(locale.LC_ALL),
        "hooks": [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__, sys.gettrace()],
        "warnings": sorted({repr(rule) for rule in warnings.filters}),
    }


def flags() -> dict[str, int]:
    """Return the interpreter's flags.

    All but the one for UTF-8: without a locale the first interpreter has it and coerces the locale instead for those
    that it starts (PEP 540, 538), so that all of them write UTF-8.  A fork has its parent's.
    """
    names = [name for name in dir(sys.flags) if isinstance(getattr(sys.flags, name), int)]
    return {name: getattr(sys.flags, name) for name in names if name not in ("n_fields", "utf8_mode")}


def process_state() -> dict[str, object]:
    """Return what the kernel and the C library say."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    mask = os.umask(0o022)
    os.umask(mask)
    with open("/proc/self/status", encoding="ascii") as file:
        status = dict(row.rstrip().split(":\t", 1) for row in file if row.startswith(("Sig", "NoNewPrivs", "Groups")))
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        oom = file.read()
    return {
        "environment": dict(os.environ),
        "environment_in_c": {name: (libc.getenv(name.encode()) or b"").decode() for name in os.environ},
        "directory": os.getcwd(),
        "umask": mask,
        "nice": os.nice(0),
        "oom": oom,
        "cpus": sorted(os.sched_getaffinity(0)),
        "limits": {
            name: resource.getrlimit(number) for name, number in vars(resource).items() if name.startswith("RLIMIT_")
        },
        "signals": {name: status[name] for name in ("SigBlk", "SigIgn", "SigCgt")},
        "handlers": {
            str(number): repr(signal.getsignal(number)).partition(" at ")[0] for number in signal.valid_signals()
        },
        "groups": [os.getpgid(0) == os.getpgid(os.getppid()), os.getsid(0) == os.getsid(os.getppid())],
        "identity": [os.getresuid(), os.getresgid(), os.getgroups(), status["NoNewPrivs"]],
        "streams_to": [os.readlink(f"/proc/self/fd/{number}").partition(":")[0] for number in (0, 1, 2)],
    }


def engine() -> dict[str, object]:
    """Return what the engine's libraries have derived from the environment."""
    parents = [parent.name() for parent in psutil.Process().parents()]
    inductor = sys.modules.get("torch._inductor.config")
    return {
        "parents": parents,
        "torch_threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "openmp_threads": openmp(),
        "hub_offline": constants.HF_HUB_OFFLINE,
        "compile_threads": inductor and inductor.compile_threads,
        "dynamic_threads": inductor and inductor.cpp.dynamic_threads,
    }


def openmp() -> dict[str, int]:
    """Return the size that the next pool of each OpenMP library of this process will have."""
    found = {}
    with open("/proc/self/maps", encoding="utf-8") as file:
        paths = {row.split(None, 5)[5].strip() for row in file if "libgomp" in row or "libiomp" in row}
    for path in sorted(paths):
        found[os.path.basename(path)] = ctypes.CDLL(path).omp_get_max_threads()
    return found
