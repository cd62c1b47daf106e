"""What a container must be granted to restore: every cell of the table in docs/snapshot.md, run.

Docker, and podman with runc where it is installed.  The command lines of both take the same words.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from docker.models.images import Image

from tests.docker.test_snapshot_build import IMAGE, captured
from tests.support.images import warmimage

__all__ = ["captured"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT_IMAGE = "warmimage-test/snapshot-root:1"

READY = re.compile(r"warmimage: ready in .* \(tier (\w+)")

#: Podman's defaults ask for limits that an unprivileged machine cannot give.
LIMITS = '[containers]\ndefault_ulimits = ["nofile=20000:20000","nproc=10000:10000"]\n'

CHECKPOINT_RESTORE, SYS_ADMIN = ("--cap-add", "CHECKPOINT_RESTORE"), ("--cap-add", "SYS_ADMIN")

#: Docker's own seccomp profile forbids clone3 to containers without SYS_ADMIN.
UNCONFINED = ("--security-opt", "seccomp=unconfined")

NO_NEW_PRIVILEGES = ("--security-opt", "no-new-privileges")


@dataclass(frozen=True)
class Runtime:
    """A container runtime's command, and the environment that it runs in."""

    command: tuple[str, ...]
    environment: dict[str, str] | None = None

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.command, *words], capture_output=True, text=True, env=self.environment, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def tier(self, identity: str) -> str:
        """Return the tier in which a container has become ready."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            done = self("logs", identity, check=False)
            found = READY.search(done.stdout + done.stderr)
            if found:
                return found[1]
            time.sleep(0.1)
        raise AssertionError(done.stdout + done.stderr)


@pytest.fixture(scope="module")
def root_image(client: docker.DockerClient, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of the other tests, run and captured as root."""
    file = tmp_path_factory.mktemp("root") / "warmimage.yaml"
    file.write_text(
        f"model: {tiny_model}\naccelerator: cpu\nuser: 0\nsnapshot: require\ntags: [{ROOT_IMAGE}]\n", encoding="utf-8"
    )
    warmimage("build", "--file", str(file))
    return ROOT_IMAGE


@pytest.fixture(scope="module")
def podman(captured: Image, root_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Podman with the images of Docker, in a store of its own."""
    program, runc = shutil.which("podman"), shutil.which("runc")
    if not program or not runc:
        pytest.skip("podman and runc are not installed")
    folder = tmp_path_factory.mktemp("podman")
    (folder / "containers.conf").write_text(LIMITS, encoding="utf-8")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CONTAINERS_CONF": str(folder / "containers.conf")}
    own = ("--root", str(folder / "root"), "--runroot", str(folder / "run"), "--cgroup-manager", "cgroupfs")
    runtime = Runtime((program, *own, "--runtime", runc), environment)
    for image in (IMAGE, root_image):
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            subprocess.run([*runtime.command, "load"], stdin=saved.stdout, env=environment, check=True)
    try:
        yield runtime
    finally:
        runtime("rm", "--all", "--force", "--time", "1", check=False)
        runtime("rmi", "--all", "--force", check=False)


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """The runtime that a cell names."""
    if request.param == "podman":
        found: Runtime = request.getfixturevalue("podman")
        return found
    return Runtime(("docker",))


#: Runtime, user, what is granted beside nothing at all, and the tier that comes of it.
CELLS = [
    ("docker", 1000, (), "zygote"),
    ("docker", 1000, SYS_ADMIN, "snapshot"),
    ("docker", 1000, CHECKPOINT_RESTORE, "zygote"),
    ("docker", 1000, (*CHECKPOINT_RESTORE, *UNCONFINED), "snapshot"),
    ("docker", 1000, (*SYS_ADMIN, *NO_NEW_PRIVILEGES), "zygote"),
    ("docker", 1000, (*SYS_ADMIN, "--read-only"), "snapshot"),
    ("docker", 0, (), "zygote"),
    ("docker", 0, SYS_ADMIN, "snapshot"),
    ("docker", 0, (*SYS_ADMIN, *NO_NEW_PRIVILEGES), "snapshot"),
    ("docker", 0, (*SYS_ADMIN, "--read-only"), "snapshot"),
    ("podman", 1000, (), "zygote"),
    ("podman", 1000, SYS_ADMIN, "snapshot"),
    ("podman", 1000, CHECKPOINT_RESTORE, "snapshot"),
    ("podman", 1000, (*CHECKPOINT_RESTORE, *NO_NEW_PRIVILEGES), "snapshot"),  # it makes the capability an ambient one
    ("podman", 1000, (*CHECKPOINT_RESTORE, "--read-only"), "snapshot"),
    ("podman", 0, (), "zygote"),
    ("podman", 0, CHECKPOINT_RESTORE, "snapshot"),
    ("podman", 0, (*CHECKPOINT_RESTORE, *NO_NEW_PRIVILEGES), "snapshot"),
    ("podman", 0, (*CHECKPOINT_RESTORE, "--read-only"), "snapshot"),
]


#: How the table calls a runtime.
NAMES = {"docker": "Docker", "podman": "podman 4.3, runc"}


def row(runtime: str, user: int, granted: tuple[str, ...], tier: str) -> str:
    """Return a cell as a row of the table in docs/snapshot.md."""
    words = " ".join(granted)
    return f"| {NAMES[runtime]} | {user} | {f'`{words}`' if words else 'nothing'} | `{tier}` |"


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: "-".join(map(str, (*cell[:2], *cell[2]))))
def test_the_table_has_the_cell(cell: tuple[str, int, tuple[str, ...], str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "snapshot.md").read_text(encoding="utf-8")
    assert row(*cell) in text.splitlines()


@pytest.mark.parametrize(("runtime", "user", "granted", "tier"), CELLS, indirect=["runtime"])
def test_a_cell_of_the_table(
    client: docker.DockerClient, captured: Image, root_image: str, tiny_model: Path, runtime: Runtime, user: int,
    granted: tuple[str, ...], tier: str,
) -> None:  # fmt: skip
    if "CHECKPOINT_RESTORE" in granted and runtime.command == ("docker",) and not knows(client):
        pytest.skip("this Docker engine does not know CHECKPOINT_RESTORE")
    image = IMAGE if user else root_image
    words = (
        "run",
        "--detach",
        "--network",
        "none",
        "--cap-drop",
        "ALL",
        *granted,
        "--volume",
        f"{tiny_model}:/model:ro",
    )
    identity = runtime(*words, image).stdout.strip()
    try:
        assert runtime.tier(identity) == tier
    finally:
        runtime("rm", "--force", identity)


def knows(client: docker.DockerClient) -> bool:
    """Return whether an engine knows CHECKPOINT_RESTORE: Docker from 23 on."""
    return int(client.version()["Version"].partition(".")[0]) >= 23


POD = """
apiVersion: v1
kind: Pod
metadata: {{name: restored}}
spec:
  restartPolicy: Never
  hostNetwork: true
  containers:
    - name: server
      image: {image}
      args: ["--port", "18765"]
      securityContext:
        runAsUser: 1000
        runAsGroup: 0
        runAsNonRoot: true
        readOnlyRootFilesystem: true
        capabilities: {{drop: [ALL], add: [{capability}]}}
      volumeMounts: [{{name: model, mountPath: /model, readOnly: true}}, {{name: tmp, mountPath: /tmp}}]
  volumes: [{{name: model, hostPath: {{path: {model}}}}}, {{name: tmp, emptyDir: {{}}}}]
"""


@pytest.mark.parametrize(("capability", "tier"), [("CHECKPOINT_RESTORE", "snapshot"), ("NET_BIND_SERVICE", "zygote")])
def test_a_pod(podman: Runtime, tiny_model: Path, tmp_path: Path, capability: str, tier: str) -> None:
    file = tmp_path / "pod.yaml"
    images = podman("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.splitlines()
    (image,) = [name for name in images if name.endswith(f"/{IMAGE}")]  # below localhost or docker.io, as it was saved
    file.write_text(POD.format(image=image, model=tiny_model, capability=capability), encoding="utf-8")
    try:
        podman("kube", "play", str(file))
        assert podman.tier("restored-server") == tier
    finally:
        podman("kube", "down", str(file))
