"""What ``warm`` is asked to do: its command line."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from ..settings import WARM_PORT
from . import sizes

#: Exit code when the command line is wrong (EX_USAGE of sysexits.h).
EXIT_USAGE = 64

#: What can be warmed, in the order in which it is.
TARGETS = ("snapshot", "image", "weights")

PORT = WARM_PORT

#: Seconds after which the server is let start all the same.
DEADLINE = 600.0

#: A label's key in Kubernetes: a name, and before it a domain where there is one.
_LABEL = re.compile(
    r"(?:(?=[^/]{1,253}/)[a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?", re.ASCII
)


class UsageError(Exception):
    """The command line is wrong; the message is one line that says how."""


@dataclass(frozen=True)
class Options:
    """What to warm, and how.

    Attributes:
        directories: model directories; empty for the one that the image serves.
        targets: some of ``TARGETS``.
        budget: bytes that may be resident, ``None`` for what memory can hold.
        rate: bytes per second to read at most, ``None`` for any.
        interval: seconds from one look at what is resident to the next.
        deadline: seconds after which it is ready whatever is resident, ``None`` where nobody has said.
        lock: pin what is resident in memory.
        drop: have everything dropped from the page cache at the end.
        port: TCP port of the HTTP API, 0 for a free one.
        node_label: key of the label that the node has while it is warm, empty for none.
        once: end when everything is resident.
    """

    directories: tuple[str, ...] = ()
    targets: tuple[str, ...] = TARGETS
    budget: int | None = None
    rate: int | None = None
    interval: float = 30.0
    deadline: float | None = None
    lock: bool = False
    drop: bool = False
    port: int = PORT
    node_label: str = ""
    once: bool = False

    @property
    def patience(self) -> float:
        """Seconds after which the server is let start all the same: of a single run only where it was said."""
        if self.deadline is not None:
            return self.deadline
        return math.inf if self.once else DEADLINE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; warm --help shows what there is")


def parse(words: Sequence[str]) -> Options:
    """Read a command line; ``--help`` prints it and ends the process.

    Raises:
        UsageError: it is wrong.
    """
    given = _parser().parse_args(words)
    return Options(
        directories=tuple(dict.fromkeys(given.dir)),
        targets=given.targets,
        budget=given.budget,
        rate=given.rate,
        interval=given.interval,
        deadline=given.deadline,
        lock=given.lock,
        drop=given.on_exit == "drop",
        port=given.port,
        node_label=given.node_label,
        once=given.once,
    )


def _parser() -> _Parser:
    parser = _Parser(
        prog="warm",
        allow_abbrev=False,
        add_help=True,
        description="Keep the files that a server's start reads in the page cache of this node.",
        epilog="BYTES is an integer or a Kubernetes quantity, such as 20Gi.",
    )
    add = parser.add_argument
    add(
        "--dir",
        action="append",
        default=[],
        metavar="DIR",
        type=_directory,
        help="model directory; may be given again (default: the one that the image serves)",
    )
    add(
        "--targets",
        default=TARGETS,
        type=_targets,
        metavar="LIST",
        help="what to warm, separated by commas (default: snapshot,image,weights)",
    )
    add("--budget", type=_bytes, metavar="BYTES", help="bytes that may be resident (default: what memory can hold)")
    add("--rate", type=_bytes, metavar="BYTES", help="bytes per second to read at most (default: any)")
    add(
        "--interval",
        default=30.0,
        type=_seconds,
        metavar="SECONDS",
        help="from one look at what is resident to the next (default: 30)",
    )
    add(
        "--deadline",
        type=_seconds,
        metavar="SECONDS",
        help=f"after which it is ready whatever is resident (default: {DEADLINE:.0f}; none with --once)",
    )
    add("--lock", action="store_true", help="pin in memory what is resident, as far as it is allowed to")
    add(
        "--on-exit",
        default="keep",
        choices=("keep", "drop"),
        help="what becomes of the page cache at the end (default: keep)",
    )
    add("--port", default=PORT, type=_port, metavar="PORT", help=f"of /healthz and the rest (default: {PORT})")
    add(
        "--node-label",
        default="",
        type=_label,
        metavar="KEY",
        help="label that the Kubernetes node named by NODE_NAME has while it is warm (default: none)",
    )
    add("--once", action="store_true", help="end when everything is resident, without HTTP")
    return parser


def _directory(text: str) -> str:
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is no absolute path")
    return text.rstrip("/") or "/"


def _targets(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    unknown = next((name for name in names if name not in TARGETS), None)
    if unknown is not None:
        raise argparse.ArgumentTypeError(f"{unknown!r} is no target; there are {', '.join(TARGETS)}")
    return tuple(name for name in TARGETS if name in names)


def _bytes(text: str) -> int:
    try:
        return sizes.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is {error}; expected an amount such as 21474836480 or 20Gi"
        ) from None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e9:  # nor NaN, which compares with nothing
        raise argparse.ArgumentTypeError(f"{text!r} is no time; expected seconds, more than 0")
    return value


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no TCP port; expected 0 to 65535")
    return int(text)


def _label(text: str) -> str:
    if text and not _LABEL.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no key of a Kubernetes label; expected such as example.com/warm")
    return text
