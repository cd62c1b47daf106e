"""The Helm chart's values that a build knows: image, sizes, ports, user, snapshot, writable directories."""

from __future__ import annotations

import io
import math
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound
from docker.models.containers import Container
from ruamel.yaml import YAML

from .. import __version__, engines
from ..docker_api import daemon, temporary_container
from ..entrypoint.environment.import_environment import NATIVE
from ..entrypoint.environment.reapply import READERS
from ..entrypoint.environment.reapply_devices import DEVICE_HANDLERS
from ..entrypoint.settings import last_value
from ..errors import ConfigError, WarmimageError
from ..files import write_whole
from ..image.read import ImageReport
from ..image.snapshot_facts import Captured
from ..plan import Plan

FILE_NAME = "values.generated.yaml"

#: First characters of a written file.  Only a file that begins with them is overwritten.
_MARK = "# Written by warmimage"

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}

#: Variables that move a cache, in addition to those of the adapters.  The server must be able to write there.
_CACHES = re.compile(r"^(?:\w+_CACHE(?:_DIR|_ROOT|_PATH|_HOME)?|HF_HOME|PROMETHEUS_MULTIPROC_DIR)$")

#: Variables of the interpreter's start, which deployments set.  A restored process has no such start.
_INTERPRETER_VARIABLES = ("PYTHONHASHSEED", "PYTHONPATH")

#: Assumed rate of a pull in bytes per second, and its constant part in seconds.
_PULL_RATE, _PULL_BASE = 50_000_000, 120

#: Bytes of an archive that hold the headers of its first two members.
_ARCHIVE_BEGINNING = 1 << 16

#: Time limit of a start in seconds, if the size of the weights is unknown.
_UNKNOWN_START = 1800


@dataclass(frozen=True)
class Built:
    """An image, and its facts that are not in its plan.

    Attributes:
        plan: its plan.
        tag: its first tag.
        digest: its digest reference in a registry; empty if it was not pushed.
        size: its bytes.
        weight_bytes: size of the weights; 0 if unknown.
        environment: its variables.
        filled: writable directories that are not empty in the image.
        lacking: missing packages for the HTTP API of its command ``warm``.
        snapshot: its snapshot, or ``None``.
    """

    plan: Plan
    tag: str
    digest: str
    size: int
    weight_bytes: int
    environment: Mapping[str, str]
    filled: frozenset[str] = frozenset()
    lacking: tuple[str, ...] = ()
    snapshot: Captured | None = None


def check(path: Path) -> None:
    """Check before a build that the values can be written.

    Raises:
        ConfigError: the file exists, and no build wrote it.
    """
    if path.is_dir():
        raise ConfigError("the values file is a directory", where=str(path), fix="--values FILE")
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the values file cannot be read: {error}", where=str(path), fix="--values FILE") from None
    if not first.startswith(_MARK):
        raise ConfigError(
            "the values file was not written by a build, so it is not overwritten",
            where=str(path),
            got=repr(first.strip()[:60]),
            expected=repr(f"{_MARK} ..."),
            fix="--values FILE, or --no-values",
        )


def write(path: Path, built: Built) -> None:
    """Write the values of an image; the file appears whole or not at all.

    Raises:
        WarmimageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text(built))
    except OSError as error:
        raise WarmimageError(
            f"the values cannot be written: {error.strerror or error}", where=str(path), fix="--values FILE"
        ) from None


def text(built: Built) -> str:
    """Return the values file of an image."""
    plan = built.plan
    key = model_key(plan.model.name)
    revision = f" at {plan.model.revision}" if plan.model.revision else ""
    base = plan.base.image + (f"@{plan.base.digest}" if plan.base.digest else "")
    lines = [
        f"{_MARK} {__version__}. The next build overwrites it: put your own values into another file, after this one:",
        "#   helm upgrade --install RELEASE CHART -f values.generated.yaml -f mine.yaml",
        f"# Image:  {built.digest or f'{built.tag}, not pushed yet: no digest is known (warmimage build --push)'}",
        f"# Inputs: {plan.engine.name} {plan.engine.version} for {plan.accelerator}; model {plan.model.reference}"
        f"{revision}; weights {plan.weights}; base {base}",
    ]
    if plan.model.mounted:
        lines.append(f"# Set the volume of the model: models.{key}.weights.volume.")
    if not built.weight_bytes:
        lines.append(f"# The size of the weights is unknown: set models.{key}.weights.bytes.")
    if built.lacking:
        lines.append(f"# No warmer: the image lacks {', '.join(built.lacking)}.")
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump({"models": {key: _model(built)}}, stream)
    return "\n".join(lines) + "\n" + stream.getvalue()


def model_key(name: str) -> str:
    """Return a model's key in the values: the last part of its name, as a valid resource name."""
    words = re.sub(r"[^a-z0-9]+", "-", name.rpartition("/")[2].lower()).strip("-")
    return words[:40].strip("-") or "model"


def quantity(size: int) -> str:
    """Return bytes as a Kubernetes quantity, rounded up to whole MiB.  A plain number might become a float."""
    return f"{-(-size // (1 << 20))}Mi" if size else ""


def _model(built: Built) -> dict[str, Any]:
    plan = built.plan
    known: dict[str, Any] = {
        "image": _image(built),
        "servedName": plan.model.name,
        "port": plan.engine.port,
        "healthPath": plan.engine.health_path,
        "metricsPath": _metrics_path(plan),
        "podSecurityContext": {"runAsNonRoot": bool(plan.user), "runAsUser": plan.user},
        "snapshot": _snapshot(built.snapshot),
        "weights": {"strategy": plan.weights, "path": plan.model.path, "bytes": quantity(built.weight_bytes)},
        "startup": {"pullSeconds": _PULL_BASE + -(-built.size // _PULL_RATE)},
        "writable": _writable(built),
    }
    if not built.weight_bytes:
        known["startup"]["seconds"] = _UNKNOWN_START
    if built.lacking:
        known["warmer"] = {"enabled": False}
    if plan.base.machine in _MACHINES:
        known["arch"] = _MACHINES[plan.base.machine]
    if plan.engine.shared_memory:
        known["sharedMemory"] = quantity(plan.engine.shared_memory)
    if plan.accelerator == "cuda":
        known["gpus"] = {"count": gpus(plan)}
    return known


def _snapshot(captured: Captured | None) -> dict[str, Any]:
    if not captured:
        return {"inImage": False, "bytes": quantity(0)}
    return {"inImage": True, "bytes": quantity(captured.bytes), "variables": _lasting(captured)}


def _lasting(captured: Captured) -> list[str]:
    """Return the variables that a restored process cannot apply; ``PREFIX*`` stands for all with that prefix."""
    reads: Mapping[str, str] = captured.environment.get("reads", {})
    hidden = captured.environment.get("hidden", {})  # hidden from the imports
    lasting = {*NATIVE, *_INTERPRETER_VARIABLES} - READERS.keys()
    for name, modules in reads.items():
        if set(modules.split(", ")) - READERS.get(name, frozenset()):
            lasting.add(name)
    return sorted(lasting - DEVICE_HANDLERS.keys() - set(hidden))


def _image(built: Built) -> dict[str, str]:
    if built.digest:
        name, _, digest = built.digest.partition("@")
        return {**_split(name), "digest": digest}
    name, _, version = built.tag.rpartition(":")
    # Without a tag, the part after the last colon is a registry's port and a path.
    return {**_split(name), "tag": version} if name and "/" not in version else _split(built.tag)


def _split(name: str) -> dict[str, str]:
    """Return registry and repository of an image's name, with Docker's rule for host names."""
    host, slash, path = name.partition("/")
    if slash and (host == "localhost" or "." in host or ":" in host):
        return {"registry": host, "repository": path}
    return {"repository": name}


def _metrics_path(plan: Plan) -> str:
    adapter = engines.adapters().get(plan.engine.name)
    if not adapter:  # the image's engine is registered on the machine that built it, and not here
        return ""
    served = not adapter.metrics_flag or adapter.metrics_flag in plan.engine.args
    return adapter.metrics_path if served else ""


def gpus(plan: Plan) -> int:
    """Return how many GPUs one server uses with the engine's arguments in the image."""
    adapter = engines.adapters().get(plan.engine.name)
    if not adapter:
        return 1
    parallelism = adapter.parallelism
    command = [_dashed(word) for word in (*plan.engine.command, *plan.engine.args)]
    count = math.prod(_count(command, flags) or 1 for flags in parallelism.factors)
    if parallelism.sharing_flag not in command:
        counts = (_count(command, flags) for flags in parallelism.replicas)
        count *= next((replicas for replicas in counts if replicas), 1)
    return count


def _dashed(word: str) -> str:
    """Return a long flag with dashes for underscores: vLLM takes both."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _count(command: Sequence[str], flags: Sequence[str]) -> int:
    """Return the number after one of a flag's names in a command; 0 if there is none."""
    value = last_value(command, flags)
    return int(value) if value.isascii() and value.isdigit() else 0


def _moves_a_cache(variable: str) -> bool:
    named = (
        place[0]
        for adapter in engines.adapters().values()
        for kind in adapter.caches.values()
        for place in kind.values()
    )
    return bool(_CACHES.match(variable)) or variable in named


def writable_directories(plan: Plan, environment: Mapping[str, str]) -> dict[str, str]:
    """Return a server's writable directories by the chart's names: its home, and caches that variables move."""
    directories = {"home": plan.folders.home}
    fixed = (plan.folders.home, "/tmp", "/run/warmimage", plan.model.path)  # noqa: S108 - of the container
    for name, path in sorted(environment.items()):
        if not _moves_a_cache(name) or not path.startswith("/"):
            continue
        below = [place for place in (*fixed, *directories.values()) if f"{path}/".startswith(f"{place}/")]
        if not below:
            directories[re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:32].strip("-")] = path
    return directories


def _writable(built: Built) -> dict[str, dict[str, Any]]:
    directories = writable_directories(built.plan, built.environment)
    return {name: {"path": path, "seed": path in built.filled} for name, path in directories.items()}


def inspect(
    client: docker.DockerClient, report: ImageReport, digest: str, weight_bytes: int, lacking: Sequence[str] = ()
) -> Built:
    """Read the facts of an image that its plan does not have.

    Args:
        client: the Docker daemon's.
        report: the image, by its first tag.
        digest: digest reference by which a registry holds it, or an empty string.
        weight_bytes: size of the weights; 0 if unknown.
        lacking: missing packages for the HTTP API of its command ``warm``.
    """
    tag = report.reference
    with daemon.api_errors(f"cannot inspect {tag}"):
        entries = client.images.get(tag).attrs["Config"].get("Env") or []
        environment = dict(entry.partition("=")[::2] for entry in entries)
        directories = writable_directories(report.plan, environment).values()
        with temporary_container.created(client, tag, {"command": ["true"]}, "a container to inspect") as made:
            filled = frozenset(path for path in directories if _holds_something(made, path))
    return Built(
        plan=report.plan,
        tag=tag,
        digest=digest,
        size=report.size_bytes,
        weight_bytes=weight_bytes,
        environment=environment,
        filled=filled,
        lacking=tuple(lacking),
        snapshot=report.snapshot,
    )


def _holds_something(container: Container, path: str) -> bool:
    """Return whether a directory of a container is not empty.  Reads only the beginning of its archive."""
    try:
        chunks, _ = container.get_archive(path)
    except NotFound:
        return False
    beginning = b""
    for chunk in chunks:
        beginning += chunk
        if len(beginning) >= _ARCHIVE_BEGINNING:
            break
    with tarfile.open(fileobj=io.BytesIO(beginning), mode="r|") as archive:
        archive.next()  # the directory itself
        return archive.next() is not None
