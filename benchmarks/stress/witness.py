"""PID 1 of a container under test: starts the server, stops it at a given moment, and says what it leaves behind.

Run as a script, in the image's own Python: ``python witness.py DELAY EVENT PATIENCE COMMAND...``.  The server has a
container to itself as a rule, whose end ends all that is in it; here it has a parent that outlives it, as in a
container with an init, so that what it would leave behind can be seen.  The last line on standard output is what was
seen, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

#: Seconds between two looks, that a process may be a zombie of a living parent, and that what is left may take to end.
LOOK, ZOMBIE, LEFT = 0.05, 1.0, 10.0

#: Flag of a process that has begun to end (``PF_EXITING`` in the kernel's sched.h): it gives its memory back.
_EXITING = 0x4

#: Where a container's timeline is, if nothing else is said.
TIMELINE = "/run/warmimage/timeline.jsonl"

Row = dict[str, "str | int"]


def main(delay: float, event: str, patience: float, command: list[str]) -> dict[str, object]:
    """Start ``command``, send it SIGTERM at a moment, and return what was seen.

    A server that has lost the signal, and has become ready since, is sent another.

    Args:
        delay: seconds from the event.
        event: an event of the server's timeline; empty for its start.
        patience: seconds that it may take to end; after as many again, everything is killed.
        command: the server's command line.
    """
    before = shared_memory()
    began = time.monotonic()
    server = subprocess.Popen(command).pid
    zombies, adopted = Zombies(), 0
    code, first, stopped = None, 0.0, 0.0
    hung: list[Row] = []
    while code is None:
        time.sleep(LOOK)
        ended = reap()
        code = ended.pop(server, None)
        adopted += len(ended)
        zombies.look()
        if event and happened(event):
            began, event = time.monotonic(), ""
        now = time.monotonic()
        if not event and not first and now - began >= delay:
            first = stopped = now
            if code is None:
                os.kill(server, signal.SIGTERM)
        if code is not None or not first or hung or now - stopped <= patience:
            continue
        if stopped > first:
            hung = processes()
            os.kill(-1, signal.SIGKILL)
        elif happened("ready") or now - first > 10 * patience:  # it goes on as if nothing had been sent
            stopped = now
            os.kill(server, signal.SIGTERM)
    ended_at = time.monotonic()
    left = [row for row in processes() if row["state"] != "Z"]
    while (still := [row for row in processes() if row["state"] != "Z"]) and time.monotonic() - ended_at < LEFT:
        reap()
        time.sleep(LOOK)
    return {
        "code": code,
        "first": first,
        "stopped": stopped,
        "seconds_to_end": round(ended_at - stopped, 3) if stopped else None,
        "hung": hung,
        "left": left,
        "orphans": still,
        "left_seconds": round(time.monotonic() - ended_at, 3),
        "zombies": zombies.lasting(),
        "adopted": adopted,
        "shared_memory": sorted(shared_memory() - before),
    }


def happened(event: str) -> bool:
    """Return whether the server's timeline has an event."""
    try:
        with open(TIMELINE, encoding="utf-8") as file:
            return f'"event": "{event}"' in file.read()
    except OSError:
        return False


def reap() -> dict[int, int]:
    """Return the children that have ended, with their exit codes; -n for signal n."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def processes() -> list[Row]:
    """Return the container's processes but this one."""
    found: list[Row] = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                head, _, rest = file.read().rpartition(")")
            with open(f"/proc/{name}/cmdline", encoding="utf-8", errors="replace") as file:
                line = file.read().replace("\0", " ").strip()
            with open(f"/proc/{name}/wchan", encoding="ascii") as file:
                waits = file.read()
        except OSError:
            continue  # it has just ended
        fields = rest.split()
        state, parent = fields[:2]
        row: Row = {"pid": int(name), "parent": int(parent), "state": state, "name": head.partition("(")[2]}
        row |= {"line": line[-80:], "waits": waits, "ending": bool(int(fields[6]) & _EXITING)}
        found.append(row)
    return found


def shared_memory() -> set[str]:
    """Return the shared memory segments, POSIX's and System V's."""
    with open("/proc/sysvipc/shm", encoding="ascii") as file:
        rows = file.read().splitlines()[1:]
    return {*os.listdir("/dev/shm"), *(f"shmid {row.split()[1]}" for row in rows)}


class Zombies:
    """Ended processes whose parent lives and does not fetch their exit code."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        self._lasting: dict[int, Row] = {}

    def look(self) -> None:
        """Look again."""
        every = {int(row["pid"]): row for row in processes()}
        lives = {pid for pid, row in every.items() if not row["ending"]}
        rows = {pid: row for pid, row in every.items() if row["state"] == "Z" and row["parent"] in lives}
        now = time.monotonic()
        self._since = {pid: self._since.get(pid, now) for pid in rows}
        self._lasting.update({pid: rows[pid] for pid, since in self._since.items() if now - since > ZOMBIE})

    def lasting(self) -> list[Row]:
        """Return those that stayed."""
        return list(self._lasting.values())


if __name__ == "__main__":
    print("witness: " + json.dumps(main(float(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4:])), flush=True)
