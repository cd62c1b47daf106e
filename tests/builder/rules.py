"""The rules that every rendered Dockerfile keeps: what hadolint would ask for, and what this project does besides."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

#: The template's parts, in the order of how often they change.
PARTS = (
    "steps",
    "wheels",
    "bytecode",
    "weights",
    "entrypoint",
    "closure",
    "settings",
    "caches",
    "snapshot",
    "plan",
)

_SECRET_NAME = re.compile(r"token|secret|passw|api_?key|credential", re.IGNORECASE)
_PAIR = re.compile(r'"?([^\s"=]+)"?="(?:[^"\\]|\\.)*"')

Instruction = tuple[str, str]


def instructions(text: str) -> list[Instruction]:
    """Return the instructions, each as its name and the rest of it on one line."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines()]


def of(name: str, text: str) -> list[str]:
    """Return what follows each instruction called ``name``."""
    return [rest for found, rest in instructions(text) if found == name]


def parts(text: str) -> list[str]:
    """Return the parts that a Dockerfile has, as its comments name them, in its order."""
    return [name for name in re.findall(r"^# ([a-z]+)(?::.*)?$", text, re.MULTILINE) if name in PARTS]


def _is_exec(words: str) -> bool:
    try:
        value = json.loads(words)
    except ValueError:
        return False
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _is_pinned(reference: str) -> bool:
    tag = reference.rpartition("/")[2].partition(":")[2]
    return "@sha256:" in reference or tag not in ("", "latest")


#: The rule of contexts that are rendered for a user to build; what only this tool builds, it builds with BuildKit.
EVERY_BUILDER = "every builder knows every instruction: no mount but of a secret, no COPY --chmod, no heredoc"

#: Each rule, and whether a Dockerfile keeps it.
RULES: dict[str, Callable[[str], bool]] = {
    "the base image is pinned by digest or tag (DL3006, DL3007)": lambda text: all(
        _is_pinned(rest.partition(" AS ")[0]) for rest in of("FROM", text)
    ),
    "COPY, never ADD (DL3020)": lambda text: not of("ADD", text),
    "no sudo (DL3004)": lambda text: not any(re.search(r"\bsudo\b", rest) for rest in of("RUN", text)),
    "WORKDIR is absolute (DL3000)": lambda text: all(rest.startswith("/") for rest in of("WORKDIR", text)),
    "the last USER is a number other than 0 (DL3002)": lambda text: bool(
        re.match(r"[1-9]\d*:0$", of("USER", text)[-1])
    ),
    "ENTRYPOINT and CMD in exec form (DL3025)": lambda text: all(
        map(_is_exec, of("ENTRYPOINT", text) + of("CMD", text))
    ),
    "HEALTHCHECK in exec form (DL3025)": lambda text: all(
        _is_exec(rest.partition("CMD ")[2]) for rest in of("HEALTHCHECK", text)
    ),
    "one ENTRYPOINT, CMD and HEALTHCHECK (DL3012, DL4003, DL4004)": lambda text: all(
        len(of(name, text)) == 1 for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK")
    ),
    "apt-get leaves no lists behind (DL3009)": lambda text: all(
        "rm -rf /var/lib/apt/lists" in rest for rest in of("RUN", text) if "apt-get" in rest
    ),
    "pip keeps no cache (DL3042)": lambda text: all(
        "--no-cache-dir" in rest for rest in of("RUN", text) if re.search(r"pip\b.* install", rest)
    ),
    "pip installs by hash, with no index": lambda text: all(
        "--no-index" in rest and "--require-hashes" in rest
        for rest in of("RUN", text)
        if re.search(r"pip\b.* install", rest)
    ),
    "no ENV, ARG or LABEL is named as a secret": lambda text: (
        not any(
            _SECRET_NAME.search(name)
            for kind in ("ENV", "ARG", "LABEL")
            for rest in of(kind, text)
            for name in _PAIR.findall(rest) or [rest]
        )
    ),
    EVERY_BUILDER: lambda text: (
        not re.search(r"--mount=(?!type=secret)", text)
        and not any(rest.startswith("--ch") for rest in of("COPY", text))
        and not any("<<" in rest and "sh -euc" not in rest for name in ("RUN", "COPY") for rest in of(name, text))
    ),
    "secrets come as secret mounts alone": lambda text: all(
        "secret" not in re.sub(r"^(--mount=type=secret,id=\S+ )+", "", rest)
        for name, rest in instructions(text)
        if name != "LABEL"
    ),
    "no parser directive: no registry is asked for a syntax": lambda text: (
        not re.match(r"(?:#.*\n)*?#\s*\w+\s*=", text)
    ),
    "no whitespace at the end of a line": lambda text: not re.search(r"[ \t]$", text, re.MULTILINE),
    "one blank line at most, and none at the end": lambda text: "\n\n\n" not in text and not text.endswith("\n\n"),
    "lines of at most 120 characters but for labels and the configuration's own steps": lambda text: all(
        len(line) <= 120 or '"="' in line or " sh -euc " in line for line in text.splitlines()
    ),
    "parts in the stated order": lambda text: parts(text) == sorted(set(parts(text)), key=PARTS.index),
}


def violations(text: str) -> Iterator[str]:
    """Yield the rules that a Dockerfile breaks."""
    for rule, keeps in RULES.items():
        if not keeps(text):
            yield rule
