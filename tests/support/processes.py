"""What a container's processes look like from inside it, as a monitor in the container would see them."""

from __future__ import annotations

import json
from typing import Any

from docker.models.containers import Container

_SCRIPT = r"""
import json, os
def text(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
def fields(path):
    return {row.partition(":")[0]: row.partition(":")[2].strip() for row in text(path).splitlines()}
found = []
for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
    try:
        status = fields(f"/proc/{pid}/status")
        tasks = sorted(map(int, os.listdir(f"/proc/{pid}/task")))
        tasks = [fields(f"/proc/{pid}/task/{task}/status") for task in tasks]
        memory = fields(f"/proc/{pid}/smaps_rollup") if status["State"][0] != "Z" else {}
        line = text(f"/proc/{pid}/cmdline")
    except OSError:
        continue
    found.append({
        "pid": pid, "parent": int(status["PPid"]), "name": status["Name"], "state": status["State"][0],
        "line": line.rstrip("\0").replace("\0", " ").strip(),
        "session": status["NSsid"], "ignored": status["SigIgn"], "caught": status["SigCgt"],
        "threads": [[task["Name"], task["Cpus_allowed_list"]] for task in tasks],
        **{name.lower(): 1024 * int(memory.get(name, "0").split()[0]) for name in ("Rss", "Pss")},
    })
print(json.dumps(found))
"""

Process = dict[str, Any]


def look(running: Container) -> list[Process]:
    """Return the processes of a container but the one that looks.

    Each has ``pid``, ``parent``, ``name`` (the kernel's), ``line`` (the command line as listings show it), ``state``,
    ``threads`` (name and processors of each, the main one first), ``rss`` and ``pss`` in bytes.
    """
    python = running.attrs["Config"]["Entrypoint"][0]
    done = running.exec_run([python, "-I", "-S", "-c", _SCRIPT])
    assert isinstance(done.output, bytes)
    assert done.exit_code == 0, done.output.decode()
    found: list[Process] = json.loads(done.output)
    return [process for process in found if process["parent"] or process["pid"] == 1]


def called(processes: list[Process], name: str) -> Process:
    """Return the one process of that name."""
    (found,) = [process for process in processes if process["name"] == name]
    return found


def send(running: Container, signal_name: str, *pids: int) -> None:
    """Send a signal (``KILL``) to processes of a container, by the PIDs that they have in it."""
    done = running.exec_run(["sh", "-c", f"kill -{signal_name} {' '.join(map(str, pids))}"])
    assert done.exit_code == 0, done.output
