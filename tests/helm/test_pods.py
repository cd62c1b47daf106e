"""The real thing: a build's own values, rendered, and the pods run with their security context."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from tests.support.images import completion, request, warmimage
from tests.support.servers import registry

from .cases import find, parse
from .generate import CHART
from .pods import Podman, missing, pod_of, podman
from .tool import template

pytestmark = [pytest.mark.slow, pytest.mark.docker]

MODEL = "tiny-qwen2"


@dataclass(frozen=True)
class Demo:
    """A built and pushed image, its values, and podman that can pull it."""

    podman: Podman
    files: tuple[Path, Path]

    def render(self, *words: str) -> list[dict[str, Any]]:
        """Return what the chart renders for it."""
        return parse(template(CHART, self.files, *words).stdout)


@pytest.fixture(scope="module")
def demo(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demo]:
    """The demo model's image, with a snapshot, by ``warmimage build --push``."""
    if os.geteuid() or missing():
        pytest.skip(f"needs root, and {' '.join(missing())}")
    folder = tmp_path_factory.mktemp("demo")
    with registry(folder / "registry", "") as host, podman(folder / "podman", host) as made:
        (folder / "warmimage.yaml").write_text(
            f"model: {tiny_model}\naccelerator: cpu\ntags: ['{host}/demo/tiny:1']\nsnapshot: require\n",
            encoding="utf-8",
        )
        reference = warmimage("build", "--file", str(folder / "warmimage.yaml"), "--push").stdout.strip()
        generated = folder / "values.generated.yaml"
        text = generated.read_text(encoding="utf-8")
        assert reference in text
        host_path = {"type": "hostPath", "hostPath": {"path": str(tiny_model)}}
        mine = folder / "mine.yaml"
        mine.write_text(yaml.safe_dump({"models": {MODEL: {"weights": {"volume": host_path}}}}), encoding="utf-8")
        try:
            yield Demo(made, (generated, mine))
        finally:
            client.images.remove(f"{host}/demo/tiny:1", force=True)


def answer(port: int, path: str, seconds: float = 120) -> str:
    """Wait until a path answers 200, and return the text."""
    deadline = time.monotonic() + seconds
    while True:
        said: Any = None
        try:
            said = request(port, "GET", path)
            if said[0] == 200:
                return str(said[1])
        except OSError as error:
            said = error
        assert time.monotonic() < deadline, f"{path}: {said}"
        time.sleep(0.1)


def status(made: Podman, container: str) -> dict[str, str]:
    """Return what the kernel says of a container's first process."""
    text = made("exec", container, "cat", "/proc/1/status")
    return dict(re.findall(r"^(\w+):\s+(\S+)", text, flags=re.MULTILINE))


def drop_caches() -> None:
    """Have nothing in the page cache."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1", encoding="ascii")


def timeline_of(made: Podman, container: str) -> list[dict[str, Any]]:
    """Return the timeline of a container, once the server in it is ready."""
    deadline = time.monotonic() + 60
    while True:
        lines = made("exec", container, "cat", "/run/warmimage/timeline.jsonl").splitlines()
        events = [json.loads(line) for line in lines]
        if any(event["event"] == "ready" for event in events):
            return events
        assert time.monotonic() < deadline, lines
        time.sleep(0.2)


def check_server(made: Podman, pod: str) -> list[dict[str, Any]]:
    """See that a server serves, restored from the snapshot, without a privilege."""
    answer(8000, "/health")
    assert completion(8000, MODEL)
    server = f"{pod}-server"
    facts = status(made, server)
    assert facts["Uid"] == "1000"
    assert int(facts["CapBnd"], 16) == int(facts["CapEff"], 16) == 0
    assert facts["NoNewPrivs"] == "1"
    assert made("exec", server, "sh", "-c", "touch /x 2>/dev/null || echo refused").strip() == "refused"
    events = timeline_of(made, server)
    (ready,) = [event for event in events if event["event"] == "ready"]
    assert ready["tier"] == "snapshot", [event for event in events if event["event"].startswith("tier")]
    return events


def test_the_warmer_warms_and_the_server_is_restored_from_memory(demo: Demo) -> None:
    """The warmer is ready before the server's first read, and that finds the snapshot in memory."""
    documents = demo.render()
    server, warmer = pod_of(find(documents, "Deployment")), pod_of(find(documents, "DaemonSet"))
    demo.podman("pull", "--quiet", server["spec"]["containers"][0]["image"])
    drop_caches()
    with demo.podman.play(warmer) as name:
        assert "are resident" in answer(9464, "/readyz")
        facts = status(demo.podman, f"{name}-warm")
        assert (facts["Uid"], int(facts["CapBnd"], 16), facts["NoNewPrivs"]) == ("1000", 0, "1")
        with demo.podman.play(server) as pod:
            events = check_server(demo.podman, pod)
    (snapshot,) = [event for event in events if event["event"] == "prefetch.ended" and event["target"] == "snapshot"]
    assert snapshot["resident_bytes"] > 0.95 * snapshot["wanted_bytes"], snapshot


@pytest.mark.parametrize("mode", ["overlap", "gate"])
def test_a_sidecar_warms_in_the_servers_pod(demo: Demo, mode: str) -> None:
    """Server and sidecar share a pod, their volumes and their ports; the sidecar stays."""
    documents = demo.render(
        "--set", f"models.{MODEL}.sidecar.mode={mode}", "--set", f"models.{MODEL}.warmer.enabled=false"
    )
    drop_caches()
    with demo.podman.play(pod_of(find(documents, "Deployment"), beside=["warm"])) as pod:
        assert "are resident" in answer(9464, "/readyz")
        events = check_server(demo.podman, pod)
        assert answer(9464, "/healthz")
    assert [event["reason"] for event in events if event["event"] == "prefetch.declined"] == ["WARMIMAGE_PREFETCH=off"]


def test_a_writable_folder_is_filled_from_the_image(demo: Demo) -> None:
    """The init container copies what the image has where an empty volume would hide it."""
    path = "/opt/warmimage/entrypoint/warm"
    documents = demo.render("--set-json", f'models.{MODEL}.writable.warm={{"path": "{path}"}}')
    pod = pod_of(find(documents, "Deployment"))
    with demo.podman.play(pod) as name:
        answer(8000, "/health")
        rows = demo.podman("exec", f"{name}-server", "ls", "-ln", path).splitlines()[1:]
    assert len(rows) > 5
    # Copied by the container; podman itself would have filled the volume with files of root's.
    assert {row.split()[2] for row in rows} == {"1000"}
