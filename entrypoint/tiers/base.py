"""What every tier answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from ..settings import Settings


class Tier(ABC):
    """One way to start the unmodified engine."""

    name: str

    #: Whether its own process may find out that it must decline, and end with ``EXIT_DECLINED`` before the engine runs.
    may_decline_late = False

    @abstractmethod
    def decline(self, settings: Settings) -> str:
        """Return why this tier cannot or need not start the engine now, or an empty string if it can."""

    @abstractmethod
    def command(self, settings: Settings) -> list[str]:
        """Return the command line that starts the engine in this tier."""

    def environment(self, settings: Settings) -> Mapping[str, str]:
        """Return the environment that the command is started in: the engine's own, unless the tier needs another."""
        return settings.environment
