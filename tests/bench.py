"""``make bench``: time starts of the demo's image, tiers interleaved, the page cache warm and cold.

Prints medians, spread and the ratio to plain from one interleaved run; nothing else here may claim a speed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path

import docker
from platformdirs import user_cache_path
from rich.table import Table
from warmimage import timeline
from warmimage.console import console, note

from tests.demo import TAG, build
from tests.support.images import completion, container, wait_for_event, wait_ready
from tests.support.tiny_model import make_tiny_model

ARMS = {
    "plain": {"WARMIMAGE_START": "plain", "WARMIMAGE_PREFETCH": "off"},
    "prefetch": {"WARMIMAGE_START": "plain"},
    "preload": {"WARMIMAGE_START": "preload"},
}


def start(client: docker.DockerClient, image: str, arm: str, model: Path, arguments: list[str]) -> tuple[float, str]:
    """Start once, and return the seconds from the container's creation to ready, and the completion."""
    with container(client, image, arguments, model, environment=ARMS[arm], shm_size="1g") as made:
        port = wait_ready(made)
        wait_for_event(made, "ready")
        text = completion(port, model.name)
        return sum(phase.seconds for phase in timeline.phases(timeline.fetch(made), timeline.created(made))), text


def main() -> int:
    """Run the arms in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=5, help="runs of each arm in each state")
    parser.add_argument("--image", default=TAG)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--state", default="warm,cold")
    parser.add_argument("arguments", nargs="*", help="engine arguments")
    options = parser.parse_args()
    model = make_tiny_model(user_cache_path("warmimage") / "demo" / "tiny-qwen2")
    if options.image == TAG:
        build(model)
    client = docker.from_env()
    table = Table("state", "arm", "median s", "min s", "max s", "plain / arm")
    for state in options.state.split(","):
        arms = options.arms.split(",")
        runs: dict[str, list[float]] = {arm: [] for arm in arms}
        texts = set()
        for number in range(options.n + 1):
            for arm in arms[number % len(arms) :] + arms[: number % len(arms)]:
                if state == "cold":
                    os.sync()
                    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
                seconds, text = start(client, options.image, arm, model, options.arguments)
                texts.add(text)
                if number:  # the first round warms up
                    runs[arm].append(seconds)
                note(f"{state} {arm} {seconds:.2f} s" + ("" if number else " (discarded)"))
        assert len(texts) == 1, f"completions differ between arms: {texts}"
        for arm, seconds_of_arm in runs.items():
            median = statistics.median(seconds_of_arm)
            ratio = statistics.median(runs["plain"]) / median
            table.add_row(
                state, arm, f"{median:.2f}", f"{min(seconds_of_arm):.2f}", f"{max(seconds_of_arm):.2f}", f"{ratio:.3f}"
            )
    console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
