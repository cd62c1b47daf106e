"""A server as a client sees it: when it is healthy, and when its first token arrives."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from .errors import WarmimageError

#: Share of the time waited so far after which health is asked for again, and its bounds in seconds: the answer is late
#: by half a hundredth on average, in every arm, and asking takes next to no CPU from the server.
_LATE, _SHORTEST, _LONGEST = 0.01, 0.005, 0.1

#: The request, the same for every arm.
MESSAGES = [{"role": "user", "content": "Hello"}]
TOKENS = 16


@dataclass(frozen=True)
class Answer:
    """A completion.

    Attributes:
        first_token: monotonic time at which its first content came.
        text: all of it.
    """

    first_token: float
    text: str


def wait_healthy(address: tuple[str, int], path: str, deadline: float, alive: Callable[[], None]) -> float:
    """Poll the health path until it answers 200, and return the monotonic time of that answer.

    Args:
        address: host and port.
        path: the health path.
        deadline: monotonic time at which to give up.
        alive: called about once a second; raises when the server has ended.

    Raises:
        WarmimageError: the server was not healthy by then.
    """
    began = looked = time.monotonic()
    while (now := time.monotonic()) < deadline:
        if _status(address, path) == 200:
            return time.monotonic()
        if now - looked > 1:
            alive()
            looked = time.monotonic()
        time.sleep(min(_LONGEST, max(_SHORTEST, _LATE * (now - began))))
    raise WarmimageError("the server did not become ready in time", where=path, fix="--timeout SECONDS")


def _status(address: tuple[str, int], path: str) -> int:
    """Return the status of one answer; 0 if there is none."""
    connection = http.client.HTTPConnection(*address, timeout=5)
    with closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0


def first_token(
    address: tuple[str, int], model: str, deadline: float, came: Callable[[], None] = lambda: None
) -> Answer:
    """Request a streamed chat completion at temperature 0.

    Args:
        address: host and port.
        model: the served name of the model.
        deadline: monotonic time at which to give up.
        came: called once, at the first token.

    Raises:
        WarmimageError: the server refuses, or its answer has no content.
    """
    body = {"model": model, "messages": MESSAGES, "temperature": 0, "max_tokens": TOKENS, "stream": True}
    connection = http.client.HTTPConnection(*address, timeout=max(1.0, deadline - time.monotonic()))
    first, parts = 0.0, list[str]()
    with closing(connection):
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise WarmimageError(
                    "the server refused a chat completion",
                    where="/v1/chat/completions",
                    got=f"status {answer.status}: {answer.read(300).decode(errors='replace')}",
                )
            for line in answer:
                part = _content(line)
                if part and not first:
                    first = time.monotonic()
                    came()
                parts.append(part)
        except (OSError, http.client.HTTPException) as error:
            raise WarmimageError(
                "the server aborted a chat completion", where="/v1/chat/completions", got=f"{error!r}"
            ) from None
    if not first:
        raise WarmimageError("the server's completion is empty", where="/v1/chat/completions")
    return Answer(first, "".join(parts))


def _content(line: bytes) -> str:
    """Return the text in one line of a stream of server-sent events."""
    if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
        return ""
    try:
        choices: list[Any] = json.loads(line[5:]).get("choices") or []
    except ValueError:
        return ""
    delta = choices[0].get("delta") or {} if choices else {}
    return str(delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning") or "")


def served_model(address: tuple[str, int], default: str) -> str:
    """Return the name of the model that a server serves, or ``default`` if it has no such list."""
    connection = http.client.HTTPConnection(*address, timeout=30)
    with closing(connection):
        try:
            connection.request("GET", "/v1/models")
            answer = connection.getresponse()
            return str(json.loads(answer.read())["data"][0]["id"]) if answer.status == 200 else default
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
            return default
