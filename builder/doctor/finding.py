"""A finding: one thing that was looked at, and how it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "info", "warning", "missing"]

#: What may hold a secret in an address or a message: a user's part of an address, a Hub token, a value by its name.
_SECRETS = (
    (re.compile(r"(?<=//)[^/@\s'\"]+@"), "***@"),
    (re.compile(r"\bhf_[A-Za-z0-9]{6,}"), "hf_***"),
    (re.compile(r"(?i)\b(authorization|password|passwd|secret|token|api[_-]?key)(\s*[=:]\s*)\S+"), r"\1\2***"),
)


@dataclass(frozen=True)
class Seen:
    """What a check saw; ``table`` says what that means.

    Attributes:
        outcome: one of the item's outcomes in the table.
        found: what is there.
        expected: what would be right, where it is not.
        words: what the fix in the table names in braces.
        fact: what other checks go on with; ``None`` leaves those that need it undone.
    """

    outcome: str
    found: str
    expected: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    fact: Any = None


@dataclass(frozen=True)
class Finding:
    """One line of the report; no text of it holds a secret.

    Attributes:
        id: stable name of what was looked at.
        group: what it belongs to.
        title: its name for a person.
        status: ``ok``; ``info``, worth knowing; ``warning``, works less well; ``missing``, something required is not
            there.
        found: what is there.
        expected: what would be right, where it is not.
        fix: what to do, as a command where there is one.
    """

    id: str
    group: str
    title: str
    status: Status
    found: str
    expected: str = ""
    fix: str = ""


def redacted(text: str) -> str:
    """Return a text on one line, without what may be a secret in it."""
    text = " ".join(text.split())
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
