"""One start, measured: from the container's first process to the first token."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmimage import server_client, timeline
from warmimage.entrypoint.startup.compile_caches import directories
from warmimage.plan import Plan

from . import load, machine
from .image import CONTAINER, NAME, ROOT, TIMELINE, Engine, serve

#: What vLLM says of itself that two arms must agree on, or that tells what a start did.
FIGURES = {
    "weights": re.compile(r"Model loading took ([\d.]+) GiB"),
    "weights_seconds": re.compile(r"Loading weights took ([\d.]+) seconds"),
    "kv_cache_memory": re.compile(r"Available KV cache memory: ([\d.]+) GiB"),
    "kv_cache_tokens": re.compile(r"GPU KV cache size: ([\d,]+) tokens"),
    "graphs_memory": re.compile(r"Graph capturing finished in [\d.]+ secs, took ([-\d.]+) GiB"),
    "graphs_seconds": re.compile(r"Graph capturing finished in ([\d.]+) secs"),
    "init_seconds": re.compile(r"init engine .* took ([\d.]+) s"),
    "compile_seconds": re.compile(r"torch\.compile (?:and initial profiling/warmup run together )?took ([\d.]+) s"),
    "attention": re.compile(r"Using (\w+) (?:attention )?backend"),
}

#: What vLLM says when it has taken compiled code from a cache.
HIT = re.compile(r"Directly load (?:AOT compilation|the compiled graph)")

#: Where an engine without bytecode writes its own, beside that of the image, which it does not see then.
_BYTECODE = Path("/run/own-bytecode")

#: Names of the processes in which kernels are compiled.
_COMPILERS = ("cc1", "ptxas", "cicc", "nvcc", "ninja")

#: Seconds that a start may take.
PATIENCE = 170.0


@dataclass(frozen=True)
class Arm:
    """A way to start.

    Attributes:
        tier: the rung to begin with; ``own`` for ``plain`` as the engine's own image has it: no bytecode beforehand.
        caches: compile caches: ``empty``; ``warm``, where a start before has left them; ``baked``, in the image.
        pages: page cache: ``cold`` is dropped, ``warm`` has at least the model.
        variables: of the container.
        load: seconds of load after the first token, 0 for none.
    """

    tier: str
    caches: str
    pages: str
    variables: tuple[tuple[str, str], ...] = ()
    load: float = 0.0

    @property
    def name(self) -> str:
        """Its name in the results."""
        return "-".join((self.tier, self.caches, self.pages))

    @classmethod
    def parse(cls, text: str) -> Arm:
        """Read ``TIER/CACHES/PAGES``, with ``+VARIABLE=VALUE`` and ``@SECONDS`` of load behind it.

        Raises:
            ValueError: it is none.
        """
        text, _, seconds = text.partition("@")
        head, *variables = text.split("+")
        tier, caches, pages = head.split("/")
        if caches not in ("empty", "warm", "baked") or pages not in ("cold", "warm"):
            raise ValueError(f"no arm: {text}")
        pairs = tuple((name, value) for name, _, value in (each.partition("=") for each in variables))
        return cls(tier, caches, pages, pairs, float(seconds or 0))

    def environment(self) -> dict[str, str]:
        """Return the container's variables; in ``plain`` every optimisation is off."""
        caches = "on" if self.caches == "baked" else "off"
        plain = {"WARMIMAGE_PREFETCH": "off"} if self.tier in ("plain", "own") else {}
        own = {"PYTHONPYCACHEPREFIX": str(_BYTECODE)} if self.tier == "own" else {}
        tier = "plain" if self.tier == "own" else self.tier
        return {"WARMIMAGE_START": tier, "WARMIMAGE_CACHES": caches, **plain, **own, **dict(self.variables)}


def start(arm: Arm, plan: Plan, engine: Engine, model: Path, output: Path) -> dict[str, Any]:
    """Start an arm once, ask it, end it, and return what was seen.

    Args:
        arm: how.
        plan: the image's.
        engine: where it is.
        model: the model's folder.
        output: gets ``timeline.jsonl`` and ``log.txt``, of which each line begins with the seconds since the start.
    """
    serve(model)
    freed = machine.wait_free() if engine.accelerator == "cuda" else 0.0
    variables = {**engine.environment(), **plan.environment, **arm.environment()}
    _set_caches(arm, plan, variables)
    shutil.rmtree(_BYTECODE, ignore_errors=True)
    if arm.pages == "cold":
        machine.drop_page_cache()
    else:
        _read(model)
    output.mkdir(parents=True, exist_ok=True)
    command = [*CONTAINER, engine.python, "-I", "-S", str(ROOT / "entrypoint")]
    address = ("127.0.0.1", plan.engine.port)
    began = time.monotonic()
    process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    log = _Log(process, output / "log.txt", began)
    found: dict[str, Any] = {
        "arm": arm.name,
        "model": model.name,
        "wall": time.time(),
        "freed_seconds": round(freed, 2),
    }
    try:
        ready = server_client.wait_healthy(address, plan.engine.health_path, began + PATIENCE, lambda: _alive(process))
        found["ready"] = round(ready - began, 3)
        answer = server_client.first_token(address, NAME, began + PATIENCE)
        found |= {
            "first_token": round(answer.first_token - began, 3),
            "completion": answer.text[:60],
            "completion_sha256": hashlib.sha256(answer.text.encode()).hexdigest(),
            "gpu_memory": machine.used_memory(),
        }
        _wait_reported(time.monotonic() + 5)
        if arm.load:
            found["load"] = load.steady(address, NAME, arm.load)
    except Exception as error:  # a run that failed is a result
        found["error"] = f"{type(error).__name__}: {error}"[:600]
    finally:
        _end(process)
        log.join()
    events = timeline.parse(TIMELINE.read_text().splitlines()) if TIMELINE.exists() else []
    if TIMELINE.exists():
        shutil.copyfile(TIMELINE, output / "timeline.jsonl")
    found["said"] = log.figures()
    found |= _of(events)
    if "error" in found:
        found["tail"] = log.lines[-25:]
    (output / "run.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def _of(events: list[timeline.Event]) -> dict[str, Any]:
    """Return what a timeline says of how a start went."""
    up = timeline.find(events, "ready")
    later = [row for event in timeline.find(events, "imports") for row in event["modules"] if row[4] == 0]
    return {
        "tier": up[-1]["tier"] if up else None,
        "declined": [f"{event['tier']}: {event['reason']}" for event in timeline.find(events, "tier.declined")],
        "passed": [event["reason"] for event in timeline.find(events, "zygote.fallback")],
        "forked": [event["target"] for event in timeline.find(events, "zygote.forked")],
        "caches": [
            {key: event.get(key) for key in ("event", "files", "bytes", "seconds", "present", "reason") if key in event}
            for event in events
            if event["event"].startswith("caches.")
        ],
        "prefetch": [
            {key: event[key] for key in ("target", "read_bytes", "seconds", "reason")}
            for event in timeline.find(events, "prefetch.ended")
        ],
        "compilers": sum(event["name"] in _COMPILERS for event in timeline.find(events, "process.started")),
        "phases": {phase.name: round(phase.seconds, 3) for phase in timeline.phases(events)},
        "later_imports": {"outermost": len(later), "seconds": round(sum(row[2] for row in later), 3)},
    }


def _set_caches(arm: Arm, plan: Plan, variables: Mapping[str, str]) -> None:
    """Empty the engine's own caches, or fill them as a start before would have."""
    for name, folder in directories(plan.engine, variables).items():
        shutil.rmtree(folder, ignore_errors=True)
        baked = ROOT / "caches" / name
        if arm.caches == "warm" and baked.is_dir():
            shutil.copytree(baked, folder)


def _read(model: Path) -> None:
    for file in sorted(model.glob("*.safetensors")):
        with open(file, "rb", buffering=0) as opened:
            while opened.read(64 << 20):
                pass


def _wait_reported(deadline: float) -> None:
    """Wait until PID 1's own probe has seen what the client saw."""
    while '"event": "ready"' not in TIMELINE.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)


def _alive(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        raise RuntimeError(f"the server ended with exit code {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a start with all its processes: the namespace's first process is a child of this one's."""
    if process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (*map(int, children), process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    process.wait()


class _Log:
    """Writes what a start says to a file, each line with its time."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, began: float) -> None:
        self.lines: list[str] = []
        self._process, self._path, self._began = process, path, began
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout
        with open(self._path, "w", encoding="utf-8") as file:
            for line in self._process.stdout:
                text = f"{time.monotonic() - self._began:8.3f} {line.decode(errors='replace').rstrip()}"
                self.lines.append(text)
                file.write(f"{text}\n")
                file.flush()

    def join(self) -> None:
        """Wait for the end of what it says."""
        self._thread.join(10)

    def figures(self) -> dict[str, Any]:
        """Return what vLLM said of itself, and how often it took compiled code from a cache."""
        found: dict[str, Any] = {"hits": sum(bool(HIT.search(line)) for line in self.lines)}
        for line in self.lines:
            for name, pattern in FIGURES.items():
                match = pattern.search(line)
                if match:
                    found[name] = match[1]
        return found
