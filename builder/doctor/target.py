"""What is examined: options of the command, and the places that tests put faults into."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker


@dataclass(frozen=True)
class Subject:
    """This host, and an image.

    Attributes:
        image: reference of the image to check the host against, or ``None``.
        model_dir: directory of the model, or ``None``.
        gpus: GPUs to give a container, as ``docker run --gpus`` takes them; empty tries none.
        proc: the ``/proc`` that tells of the GPU driver.
        cgroups: where cgroups are mounted.
        data_root: where the daemon's images are; ``None`` asks the daemon.
        container: further words of a container's creation.
        run: marks the containers of this run, so that none outlives it.
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
        """Whether the daemon is on this machine, as far as its address tells."""
        return (os.environ.get("DOCKER_HOST") or "unix://").startswith("unix://")

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the containers of this run."""
        return {"dev.warmimage.doctor": self.run}

    def client(self) -> docker.DockerClient:
        """Return a client of the daemon for one thread, which must close it."""
        return docker.from_env(timeout=20)
