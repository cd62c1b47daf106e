"""Load an engine's native libraries before its imports ask for them."""

from __future__ import annotations

import ctypes
import json
import os
import threading
import time

from ...settings import CLOSURE
from ...timeline import Timeline


def preload(timeline: Timeline, closure: str = CLOSURE) -> threading.Thread | None:
    """Start a thread that opens the libraries which the image's closure names; return it.

    A fork of this process waits for the thread first: a child must not inherit the dynamic loader's lock while it is
    held.  Interpreter shutdown waits for it, too.

    Args:
        timeline: gets one event when all are open.
        closure: path of the closure recorded when the image was built.
    """
    try:
        with open(closure, encoding="utf-8") as file:
            paths = json.load(file)["libraries"]
        loader = ctypes.CDLL(None)
        loader.dlopen.restype = ctypes.c_void_p
        loader.dlopen.argtypes = [ctypes.c_char_p, ctypes.c_int]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        timeline.event("libraries.declined", reason=repr(error))
        return None
    if not paths:
        timeline.event("libraries.declined", reason="the closure names none")
        return None
    encoded = [os.fsencode(path) for path in paths]

    def work() -> None:
        began = time.monotonic()
        # ctypes.CDLL(path) would hold the GIL during dlopen before Python 3.12; a foreign function call releases it.
        opened = [bool(loader.dlopen(path, os.RTLD_LAZY | os.RTLD_LOCAL)) for path in encoded]
        timeline.event(
            "libraries.opened", opened=sum(opened), of=len(opened), seconds=round(time.monotonic() - began, 3)
        )

    thread = threading.Thread(target=work, name="warmimage-libraries")
    thread.start()
    os.register_at_fork(before=thread.join)
    return thread
