"""The engines that images can be built for: adapters, which are data, found by name.

Other distributions add theirs through the entry point group ``warmimage.engines``::

    [project.entry-points."warmimage.engines"]
    my-engine = "my_package:ADAPTER"
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from ..errors import ConfigError
from .adapter import EngineAdapter, Loading, Parallelism
from .sglang import SGLANG
from .transformers import TRANSFORMERS
from .vllm import VLLM

GROUP = "warmimage.engines"

_SHIPPED = (TRANSFORMERS, VLLM, SGLANG)

__all__ = ["EngineAdapter", "Loading", "Parallelism", "adapters", "get", "names"]


def names() -> tuple[str, ...]:
    """Return the names of all registered engines, without importing the modules of other distributions."""
    shipped = (adapter.name for adapter in _SHIPPED)
    return tuple(dict.fromkeys([*shipped, *sorted(point.name for point in entry_points(group=GROUP))]))


@cache
def adapters() -> dict[str, EngineAdapter]:
    """Return all adapters by name: the shipped ones, and those that other distributions register.

    Raises:
        ConfigError: a registered entry point is not an adapter, or takes a shipped adapter's name.
    """
    registered = {adapter.name: adapter for adapter in _SHIPPED}
    for point in entry_points(group=GROUP):
        try:
            adapter = point.load()
        except Exception as error:  # another distribution's module may raise anything
            raise _unfit(point, f"{type(error).__name__}: {error}") from None
        if not isinstance(adapter, EngineAdapter):
            raise _unfit(point, f"a {type(adapter).__name__}")
        if adapter.name in registered:
            raise _unfit(point, f"the taken name {adapter.name!r}")
        registered[adapter.name] = adapter
    return registered


def _unfit(point: EntryPoint, got: str) -> ConfigError:
    return ConfigError(
        f"engine {point.name!r} cannot be registered",
        where=f"entry point {GROUP}: {point.name} = {point.value}",
        got=got,
        expected="an EngineAdapter with an unused name",
        fix=f"pip uninstall {point.dist.name if point.dist else 'the distribution that registers it'}",
    )


def get(name: str, where: str = "engine") -> EngineAdapter:
    """Return the adapter called ``name``.

    Raises:
        ConfigError: it is not registered; the message suggests the nearest name.
    """
    registered = adapters()
    if name not in registered:
        near = difflib.get_close_matches(name, registered, n=1)
        raise ConfigError(
            f"unknown engine {name!r}",
            where=where,
            expected=", ".join(sorted(registered)),
            fix=f"--engine {near[0] if near else 'transformers'}",
        )
    return registered[name]
