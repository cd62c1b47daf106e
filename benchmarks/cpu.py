"""``make bench``: run ``warmimage bench`` on the demo's image and on one of vLLM for CPU, and keep what it finds.

Results and reports go to ``results/``; with ``--commit`` the results go, without their timelines, to
``docs/measurements/bench/``, from which ``make docs`` writes docs/benchmarks.md and the figures in README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import docker
from platformdirs import user_cache_path
from warmimage.bench.result import load
from warmimage.console import note
from warmimage.files import write_whole

from benchmarks import demo
from tests.docs.benchmarks import RESULTS
from tests.images import vllm_cpu
from tests.support.images import COMMAND, warmimage
from tests.support.tiny_model import make_tiny_model

VLLM_TAG = "warmimage-demo/vllm-cpu:1"

ENGINES = ("transformers", "vllm")

#: With these, vLLM starts on any CPU; they are the image's own, so that its build can record a start.
VLLM_CONFIGURATION = """
model: {model}
engine: vllm
accelerator: cpu
base_image: {base}
args: [--dtype, float32, --max-model-len, "512", --enforce-eager]
tags: [{tag}]
record: require
"""


def image_of(engine: str, model: Path) -> str:
    """Build an engine's image with the command, and return its reference."""
    if engine == "transformers":
        demo.build(model)
        return demo.TAG
    base = vllm_cpu.build(docker.from_env())
    note(f"building {VLLM_TAG}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "warmimage.yaml")
        file.write_text(VLLM_CONFIGURATION.format(model=model, base=base, tag=VLLM_TAG), encoding="utf-8")
        warmimage("build", "--file", str(file))
    return VLLM_TAG


def arms_of(image: str) -> str:
    """Return the arms: every optimisation off, then each tier of the image that does something, the slowest first."""
    tiers = json.loads(warmimage("inspect", image, "--json").stdout)["plan"]["tiers"]
    return ",".join(["plain+WARMIMAGE_PREFETCH=off", *(tier for tier in reversed(tiers) if tier != "plain")])


def main() -> int:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=5, help="runs of each arm in each state")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--arms", help="in place of every tier of the image")
    parser.add_argument("--state", default="warm,cold")
    parser.add_argument("--hidden", type=int, default=256, help="hidden size of the model: 1536 with 40 layers is 2 GB")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--output-dir", type=Path, default=Path("results"))
    parser.add_argument("--commit", action="store_true", help="keep the results in docs/measurements/bench")
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    name = "tiny-qwen2" if options.hidden == 256 else f"qwen2-{options.hidden}x{options.layers}"
    model = make_tiny_model(user_cache_path("warmimage") / "demo" / name, hidden=options.hidden, layers=options.layers)
    for engine in options.engines.split(","):
        image = image_of(engine, model)
        stem = options.output_dir / f"{engine}-cpu-{name}"
        words = [
            COMMAND,
            "bench",
            image,
            "--model",
            str(model),
            "--arms",
            options.arms or arms_of(image),
            "-n",
            str(options.n),
            "--state",
            options.state,
            "--output",
            f"{stem}.json",
            "--report",
            f"{stem}.html",
        ]
        subprocess.run(words, check=True)
        if options.commit:
            kept = RESULTS / f"{stem.name}.json"
            write_whole(kept, load(Path(f"{stem}.json")).without_events().model_dump_json() + "\n")
            note(f"{kept} is written; make docs shows it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
