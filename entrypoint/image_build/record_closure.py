"""Build time: import the plan's closure once in the image, and record which files and libraries a start will read.

Command ``record-closure IMPORTS OUTPUT``, a build step; IMPORTS is a part of the plan as JSON.  It proves the
engine importable before anyone deploys it, and leaves out of the closure what would make a process that imports it
unfit for forking.
"""

from __future__ import annotations

import glob
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from typing import Any

from ..closure import import_closure
from ..imports import Imports
from ..settings import ROOT
from ..tiers.zygote.fork_safety import ForkSafety

#: Build arguments that builders know without a declaration, and give to each step.
_PROXIES = ("ALL_PROXY", "FTP_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def module_files() -> list[str]:
    """Return the files that the imported modules were loaded from: bytecode where there is some, else the source."""
    own = os.path.join(ROOT, "entrypoint", "")
    found = []
    for module in list(sys.modules.values()):
        attributes = getattr(module, "__dict__", {})  # not getattr: some modules make up any attribute asked for
        source, cached = attributes.get("__file__"), attributes.get("__cached__")
        if not source or os.path.abspath(source).startswith(own):
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


def opened_files() -> dict[str, None]:
    """Return what from now on gets the path of each file that this process opens, in order."""
    opened: dict[str, None] = {}

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            opened[arguments[0]] = None

    sys.addaudithook(note)
    return opened


def attempt(imports: Imports, left_out: Sequence[str]) -> dict[str, Any]:
    """Import the closure in this process, without some modules, and return what was found.

    Args:
        imports: the part of the plan.
        left_out: modules that are not to be imported.

    Returns:
        The closure, with ``violations`` -> module and ``imported``, the number of modules.
    """
    os.environ.update(imports.import_environment)
    modules = [name for name in imports.modules if name not in left_out]
    safety, opened = ForkSafety(), opened_files()
    began = time.monotonic()
    skipped = import_closure(modules, safety.check)
    seconds = time.monotonic() - began
    mapped = mapped_libraries()
    # In load order.  The engine's own libraries are left to `libraries`: of their bytes a start touches a small part.
    native = native_libraries(imports.native_libraries, mapped)
    files = [path for path in dict.fromkeys([*module_files(), *mapped]) if path not in native]
    known = {*files, *native}
    unfit = {entry["module"] for entry in skipped}
    return {
        "modules": [name for name in modules if name not in unfit],
        "later": [name for name in imports.later if name not in left_out],
        "preload": imports.preload,
        "skipped": skipped,
        "files": files,
        "bytes": sum(os.path.getsize(path) for path in files),
        "libraries": native,
        # Read and not imported: transformers looks into the source of every model.
        "read": [path for path in list(opened) if path not in known and _is_kept(path)],
        "violations": safety.violations,
        "imported": len(sys.modules),
        "seconds": round(seconds, 1),
    }


def variables() -> list[str]:
    """Return the names of the image's variables, as this build step has them, without what a builder adds.

    Values are not kept: a capture on a node takes the container's own, of these variables and no others.
    """
    return sorted(name for name in os.environ if name.upper() not in _PROXIES)


def _is_kept(path: str) -> bool:
    """Return whether a path is that of a file on a disk."""
    return path.startswith("/") and not path.startswith(("/proc/", "/sys/", "/dev/")) and os.path.isfile(path)


def attempt_apart(imports: Imports, left_out: Sequence[str]) -> dict[str, Any] | None:
    """Do the same in a process of its own, so that the next attempt starts afresh; ``None`` if it dies."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                json.dump(attempt(imports, left_out), file)
                file.flush()
                code = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        file.seek(0)
        found: dict[str, Any] | None = json.load(file) if status == 0 else None
        return found


def main(arguments: Sequence[str]) -> int:
    """Record the closure that a file asks for into another; return 1 when the engine cannot be imported."""
    imports_path, output = arguments
    del sys.path[0]  # this package's: nothing that is recorded may depend on it
    with open(imports_path, encoding="utf-8") as file:
        imports = Imports.from_json(file.read())
    required = set(imports.required_modules)
    left_out: dict[str, str] = {}
    while True:
        closure = attempt_apart(imports, list(left_out))
        if closure is None:
            print("warmimage: error: importing the engine ends the interpreter in this image", file=sys.stderr)
            return 1
        violations = {module: what for what, module in closure.pop("violations").items()}
        if not violations or violations.keys() & required or violations.keys() <= left_out.keys():
            break
        left_out |= violations
    for module in violations.keys() & required:
        closure["modules"], closure["later"] = [], []  # so tier zygote declines before it imports anything
        closure["skipped"].append({"module": module, "reason": f"its import leaves a {violations[module]}: no closure"})
    required -= violations.keys()
    for module, what in left_out.items():
        closure["skipped"].append({"module": module, "reason": f"its import leaves a {what}"})
    for entry in closure["skipped"]:
        print(f"warmimage: closure: {entry['module']} skipped: {entry['reason']}", file=sys.stderr)
    broken = [entry for entry in closure["skipped"] if entry["module"] in required]
    if broken:
        print(f"warmimage: error: the engine cannot be imported in this image: {broken[0]['reason']}", file=sys.stderr)
        return 1
    closure["variables"] = variables()
    with open(output, "w", encoding="utf-8") as file:
        json.dump(closure, file, indent=1)
    files, seconds = len(closure["files"]), closure["seconds"]
    print(f"recorded {closure['imported']} modules, {files} files, imported in {seconds} s")
    return 0
