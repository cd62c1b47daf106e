"""Start an image again and again, two at a time and under load: does each server come up, in which tier, and why?

``python -m benchmarks.stress.restores IMAGE -n 1000 --at-once 2 --model DIR --output starts.jsonl``.  Nothing is
granted to the containers.  Each start is a line of JSON as it ends; the summary is the last line.  The exit code is 1
when a start did not serve, answered otherwise than the others, or was not restored without saying why.
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import docker
from warmimage import timeline

from tests.support.images import completion, container, wait_for_event, wait_ready

#: What a container is started with: no capability, and no way to one.  One OpenMP thread, because several in each of
#: several servers wait for each other on a loaded machine: 18 s a completion in place of 0.2 s.
NOTHING = {
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "shm_size": "1g",
    "environment": {"OMP_NUM_THREADS": "1"},
}

FIRST = "snapshot"


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Keep processors busy while the block runs.

    Args:
        processes: how many.
    """
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def once(client: docker.DockerClient, asked: argparse.Namespace) -> dict[str, Any]:
    """Start one server, ask it for a completion, and return what became of it."""
    try:
        with container(client, asked.image, asked.arguments, model=asked.model, **NOTHING) as running:
            text = completion(wait_ready(running), asked.served)
            events = wait_for_event(running, "ready")
    except (AssertionError, OSError, LookupError, ValueError, docker.errors.DockerException) as error:
        return {"tier": "none", "reasons": [f"{type(error).__name__}: {str(error)[-800:]}"]}
    (ready,) = timeline.find(events, "ready")
    restored = timeline.find(events, "snapshot.restored")
    reasons = [event["reason"] for name in ("tier.declined", "tier.failed") for event in timeline.find(events, name)]
    return {
        "tier": ready["tier"],
        "seconds": ready["seconds"],
        "completion": text,
        "reasons": reasons,
        "restore_seconds": restored[0]["seconds"] if restored else None,
        "odd": sorted({event["event"] for event in events if event["event"].endswith((".failed", ".passed"))}),
    }


def summary(starts: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Return what a series has come to.

    Args:
        starts: as ``once`` returned them.
        seconds: how long all of them took.
    """
    restores = sorted(start["restore_seconds"] for start in starts if start.get("restore_seconds") is not None)
    ready = [start["seconds"] for start in starts if "seconds" in start]
    return {
        "starts": len(starts),
        "took_seconds": round(seconds),
        "tiers": collections.Counter(start["tier"] for start in starts),
        "reasons": collections.Counter(reason for start in starts for reason in start["reasons"]),
        "odd": collections.Counter(name for start in starts for name in start.get("odd", ())),
        "silent": sum(start["tier"] != FIRST and not start["reasons"] for start in starts),
        "completions": len({start["completion"] for start in starts if "completion" in start}),
        "ready_seconds": round(statistics.median(ready), 3) if ready else None,
        "restore_seconds": {"median": statistics.median(restores), "most": restores[-1]} if restores else None,
    }


def is_good(found: dict[str, Any]) -> bool:
    """Return whether each start of a summary has served the same, and said why where it was not restored."""
    return not found["tiers"]["none"] and found["completions"] == 1 and not found["silent"]


def run(asked: argparse.Namespace, output: TextIO) -> dict[str, Any]:
    """Do the whole series, write a line for each start, and return the summary."""
    client = docker.from_env(timeout=600)
    began = time.monotonic()
    starts = []
    with load(asked.load), ThreadPoolExecutor(asked.at_once) as pool:
        pending = [pool.submit(once, client, asked) for _ in range(asked.n)]
        for done in as_completed(pending):
            starts.append(done.result())
            print(json.dumps(starts[-1]), file=output, flush=True)
    return summary(starts, time.monotonic() - began)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("arguments", nargs="*", help="the engine's own, behind --")
    parser.add_argument("-n", type=int, default=1000, help="starts (default: 1000)")
    parser.add_argument("--at-once", type=int, default=2, help="containers at a time (default: 2)")
    parser.add_argument("--load", type=int, default=1, help="busy processes beside them (default: 1)")
    parser.add_argument("--model", type=lambda text: Path(text).absolute(), help="mounted at /model")
    parser.add_argument("--served", default="tiny-qwen2", help="what the server calls the model (default: tiny-qwen2)")
    parser.add_argument("--output", type=Path, help="file for the lines (default: standard output)")
    asked = parser.parse_args()
    with asked.output.open("w", encoding="utf-8") if asked.output else open(1, "w", closefd=False) as output:
        found = run(asked, output)
        print(json.dumps(found), file=output)
    if asked.output:
        print(json.dumps(found, indent=1))
    return 0 if is_good(found) else 1


if __name__ == "__main__":
    sys.exit(main())
