"""Constants of imported modules: set one, or run a module again and hand its new values to those that copied them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FunctionType
from typing import Any


def assign(module: str, attribute: str, value: object) -> None:
    """Set an attribute of a module, if the module is imported and has it.

    Args:
        module: its name.
        attribute: the attribute's name, or names with dots between.
        value: the new value.
    """
    owner: object = sys.modules.get(module)
    *path, last = attribute.split(".")
    for name in path:
        owner = getattr(owner, name, None)
    if hasattr(owner, last):  # another version of the module may have no such constant
        setattr(owner, last, value)


def run_again(name: str) -> dict[str, tuple[object, object]]:
    """Run a module's code again in its own namespace, as ``importlib.reload`` does, and update copies of its constants.

    Functions, classes and equal values stay the objects that other modules have imported.

    Args:
        name: a module of constants, whose code does nothing but compute them.

    Returns:
        The constants that have changed: name to old and new value; none where the module is not imported.

    Raises:
        LookupError: the module has no code to run.
        Exception: whatever the code raises; the module then has its old constants.
    """
    module = sys.modules.get(name)
    if module is None:
        return {}
    namespace = vars(module)
    before = dict(namespace)
    loader: Any = module.__spec__ and module.__spec__.loader
    code = loader.get_code(name) if hasattr(loader, "get_code") else None
    if code is None:
        raise LookupError(f"the code of module {name} cannot be had from its loader {loader!r}")
    try:
        exec(code, namespace)  # noqa: S102 - the engine's own module, which the import system has run before
    except BaseException:
        namespace.clear()
        namespace.update(before)
        raise
    changed: dict[str, tuple[object, object]] = {}
    for key, old in before.items():
        new = namespace[key]
        if isinstance(old, (FunctionType, type)) or new == old:
            namespace[key] = old
        elif not key.startswith("__"):
            changed[key] = old, new
    update_copies(changed)
    return changed


def update_copies(changed: Mapping[str, tuple[object, object]]) -> None:
    """Set constants in the modules that copied them by ``from MODULE import NAME``.

    A copy is a global of the same name that is the same object.  Copies under another name, in classes or in the
    defaults of functions are not found: the tests compare whole modules with a new process to see that none matters.

    Args:
        changed: name to old and new value.
    """
    for module in list(sys.modules.values()):
        namespace = getattr(module, "__dict__", {})
        for name in changed.keys() & namespace.keys():
            old, new = changed[name]
            if namespace[name] is old:
                namespace[name] = new
