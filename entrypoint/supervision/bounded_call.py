"""A question whose answer may never come, such as one to a network volume, asked in a process of its own."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable
from typing import Any

from ..model.volume import VolumeError
from ..timeline import Timeline
from .supervisor import Supervisor

#: Seconds between two looks whether a signal has come.
_STEP = 0.05


def ask(supervisor: Supervisor, name: str, work: Callable[[], Any], seconds: float) -> Any:
    """Return what ``work`` returns in a forked child, or ``None`` when that takes too long or a stop signal comes.

    A child that hangs in the kernel is left behind; it ends with the container.

    Args:
        supervisor: whose helper the child becomes.
        name: of the child.
        work: what to do there; it returns what JSON can hold.
        seconds: how long it may take.

    Raises:
        VolumeError: ``work`` raised it.
        RuntimeError: it raised something else.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)

    def answer(_timeline: Timeline) -> None:
        try:
            text = json.dumps({"answer": work()})
        except VolumeError as error:
            text = json.dumps({"refused": str(error)})
        except Exception as error:
            text = json.dumps({"failed": repr(error)})
        os.write(write_end, text.encode())

    supervisor.helper(name, answer)
    os.close(write_end)
    text = b""
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not supervisor.take_signals():
            if select.select([read_end], [], [], _STEP)[0]:
                chunk = os.read(read_end, 1 << 16)
                if not chunk:
                    break
                text += chunk
        else:
            return None  # too late, or told to stop: what has come may be half an answer
    finally:
        os.close(read_end)
    if not text:
        return None
    answered = json.loads(text)
    if "refused" in answered:
        raise VolumeError(answered["refused"])
    if "failed" in answered:
        raise RuntimeError(answered["failed"])
    return answered["answer"]
