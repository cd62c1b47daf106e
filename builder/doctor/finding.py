"""What a check observes, and the finding that the report shows of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "info", "warning", "missing"]

#: Where addresses and messages may hold secrets: the user in an address, a Hub token, a value whose name says so.
_SECRETS = (
    (re.compile(r"(?<=//)[^/@\s'\"]+@"), "***@"),
    (re.compile(r"\bhf_[A-Za-z0-9]{6,}"), "hf_***"),
    (re.compile(r"(?i)\b(authorization|password|passwd|secret|token|api[_-]?key)(\s*[=:]\s*)\S+"), r"\1\2***"),
)


@dataclass(frozen=True)
class Observation:
    """What a check has observed; ``table`` grades it.

    Attributes:
        outcome: one of the item's outcomes in the table.
        found: the actual state.
        expected: the right state, if the actual one is wrong.
        fix_arguments: values for the braces in the table's fix.
        fact: input for other checks.  With ``None``, checks that need it are skipped.
    """

    outcome: str
    found: str
    expected: str = ""
    fix_arguments: Mapping[str, str] = field(default_factory=dict)
    fact: Any = None


@dataclass(frozen=True)
class Finding:
    """One line of the report.  Its texts hold no secret.

    Attributes:
        id: stable name of the check.
        group: heading in the report.
        title: the check's name for people.
        status: ``ok``; ``info``, worth knowing; ``warning``, works less well; ``missing``, a requirement is not met.
        found: the actual state.
        expected: the right state, if the actual one is wrong.
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
    """Return a text on one line, with possible secrets replaced by asterisks."""
    text = " ".join(text.split())
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
