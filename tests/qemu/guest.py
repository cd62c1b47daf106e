"""Runs inside the guest, by the image's interpreter: starts the image as a container would, and reports what it did.

It needs nothing but the standard library.  The report is one line of JSON, on the port that ``case.json`` names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

#: Where the output of the image goes.
LOG = HERE / "log"

#: A user without any privilege, in a PID namespace of its own: what Pod Security's "restricted" leaves.
CONFINED = (
    "unshare",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
    "setpriv",
    "--reuid=1000",
    "--regid=0",
    "--clear-groups",
    "--no-new-privs",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--ambient-caps=-all",
)


def main() -> None:
    """Start the image, ask it for one completion where the case has a request, and write the report."""
    case = json.loads((HERE / "case.json").read_text())
    report: dict[str, Any] = {"kernel": os.uname().release, "flags": flags()}
    with LOG.open("wb") as log:
        words = [*CONFINED, *case["command"]]
        process = subprocess.Popen(
            words, env=case["environment"], cwd=case["directory"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        report["log"] = wait(process, case["until"])
        report["status"] = status(process.pid)
        if case["request"] and process.poll() is None:
            report["completion"] = ask(case["request"])
        report["timeline"] = events(Path(case["timeline"]))
    except Exception as error:  # the host reads nothing but the report
        report["error"] = repr(error)
    report["log"] = LOG.read_text(errors="replace").splitlines()
    Path(case["port"]).write_text(json.dumps(report) + "\n")


def flags() -> list[str]:
    """Return the processor's extensions, as the kernel names them."""
    rows = Path("/proc/cpuinfo").read_text().splitlines()
    return next(row.partition(":")[2].split() for row in rows if row.startswith("flags"))


def wait(process: subprocess.Popen[bytes], until: str) -> list[str]:
    """Copy the output to the console until it has a text, or the image has ended.

    Args:
        process: the image.
        until: the text.

    Returns:
        The lines so far.
    """
    shown = 0
    while True:
        ended = process.poll() is not None
        text = LOG.read_text(errors="replace")
        sys.stdout.write(text[shown:])
        sys.stdout.flush()
        shown = len(text)
        if ended or until in text:
            return text.splitlines()
        time.sleep(0.5)


def status(outer: int) -> dict[str, str]:
    """Return what the kernel says of the process that is PID 1 of the image.

    Args:
        outer: PID of ``unshare``, its parent.
    """
    children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
    rows = Path(f"/proc/{children[0]}/status").read_text().splitlines() if children else []
    return {name: value.strip() for name, _, value in (row.partition(":") for row in rows)}


def ask(request: dict[str, Any]) -> str:
    """Return the text of a chat completion."""
    asked = urllib.request.Request(
        request["url"], json.dumps(request["body"]).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=1200) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def events(path: Path) -> list[dict[str, Any]]:
    """Return the timeline's events; a line that is not yet complete is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


if __name__ == "__main__":
    main()
