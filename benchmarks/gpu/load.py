"""A steady load: how many tokens a server makes in a second, by its own counter."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from contextlib import closing

#: Requests at a time, tokens of each, and the seconds before anything is counted.
CLIENTS, TOKENS, LEAD = 64, 256, 5.0

_COUNTER = re.compile(r"^vllm:generation_tokens_total\{[^}]*\} ([\d.e+]+)$", re.MULTILINE)


def steady(address: tuple[str, int], model: str, seconds: float) -> dict[str, float]:
    """Load a server, and return tokens per second and requests per second of a window of some seconds."""
    stop = threading.Event()
    done: list[float] = []
    clients = [
        threading.Thread(target=_ask_on, args=(address, model, stop, done, number), daemon=True)
        for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    time.sleep(LEAD)
    before, began = _tokens(address), time.monotonic()
    time.sleep(seconds)
    after, ended = _tokens(address), time.monotonic()
    stop.set()
    answered = sum(began <= moment <= ended for moment in done)
    span = ended - began
    return {
        "seconds": round(span, 2),
        "tokens_per_second": round((after - before) / span, 1),
        "requests_per_second": round(answered / span, 3),
    }


def _ask_on(address: tuple[str, int], model: str, stop: threading.Event, done: list[float], number: int) -> None:
    body = {
        "model": model,
        "prompt": f"{number} the quick brown fox",
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }
    while not stop.is_set():
        try:
            with closing(http.client.HTTPConnection(*address, timeout=60)) as connection:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", "/v1/completions", json.dumps(body), headers)
                connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return
        done.append(time.monotonic())


def _tokens(address: tuple[str, int]) -> float:
    with closing(http.client.HTTPConnection(*address, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        return sum(map(float, _COUNTER.findall(connection.getresponse().read().decode())))
