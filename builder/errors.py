"""The errors that a user sees: what is wrong, where, what was got and expected, and the fix.

The tree, by exit code::

    WarmimageError       1  a build or the network failed
    ├── UsageError       2  the command line is wrong
    ├── ConfigError      3  the configuration, the model or the lock is invalid
    ├── EnvironmentLacks 4  this machine lacks something
    └── GateMissed       5  a given limit is exceeded
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One error.

    Attributes:
        what: one line that describes it.
        where: the flag, variable, or file and key that it comes from.
        got: the actual value.  Never one that may be secret.
        expected: the right value.
        fix: what to do, as a command if possible.
    """

    what: str
    where: str = ""
    got: str = ""
    expected: str = ""
    fix: str = ""

    def __str__(self) -> str:
        lines = [f"error: {self.what}"]
        if self.where:
            lines.append(f"  at {self.where}")
        values = [f"got {self.got}"] if self.got else []
        values += [f"expected {self.expected}"] if self.expected else []
        if values:
            lines.append("  " + ", ".join(values))
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class WarmimageError(Exception):
    """A build or the network failed.  Base of every error that ends the command with one clear message."""

    exit_code = 1

    def __init__(
        self, what: str | Sequence[Problem], *, where: str = "", got: str = "", expected: str = "", fix: str = ""
    ) -> None:
        self.problems = (Problem(what, where, got, expected, fix),) if isinstance(what, str) else tuple(what)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UsageError(WarmimageError):
    """The command line is wrong."""

    exit_code = 2


class ConfigError(WarmimageError):
    """The configuration, the model or the lock is invalid."""

    exit_code = 3


class EnvironmentLacks(WarmimageError):
    """This machine lacks a requirement of the command."""

    exit_code = 4


class GateMissed(WarmimageError):
    """A limit that was asked for is not kept."""

    exit_code = 5
