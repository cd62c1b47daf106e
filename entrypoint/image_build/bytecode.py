"""Build time: compile the bytecode of everything importable that has none, so that no start ever compiles.

Unchecked-hash bytecode (PEP 552): an image's files never change, so there is nothing to compare at import.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig


def roots() -> list[str]:
    """Return the directories that this interpreter imports from, none of them inside another.

    Not the root directory, which an empty entry of ``PYTHONPATH`` makes one of them.
    """
    entries = [sysconfig.get_paths()["stdlib"], *filter(None, sys.path[1:])]
    directories = {os.path.realpath(entry) for entry in entries if os.path.isdir(entry)} - {"/"}
    return sorted(each for each in directories if not any(_inside(each, other) for other in directories - {each}))


def _inside(directory: str, other: str) -> bool:
    return os.path.commonpath([directory, other]) == other


def main() -> int:
    """Compile, and report the files that are no valid Python (templates, Python 2) without failing the build."""
    # In a process of its own: its workers report to the standard output that they inherit.
    command = [sys.executable, "-I", "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    report = subprocess.run([*command, *roots()], stdout=subprocess.PIPE, check=False).stdout
    failed = sum(line.startswith(b"***") for line in report.splitlines())
    print(
        f"compiled {len(roots())} directories; {failed} files are not valid Python for this interpreter and were left"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
