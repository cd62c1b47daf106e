"""Start vLLM again and again on a busy machine, stop each at a random moment, and see what hangs or stays behind.

``python -m benchmarks.stress.zygote_starts -n 200 --output zygote-starts.json`` for tier ``zygote``, then with
``--tier plain`` to see what vLLM itself does.  Each start runs below a witness (``witness.py``) as PID 1.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from warmimage import timeline

from tests.support.images import container, wait_for_event
from tests.support.tiny_model import make_tiny_model

WITNESS = Path(__file__).parent / "witness.py"

#: Seconds after which a stopped server counts as hung, on a machine that does nothing else of weight.
PATIENCE = 15.0

#: How a server that was asked to stop may end: by its own shutdown, by the ``KeyboardInterrupt`` that vLLM's handler
#: raises while the server comes up, or by SIGTERM where there is no handler yet (of PID 1's program, -15).
EXPECTED_CODES = (0, 130, 143, -15)

#: While its API server waits for its engine core, vLLM 0.32 loses the signal, in tier plain as well: its handler raises
#: ``KeyboardInterrupt`` there, which comes to nothing.  The server becomes ready, and ends when it is asked again.
LOSING_PHASES = ("3 API server", "4 its processes start")

#: Starts that are stopped, between two whole ones that are timed.
SERIES = 10

_MARK = "witness: "

#: How the names of the processes begin that vLLM starts by ``multiprocessing``, in events of the supervisor.
_CHILDREN = ("spawned child", "VLLM::")

Start = dict[str, Any]


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Keep processors busy while the block runs."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def witnessed(
    client: docker.DockerClient, image: str, tier: str, model: Path, delay: float, event: str, patience: float
) -> Start:
    """Start once, stop ``delay`` seconds after an event or the start, and return what was seen, with the phase met."""
    config = client.images.get(image).attrs["Config"]
    python, *rest = config["Entrypoint"]
    words = {
        "entrypoint": python,
        "shm_size": "1g",
        "environment": {"WARMIMAGE_START": tier},
        "ports": {},
        "volumes": {
            str(model): {"bind": "/model", "mode": "ro"},
            str(WITNESS): {"bind": "/witness.py", "mode": "ro"},
        },
    }
    arguments = ["/witness.py", str(delay), event, str(patience), python, *rest]
    with container(client, image, arguments, **words) as made:
        made.wait(timeout=600)
        log = made.logs(stderr=True).decode(errors="replace")
        events = timeline.fetch(made)
    lines = log.splitlines()
    (said,) = [line for line in lines if line.startswith(_MARK)]
    seen: Start = json.loads(said.removeprefix(_MARK))
    server = [line for line in lines if not line.startswith(_MARK)]
    first = seen.pop("first")
    lost = seen.pop("stopped") > first
    ready = timeline.find(events, "ready")
    return {
        "delay": round(delay, 3),
        "ready": ready[0]["seconds"] if ready else None,
        "phase": phase(events, first),
        "lost": lost,
        **seen,
        "tail": server[-4:],
        "forked": len(timeline.find(events, "zygote.forked")),
        "passed": [event["reason"] for event in timeline.find(events, "zygote.fallback")],
        "declined": [event["reason"] for event in timeline.find(events, "tier.declined")],
    }


def phase(events: Sequence[timeline.Event], moment: float) -> str:
    """Return how far a start had come at a moment of the monotonic clock."""
    before = [event for event in events if event["t"] <= moment]
    names = {event["event"] for event in before}
    if "ready" in names:
        return "5 ready"
    if "child.entered" in names or any(str(event.get("name")).startswith(_CHILDREN) for event in before):
        return "4 its processes start"
    return "3 API server" if "engine.entered" in names else "2 import" if "tier.started" in names else "1 PID 1"


def faults(start: Start) -> list[str]:
    """Return what must not be, in words."""
    found = []
    if start["hung"]:
        found.append(f"not ended {start['seconds_to_end']:.0f} s after SIGTERM")
    elif start["code"] not in EXPECTED_CODES:
        found.append(f"exit code {start['code']}")
    if start["lost"] and start["phase"] not in LOSING_PHASES:
        found.append("a lost signal")
    for name in ("orphans", "zombies", "shared_memory", "passed", "declined"):
        if start[name]:
            found.append(f"{name}: {start[name]}")
    return found


def summary(starts: Sequence[Start], **more: object) -> dict[str, Any]:
    """Return the counts of a series of starts, with those in full that have a fault."""
    codes: dict[str, collections.Counter[str]] = {}
    for start in starts:
        code = "hung" if start["hung"] else f"{start['code']}{' (second SIGTERM)' if start['lost'] else ''}"
        codes.setdefault(start["phase"], collections.Counter())[code] += 1
    ends = sorted(start["seconds_to_end"] for start in starts if start["seconds_to_end"] is not None)
    lefts = sorted(start["left_seconds"] for start in starts if start["left"])
    return {
        **more,
        "starts": len(starts),
        "codes_by_phase": {name: dict(sorted(counter.items())) for name, counter in sorted(codes.items())},
        "seconds_to_end": {"median": ends[len(ends) // 2], "p95": ends[int(len(ends) * 0.95)], "most": ends[-1]},
        "lost_signals": sum(start["lost"] for start in starts),
        "hung": sum(bool(start["hung"]) for start in starts),
        "with_orphans": sum(bool(start["orphans"]) for start in starts),
        "with_zombies": sum(bool(start["zombies"]) for start in starts),
        "with_leaked_shared_memory": sum(bool(start["shared_memory"]) for start in starts),
        "outlived_the_server": {"starts": len(lefts), "most_seconds": lefts[-1] if lefts else 0.0},
        "faults": [{"faults": faults(start), **start} for start in starts if faults(start)],
    }


def start_seconds(client: docker.DockerClient, image: str, tier: str, model: Path, event: str = "") -> float:
    """Return how long one start takes here, from an event or its begin, in seconds."""
    with container(client, image, model=model, shm_size="1g", environment={"WARMIMAGE_START": tier}) as made:
        events = wait_for_event(made, "ready", 600)
    (ready,) = timeline.find(events, "ready")
    return float(ready["t"] - timeline.find(events, event or "started")[0]["t"])


def run(
    client: docker.DockerClient,
    image: str,
    model: Path,
    *,
    n: int,
    tier: str,
    seed: int,
    at_once: int,
    busy: int,
    event: str = "",
    patience: float = PATIENCE,
    log: Path | None = None,
) -> dict[str, Any]:
    """Do the whole series and return its summary."""
    chance = random.Random(seed)  # noqa: S311
    starts: list[Start] = []
    whole: list[float] = []

    def once(delay: float) -> None:
        start = witnessed(client, image, tier, model, delay, event, patience)
        starts.append(start)
        if log:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(start) + "\n")
        what = f"{start['phase']:22} stop after {start['delay']:6.2f} s, code {start['code']}{' lost' * start['lost']}"
        how = f"{start['seconds_to_end']} s later {'; '.join(faults(start))}"
        print(f"{len(starts):4} {what} {how}", file=sys.stderr, flush=True)

    began = time.monotonic()
    with load(busy), ThreadPoolExecutor(at_once) as pool:
        for first in range(0, n, SERIES):
            # Timed anew, as many at a time, for what else the machine does makes a start longer and shorter.
            whole += pool.map(lambda _: start_seconds(client, image, tier, model, event), range(at_once))
            length = statistics.mean(whole[-at_once:])
            list(pool.map(once, [chance.uniform(0, 1.2 * length) for _ in range(min(SERIES, n - first))]))
    return summary(
        starts,
        tier=tier,
        after=event or "start",
        seed=seed,
        start_seconds=round(statistics.median(whole), 2),
        busy_loops=busy,
        at_once=at_once,
        seconds=round(time.monotonic() - began),
    )


def main() -> int:
    """Run from the command line; the exit code is 1 when there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=200, help="starts (default: 200)")
    parser.add_argument("--image", default="warmimage-test/vllm:1", help="as the tests build it")
    parser.add_argument("--tier", default="zygote", choices=("zygote", "preload", "plain"))
    parser.add_argument("--seed", type=int, default=1, help="of the random moments")
    parser.add_argument("--at-once", type=int, default=1, help="containers at a time (default: 1)")
    parser.add_argument("--busy", type=int, default=1, help="busy loops beside (default: 1)")
    parser.add_argument("--after", default="", help="event of the timeline from which moments count (default: start)")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds until one hangs (default: 15)")
    parser.add_argument("--log", type=Path, help="file to add each start to as a line of JSON")
    parser.add_argument("--output", type=Path, help="file for the summary (default: standard output)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_tiny_model(Path(folder) / "tiny-qwen2")
        Path(folder).chmod(0o755)
        found = run(
            docker.from_env(timeout=600),
            asked.image,
            model,
            n=asked.n,
            tier=asked.tier,
            seed=asked.seed,
            at_once=asked.at_once,
            busy=asked.busy,
            event=asked.after,
            patience=asked.patience,
            log=asked.log,
        )
    text = json.dumps(found, indent=1)
    if asked.output:
        asked.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
