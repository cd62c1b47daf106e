"""Tier ``preload``: the engine starts normally, its native libraries loading beside its first imports."""

from __future__ import annotations

import os
import shutil

from ..settings import CLOSURE, ROOT, Settings, is_interpreter
from .base import Tier


class Preload(Tier):
    """Runs the engine's own script in its own interpreter, after ``launch.py`` has started the preload."""

    name = "preload"

    def decline(self, settings: Settings) -> str:
        """Decline a start that ends at once, and an image without a recorded closure."""
        if settings.quick:
            return f"{settings.quick} ends before anything is worth preloading"
        if not os.path.exists(CLOSURE):
            return f"the image has no {CLOSURE}"
        if not self._script(settings):
            return f"{settings.command[0]} is neither a Python script on PATH nor an interpreter with -m"
        return ""

    def command(self, settings: Settings) -> list[str]:
        """Return ``launch.py`` in front of the engine's own command line, its program's path resolved."""
        engine = settings.command
        launcher = os.path.join(ROOT, "entrypoint", "launch.py")
        return [settings.plan["python"], launcher, settings.timeline, self._script(settings), *engine[1:]]

    def _script(self, settings: Settings) -> str:
        """Return the path of the engine's program if it is an interpreter with ``-m`` or a Python script, else ""."""
        path = shutil.which(settings.command[0], path=settings.environment.get("PATH")) or ""
        if not path:
            return ""
        if is_interpreter(path):
            return path if settings.command[1:2] == ["-m"] else ""
        try:
            with open(path, "rb") as file:
                shebang = file.readline()
        except OSError:
            return ""  # executable, not readable: no script of ours to run
        return path if shebang.startswith(b"#!") and b"python" in shebang else ""
