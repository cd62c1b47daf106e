"""What goes wrong on a user's machine: one error each, that says the fix; nothing half-written, no traceback."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from tests.support.images import warmimage
from tests.support.servers import build_dockerfile, old_daemon, registry, small_daemon

pytestmark = pytest.mark.docker

#: Takes Python out of a base image, Debian's own or that of Docker's official one.
NO_PYTHON = "rm -f /usr/bin/python3* /usr/local/bin/python*"

#: bcrypt of "secret", for a registry that asks who is there.
HTPASSWD = "user:$2b$05$jxU4g/uXwLjaGfkofCeiGu5rGNr6VYxrjEwyKySvHv2bCayg5Ow8S\n"


def refused(*words: str, code: int, **variables: str) -> str:
    """Run a command that must fail, check the manners of its failure, and return its error."""
    done = warmimage(*words, code=code, **variables)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    errors = done.stderr[done.stderr.index("error: ") :].strip()
    assert errors.count("error: ") == 1, errors
    assert "  fix: " in errors
    return errors


@pytest.fixture
def build_words(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A build that would do, run in an empty folder; without what would follow it."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return ["build", "--model", str(tiny_model), "--accelerator", "cpu", "--record", "off", "--snapshot", "off"]


def test_no_daemon(build_words: list[str], tmp_path: Path) -> None:
    error = refused(*build_words, code=4, DOCKER_HOST=f"unix://{tmp_path}/no.sock")
    assert error.startswith("error: the Docker daemon does not answer\n")
    assert os.listdir() == []


def test_engine_too_old(build_words: list[str], tmp_path: Path) -> None:
    # A daemon of 2018 runs on no machine of today, so only its answers are imitated.
    with old_daemon(tmp_path / "old.sock") as address:
        error = refused(*build_words, code=4, DOCKER_HOST=address)
    assert error == (
        "error: the Docker daemon is too old\n"
        "  got version 18.09.9, API 1.39, expected Docker 20.10 (API 1.41) or later\n"
        "  fix: update Docker"
    )


def test_base_image_without_python(python_base: str, build_words: list[str]) -> None:
    with _image(python_base, NO_PYTHON) as base:
        error = refused(*build_words, "--base-image", base, code=3)
    assert error.startswith("error: the base image has no Python\n  at base_image\n")


def test_base_image_with_a_python_that_the_wheels_do_not_support(python_base: str, build_words: list[str]) -> None:
    # It answers as Python 3.9 does; a real one cannot be had without a registry.
    facts = '{"python": "/p", "python_version": "3.9", "engine_version": null,'
    facts += ' "libc": ["glibc", "2.31"], "machine": "x"}'
    script = shlex.quote(f"#!/bin/sh\\necho '{facts}'\\n")
    with _image(python_base, f"{NO_PYTHON} && printf {script} > /usr/bin/python3 && chmod +x /usr/bin/python3") as base:
        error = refused(*build_words, "--base-image", base, code=3)
    assert "the base image's Python does not fit transformers" in error
    assert "got Python 3.9" in error


def test_base_image_that_no_registry_has(build_words: list[str]) -> None:
    error = refused(*build_words, "--base-image", "127.0.0.1:1/none:1", code=1)
    assert error.startswith("error: cannot pull 127.0.0.1:1/none:1: the registry cannot be reached\n")


def test_derive_from_an_image_without_the_engine(python_base: str, build_words: list[str]) -> None:
    error = refused(*build_words, "--base-image", python_base, "--method", "derive", code=3)
    assert error.startswith("error: the base image does not contain transformers\n")


def test_port_in_use(client: docker.DockerClient, transformers_image: str, tiny_model: Path) -> None:
    before = len(client.containers.list(all=True))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = refused("run", transformers_image, "--model", str(tiny_model), "--port", str(port), code=4)
    assert error == f"error: port {port} is in use on this host\n  at --port\n  fix: --port {port + 1}"
    assert len(client.containers.list(all=True)) == before


def test_run_of_an_image_that_is_not_ours(python_base: str) -> None:
    error = refused("run", python_base, code=3)
    assert error.startswith(f"error: not an image built by warmimage\n  at {python_base}\n")


def test_inspect_of_no_image() -> None:
    error = refused("inspect", "warmimage-test/none:1", code=1)
    assert error.startswith("error: cannot inspect warmimage-test/none:1: no such image\n")
    done = warmimage("inspect", "warmimage-test/none:1", "--json", code=1)
    assert "no such image" in json.loads(done.stdout)["errors"][0]["what"]


def test_image_larger_than_allowed(build_words: list[str], transformers_image: str) -> None:
    error = refused(*build_words, "--base-image", transformers_image, "--max-size", "1MB", code=5)
    assert error.startswith("error: the image is larger than allowed\n  at max_size\n")


def test_registry_that_refuses_and_one_that_takes_it(
    client: docker.DockerClient, build_words: list[str], transformers_image: str, tmp_path: Path
) -> None:
    words = [*build_words, "--base-image", transformers_image, "--push"]
    with registry(tmp_path / "closed", HTPASSWD) as host:
        error = refused(*words, "--tag", f"{host}/tiny:1", code=1, DOCKER_CONFIG=str(tmp_path))
        assert error.startswith(f"error: the registry refuses to push {host}/tiny:1\n")
        assert error.endswith(f"  fix: docker login {host}")
    with registry(tmp_path / "open", "") as host:
        reference = warmimage(*words, "--tag", f"{host}/tiny:1").stdout.strip()
        assert reference.startswith(f"{host}/tiny@sha256:")
        client.images.remove(f"{host}/tiny:1", force=True)
        assert client.images.pull(reference).labels["dev.warmimage.model"] == "tiny-qwen2"
        client.images.remove(reference, force=True)
    assert refused(*build_words, "--push", code=2) == ("error: --push needs a tag\n  fix: --tag REGISTRY/NAME:TAG")


def test_full_disk_of_the_daemon(python_base: str, build_words: list[str], tmp_path: Path) -> None:
    if os.getuid() or not shutil.which("dockerd"):
        pytest.skip("starting a second daemon needs root and dockerd")
    with small_daemon(python_base, tmp_path) as address:
        error = refused(*build_words, "--base-image", python_base, code=4, DOCKER_HOST=address)
        assert error.startswith("error: not enough disk space for the build\n")
        # A step that nobody can foresee fills it: the daemon's own message is put into one line.
        Path("warmimage.yaml").write_text("run: ['head -c 2G /dev/zero > /fill']\n", encoding="utf-8")
        wheelless = [*build_words, "--base-image", "on-small-daemon:1", "--progress", "quiet"]
        error = refused(*wheelless, code=1, DOCKER_HOST=address)
    assert error.startswith("error: the Docker daemon has no disk space left\n")


@contextmanager
def _image(base: str, step: str) -> Iterator[str]:
    """Yield a base image with a step run on it, built for this test."""
    tag = "warmimage-test/odd-base:1"
    build_dockerfile(f"FROM {base}\nRUN {step}\n", tag)
    client = docker.from_env()
    try:
        yield tag
    finally:
        client.images.remove(tag, force=True)
        client.close()
