"""What every tier answers: whether it can start the engine now, and with what."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..settings import CLOSURE, Settings
from ..supervision.supervisor import Started, Supervisor


class Declined(Exception):
    """A tier cannot start the engine, or need not; the message is the reason, and no process of it is left."""


class Tier(ABC):
    """One way to start the unmodified engine; has no state."""

    name: str

    #: Whether its own process may find out that it must decline, and end with ``EXIT_DECLINED`` before the engine runs.
    may_decline_late = False

    #: Whether the next tier is tried where the engine ends before it is ready.
    may_fail = True

    def baked(self, settings: Settings) -> bool:
        """Return whether the image has this tier."""
        return self.name in settings.plan.tiers

    @abstractmethod
    def check(self, settings: Settings, supervisor: Supervisor) -> Prepared:
        """Return what starts the engine in this tier; starts nothing of the engine.

        Args:
            settings: what this start is to do.
            supervisor: runs questions that may never be answered in a process of their own.

        Raises:
            Declined: this tier cannot start the engine now, or need not.
        """


@dataclass(frozen=True)
class Prepared:
    """A tier that has been checked and can start the engine.

    Attributes:
        tier: the tier.
        command: the command line that starts the engine.
        environment: the environment of the command.
        directory: the working directory of the command.
        prefetched: what prefetch reads of the image for this tier: the closure, which lists files, or a directory.
    """

    tier: Tier
    command: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    prefetched: str = CLOSURE

    def start(self, supervisor: Supervisor) -> Started:
        """Start the engine.

        Args:
            supervisor: the engine becomes its child.

        Raises:
            Declined: the tier cannot start it after all.
        """
        return Started(supervisor.spawn(self.command, self.environment, self.directory))
