"""The Docker daemon: whether it answers, its storage, and its BuildKit client."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any

from ..docker_api import buildkit
from ..docker_api.daemon import connect
from ..errors import EnvironmentLacks
from .finding import Observation
from .run import Facts
from .target import Target

#: Storage drivers by how they share an image's files between containers.
_SHARED = ("overlay2", "overlay", "overlayfs", "btrfs", "zfs", "aufs", "windowsfilter")
_FUSE = ("fuse-overlayfs", "stargz", "soci", "nydus")
_COPIES = ("vfs", "devicemapper", "native")


def daemon(target: Target, _facts: Facts) -> Observation:
    """Does a daemon answer that is new enough?  The fact is ``docker info``."""
    try:
        with closing(connect()) as client:
            version, info = client.version(), client.info()
    except EnvironmentLacks as error:
        (problem,) = error.problems
        expected = problem.expected or "Docker 20.10 (API 1.41) or later"
        return Observation("unusable", f"{problem.what}: {problem.got}", expected, {"fix": problem.fix})
    where = os.environ.get("DOCKER_HOST") or "the default socket"
    return Observation("answers", f"{version['Version']}, API {version['ApiVersion']}, at {where}", fact=info)


def storage(_target: Target, facts: Facts) -> Observation:
    """Which storage driver does the daemon use, and where does it keep images?"""
    info: dict[str, Any] = facts["docker"]
    driver = str(info["Driver"])
    backing = dict(info.get("DriverStatus") or ()).get("Backing Filesystem")
    description = driver + (f" on {backing}" if backing else "") + f", at {info['DockerRootDir']}"
    outcomes = {"shared": _SHARED, "fuse": _FUSE, "copies": _COPIES}
    return Observation(
        next((name for name, drivers in outcomes.items() if driver in drivers), "unknown"), description, "overlay2"
    )


def builder(_target: Target, _facts: Facts) -> Observation:
    """Is there a docker command that builds with BuildKit?"""
    try:
        client = buildkit.find_builder()
    except EnvironmentLacks as error:
        (problem,) = error.problems
        return Observation("none", problem.got, problem.expected, {"fix": problem.fix})
    return Observation("found", " ".join(client.command))
