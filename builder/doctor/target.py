"""The target of the checks: the command's options, and paths that tests replace."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker


@dataclass(frozen=True)
class Target:
    """This host, and an image.

    Attributes:
        image: reference of the image to check the host against, or ``None``.
        model_dir: directory of the model, or ``None``.
        gpus: GPUs for a container, as ``docker run --gpus`` takes them; empty for none.
        proc: the ``/proc`` to read the GPU driver from.
        cgroups: where cgroups are mounted.
        data_root: directory of the daemon's images; ``None`` takes the daemon's own setting.
        container: further keyword arguments for the creation of containers.
        run: label of this run's containers, by which they are removed.
    """

    image: str | None = None
    model_dir: Path | None = None
    gpus: str = ""
    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")
    data_root: Path | None = None
    container: Mapping[str, Any] = field(default_factory=dict)
    run: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def local(self) -> bool:
        """Whether the daemon's address is one on this machine."""
        return (os.environ.get("DOCKER_HOST") or "unix://").startswith("unix://")

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the containers of this run."""
        return {"dev.warmimage.doctor": self.run}

    def client(self) -> docker.DockerClient:
        """Return a client of the daemon for one thread, which must close it."""
        return docker.from_env(timeout=20)
