"""How much memory do several replicas of an image take at once on one machine, in one tier?

``python -m benchmarks.stress.replicas IMAGE --model DIR -n 4 --start snapshot``.  Starts the replicas one after the
other, has each serve a completion, and adds up the proportional set sizes (PSS) of all their processes: of a page that
several processes share, each has its share.  Needs root on the daemon's own machine, for the kernel shows another
user's memory to root alone.  The result is one line of JSON, in MiB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from tests.support.images import completion, container, wait_ready
from tests.support.snapshots import wait_for_line

#: Rows of ``smaps_rollup`` that are added up, and what the result calls them.
KINDS = {
    "Pss": "pss",
    "Pss_Anon": "pss_anonymous",
    "Pss_File": "pss_file",
    "Pss_Shmem": "pss_shared",
    "Rss": "rss",
    "Private_Dirty": "private_dirty",
}

_MIB = 1024.0


def descendants(pid: int) -> Iterator[int]:
    """Yield a process of this machine and all below it.

    Args:
        pid: the first one's.
    """
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text(encoding="ascii").split():
                yield from descendants(int(child))


def memory(pid: int) -> dict[str, float]:
    """Return what one process has in memory, in MiB; nothing if it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    rows = dict(re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE))
    return {name: int(rows.get(row, 0)) / _MIB for row, name in KINDS.items()}


def measure(replicas: list[Container]) -> dict[str, Any]:
    """Return the sums over all processes of some containers, and those of each container, in MiB."""
    each: list[dict[str, float]] = []
    for running in replicas:
        running.reload()
        found = [memory(pid) for pid in descendants(running.attrs["State"]["Pid"])]
        each.append({name: sum(process.get(name, 0) for process in found) for name in KINDS.values()})
        each[-1]["processes"] = len([process for process in found if process])
    total = {name: round(sum(replica[name] for replica in each), 1) for name in KINDS.values()}
    return {"total": total, "each": [{name: round(value, 1) for name, value in one.items()} for one in each]}


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Start the replicas, have each serve, measure, and return the result.

    Raises:
        AssertionError: one has not become ready, or not in the tier.
    """
    client = docker.from_env(timeout=600)
    words: dict[str, Any] = {
        "model": asked.model,
        "environment": {"WARMIMAGE_START": asked.start},
        "cap_drop": ["ALL"],
        "cap_add": asked.cap_add,
        "shm_size": "1g",
    }
    with contextlib.ExitStack() as stack:
        texts: set[str] = set()
        replicas: list[Container] = []
        for _ in range(asked.n):
            running = stack.enter_context(container(client, asked.image, asked.arguments, **words))
            tier, _ = wait_for_line(running, 600)
            assert tier == asked.start, running.logs().decode()[-4000:]
            replicas.append(running)
            texts.add(completion(wait_ready(running, 600), asked.served))
        assert len(texts) == 1, texts
        time.sleep(asked.settle)
        return {"image": asked.image, "start": asked.start, "n": asked.n, **measure(replicas)}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("arguments", nargs="*", help="the engine's own, behind --")
    parser.add_argument("-n", type=int, default=4, help="replicas (default: 4)")
    parser.add_argument("--start", default="snapshot", help="the tier (default: snapshot)")
    parser.add_argument("--cap-add", action="append", default=[], help="a capability, for an image that needs one")
    parser.add_argument("--model", type=lambda text: Path(text).absolute(), help="mounted at /model")
    parser.add_argument("--served", default="tiny-qwen2", help="what the server calls the model (default: tiny-qwen2)")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds before measuring (default: 3)")
    print(json.dumps(run(parser.parse_args())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
