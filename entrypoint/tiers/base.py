"""What every tier answers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..settings import Settings


class Tier(ABC):
    """One way to start the unmodified engine."""

    name: str

    @abstractmethod
    def decline(self, settings: Settings) -> str:
        """Return why this tier cannot or need not start the engine now, or an empty string if it can."""

    @abstractmethod
    def command(self, settings: Settings) -> list[str]:
        """Return the command line that starts the engine in this tier."""
