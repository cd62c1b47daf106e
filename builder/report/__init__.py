"""The start-up report: where the seconds of one or more starts went, as a page of its own or as a picture."""

from __future__ import annotations

from .page import page
from .picture import picture
from .sources import read
from .start import Start, Table

__all__ = ["Start", "Table", "page", "picture", "read"]
