"""Tier ``snapshot`` needs nothing: any user, nothing granted, Docker's own profile, podman, a restricted pod."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from docker.models.containers import Container
from warmimage.helm import values
from warmimage.image import read

from tests.helm.cases import find, parse
from tests.helm.generate import CHART
from tests.helm.pods import Podman, missing, pod_of, podman
from tests.helm.tool import template
from tests.support.images import MESSAGES, container, wait_ended
from tests.support.snapshots import DIRECTORY, MODEL, NOTHING_GRANTED, READY, Outcome, member, serve, start

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

#: A completion that a container asks its own server for, for there may be no other way to it.
ASK = f"""
import json, urllib.request
body = {{"model": {MODEL!r}, "messages": {MESSAGES!r}, "temperature": 0, "max_tokens": 24}}
asked = urllib.request.Request("http://127.0.0.1:8000/v1/chat/completions", json.dumps(body).encode(),
                               {{"Content-Type": "application/json"}})
print(urllib.request.urlopen(asked, timeout=60).read().decode())
"""


@pytest.fixture(scope="module")
def plain(client: docker.DockerClient, transformers_image: str, tiny_model: Path) -> str:
    """The completion of the engine in tier ``plain``."""
    found = start(client, transformers_image, tiny_model, environment={"WARMIMAGE_START": "plain"})
    assert found.tier == "plain"
    assert len(found.text) > 4
    return found.text


def check(found: Outcome, plain: str) -> None:
    """See that a server was restored, without a word about it, and answers as the plain engine does."""
    assert (found.tier, found.reasons, found.text) == ("snapshot", [], plain), found.log


def facts(running: Container) -> dict[str, str]:
    """Return what the kernel says of a container's first process."""
    done = running.exec_run(["cat", "/proc/1/status"])
    rows = (row.partition(":") for row in done.output.decode().splitlines())
    return {name: value.strip() for name, _, value in rows}


@pytest.mark.parametrize("user", ["1000:1000", "54321:0", "0:0"])
def test_any_user(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, user: str, plain: str
) -> None:
    with container(client, transformers_image, model=tiny_model, user=user, cap_drop=["ALL"]) as running:
        check(serve(running), plain)
        own = facts(running)
    assert own["Uid"].split()[0] == user.partition(":")[0]
    assert int(own["CapBnd"], 16) == 0


@pytest.mark.parametrize("tmpfs", [{}, {"/tmp": "", "/run/warmimage": "mode=1777"}], ids=["nowhere", "tmpfs"])
def test_nothing_granted_and_nothing_to_write_to(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmpfs: dict[str, str], plain: str
) -> None:
    """Every capability dropped, no way to one, a root that cannot be written, and the daemon's own seccomp profile."""
    words = {**NOTHING_GRANTED, "read_only": True, "user": "54321:0", "tmpfs": tmpfs}
    with container(client, transformers_image, model=tiny_model, **words) as running:
        check(serve(running), plain)
        own = facts(running)
    assert (own["NoNewPrivs"], own["Seccomp"]) == ("1", "2")
    assert int(own["CapBnd"], 16) == int(own["CapPrm"], 16) == 0


def test_the_containers_own_defaults(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str
) -> None:
    check(start(client, transformers_image, tiny_model), plain)


def test_replicas_at_once(client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str) -> None:
    words: dict[str, Any] = {"model": tiny_model, **NOTHING_GRANTED}
    with (
        container(client, transformers_image, **words) as first,
        container(client, transformers_image, **words) as second,
    ):
        for running in (first, second):
            check(serve(running), plain)


def test_stopped_and_started_again(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, plain: str
) -> None:
    """The second start finds the first one's files in ``/run`` and ``/tmp``."""
    with container(client, transformers_image, model=tiny_model, **NOTHING_GRANTED) as running:
        check(serve(running), plain)
        running.stop(timeout=10)
        wait_ended(running)
        running.start()
        deadline = time.monotonic() + 60
        while len(READY.findall(running.logs().decode())) < 2:
            assert time.monotonic() < deadline, running.logs().decode()
            time.sleep(0.05)
        check(serve(running), plain)
        assert [tier for _, tier in READY.findall(running.logs().decode())] == ["snapshot", "snapshot"]


@pytest.fixture(scope="module")
def store(transformers_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman and runc with the image of Docker, in a store of its own."""
    if os.geteuid() or missing():
        pytest.skip(f"needs root, and the Debian packages {' '.join(missing())}")
    directory = tmp_path_factory.mktemp("podman")
    archive = directory / "image.tar"
    with podman(directory / "podman", "localhost:1") as made:
        subprocess.run(["docker", "save", "--output", str(archive), transformers_image], check=True)
        made("load", "--input", archive)
        archive.unlink()
        yield made


def name_in(store: Podman, reference: str) -> str:
    """Return what podman calls an image: below localhost or docker.io, as it was saved."""
    names = store("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    (found,) = [name for name in names if name.endswith(f"/{reference}")]
    return found


def served(store: Podman, name: str, python: str) -> Outcome:
    """Wait for the server of a container, ask it for a completion from inside, and return what became of it."""
    deadline = time.monotonic() + 120
    while True:
        text = store("exec", name, "cat", "/run/warmimage/timeline.jsonl", check=False)
        ready = [event for event in map(json.loads, text.splitlines()) if event["event"] == "ready"]
        if ready:
            break
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    answer = json.loads(store("exec", name, python, "-c", ASK))
    return Outcome(ready[0]["tier"], ready[0]["seconds"], answer["choices"][0]["message"]["content"], text)


def python_of(client: docker.DockerClient, reference: str) -> str:
    return str(client.images.get(reference).attrs["Config"]["Entrypoint"][0])


@pytest.mark.slow
@pytest.mark.parametrize("user", ["1000:0", "54321:0", "0:0"])
def test_podman_with_runc(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, store: Podman, user: str, plain: str
) -> None:
    words = ["--detach", "--network", "none", "--user", user, "--cap-drop", "ALL", "--read-only"]
    words += ["--security-opt", "no-new-privileges", "--volume", f"{tiny_model}:/model:ro"]
    words += ["--volume", "/run/warmimage"]  # an anonymous one, with the mode of the image's directory
    name = store("run", *words, name_in(store, transformers_image)).strip()
    try:
        assert store("inspect", "--format", "{{.OCIRuntime}}", name).strip() == "runc"
        check(served(store, name, python_of(client, transformers_image)), plain)
    finally:
        store("rm", "--force", "--volumes", "--time", "1", name)


def restricted(pod: dict[str, Any]) -> bool:
    """Return whether a pod keeps to Pod Security level *restricted*, as far as its security context goes."""
    contexts = [{**pod.get("securityContext", {}), **each.get("securityContext", {})} for each in pod["containers"]]
    return all(
        context["runAsNonRoot"]
        and not context["allowPrivilegeEscalation"]
        and not context.get("privileged")
        and context["capabilities"] == {"drop": ["ALL"]}
        and context["seccompProfile"] == {"type": "RuntimeDefault"}
        and context["readOnlyRootFilesystem"]
        for context in contexts
    )


@pytest.mark.slow
@pytest.mark.parametrize("user", [1000, 54321])
def test_the_charts_pod(
    client: docker.DockerClient,
    transformers_image: str,
    tiny_model: Path,
    store: Podman,
    plain: str,
    tmp_path: Path,
    user: int,
) -> None:
    """As the chart renders it for a build, with the fields of Pod Security level *restricted*."""
    repository, _, tag = name_in(store, transformers_image).rpartition(":")
    built = tmp_path / "built.yaml"
    built.write_text(values.text(values.inspect(client, read.inspect(client, transformers_image), "", 1 << 20)))
    host_path = {"type": "hostPath", "hostPath": {"path": str(tiny_model)}}
    own = {"image": {"repository": repository, "tag": tag}, "weights": {"volume": host_path}}
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({"models": {MODEL: own}}), encoding="utf-8")
    pod = pod_of(find(parse(template(CHART, [built, mine]).stdout), "Deployment"))
    assert restricted(pod["spec"])
    for each in pod["spec"]["containers"]:
        each["securityContext"]["runAsUser"] = user
    with store.play(pod) as name:
        (server,) = [each["name"] for each in pod["spec"]["containers"] if each["name"] == "server"]
        check(served(store, f"{name}-{server}", python_of(client, transformers_image)), plain)
        status = store("exec", f"{name}-{server}", "cat", "/proc/1/status")
    rows = dict(row.split(":", 1) for row in status.splitlines())
    assert (rows["Uid"].split()[0], rows["NoNewPrivs"].strip(), int(rows["CapBnd"], 16)) == (str(user), "1", 0)


def test_no_server_can_write_the_snapshot(client: docker.DockerClient, transformers_image: str) -> None:
    """What becomes a process is code: it is root's, and no user of a server may change it."""
    script = f"find {DIRECTORY} -writable -o -path '{DIRECTORY}/*' ! -readable; id -u"
    done = client.containers.run(transformers_image, ["-c", script], entrypoint="sh", user="54321:0", remove=True)
    assert done.decode().split() == ["54321"]
    assert json.loads(member(client, transformers_image, f"{DIRECTORY}/manifest.json"))["bytes"] > 100_000_000
