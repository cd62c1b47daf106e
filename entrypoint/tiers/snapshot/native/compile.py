"""Compile the native part, as a step of the wheel's build and by hand: ``python compile.py DIRECTORY``.

The compiler is the one in the package ``ziglang`` (clang with the headers for every target), so neither the build nor
the user needs a system compiler, and one machine compiles for all.  The output depends on nothing but the sources and
that version: no path, no time, no build id.
"""

from __future__ import annotations

import os
import subprocess
import sys

from setuptools.command.build_py import build_py

HERE = os.path.dirname(os.path.abspath(__file__))

#: Library -> its sources.
LIBRARIES = {
    "point.so": ("point.c", "memory.c"),
    "restore.so": ("restore.c", "areas.c", "tables.c", "vdso.c", "memory.c"),
}

#: Machine -> the compiler's further flags.
MACHINES = {"x86_64": ("-fcf-protection=none",), "aarch64": ()}

#: No C library, no stack protector (it reads the thread's memory, which is not there yet), no unwinding tables.
FLAGS = (
    "-std=c11",
    "-O2",
    "-g0",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fno-builtin",
    "-fPIC",
    "-shared",
    "-nostdlib",
    "-fvisibility=hidden",
    "-fno-stack-protector",
    "-fno-sanitize=all",
    "-fno-asynchronous-unwind-tables",
    "-Wl,-s",
    "-Wl,--build-id=none",
)


def compile_into(directory: str) -> None:
    """Compile every library for every machine into ``DIRECTORY/MACHINE/LIBRARY``.

    Raises:
        subprocess.CalledProcessError: the compiler refuses; it has said why.
    """
    for machine, flags in MACHINES.items():
        target = os.path.join(os.path.abspath(directory), machine)
        os.makedirs(target, exist_ok=True)
        for name, sources in LIBRARIES.items():
            output = os.path.join(target, name)
            command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-gnu.2.17", *FLAGS, *flags]
            subprocess.run([*command, "-o", output, *sources], check=True, cwd=HERE)
            os.chmod(output, 0o644)


class BuildNative(build_py):
    """The wheel's step ``build_py``: copy the packages, then compile the native part beside its Python package."""

    def run(self) -> None:
        """Build."""
        super().run()
        compile_into(os.path.join(self.build_lib, "warmimage", "entrypoint", "tiers", "snapshot", "native"))


if __name__ == "__main__":
    compile_into(sys.argv[1])
