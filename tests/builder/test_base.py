"""The base image: what a registry's answer means, when a digest is believed, and what cannot be looked into."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from docker.errors import APIError, ImageNotFound
from docker.models.images import Image
from warmimage import cli, engines
from warmimage.config.model import Config
from warmimage.docker_api import daemon
from warmimage.docker_api.daemon import RegistryUnreachable, registry_error
from warmimage.errors import ConfigError, WarmimageError
from warmimage.inputs import base_image

DIGEST = "sha256:" + "5a" * 32
CLASSIC = {"DriverStatus": [["Backing Filesystem", "extfs"]]}
CONTAINERD = {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}

LIMITED = "toomanyrequests: You have reached your pull rate limit. unauthenticated"
REFUSED = "dial tcp 127.0.0.1:1: connect: connection refused"
ABSENT = "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access"


@pytest.mark.parametrize(
    ("message", "what", "fix"),
    [
        (LIMITED, "the registry limits the number of pulls", "docker login r.io:5"),
        ("429 Too Many Requests", "the registry limits the number of pulls", "docker login r.io:5"),
        (
            ABSENT,
            "the registry has no r.io:5/a:1, or shows it to logged-in users only",
            "check the name, or docker login r.io:5",
        ),
        ("unauthorized: authentication required", "the registry refuses to pull r.io:5/a:1", "docker login r.io:5"),
        ("manifest unknown", "the registry has no r.io:5/a:1", "check the name and the tag"),
        ("write /x: no space left on device", "cannot pull r.io:5/a:1", "docker info; journalctl -u docker"),
    ],
)
def test_each_answer_of_a_registry_has_its_own_message(message: str, what: str, fix: str) -> None:
    error = registry_error("pull", "r.io:5/a:1", message)
    assert (error.problems[0].what, error.problems[0].fix) == (what, fix)
    assert not isinstance(error, RegistryUnreachable)


@pytest.mark.parametrize(
    "message",
    [
        REFUSED,
        "dial tcp: lookup registry-1.docker.io on 127.0.0.53:53: no such host",
        'Get "https://registry-1.docker.io/v2/": net/http: request canceled (Client.Timeout exceeded)',
        "proxyconnect tcp: EOF",
        "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    ],
)
def test_a_registry_that_does_not_answer_cannot_be_reached(message: str) -> None:
    error = registry_error("pull", "a:1", message)
    assert isinstance(error, RegistryUnreachable)
    assert "the registry cannot be reached" in error.problems[0].what


class Images:
    """A daemon's images: none but those named, and no registry that gives more."""

    def __init__(self, message: str, *present: str) -> None:
        self.message, self.present = message, present

    def get(self, name: str) -> SimpleNamespace:
        if name not in self.present:
            raise ImageNotFound(name)
        return SimpleNamespace(attrs={"Config": {"Env": []}})

    def pull(self, name: str, tag: str) -> None:
        raise APIError(self.message)


def client_of(message: str, *present: str, **parts: Any) -> docker.DockerClient:
    """Return what stands for the daemon's client."""
    return cast(docker.DockerClient, SimpleNamespace(images=Images(message, *present), **parts))


def test_debians_packages_stand_in_for_a_registry_out_of_reach_and_the_reason_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert base_image.default_base(client_of(REFUSED, base_image.DEBIAN_BASE)) == base_image.DEBIAN_BASE
    assert REFUSED in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("message", "what"), [(LIMITED, "limits the number of pulls"), (ABSENT, "has no"), ("odd", "cannot pull")]
)
def test_another_base_does_not_hide_a_registrys_refusal(message: str, what: str) -> None:
    with pytest.raises(WarmimageError, match=what):
        base_image.default_base(client_of(message, base_image.DEBIAN_BASE))


@pytest.mark.parametrize(
    ("info", "confirmed", "expected"),
    [
        (CLASSIC, False, DIGEST),
        (CONTAINERD, True, DIGEST),
        (CONTAINERD, False, None),
        ({"DriverStatus": None}, False, DIGEST),
    ],
)
def test_a_digest_is_believed_where_a_registry_is_known_to_have_it(
    info: dict[str, Any], confirmed: bool, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def data(reference: str) -> None:
        asked.append(reference)
        if not confirmed:
            raise APIError("dial tcp: no route to host")

    registry = SimpleNamespace(images=SimpleNamespace(get_registry_data=data), close=lambda: None)
    monkeypatch.setattr(docker, "from_env", lambda timeout: registry)
    image = cast(Image, SimpleNamespace(attrs={"RepoDigests": [f"team/python@{DIGEST}"]}))
    client = cast(docker.DockerClient, SimpleNamespace(info=lambda: info))
    assert daemon.registry_digest(client, image, "team/python:3.12") == expected
    assert asked == ([f"team/python@{DIGEST}"] if info is CONTAINERD else [])


def test_an_image_id_is_refused_with_the_way_to_a_name() -> None:
    with pytest.raises(ConfigError) as caught:
        base_image.resolve(Config(model="m", base_image=DIGEST), engines.get("vllm"), client_of(""))
    assert str(caught.value) == (
        f"error: a build cannot start from an image id\n  at base_image\n  got {DIGEST}, expected "
        f"a name with a tag or a digest\n  fix: docker tag {DIGEST} NAME:TAG, then --base-image NAME:TAG"
    )


@pytest.mark.parametrize("output", [b"", b"\n", b"hello\n"])
def test_an_image_whose_python_answers_nothing_is_refused(output: bytes) -> None:
    containers = SimpleNamespace(run=lambda *_, **__: output)
    with pytest.raises(
        ConfigError, match=r"^error: the base image cannot be inspected\n  at base_image\n  got odd:1: "
    ):
        base_image.resolve(
            Config(model="m", base_image="odd:1"), engines.get("vllm"), client_of("", "odd:1", containers=containers)
        )


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (APIError("the daemon is busy"), "error: the daemon is busy\n"),
        (
            PermissionError(13, "Permission denied", "out"),
            "error: Permission denied: out\n  fix: check that the path exists and that you may write to it\n",
        ),
    ],
)
def test_only_an_error_that_names_a_path_is_blamed_on_one(
    error: OSError, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == shown
