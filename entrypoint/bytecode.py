"""Build time: compile the bytecode of everything importable that has none, so that no start ever compiles.

Unchecked-hash bytecode (PEP 552): an image's files never change, so there is nothing to compare at import.
"""

from __future__ import annotations

import compileall
import contextlib
import io
import os
import py_compile
import sys
import sysconfig


def roots() -> list[str]:
    """Return the folders that this interpreter imports from, the standard library's first."""
    folders = [sysconfig.get_paths()["stdlib"], *sys.path[1:]]
    return [folder for folder in dict.fromkeys(os.path.realpath(entry) for entry in folders) if os.path.isdir(folder)]


def main() -> int:
    """Compile, and report the files that are no valid Python (templates, Python 2) without failing the build."""
    problems = io.StringIO()
    with contextlib.redirect_stdout(problems):
        for folder in roots():
            compileall.compile_dir(
                folder, quiet=1, workers=0, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
            )
    failed = sum(line.startswith("***") for line in problems.getvalue().splitlines())
    print(
        f"compiled {len(roots())} folders; {failed} files are not valid Python for this interpreter, left as they are"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
