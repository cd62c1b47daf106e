"""``make demo``: build an image for a small real model, run it in both tiers, show the answer and the timelines."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import docker
from platformdirs import user_cache_path
from rich.table import Table
from warmimage import timeline
from warmimage.console import console, note

from tests.support.images import COMMAND, completion, port_of, warmimage
from tests.support.tiny_model import make_tiny_model

TAG = "warmimage-demo:1"

#: The engine as it is, against all that the image can do.
ARMS = {
    "plain": ("--start", "plain", "--env", "WARMIMAGE_PREFETCH=off"),
    "warm": ("--start", "auto"),
}


def main() -> int:
    """Run the demo."""
    model = make_tiny_model(user_cache_path("warmimage") / "demo" / "tiny-qwen2")
    note(f"model: {model}")
    build(model)
    client = docker.from_env()
    runs = {}
    answers = {}
    for arm, options in ARMS.items():
        note(f"starting {TAG}, {arm}")
        done = warmimage("run", TAG, "--model", str(model), "--port", "0", "--detach", *options)
        container = client.containers.get(done.stdout.strip())
        try:
            answers[arm] = completion(port_of(container), "tiny-qwen2")
            runs[arm] = timeline.phases(timeline.fetch(container), timeline.created(container))
        finally:
            container.stop()
            container.remove()
    print(answers["warm"])
    assert answers["plain"] == answers["warm"], answers
    show(runs)
    note("One start of each shows where the time goes; `make bench` measures, with the tiers interleaved.")
    return 0


def build(model: Path) -> None:
    """Build the image with the command, its output shown; in a folder of its own, where no lock of another day lies."""
    command = [
        COMMAND,
        "build",
        "--model",
        str(model),
        "--engine",
        "transformers",
        "--accelerator",
        "cpu",
        "--tag",
        TAG,
    ]
    note(f"$ {' '.join(command)}")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command, check=True, cwd=folder, stdout=sys.stderr)


def show(runs: dict[str, list[timeline.Phase]]) -> None:
    """Print the phases of both arms side by side, with a bar for each."""
    table = Table("phase", *runs, "what it is", title="start-up timeline, seconds")
    names = list(dict.fromkeys(phase.name for phases in runs.values() for phase in phases))
    meanings = {phase.name: phase.meaning for phases in runs.values() for phase in phases}
    longest = max(phase.seconds for phases in runs.values() for phase in phases)
    for name in names:
        cells = []
        for phases in runs.values():
            seconds = sum(phase.seconds for phase in phases if phase.name == name)
            cells.append(f"{seconds:5.2f} " + "█" * round(12 * seconds / longest))
        table.add_row(name, *cells, meanings[name])
    table.add_section()
    table.add_row("total", *(f"{sum(phase.seconds for phase in phases):5.2f}" for phases in runs.values()), "")
    console().print(table)


if __name__ == "__main__":
    sys.exit(main())
