"""Rendered pods, run by podman: what the kubelet would do with them, as far as podman can."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

#: What podman 4.3 needs, by program and Debian package.
NEEDED = {
    "podman": "podman",
    "runc": "runc",
    "slirp4netns": "slirp4netns",
    "catatonit": "catatonit",
    "/usr/lib/podman/netavark": "netavark",
    "/usr/lib/podman/aardvark-dns": "aardvark-dns",
}

#: What podman cannot do or does otherwise: it asks probes by a curl in the container.
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle")


def missing() -> list[str]:
    """Return the packages without which no pod can be run here."""
    return [package for program, package in NEEDED.items() if not shutil.which(program)]


class Podman:
    """Podman with its own storage, for one registry without TLS."""

    def __init__(self, folder: Path, registry: str) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=10000:10000"]\n[engine]\nruntime = "runc"\n',
            encoding="utf-8",
        )
        (folder / "registries.conf").write_text(
            f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n', encoding="utf-8"
        )

    def __call__(self, *words: str | Path, check: bool = True) -> str:
        """Run podman, and return what it prints."""
        environment = {
            **os.environ,
            "CONTAINERS_CONF": str(self._folder / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self._folder / "registries.conf"),
        }
        command = [
            "podman",
            "--root",
            str(self._folder / "root"),
            "--runroot",
            str(self._folder / "run"),
            *map(str, words),
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
        assert not check or done.returncode == 0, f"{words}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    @contextmanager
    def play(self, pod: dict[str, Any]) -> Iterator[str]:
        """Run a pod, and yield its name."""
        name = str(pod["metadata"]["name"])
        file = self._folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(pod, sort_keys=False), encoding="utf-8")
        try:
            self("kube", "play", file)
            yield name
        finally:
            self("kube", "down", file, check=False)

    def end(self) -> None:
        """Remove everything."""
        self("rmi", "--all", "--force", check=False)
        subprocess.run(["umount", str(self._folder / "root" / "overlay")], check=False, capture_output=True)
        with suppress(OSError):
            shutil.rmtree(self._folder)


@contextmanager
def podman(folder: Path, registry: str) -> Iterator[Podman]:
    """Yield podman; skip the test where it cannot be run."""
    if missing():
        pytest.skip(f"needs {' '.join(missing())}")
    made = Podman(folder, registry)
    try:
        yield made
    finally:
        made.end()


def pod_of(document: dict[str, Any], beside: Sequence[str] = ()) -> dict[str, Any]:
    """Return a pod of a Deployment or DaemonSet.

    Args:
        document: the rendered document.
        beside: names of init containers that go on running beside the others, as native sidecars do.
    """
    template = deepcopy(document["spec"]["template"])
    spec = template["spec"]
    first = spec.pop("initContainers", [])
    spec["containers"] = [each for each in first if each["name"] in beside] + spec["containers"]
    left = [each for each in first if each["name"] not in beside]
    if left:
        spec["initContainers"] = left
    for each in spec["containers"]:
        each.pop("restartPolicy", None)
        for name in _PROBES:
            each.pop(name, None)
    metadata = {"name": document["metadata"]["name"], "labels": template["metadata"]["labels"]}
    # By default podman removes an init container that has ended, and may find it still ending.
    metadata["annotations"] = {"io.podman.annotations.init.container.type": "always"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
