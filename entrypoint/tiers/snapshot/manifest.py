"""What a snapshot was captured from, and where it may be restored."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field

from ...environment import import_environment
from ...kernel.gpus import Accelerator
from ...settings import CLOSURE
from . import native
from .identity import Identity, content, has_size_and_time, sample

NAME = "manifest.json"

#: The snapshot file beside it.
MEMORY = "memory"

#: Instead of both, the reason why nothing was captured.
DECLINED = "declined"

SCHEMA = 3

#: Extensions of the instruction set that native code may have chosen between when it was loaded.  Those of one vendor
#: alone, those for the kernel, and those that only say what is fast (``erms``) decide nothing.
_EXTENSION = re.compile(
    r"(sse2?$|sse4_|ssse3|avx|amx|bmi|fma|f16c|movbe|movdir|popcnt|abm|aes|pclmul|vaes|vpclmul|sha|gfni|rdrand|rdseed"
    r"|cx16|lahf|rtm|waitpkg|cldemote|serialize|adx).*"
)


@dataclass(frozen=True)
class Manifest:
    """A snapshot.

    Attributes:
        machine: architecture, as ``uname -m`` names it.
        baseline: the level of the architecture that it was captured for, empty for that of the capturing CPU.
        cpu_features: the CPU's extensions that it may use.
        kernel: release of the kernel that it was captured on.
        python: path of the interpreter.
        closure: CRC-32 of the image's closure.
        native: CRC-32 of the native files.
        files: each file that is mapped, with the checksum of a sample.
        contract: what the imports took from the environment.
        threads: names of native threads that imports had left, and that a restored process lacks.
        modules: how many are imported.
        bytes: size of the snapshot file.
        tables_bytes: of them, header and tables.
        tables: CRC-32 of header and tables.
        accelerator: the GPUs and the driver there: what imports ask of them is remembered.
    """

    machine: str
    baseline: str
    cpu_features: tuple[str, ...]
    kernel: str
    python: str
    closure: int
    native: int
    files: tuple[Identity, ...]
    contract: import_environment.Contract
    threads: tuple[str, ...]
    modules: int
    bytes: int
    tables_bytes: int
    tables: int
    accelerator: Accelerator = field(default_factory=Accelerator)

    def to_json(self) -> str:
        """Return the text of the file ``manifest.json``."""
        data = {name: value for name, value in vars(self).items() if name not in ("contract", "files", "accelerator")}
        data["accelerator"] = self.accelerator.to_dict()
        data["environment"] = asdict(self.contract)
        data["files"] = [astuple(identity) for identity in self.files]
        return json.dumps({"schema": SCHEMA, **data}, indent=1) + "\n"

    @classmethod
    def of(cls, text: str) -> Manifest:
        """Return the one that the text of a file ``manifest.json`` is.

        Raises:
            ValueError, KeyError, TypeError: it is damaged, or of another version.
        """
        data = json.loads(text)
        if data.pop("schema") != SCHEMA:
            raise ValueError("it was written by another version")
        data["contract"] = import_environment.Contract(**data.pop("environment"))
        data["files"] = tuple(Identity(*row) for row in data["files"])
        data["cpu_features"], data["threads"] = tuple(data["cpu_features"]), tuple(data["threads"])
        data["accelerator"] = Accelerator.of(data["accelerator"])
        return cls(**data)

    def mismatch(self, variables: Mapping[str, str], python: str, closure: str = CLOSURE) -> str | None:
        """Return why this snapshot cannot be restored here and now; ``None`` if it can.

        Args:
            variables: the engine's environment.
            python: path of the engine's interpreter.
            closure: path of the image's closure.
        """
        if self.closure != content(closure):
            return "it was captured from another image"
        if self.python != python:
            return f"the engine's interpreter is {python or 'absent'}, and was {self.python}"
        reason = self.host_mismatch(os.uname().machine, cpu_features())
        if reason:
            return reason
        try:
            if self.native != native.checksum():
                return "its native files are of another version"
        except LookupError as error:
            return str(error)
        differs = self.accelerator.mismatch(Accelerator.here())
        if differs:
            return differs
        changed = next((identity.path for identity in self.files if not _is_same(identity)), "")
        if changed:
            return f"{changed} is not the file that it was captured with"
        return self.contract.conflict(variables, restored=True)

    def host_mismatch(self, machine: str, features: Sequence[str]) -> str | None:
        """Return why a host's processor cannot restore this snapshot; ``None`` if it can.

        Args:
            machine: its architecture, as ``uname -m`` names it.
            features: its extensions, as ``cpu_features`` returns them.
        """
        if self.machine != machine:
            return f"it was captured on {self.machine}"
        if machine not in native.RESTORES:
            return f"restoring is not tested on {machine}"
        absent = sorted(set(self.cpu_features) - set(features))
        if absent:
            return f"this CPU lacks {', '.join(absent[:5])}{' and others' if len(absent) > 5 else ''}"
        return None

    def tables_problem(self, directory: str) -> str | None:
        """Return what is wrong with the snapshot file's length, header and tables; ``None`` for nothing."""
        path = os.path.join(directory, MEMORY)
        try:
            with open(path, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                tables = file.read(self.tables_bytes)
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        if size != self.bytes:
            return f"{path} has {size} bytes, and had {self.bytes}"
        return None if zlib.crc32(tables) == self.tables else f"{path} is damaged"


def _is_same(identity: Identity) -> bool:
    """Return whether a file seems to be that of the capture; its whole content is compared later, beside the start."""
    same = has_size_and_time(identity)
    if same is not None:
        return same
    try:
        return sample(identity.path) == identity.checksum
    except OSError:
        return False


def read(directory: str) -> str:
    """Return the text of a snapshot's manifest.

    Raises:
        OSError: there is none.
    """
    with open(os.path.join(directory, NAME), encoding="utf-8") as file:
        return file.read()


def cpu_features() -> list[str]:
    """Return the CPU's instruction set extensions, as the kernel names them."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for row in file:
            name, _, value = row.partition(":")
            if name.strip() == "flags":
                return [word for word in value.split() if _EXTENSION.fullmatch(word)]
            if name.strip() == "Features":  # of arm64: nothing else is there
                return value.split()
    return []
