"""The closure: what a start of the engine imports and loads, recorded when the image was built."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .settings import CLOSURE


@dataclass(frozen=True)
class Closure:
    """What was recorded.

    Attributes:
        modules: names of modules, in load order.
        later: names of modules that only the first request brings.
        preload: the libraries that the engine sets in ``LD_PRELOAD`` before it starts its processes.
        reason: why there are no modules; ``None`` where there are some.
        variables: names of the variables that the image had when this was recorded.
    """

    modules: tuple[str, ...] = ()
    preload: str = ""
    later: tuple[str, ...] = ()
    reason: str | None = None
    variables: tuple[str, ...] = ()

    def whole(self) -> Closure:
        """Return the closure with the modules of the first request, for an import that no start waits for."""
        return replace(self, modules=(*self.modules, *self.later), later=())

    @classmethod
    def read(cls, path: str = CLOSURE) -> Closure:
        """Return the image's closure, an empty one with the reason if it cannot be read."""
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
            modules, later = tuple(data["modules"]), tuple(data.get("later", ()))
            return cls(
                modules,
                str(data.get("preload", "")),
                later,
                None if modules else "it is empty",
                tuple(data.get("variables", ())),
            )
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
