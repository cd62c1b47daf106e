"""The docker command that builds: chosen among those on the PATH, called with what was asked, its failures named."""

from __future__ import annotations

from pathlib import Path

import pytest
from warmimage.docker_api import buildkit
from warmimage.docker_api.buildkit import Builder
from warmimage.errors import EnvironmentLacks, WarmimageError

WITH_BUILDX = '[ "$1" = buildx ]'
OLD = 'case $1 in buildx) exit 1;; --version) echo "Docker version 20.10.24+dfsg1, build 297e128";; esac'
NEW_WITHOUT_BUILDX = 'case $1 in buildx) exit 1;; --version) echo "Docker version 28.2.2, build e6534b4";; esac'
BROKEN = "exit 127"


def command(folder: Path, script: str) -> str:
    """Write a docker command, and return its path."""
    folder.mkdir(exist_ok=True)
    path = folder / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def choose(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> Builder:
    monkeypatch.setenv("PATH", ":".join(map(str, folders)))
    return buildkit.find_builder()


def test_a_client_with_buildx_is_taken_with_the_engines_own_builder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = command(tmp_path / "a", WITH_BUILDX)
    own = (("DOCKER_BUILDKIT", "1"), ("BUILDX_BUILDER", "default"))
    assert choose(monkeypatch, tmp_path / "a") == Builder((path, "build"), own)


def test_an_old_client_is_told_to_use_buildkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = command(tmp_path / "a", OLD)
    assert choose(monkeypatch, tmp_path / "a") == Builder((path, "build"), (("DOCKER_BUILDKIT", "1"),))


@pytest.mark.parametrize("first", [NEW_WITHOUT_BUILDX, BROKEN], ids=["no buildx", "broken"])
@pytest.mark.parametrize("second", [WITH_BUILDX, OLD], ids=["buildx", "old"])
def test_a_client_that_cannot_is_passed_over_for_one_that_can(
    first: str, second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path / "a", first)
    path = command(tmp_path / "b", second)
    assert choose(monkeypatch, tmp_path / "a", tmp_path / "b").command[0] == path


def test_of_two_that_can_the_first_on_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = command(tmp_path / "a", OLD)
    command(tmp_path / "b", WITH_BUILDX)
    assert choose(monkeypatch, tmp_path / "a", tmp_path / "b").command[0] == path


def test_without_any_that_can_the_message_names_those_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = command(tmp_path / "a", NEW_WITHOUT_BUILDX)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "docker").symlink_to(path)
    with pytest.raises(EnvironmentLacks) as caught:
        choose(monkeypatch, tmp_path / "a", tmp_path / "b", tmp_path / "nowhere")
    assert str(caught.value) == (
        f"error: no docker command can build with BuildKit\n  got {path}, expected docker with the buildx plugin\n"
        "  fix: install docker-buildx (or docker-buildx-plugin)"
    )


def test_without_a_docker_command_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentLacks) as caught:
        choose(monkeypatch, tmp_path)
    assert caught.value.problems[0].got == "no docker command on PATH"
    assert caught.value.exit_code == 4


def test_the_build_command_carries_network_tags_and_secrets_and_ends_with_the_context() -> None:
    words = buildkit.build_command(
        Builder(("docker", "build")), Path("c"), ["a:1", "b:1"], ["id=s,env=S"], "none", Path("iid")
    )
    assert words == [
        "docker",
        "build",
        "--progress",
        "plain",
        "--network",
        "none",
        "--iidfile",
        "iid",
        "--tag",
        "a:1",
        "--tag",
        "b:1",
        "--secret",
        "id=s,env=S",
        "c",
    ]


WRITE_ID = 'while [ $# -gt 0 ]; do if [ "$1" = --iidfile ]; then echo "sha256:abc" >"$2"; fi; shift; done'


def test_the_id_is_returned_and_the_builders_variables_are_set(tmp_path: Path) -> None:
    path = command(tmp_path / "a", f'[ "$DOCKER_BUILDKIT" = 1 ] || exit 9\n{WRITE_ID}')
    builder = Builder((path, "build"), (("DOCKER_BUILDKIT", "1"),))
    assert buildkit.build(builder, tmp_path, (), (), "none", "quiet") == "sha256:abc"


@pytest.mark.parametrize(
    ("output", "what", "got"),
    [
        (
            "#5 write /x: no space left on device",
            "the Docker daemon has no disk space left",
            "#5 write /x: no space left on device",
        ),
        ("#9 1.2 warmimage: error: module torch: no CUDA", "module torch: no CUDA", ""),
        (
            "#3 building\nERROR: failed to solve: exit code 1\ngoodbye",
            "the build failed",
            "ERROR: failed to solve: exit code 1",
        ),
        ("", "the build failed", ""),
    ],
)
def test_a_failed_build_is_named_by_its_most_telling_line(output: str, what: str, got: str, tmp_path: Path) -> None:
    path = command(tmp_path / "a", f"cat <<'EOF'\n{output}\nEOF\nexit 1")
    with pytest.raises(WarmimageError) as caught:
        buildkit.build(Builder((path,)), tmp_path, (), (), "none", "quiet")
    (problem,) = caught.value.problems
    assert (problem.what, problem.got) == (what, got)
    assert problem.fix
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("reason", "step"), [("snapshot not captured: a thread is left", "snapshot"), ("module torch: no CUDA", "closure")]
)
def test_an_error_of_ours_names_the_step_that_it_comes_from(reason: str, step: str, tmp_path: Path) -> None:
    path = command(tmp_path / "a", f"echo '#9 1.2 warmimage: error: {reason}'\nexit 1")
    with pytest.raises(WarmimageError) as caught:
        buildkit.build(Builder((path,)), tmp_path, (), (), "none", "quiet")
    (problem,) = caught.value.problems
    assert (problem.what, problem.where) == (reason, f"the image's {step} step")


def test_progress_plain_shows_every_line_on_stderr_and_quiet_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = Builder((command(tmp_path / "a", f"echo '#1 [1/2] FROM x'\necho '[bold]'\n{WRITE_ID}"),))
    buildkit.build(builder, tmp_path, (), (), "none", "quiet")
    assert capsys.readouterr() == ("", "")
    buildkit.build(builder, tmp_path, (), (), "none", "plain")
    assert capsys.readouterr() == ("", "#1 [1/2] FROM x\n[bold]\n")
