"""Import of an image's closure in tier ``zygote`` against ``python -c`` of the same modules, in turn, page cache warm.

``python -m benchmarks.imports IMAGE [-n RUNS]``
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import docker
from warmimage.bench.statistics import ratio_of_medians, spread

from benchmarks import import_rounds
from tests.support.images import warmimage

ARMS = ("python -c", "zygote")


def measure(image: str, runs: int) -> list[dict[str, float | str]]:
    """Return the rows of ``import_rounds``, from one container of the image."""
    python = json.loads(warmimage("inspect", image, "--json").stdout)["plan"]["python"]
    source = Path(import_rounds.__file__).read_text(encoding="utf-8")
    output = docker.from_env().containers.run(
        image,
        [str(runs)],
        entrypoint=[python, "-c", source],
        environment={"WARMIMAGE_TIMELINE": ""},
        network_mode="none",
        remove=True,
    )
    return [json.loads(row) for row in output.splitlines() if row.startswith(b'{"arm"')]


def show(rows: list[dict[str, float | str]]) -> str:
    """Return a Markdown table of the arms, and a line for each of the two ratios."""
    lines = ["| imports | runs | median s | fastest | slowest | CPU s | modules |", "| --- " * 7 + "|"]
    values = {arm: [row for row in rows if row["arm"] == arm] for arm in ARMS}
    for arm, found in values.items():
        wall = spread([float(row["seconds"]) for row in found])
        cpu = spread([float(row["cpu_seconds"]) for row in found])
        lines.append(
            f"| `{arm}` | {wall.runs} | {wall.median:.2f} | {wall.minimum:.2f} | {wall.maximum:.2f} "
            f"| {cpu.median:.2f} | {found[0]['modules']} |"
        )
    for what, key in (("time", "seconds"), ("CPU time", "cpu_seconds")):
        plain, zygote = ([float(row[key]) for row in values[arm]] for arm in ARMS)
        ratio = ratio_of_medians(plain, zygote)
        interval = "" if ratio.low is None or ratio.high is None else f" (95 %: {ratio.low:.2f} to {ratio.high:.2f})"
        lines.append(f"\nratio of {what}, `{ARMS[0]}` to `{ARMS[1]}`: {ratio.ratio:.2f}{interval}")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", help="an image that warmimage built, with tier zygote")
    parser.add_argument("-n", type=int, default=7, help="runs of each")
    options = parser.parse_args()
    print(show(measure(options.image, options.n)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
