"""The process that is captured: it imports everything, stops, and when it is restored becomes the engine.

Run as a script by ``capture``: ``python point.py OUTPUT [ROOM]``.  OUTPUT gets what it says of itself; ROOM is an
argument as long as any command line that process listings are to show later.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from dataclasses import asdict

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    __package__ = "entrypoint.snapshot"

from .. import title, zygote
from ..closure import Closure
from ..companion import Birth
from ..settings import PLAN
from ..timeline import Timeline
from . import meeting


def main() -> None:
    """Import, write what was found, stop; restored, meet PID 1 and go on as the zygote."""
    output = sys.argv[1]
    del sys.path[0]  # this package's
    path = list(sys.path)
    title.keep_writable()
    with open(PLAN, encoding="utf-8") as file:
        hidden = json.load(file)["engine"]["import_environment"]
    closure = Closure.read()
    timeline = Timeline(f"{output}.timeline", "capture", truncate=True)
    contract = zygote.import_engine(closure.whole(), hidden, timeline)
    timeline.close()
    facts = {"contract": asdict(contract), "modules": len(sys.modules), "sources": sources()}
    with open(output, "w", encoding="utf-8") as file:
        json.dump(facts, file)
    with contextlib.suppress(AttributeError):  # glibc's own: memory that the imports have freed is not to be dumped
        ctypes.CDLL(None).malloc_trim(0)
    os.kill(os.getpid(), signal.SIGSTOP)  # the snapshot point: nothing is open, and nobody else is here
    request, files = meeting.receive()
    timeline = Timeline(request["timeline"], "engine")
    zygote.live(contract, path, timeline, Birth(request, files))


def sources() -> list[str]:
    """Return the files that all modules were imported from, as far as they were."""
    found = (vars(module).get("__file__") for module in list(sys.modules.values()) if hasattr(module, "__dict__"))
    return sorted({os.path.abspath(path) for path in found if isinstance(path, str)})


if __name__ == "__main__":
    main()
