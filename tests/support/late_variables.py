"""Runs in an image: what its engine's modules hold, imported with variables, or before the variables were set.

``python late_variables.py plain`` imports the closure in this process's environment.  ``late JSON`` imports it too, and
then, for each environment of a list, does in a fork what a restored process does with it.  Both print one JSON object
for each environment: the constants of every module, the loggers, the locale, what time it is said to be.
"""

import gc
import json
import locale
import logging
import os
import re
import sys
import time
import types
from pathlib import Path

sys.path.insert(0, "/opt/warmimage")
from entrypoint.closure import Closure, import_closure
from entrypoint.environment import import_environment
from entrypoint.settings import initial_environment

SCALARS = (str, int, float, bool, bytes, type(None))
SKIPPED = {"__builtins__", "__warningregistry__", "__spec__", "__loader__", "__cached__"}


def main():
    """Import, then look, in this process or in forks of it."""
    gc.disable()
    before, imported = initial_environment(), dict(os.environ)  # the second with what the interpreter has added
    with import_environment.Reads() as reads:
        import_closure(Closure.read().whole().modules)
    made = {name: os.environ.get(name) for name in sorted(reads.written)}
    if sys.argv[1] == "plain":
        print(json.dumps(look()))
        return
    contract = import_environment.Contract(
        dict(os.environ), reads.names, made=made, before={name: imported[name] for name in made if name in imported}
    )
    for variables in json.loads(sys.argv[2]):
        sys.stdout.flush()
        if not os.fork():
            print(json.dumps(late(contract, {**before, **variables})), flush=True)
            os._exit(0)
        os.wait()


def late(contract, variables):
    """Return what there is after these variables have come, or why they cannot."""
    reason = contract.conflict(variables, restored=True)
    os.environ.clear()
    os.environ.update(variables)
    os.environ.update(contract.with_import_effects(os.environ))
    return {"declined": reason, "failed": contract.reapply(dict(os.environ)), **look()}


def look():
    """Return what this process's modules hold, by name."""
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name.startswith(("__", "entrypoint", "sympy.")):  # the last holds sets, whose order is by chance
            continue
        for key, value in dict(getattr(module, "__dict__", {})).items():
            if key not in SKIPPED and not hasattr(type(value), "cache_info"):
                found[f"{name} {key}"] = shown(value)
                if isinstance(value, type) and value.__module__ == name:
                    found |= {f"{name} {key}.{inner}": shown(vars(value)[inner]) for inner in list(vars(value))}
    for name, logger in sorted(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            found[f"logger {name}"] = handlers(logger)
    found["logger"] = handlers(logging.root)
    found["locale"] = locale.setlocale(locale.LC_ALL)
    found["streams"] = repr(
        [
            (stream.encoding, stream.errors, stream.write_through, stream.line_buffering, type(stream.buffer).__name__)
            for stream in (sys.stdout, sys.stderr)
        ]
    )
    found["time"] = time.strftime("%Z", time.localtime(0))
    found["environment"] = repr(sorted(os.environ.items()))
    return found


def handlers(logger):
    """Return a logger's level and handlers."""
    return repr(
        (
            logger.level,
            logger.propagate,
            [
                (
                    type(handler).__name__,
                    handler.level,
                    getattr(handler.formatter, "_fmt", ""),
                    getattr(handler.stream, "name", ""),
                )
                for handler in logger.handlers
                if hasattr(handler, "stream")
            ],
        )
    )


def shown(value, depth=0):
    """Return a value in words, without its place in memory."""
    if isinstance(value, (*SCALARS, Path)):
        return re.sub(r"0x[0-9a-f]+", "0x", repr(value))[:300]
    if depth < 3 and isinstance(value, (list, tuple)) and len(value) < 60:
        return repr([shown(item, depth + 1) for item in value])
    if depth < 3 and isinstance(value, (set, frozenset)) and len(value) < 60:
        return repr(sorted(shown(item, depth + 1) for item in value))
    if depth < 3 and type(value) is dict and len(value) < 60:
        return repr(sorted((str(key), shown(item, depth + 1)) for key, item in value.items()))
    if isinstance(value, (types.FunctionType, type, types.ModuleType)) or depth > 1:
        return type(value).__name__
    try:
        own = object.__getattribute__(value, "__dict__")  # not by an attribute's own ways, which may raise anything
    except AttributeError:
        own = {}
    return f"{type(value).__name__} {sorted((str(key), shown(item, depth + 2)) for key, item in own.items())[:40]}"


if __name__ == "__main__":
    main()
