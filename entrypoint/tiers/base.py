"""What every tier answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from ..settings import Settings
from ..supervision.supervisor import Supervisor
from ..timeline import Timeline


class Declined(Exception):
    """A tier finds, while it starts the engine, that it cannot; the message says why, and nothing of it is left."""


class Tier(ABC):
    """One way to start the unmodified engine."""

    name: str

    #: Whether the engine's files are read at the start: its imports, and what they load.
    imports = True

    #: Whether its own process may find out that it must decline, and end with ``EXIT_DECLINED`` before the engine runs.
    may_decline_late = False

    def baked(self, settings: Settings) -> bool:
        """Return whether the image has this tier."""
        return self.name in settings.plan.tiers

    @abstractmethod
    def decline(self, settings: Settings, supervisor: Supervisor) -> str:
        """Return why this tier cannot or need not start the engine now, or an empty string if it can.

        Args:
            settings: what this start is to do.
            supervisor: asks for it what may never be answered.
        """

    @abstractmethod
    def command(self, settings: Settings) -> list[str]:
        """Return the command line that starts the engine in this tier."""

    def start(self, settings: Settings, supervisor: Supervisor, timeline: Timeline) -> int:
        """Start the engine, and return its PID.

        Args:
            settings: what this start is to do.
            supervisor: whose child the engine must be.
            timeline: gets what this tier alone knows.

        Raises:
            Declined: this tier cannot; the next one may.
        """
        return supervisor.spawn(self.command(settings), self.environment(settings), settings.directory)

    def verified(self) -> str | None:
        """Return what is wrong with what the engine was started from, ``None`` while that is not known."""
        return ""

    def environment(self, settings: Settings) -> Mapping[str, str]:
        """Return the environment that the command is started in: the engine's own, unless the tier needs another."""
        return settings.environment
