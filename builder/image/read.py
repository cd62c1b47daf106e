"""Read an image back: its plan, its snapshot, and its size by purpose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import docker
from docker.models.images import Image

from ..docker_api import daemon
from ..errors import ConfigError
from ..plan import Plan
from . import snapshot_facts
from .snapshot_facts import Captured

PURPOSES = (
    "base",
    "steps",
    "wheels",
    "bytecode",
    "weights",
    "entrypoint",
    "closure",
    "settings",
    "caches",
    "snapshot",
)


#: The template's first instruction.  Older layers belong to the base image.
_FIRST = re.compile(r"LABEL \"?dev\.warmimage\.schema\"?=")

#: The template's label before the layers of one purpose.  BuildKit writes ``LABEL name=value`` into an image's history,
#: the classic builder and buildah write ``/bin/sh -c #(nop)  LABEL name=value``.
_LAYER = re.compile(r"^(?:/bin/sh -c #\(nop\) +)?LABEL \"?dev\.warmimage\.layer\"?=\"?(\w+)")

#: Labels that ``inspect`` leaves out: the plan, which it shows in another form, and the last layer's purpose.
_HIDDEN_LABELS = ("dev.warmimage.plan", "dev.warmimage.layer")


@dataclass(frozen=True)
class ImageReport:
    """An image read back.

    Attributes:
        reference: the reference that it was read by.
        id: ``sha256:...``.
        digests: digest references under which a registry holds it.
        plan: its plan.
        labels: all labels, except the plan's and the one that marks layers.
        size_bytes: its size.
        sizes: bytes by purpose, in layer order; 0 for a purpose without layers.
        snapshot: its snapshot, or ``None``.
        snapshot_absent: why it has no snapshot; empty if it has one.
    """

    reference: str
    id: str
    digests: tuple[str, ...]
    plan: Plan
    labels: dict[str, str]
    size_bytes: int
    sizes: dict[str, int]
    snapshot: Captured | None = None
    snapshot_absent: str = ""


def inspect(client: docker.DockerClient, reference: str) -> ImageReport:
    """Read an image back.

    Raises:
        WarmimageError: the image does not exist, or its snapshot's manifest is damaged.
        ConfigError: warmimage did not build it, or another version of warmimage did.
    """
    with daemon.api_errors(f"cannot inspect {reference}"):
        image = client.images.get(reference)
        history = image.history()
    labels = dict(image.labels)
    plan = plan_of(image, reference)
    captured, absent = snapshot_facts.read(client, reference, plan)
    return ImageReport(
        reference=reference,
        id=str(image.id),
        digests=tuple(image.attrs.get("RepoDigests") or ()),
        plan=plan,
        labels={name: value for name, value in sorted(labels.items()) if name not in _HIDDEN_LABELS},
        size_bytes=daemon.size_bytes(image),
        sizes=sizes_by_purpose(history),
        snapshot=captured,
        snapshot_absent=absent,
    )


def plan_of(image: Image, reference: str) -> Plan:
    """Return the plan in an image's label.

    Raises:
        ConfigError: there is no plan, or another version wrote it.
    """
    text = image.labels.get("dev.warmimage.plan")
    if not text:
        raise ConfigError("not an image built by warmimage", where=reference, fix="warmimage build --model DIR")
    try:
        return Plan.from_json(text)
    except ValueError as error:
        version = image.labels.get("dev.warmimage.version", "unknown")
        raise ConfigError(
            "another version of warmimage wrote the image's plan",
            where=reference,
            got=f"warmimage {version}: {error}",
            fix="build the image again",
        ) from None


def sizes_by_purpose(history: list[dict[str, Any]]) -> dict[str, int]:
    """Return the bytes of each purpose's layers.

    Args:
        history: the image's history, newest entry first.
    """
    first = next((at for at, entry in enumerate(history) if _FIRST.search(entry["CreatedBy"])), -1)
    sizes = dict.fromkeys(PURPOSES, 0)
    sizes["base"] = sum(int(entry["Size"]) for entry in history[first + 1 :])
    purpose = "settings"
    for entry in reversed(history[: first + 1]):
        label = _LAYER.match(entry["CreatedBy"])
        purpose = label[1] if label and label[1] in sizes else purpose
        sizes[purpose] += int(entry["Size"])
    return sizes
