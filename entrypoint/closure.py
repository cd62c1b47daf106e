"""The closure: what a start of the engine imports and loads, recorded when the image was built."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .settings import CLOSURE


@dataclass(frozen=True)
class Closure:
    """What was recorded.

    Attributes:
        modules: names of modules, in load order.
        preload: the libraries that the engine sets in ``LD_PRELOAD`` before it starts its processes.
        reason: why there are no modules, or an empty string.
    """

    modules: tuple[str, ...] = ()
    preload: str = ""
    reason: str = ""

    @classmethod
    def read(cls, path: str = CLOSURE) -> Closure:
        """Return the image's closure, an empty one with the reason if it cannot be read."""
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
            return cls(tuple(data["modules"]), str(data.get("preload", "")), "" if data["modules"] else "it is empty")
        except (OSError, ValueError, KeyError, TypeError) as error:
            return cls(reason=repr(error))


def import_closure(modules: Sequence[str], look: Callable[[str], None] = lambda _module: None) -> list[dict[str, str]]:
    """Import modules in order.

    Args:
        modules: their names.
        look: called with the name of each, after its import.

    Returns:
        Those that cannot be imported, with the reason.
    """
    skipped = []
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            skipped.append({"module": module, "reason": f"{type(error).__name__}: {error}"[:300]})
        look(module)
    return skipped
