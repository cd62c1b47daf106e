"""Restore a snapshot again and again, two at a time, and see whether each server comes up, in which tier, and why.

``python -m tests.stress.restores -n 500 --output restores.json``.
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
from warmimage import containers, timeline

from tests.support.images import completion, container, wait_for_event, wait_ready
from tests.support.tiny_model import make_tiny_model


def once(client: docker.DockerClient, image: str, model: Path, served: str, capability: str) -> dict[str, Any]:
    """Start one server, ask it for a completion, and return what became of it."""
    words = {"cap_drop": ["ALL"], "cap_add": [capability], "shm_size": "1g"}
    with container(client, image, model=model, **words) as running:
        port = wait_ready(running)
        text = completion(port, served)
        events = wait_for_event(running, "ready")
        (ready,) = timeline.find(events, "ready")
        restored = timeline.find(events, "snapshot.restored")
        return {
            "tier": ready["tier"], "seconds": ready["seconds"], "completion": text,
            "restore_seconds": restored[0]["seconds"] if restored else None,
            "declined": [event["reason"] for event in timeline.find(events, "tier.declined")],
            "failed": [event["reason"] for event in timeline.find(events, "tier.failed")],
            "odd": sorted({event["event"] for event in events if event["event"].endswith((".failed", ".passed"))}),
        }  # fmt: skip


def run(client: docker.DockerClient, image: str, model: Path, *, n: int, at_once: int, served: str) -> dict[str, Any]:
    """Do the whole series and return its summary."""
    capability = containers.restore_capability(client)
    began = time.monotonic()
    starts: list[dict[str, Any]] = []

    def start(_number: int) -> None:
        try:
            starts.append(once(client, image, model, served, capability))
        except AssertionError as error:
            starts.append({"tier": "none", "declined": [str(error)[-500:]], "failed": [], "odd": []})
        found = starts[-1]
        if found["tier"] != "snapshot" or found["odd"] or len(starts) % 50 == 0:
            print(len(starts), {**found, "completion": ""}, file=sys.stderr, flush=True)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(start, range(n)))
    restores = sorted(found["restore_seconds"] for found in starts if found.get("restore_seconds"))
    return {
        "image": image, "at_once": at_once, "starts": len(starts), "seconds": round(time.monotonic() - began),
        "tiers": dict(collections.Counter(found["tier"] for found in starts)),
        "reasons": dict(collections.Counter(reason for found in starts for reason in found["declined"])),
        "failed": dict(collections.Counter(reason for found in starts for reason in found["failed"])),
        "odd": dict(collections.Counter(name for found in starts for name in found["odd"])),
        "completions": len({found.get("completion") for found in starts}),
        "ready_seconds": round(statistics.median(found["seconds"] for found in starts if "seconds" in found), 3),
        "restore_seconds": {"median": restores[len(restores) // 2], "most": restores[-1]} if restores else {},
    }  # fmt: skip


def main() -> int:
    """Run from the command line; the exit code is 1 when a start was not a restore."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=500, help="starts (default: 500)")
    parser.add_argument("--image", default="warmimage-test/snapshot:1", help="as the tests build it")
    parser.add_argument("--served", default="tiny-qwen2", help="what the server calls the model")
    parser.add_argument("--at-once", type=int, default=2, help="containers at a time (default: 2)")
    parser.add_argument("--output", type=Path, help="file for the summary (default: standard output alone)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        model = make_tiny_model(Path(folder) / "tiny-qwen2")
        client = docker.from_env(timeout=600)
        found = run(client, asked.image, model, n=asked.n, at_once=asked.at_once, served=asked.served)
    text = json.dumps(found, indent=1)
    if asked.output:
        asked.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if found["tiers"] == {"snapshot": asked.n} and found["completions"] == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
