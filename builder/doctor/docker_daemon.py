"""The Docker daemon: is it there, where it keeps images, and who builds with it."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any

from ..docker_api import buildkit
from ..docker_api.daemon import connect
from ..errors import EnvironmentLacks
from .finding import Seen
from .probe import Facts
from .target import Subject

#: Storage drivers by how they share an image's files between containers.
_SHARED = ("overlay2", "overlay", "overlayfs", "btrfs", "zfs", "aufs", "windowsfilter")
_FUSE = ("fuse-overlayfs", "stargz", "soci", "nydus")
_COPIES = ("vfs", "devicemapper", "native")


def daemon(subject: Subject, _facts: Facts) -> Seen:
    """Is a daemon there that is new enough?  The fact is what it says of itself."""
    try:
        with closing(connect()) as client:
            version, info = client.version(), client.info()
    except EnvironmentLacks as error:
        (problem,) = error.problems
        expected = problem.expected or "Docker 20.10 (API 1.41) or later"
        return Seen("unusable", f"{problem.what}: {problem.got}", expected, {"fix": problem.fix})
    where = os.environ.get("DOCKER_HOST") or "the default socket"
    return Seen("answers", f"{version['Version']}, API {version['ApiVersion']}, at {where}", fact=info)


def storage(_subject: Subject, facts: Facts) -> Seen:
    """How does the daemon keep images, and where?"""
    info: dict[str, Any] = facts["docker"]
    driver = str(info["Driver"])
    backing = dict(info.get("DriverStatus") or ()).get("Backing Filesystem")
    found = driver + (f" on {backing}" if backing else "") + f", at {info['DockerRootDir']}"
    outcomes = {"shared": _SHARED, "fuse": _FUSE, "copies": _COPIES}
    return Seen(next((name for name, drivers in outcomes.items() if driver in drivers), "unknown"), found, "overlay2")


def builder(_subject: Subject, _facts: Facts) -> Seen:
    """Is a docker command there that builds with BuildKit?"""
    try:
        found = buildkit.find_builder()
    except EnvironmentLacks as error:
        (problem,) = error.problems
        return Seen("none", problem.got, problem.expected, {"fix": problem.fix})
    return Seen("found", " ".join(found.command))
