"""Tier snapshot with unmodified vLLM: all that holds of a fork server's processes holds where it was restored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from warmimage import timeline

from tests.docker import test_zygote as zygote
from tests.docker.test_zygote import (
    Start,
    plugin,
    test_beside_each_process_stands_its_fork_server_and_nothing_else_is_new,
    test_each_process_sees_itself_as_under_plain,
    test_every_python_process_of_the_engine_was_forked,
    test_no_two_processes_have_the_same_random_numbers,
    test_nothing_new_is_said,
    test_pages_are_shared,
    test_process_tree_and_titles_are_vllms_own,
    test_stop_ends_as_under_plain,
    test_the_worker_sees_what_the_engine_core_set_just_before_starting_it,
    test_threads_stand_on_the_same_processors,
)
from tests.support.images import container
from tests.support.snapshots import NOTHING_GRANTED, derived

__all__ = [
    "plugin",
    "test_beside_each_process_stands_its_fork_server_and_nothing_else_is_new",
    "test_each_process_sees_itself_as_under_plain",
    "test_every_python_process_of_the_engine_was_forked",
    "test_no_two_processes_have_the_same_random_numbers",
    "test_nothing_new_is_said",
    "test_pages_are_shared",
    "test_process_tree_and_titles_are_vllms_own",
    "test_stop_ends_as_under_plain",
    "test_the_worker_sees_what_the_engine_core_set_just_before_starting_it",
    "test_threads_stand_on_the_same_processors",
]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]

PURELIB = "import sysconfig; print(sysconfig.get_paths()['purelib'])"


@pytest.fixture(scope="module")
def with_probe(client: docker.DockerClient, vllm_image: str, plugin: Path) -> Iterator[str]:
    """The image with the probe as a plugin of vLLM: installed, for PYTHONPATH would cost the tier."""
    python = client.images.get(vllm_image).attrs["Config"]["Entrypoint"][0]
    done = client.containers.run(vllm_image, ["-c", PURELIB], entrypoint=python, remove=True)
    files = {str(path.relative_to(plugin)): path.read_bytes() for path in plugin.rglob("*") if path.is_file()}
    lines = [f"COPY {name} {done.decode().strip()}/{name}" for name in files]
    with derived(client, vllm_image, lines, files) as image:
        yield image


@pytest.fixture(scope="module")
def starts(client: docker.DockerClient, with_probe: str, tiny_model: Path) -> dict[str, Start]:
    """One start in tier plain, and one in tier snapshot in the place of those tests' tier zygote."""
    found = {}
    for tier, name in (("plain", "plain"), ("snapshot", "zygote")):
        # Without what a start has found out about the model's class, for which the engine asks one more process.
        environment = {"WARMIMAGE_START": tier, "WARMIMAGE_CACHES": "off"}
        words = {**NOTHING_GRANTED, "model": tiny_model, "shm_size": "1g", "hostname": "here"}
        with container(client, with_probe, environment=environment, **words) as made:
            found[name] = zygote._live(made)
        (ready,) = timeline.find(found[name].events, "ready")
        assert ready["tier"] == tier, found[name].log
    return found


def test_completions_are_the_same(starts: dict[str, Start]) -> None:
    plain, restored = (starts[tier] for tier in zygote.TIERS)
    assert plain.texts[0] == plain.texts[1] != ""
    assert restored.texts == plain.texts


def test_hardly_anything_is_imported_after_the_restore(starts: dict[str, Start]) -> None:
    """Before the server is ready, in any of its processes."""
    events = starts["zygote"].events
    (ready,) = timeline.find(events, "ready")
    late = [row for event in timeline.find(events, "imports") if event["t"] < ready["t"] for row in event["modules"]]
    ours = [row[0] for row in late if not row[0].startswith("warmimage_probe")]
    assert len(ours) < 70, ours
