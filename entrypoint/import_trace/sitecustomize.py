"""Run by the interpreter of each traced process before anything of the engine: begin the trace, then step aside.

The engine's own ``sitecustomize``, if it has one, runs after this one in its place, and ``sys.path`` is what it would
have been.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader


def _begin() -> None:
    """Begin the trace; our package gets a name that no package of the engine has."""
    from importlib import import_module
    from importlib.util import module_from_spec

    target = os.environ.get("WARMIMAGE_TRACE_TARGET", "")
    if not target:
        return
    name, directory = "_warmimage_entrypoint", os.path.dirname(_DIRECTORY)
    loader = SourceFileLoader(name, os.path.join(directory, "__init__.py"))
    spec = ModuleSpec(name, loader, origin=loader.path, is_package=True)
    spec.submodule_search_locations = [directory]
    package = module_from_spec(spec)
    sys.modules[name] = package
    loader.exec_module(package)
    import_module(f"{name}.import_trace.process").install(target)


def _engines_own() -> None:
    """Run the ``sitecustomize`` that would have run without us; its errors are its own."""
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        return
    from importlib.util import module_from_spec

    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


_DIRECTORY = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _DIRECTORY]
try:
    _begin()
except Exception as error:
    print(f"warmimage: trace skipped: {error!r}", file=sys.stderr, flush=True)
_engines_own()
