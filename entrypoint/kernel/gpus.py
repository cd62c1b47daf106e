"""Which NVIDIA GPUs and which driver are here, read from /proc: no library is loaded, no device is opened."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_DIRECTORY = "/proc/driver/nvidia"

#: The driver's version in the first line of ``/proc/driver/nvidia/version``.
_VERSION = re.compile(r"\s(\d{3,}(?:\.\d+)+)\s")


@dataclass(frozen=True)
class Accelerator:
    """The GPUs of a machine, as far as imports and compiled code may depend on them.

    Attributes:
        driver: the driver's version, empty where there is none.
        gpus: names of the models, each once, sorted: how many there are is the engine's matter at every start.
    """

    driver: str = ""
    gpus: tuple[str, ...] = ()

    @classmethod
    def here(cls, directory: str = _DIRECTORY) -> Accelerator:
        """Return what this machine has; nothing where the driver does not tell."""
        found = _VERSION.search(_text(f"{directory}/version"))
        rows = (row for path in glob.glob(f"{directory}/gpus/*/information") for row in _text(path).splitlines())
        models = {row.partition(":")[2].strip() for row in rows if row.startswith("Model:")}
        return cls(found[1] if found else "", tuple(sorted(models)))

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Accelerator:
        """Return the one that a manifest names."""
        return cls(str(data.get("driver", "")), tuple(map(str, data.get("gpus", ()))))

    def to_dict(self) -> dict[str, Any]:
        """Return what ``of`` takes."""
        return asdict(self)

    def mismatch(self, here: Accelerator) -> str | None:
        """Return what differs on another machine from this one; ``None`` where nothing does."""
        if here.gpus != self.gpus:
            return f"the GPU is {_words(here.gpus)}, and was {_words(self.gpus)}"
        if here.driver != self.driver:
            return f"the GPU's driver is {here.driver or 'absent'}, and was {self.driver or 'absent'}"
        return None


def _words(names: Sequence[str]) -> str:
    return " and ".join(names) or "absent"


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
