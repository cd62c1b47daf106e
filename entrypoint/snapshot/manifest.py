"""What a snapshot is of, and where it may be restored."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .. import environment
from ..accelerator import Accelerator

NAME = "manifest.json"

SCHEMA = 2

#: Extensions of the instruction set that native code may have chosen between when it was loaded.
_EXTENSION = re.compile(
    r"(sse|ssse|avx|amx|bmi|fma|f16c|movbe|movdir|popcnt|abm|aes|pclmul|vaes|vpclmul|sha|gfni|erms|fsrm|rdrand|rdseed|rdpid"
    r"|xsave|xget|clflush|clwb|serialize|fsgsbase|pku|ospke|cx16|lahf|mmx|fxsr|rtm|waitpkg|cldemote|adx|prefetchw).*"
)


@dataclass(frozen=True)
class Manifest:
    """A snapshot.

    Attributes:
        engine: name and version.
        criu: version that dumped it.
        kernel: release of the kernel that it was captured on.
        machine: architecture.
        cpu_features: the CPU's extensions there.
        uid: user id of the process.
        python: path of the interpreter.
        closure: digest of the image's closure.
        files: path, size in bytes and time of change in seconds of each file that is mapped.
        accelerator: the GPUs and the driver there: what imports ask of them is remembered.
        contract: what the imports took from the environment.
        modules: how many are imported.
        bytes: size of the dump.
    """

    engine: Mapping[str, str]
    criu: str
    kernel: str
    machine: str
    cpu_features: tuple[str, ...]
    uid: int
    python: str
    closure: str
    files: tuple[tuple[str, int, int], ...]
    contract: environment.Contract
    modules: int
    bytes: int
    accelerator: Accelerator = field(default_factory=Accelerator)

    def to_json(self) -> str:
        """Return the text of the file ``manifest.json``."""
        data = asdict(self)
        data["environment"] = data.pop("contract")
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
        contract = environment.Contract(**data.pop("environment"))
        files = tuple((path, size, changed) for path, size, changed in data.pop("files"))
        features = tuple(data.pop("cpu_features"))
        data["accelerator"] = Accelerator.of(data.pop("accelerator", {}))
        return cls(**data, contract=contract, files=files, cpu_features=features)

    def mismatch(self, variables: Mapping[str, str], closure: str, python: str, criu: str) -> str:
        """Return why this snapshot cannot be restored here and now, or an empty string.

        Args:
            variables: the engine's environment.
            closure: digest of this image's closure.
            python: path of the engine's interpreter.
            criu: version of this image's CRIU.
        """
        if self.closure != closure:
            return "it was captured from another image"
        if self.python != python:
            return f"the engine's interpreter is {python or 'absent'}, and was {self.python}"
        if self.criu != criu:
            return f"CRIU is {criu or 'of no version'}, and was {self.criu}"
        if self.machine != os.uname().machine:
            return f"it was captured on {self.machine}"
        absent = sorted(set(self.cpu_features) - set(cpu_features()))
        if absent:
            return f"this CPU lacks {', '.join(absent[:5])}{' and others' if len(absent) > 5 else ''}"
        if _version(os.uname().release) < _version(self.kernel):
            return f"kernel {os.uname().release} is older than {self.kernel}, on which it was captured"
        differs = self.accelerator.mismatch(Accelerator.here())
        if differs:
            return differs
        if self.uid != os.getuid():
            return f"it was captured as user {self.uid}, and this is {os.getuid()}"
        changed = next((path for path, size, moment in self.files if not unchanged(path, size, moment)), "")
        if changed:
            return f"{changed} is not the file that it was captured with"
        return self.contract.broken(self.environment(variables), restored=True)

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return an environment as the captured interpreter would have made it its own.

        Where no locale is named, Python sets ``LC_CTYPE`` at its start (PEP 538), and nothing else does so later.
        """
        before = self.contract.variables
        coerced = before.get("LC_CTYPE") if not any(before.get(name) for name in ("LC_ALL", "LANG")) else None
        if coerced and not any(variables.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG")):
            return {**variables, "LC_CTYPE": coerced}
        return dict(variables)


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


def identity(path: str) -> tuple[str, int, int]:
    """Return a file's path, size in bytes, and time of change in seconds: image layers keep no finer one.

    Raises:
        OSError: there is no such file.
    """
    found = os.stat(path)
    return path, found.st_size, int(found.st_mtime)


def unchanged(path: str, size: int, moment: int) -> bool:
    """Return whether a file is still the one that ``identity`` told of."""
    try:
        return identity(path) == (path, size, moment)
    except OSError:
        return False


def _version(release: str) -> tuple[int, ...]:
    """Return the major and minor version in a kernel release."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def read_contract(path: str) -> tuple[environment.Contract, dict[str, Any]]:
    """Return the contract that a process at the snapshot point has written, and what else it says of itself."""
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    return environment.Contract(**data.pop("contract")), data
