"""What an image of ours says about itself: its plan, its snapshot, and its size by purpose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import docker
from docker.models.images import Image

from ..build import snapshot_facts
from ..build.snapshot_facts import Captured
from ..docker_api import daemon
from ..errors import ConfigError
from ..plan import MODEL_PATH, Plan

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


def _copied_to(*directories: str) -> re.Pattern[str]:
    """Return what marks a COPY to one of these directories.

    Only the destination is in every builder's history: BuildKit writes ``COPY source destination``, the classic builder
    and buildah write ``#(nop) COPY dir:HASH in destination``.
    """
    return re.compile(rf"\bCOPY .*\s(?:{'|'.join(map(re.escape, directories))})/?\s*(?:#|$)")


#: What marks a layer's purpose in the image's history: words of the template's instructions, with the paths of
#: ``planner.FOLDERS``.
_MARKS = (
    # First: a user's own command may hold any of the words below.  Metadata and copies may hold that command.
    ("steps", re.compile(r"^(?!COPY|LABEL|ENV|/bin/sh -c #\(nop\)).*\bsh -euc ")),
    ("wheels", _copied_to("/opt/engine")),
    ("snapshot", re.compile(r"/opt/warmimage/entrypoint capture ")),
    ("caches", _copied_to("/opt/warmimage/caches")),
    ("bytecode", re.compile(r"/compile-bytecode\.py\b")),
    ("closure", re.compile(r"/opt/warmimage/entrypoint record-closure |/imports\.json\b")),
    ("weights", _copied_to(MODEL_PATH)),
    ("entrypoint", re.compile(rf"{_copied_to('/opt/warmimage/entrypoint').pattern}|-m compileall ")),
)

#: The template's first instruction: what is older belongs to the base image.
_FIRST = re.compile(r"LABEL dev\.warmimage\.schema=")


@dataclass(frozen=True)
class ImageReport:
    """An image read back.

    Attributes:
        reference: as it was asked for.
        id: ``sha256:...``.
        digests: digest references under which a registry holds it.
        plan: the plan it was built from.
        labels: all labels but the plan's.
        size_bytes: its size.
        sizes: bytes by purpose, in layer order; zero where a purpose has no layer.
        snapshot: the snapshot in it, or ``None``.
        snapshot_absent: why it has no snapshot; empty where it has one.
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
        WarmimageError: there is no such image, or the manifest of its snapshot is damaged.
        ConfigError: it is not one of ours, or from a version with another plan.
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
        labels={name: value for name, value in sorted(labels.items()) if name != "dev.warmimage.plan"},
        size_bytes=daemon.size_bytes(image),
        sizes=sizes_by_purpose(history),
        snapshot=captured,
        snapshot_absent=absent,
    )


def plan_of(image: Image, reference: str) -> Plan:
    """Return the plan in an image's label.

    Raises:
        ConfigError: there is none, or one of another version.
    """
    text = image.labels.get("dev.warmimage.plan")
    if not text:
        raise ConfigError("not an image built by warmimage", where=reference, fix="warmimage build --model DIR")
    try:
        return Plan.from_json(text)
    except ValueError as error:
        version = image.labels.get("dev.warmimage.version", "unknown")
        raise ConfigError(
            "the image's plan is of another version",
            where=reference,
            got=f"warmimage {version}: {error}",
            fix="build the image again",
        ) from None


def sizes_by_purpose(history: list[dict[str, Any]]) -> dict[str, int]:
    """Return the bytes of each purpose's layers, from an image's history (the newest first)."""
    sizes = dict.fromkeys(PURPOSES, 0)
    own = True
    for entry in history:
        created_by = str(entry["CreatedBy"])
        if not own:
            sizes["base"] += int(entry["Size"])
            continue
        purpose = next((name for name, mark in _MARKS if mark.search(created_by)), "settings")
        sizes[purpose] += int(entry["Size"])
        own = not _FIRST.search(created_by)
    return sizes
