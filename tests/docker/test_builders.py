"""One rendered context, built by every builder that users have: each image has its snapshot, and none took a privilege.

Each build has no network, and no image is run for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest
from docker.errors import APIError
from warmimage.docker_api.buildkit import find_builder
from warmimage.image.read import inspect

from tests.support.images import warmimage

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

#: A name that Docker and podman both take for a local image.
BASE = "localhost/warmimage-test/builders-base:1"

IMAGE = "localhost/warmimage-test/built-by"

READY = re.compile(r"warmimage: ready in .* \(tier (\w+)")

#: Podman's defaults ask for limits that an unprivileged machine cannot give.
LIMITS = '[containers]\ndefault_ulimits = ["nofile=20000:20000","nproc=10000:10000"]\n'

#: What the strictest pods take away, under every runtime.
NOTHING_GRANTED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "54321:0", "--network", "none")


@dataclass(frozen=True)
class Tool:
    """A command that builds, and the one that runs what was built.

    Attributes:
        build: its first words.
        run: the same of the runtime.
        environment: variables beside the caller's.
    """

    build: tuple[str, ...]
    run: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str) -> str:
        """Run a command, and return what it prints."""
        done = subprocess.run(
            words, capture_output=True, text=True, env={**os.environ, **self.environment}, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def base(client: docker.DockerClient, python_base: str) -> Iterator[str]:
    """The base image, by a name that no registry is asked for."""
    repository, _, tag = BASE.rpartition(":")
    client.images.get(python_base).tag(repository, tag)
    yield BASE
    client.images.remove(BASE, noprune=True)


@pytest.fixture(scope="module")
def context(base: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered context that installs the engine, and requires a snapshot."""
    folder = tmp_path_factory.mktemp("rendered")
    (folder / "warmimage.yaml").write_text(
        f"model: {tiny_model}\naccelerator: cpu\nmethod: compose\nbase_image: {base}\nsnapshot: require\n",
        encoding="utf-8",
    )
    warmimage("render", "--file", str(folder / "warmimage.yaml"), "--output-dir", str(folder / "context"))
    return folder / "context"


@pytest.fixture(scope="module")
def podman(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tool]:
    """Podman and buildah with a store of their own, which holds the base image."""
    programs = [shutil.which(name) for name in ("podman", "buildah", "runc")]
    if not all(programs):
        pytest.skip("podman, buildah and runc are not all installed")
    folder = tmp_path_factory.mktemp("podman")
    (folder / "containers.conf").write_text(LIMITS, encoding="utf-8")
    environment = {"CONTAINERS_CONF": str(folder / "containers.conf")}
    store = ("--root", str(folder / "root"), "--runroot", str(folder / "run"))
    run = ("podman", *store, "--cgroup-manager", "cgroupfs", "--runtime", "runc")
    tool = Tool((*run, "build"), run, environment)
    try:
        with subprocess.Popen(["docker", "save", base], stdout=subprocess.PIPE) as saved:
            subprocess.run(
                [*run, "load"], stdin=saved.stdout, env={**os.environ, **environment}, check=True, capture_output=True
            )
        yield tool
    finally:
        tool(*run, "rm", "--all", "--force", "--time", "1")
        tool(*run, "rmi", "--all", "--force")


@pytest.fixture
def tool(request: pytest.FixtureRequest) -> Tool:
    """The builder that a test names."""
    if request.param in ("podman", "buildah"):
        found: Tool = request.getfixturevalue("podman")
        if request.param == "podman":
            return found
        store = found.run[1:5]
        return Tool(("buildah", *store, "build", "--layers", "--runtime", "runc"), found.run, found.environment)
    builder = find_builder()
    if request.param == "buildkit":
        return Tool(builder.command, builder.command[:1], dict(builder.environment))
    return Tool(builder.command, builder.command[:1], {"DOCKER_BUILDKIT": "0"})


@pytest.fixture
def clean(client: docker.DockerClient) -> Iterator[list[str]]:
    """A list of images of Docker's to remove after a test; one that has other tags stays."""
    made: list[str] = []
    yield made
    for reference in reversed(made):
        with suppress(APIError):
            image = client.images.get(reference)
            if set(image.tags) <= {reference}:
                client.images.remove(reference, force=True)


def tier_of(tool: Tool, image: str, model: Path) -> str:
    """Start an image with nothing granted, and return the tier in which it becomes ready."""
    mount = ("--volume", f"{model}:/model:ro")
    identity = tool(*tool.run, "run", "--detach", *NOTHING_GRANTED, *mount, image).split()[-1]
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            log = tool(*tool.run, "logs", identity)
            found = READY.search(log)
            if found:
                return found[1]
            time.sleep(0.1)
        raise AssertionError(log)
    finally:
        tool(*tool.run, "rm", "--force", identity)


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ("buildkit", "buildkit"),
        ("classic", "classic"),
        pytest.param("podman", "podman", marks=pytest.mark.slow),
        pytest.param("buildah", "buildah", marks=pytest.mark.slow),
    ],
    indirect=["tool"],
)
def test_a_context_is_built_with_its_snapshot_and_started_from_it(
    client: docker.DockerClient, context: Path, tiny_model: Path, tool: Tool, name: str, clean: list[str]
) -> None:
    tag = f"{IMAGE}-{name}:1"
    output = tool(*tool.build, "--network", "none", "--tag", tag, str(context))
    if name in ("buildkit", "classic"):
        clean += [*re.findall(r"^ ---> ([0-9a-f]{12})$", output, re.MULTILINE), tag]
        check_sizes(client, tag)
    assert tier_of(tool, tag, tiny_model) == "snapshot"


def check_sizes(client: docker.DockerClient, tag: str) -> None:
    """Check that an image's layers are known by their purpose, in the words of whichever builder wrote its history."""
    report = inspect(client, tag)
    assert report.snapshot
    assert report.sizes["snapshot"] >= report.snapshot.bytes > 100_000_000
    assert report.sizes["wheels"] > 100_000_000
    assert report.sizes["base"] == sum(entry["Size"] for entry in client.images.get(BASE).history())
    assert report.sizes["bytecode"] > 10_000_000
    assert report.sizes["entrypoint"] > 100_000
    assert 0 < report.sizes["settings"] < 100_000
    assert json.loads(warmimage("inspect", tag, "--json").stdout)["snapshot"]["modules"] == report.snapshot.modules
