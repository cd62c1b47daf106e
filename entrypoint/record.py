"""Build time: import the plan's closure once in the image, and record which files and libraries a start will read.

Run in a build step: ``python record.py IMPORTS OUTPUT``, IMPORTS being a part of the plan's engine as JSON.  It proves
the engine importable before anyone deploys it.
"""

from __future__ import annotations

import glob
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence


def import_closure(modules: Sequence[str]) -> list[dict[str, str]]:
    """Import modules in order and return those that cannot be imported, with the reason."""
    skipped = []
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            skipped.append({"module": module, "reason": f"{type(error).__name__}: {error}"[:300]})
    return skipped


def module_files() -> list[str]:
    """Return the files that the imported modules were loaded from: bytecode where there is some, else the source."""
    found = []
    for module in list(sys.modules.values()):
        attributes = getattr(module, "__dict__", {})  # not getattr: some modules make up any attribute asked for
        source, cached = attributes.get("__file__"), attributes.get("__cached__")
        if not source or source == __file__:
            continue
        found.append(cached if cached and os.path.exists(cached) else source)
    return [path for path in found if os.path.isfile(path)]


def mapped_libraries() -> list[str]:
    """Return the shared objects mapped into this process."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        paths = {row.split(None, 5)[5].strip() for row in file if row.rstrip().endswith(".so") or ".so." in row}
    return sorted(path for path in paths if os.path.isfile(path))


def native_libraries(patterns: Sequence[str], mapped: Sequence[str]) -> list[str]:
    """Return the mapped libraries that the adapter's patterns, relative to ``sys.path`` entries, allow to preload."""
    allowed = [
        os.path.realpath(path)
        for pattern in patterns
        for entry in sys.path
        for path in sorted(glob.glob(os.path.join(entry, pattern)))
    ]
    return [path for path in dict.fromkeys(allowed) if path in mapped]


def main(imports_path: str, output: str) -> int:
    """Record the closure that a file asks for into another; return 1 when the engine cannot be imported."""
    with open(imports_path, encoding="utf-8") as file:
        engine = json.load(file)
    os.environ.update(engine["import_environment"])
    began = time.monotonic()
    skipped = import_closure(engine["modules"])
    seconds = time.monotonic() - began
    for entry in skipped:
        print(f"warmimage: closure: {entry['module']} skipped: {entry['reason']}", file=sys.stderr)
    required = set(engine["required_modules"])
    broken = [entry for entry in skipped if entry["module"] in required]
    if broken:
        print(f"warmimage: error: the engine cannot be imported in this image: {broken[0]['reason']}", file=sys.stderr)
        return 1
    mapped = mapped_libraries()
    # In load order.  The engine's own libraries are left to `libraries`: of their bytes a start touches a small part.
    native = native_libraries(engine["native_libraries"], mapped)
    files = [path for path in dict.fromkeys([*module_files(), *mapped]) if path not in native]
    closure = {
        "modules": [name for name in engine["modules"] if name in sys.modules],
        "skipped": skipped,
        "files": files,
        "bytes": sum(os.path.getsize(path) for path in files),
        "libraries": native,
    }
    with open(output, "w", encoding="utf-8") as file:
        json.dump(closure, file, indent=1)
    print(f"recorded {len(sys.modules)} modules, {len(files)} files, imported in {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # this script's folder: its other modules must not shadow the engine's
    sys.exit(main(*sys.argv[1:]))
