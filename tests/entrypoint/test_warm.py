"""``warm``: what is made resident, what is left alone, what is noticed, and what is said about it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from warmimage.entrypoint.pagecache.headroom import Limit
from warmimage.entrypoint.pagecache.residency import EXACT, SAMPLED, UNKNOWN
from warmimage.entrypoint.pagecache.syscalls import resident_bytes
from warmimage.entrypoint.warm import readiness
from warmimage.entrypoint.warm.budget import Budget, budget
from warmimage.entrypoint.warm.tracker import Tracker

from tests.support.page_cache import LOST, resident, undisturbed

from .harness import Image, evict
from .warming import MIB, events, model, wait_for, warming

pytestmark = pytest.mark.timeout(180)


@undisturbed
def test_a_single_run_makes_image_and_weights_resident_in_every_python(image: Image) -> None:
    hot = image.root / "hot.so"
    hot.write_bytes(os.urandom(3 * MIB))
    shards = model(image.model, 2 * MIB, 5 * MIB + 1)
    for old in image.model.glob("model-*-of-00002.safetensors"):
        assert old in shards
    image.closure({"files": [str(hot), str(image.root / "gone.py")], "libraries": []})
    evict(*shards, hot)
    ended = image.run("warm", "--once")
    assert (ended.code, ended.out) == (0, b""), ended.err
    assert [resident(path) for path in (*shards, hot)] == [2 * MIB, 5 * MIB + 1, 3 * MIB]
    assert [event["reason"] for event in image.events("warm.declined")] == ["the image has no snapshot"]
    looked = {event["target"]: event for event in image.events("warm.looked")}
    assert looked["weights"]["wanted_bytes"] == 7 * MIB + 1 + 2
    assert [event["target"] for event in image.events("warm.target_ready")] == ["image", "weights"]
    assert ended.said[-1].startswith("warm: ")

    again = image.run("warm", "--once")
    assert again.code == 0
    again_read = sum(event["read_bytes"] for event in image.events("warm.ended"))
    assert again_read <= LOST, "nothing is read a second time"


def test_a_wrong_command_line_is_one_clear_line(image: Image) -> None:
    ended = image.run("warm", "--budget", "0")
    assert (ended.code, len(ended.said)) == (64, 1)
    assert "--budget: '0' is not even one byte" in ended.said[0]
    ended = image.run("warm", "--once", "--dir", "/not/there")
    assert (ended.code, ended.said) == (66, ["error: warm: --dir /not/there is not there: mount the model there"])


def test_what_is_missing_for_http_is_named(image: Image) -> None:
    """The interpreter of an image without the packages: the sidecar cannot be asked, and says what it lacks."""
    code = "import importlib.util as u; print(u.find_spec('prometheus_client') is None)"
    if image.python_run("-I", "-c", code).stdout.strip() != "True":
        pytest.skip("this interpreter has the packages")
    ended = image.run("warm")
    assert ended.code == 69
    (line,) = ended.said
    assert "prometheus_client, which /readyz and /metrics need: add that to the image, or --once" in line


def test_who_sees_a_target_warm_again_sees_that_it_was_rewarmed() -> None:
    tracker = Tracker(["weights"])
    tracker.set_files("weights", [("/one", MIB), ("/two", MIB)], [], "")
    tracker.set_budget(1 << 40)
    one, two = tracker.files("weights")

    def seen() -> tuple[bool, int]:
        found = tracker.totals()["weights"]
        return found.warm, found.rewarms

    for file in (one, two):
        tracker.looked("weights", file, MIB, SAMPLED)
        tracker.add_read("weights", file, MIB)
        tracker.looked("weights", file, MIB, SAMPLED)
    assert seen() == (True, 0), "that was the first time"
    for file in (one, two):
        tracker.looked("weights", file, 0, SAMPLED)
    assert seen() == (False, 0)
    for file in (one, two):
        tracker.add_read("weights", file, MIB)
    assert seen() == (True, 1), "both were evicted, and read again, in one"


@undisturbed
def test_evicted_bytes_are_noticed_counted_and_read_again(tmp_path: Path) -> None:
    first, second = model(tmp_path / "model", 4 * MIB, 6 * MIB)
    with warming(tmp_path, [tmp_path / "model"]) as (warmer, timeline):
        wait_for(lambda: warmer.state().complete)
        evict(second)
        (event,) = wait_for(lambda: events(timeline, "warm.evicted"))
        assert (event["target"], event["bytes"]) == ("weights", 6 * MIB)
        found = wait_for(lambda: (now := warmer.state()).complete and now).targets["weights"]
    assert (found.evicted, found.rewarms) == (6 * MIB, 1)
    assert [resident(path) for path in (first, second)] == [4 * MIB, 6 * MIB]
    assert warmer.state().ready, "a server that has started once stays in service"
    assert [
        event["event"] for event in events(timeline) if event["event"] in ("warm.no_longer_ready", "warm.ready")
    ] == [
        "warm.ready",
        "warm.no_longer_ready",
        "warm.ready",
    ]


@undisturbed
def test_only_what_is_missing_is_read(tmp_path: Path) -> None:
    (path,) = model(tmp_path / "model", 40 * MIB)
    evict(path)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), 16 * MIB, 16 * MIB)
    with warming(tmp_path, [tmp_path / "model"], once=True) as (_, timeline):
        wait_for(lambda: events(timeline, "warm.ready"))
    (ended,) = events(timeline, "warm.ended")
    assert ended["read_bytes"] == 24 * MIB
    assert resident(path) == 40 * MIB


@undisturbed
def test_a_budget_is_kept_and_is_enough_to_be_ready(tmp_path: Path) -> None:
    first, second = model(tmp_path / "model", 4 * MIB, 32 * MIB)
    evict(first, second)
    with warming(tmp_path, [tmp_path / "model"], budget=20 * MIB + 2) as (warmer, _):
        wait_for(lambda: warmer.state().complete)
        state = warmer.state()
    assert resident(first) == 4 * MIB
    assert 16 * MIB <= resident(second) <= 17 * MIB
    assert state.targets["weights"].over_budget == 16 * MIB
    assert state.ready
    assert state.reason.startswith("warm within the budget of 20.0 MiB")


def test_a_memory_limit_that_is_too_small_is_named() -> None:
    host = Limit("/proc/meminfo", 100 * MIB, 0)
    limit = Limit("/sys/fs/cgroup/memory.max", 50 * MIB, 10 * MIB)
    found = budget(None, 0, [host, limit])
    assert found == Budget(
        36 * MIB,
        False,
        "the container's memory limit of 50.0 MiB (/sys/fs/cgroup/memory.max) leaves 40.0 MiB for the page cache",
    )
    assert budget(20 * MIB, 0, [host, limit]) == Budget(20 * MIB, True, "the budget of 20.0 MiB")
    assert budget(60 * MIB, 0, [host, limit]) == found, "what is allowed beyond the limit is not to be had"
    assert budget(None, 50 * MIB, [host]).size == 135 * MIB, "what we pin is ours"
    tracker = Tracker(["weights"])
    tracker.set_files("weights", [("/model/a", 60 * MIB)], [], "")
    tracker.set_budget(found.size)
    totals = tracker.totals()
    assert not readiness.complete(totals, found)
    said = readiness.reason(totals, found, "", 0, "", "", complete=False, looked=True)
    assert said == f"60.0 MiB are wanted, more than memory holds: {found.bound}"


def test_what_cannot_be_warmed_is_named_and_the_deadline_lets_the_server_start(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model(folder, MIB)
    (folder / "model.safetensors").symlink_to("model.safetensors")
    with warming(tmp_path, [folder], deadline=1.0) as (warmer, timeline):
        wait_for(lambda: events(timeline, "warm.blocked"))
        before = warmer.state()
        wait_for(lambda: warmer.state().ready)
        after = warmer.state()
    assert not before.complete
    assert not before.ready
    assert "model.safetensors: Too many levels of symbolic links" in before.reason
    assert not after.complete
    assert after.reason.startswith("ready all the same after 1 s: weights: ")


def test_a_model_that_comes_later_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with warming(tmp_path, [folder]) as (warmer, timeline):
        (event,) = wait_for(lambda: events(timeline, "warm.blocked"))
        assert event["reason"] == f"weights: no weights in {folder}"
        model(folder, MIB)
        wait_for(lambda: warmer.state().complete)


def test_a_file_that_gets_shorter_while_it_is_read_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    (path,) = model(tmp_path / "model", 8 * MIB)
    evict(path)
    with warming(tmp_path, [tmp_path / "model"], rate=2 * MIB) as (warmer, timeline):
        wait_for(lambda: warmer.state().targets["weights"].read)
        os.truncate(path, MIB)
        wait_for(lambda: events(timeline, "warm.ended"))
        wait_for(lambda: warmer.state().complete)
    assert not events(timeline, "warm.failed")
    assert events(timeline, "warm.looked")[0]["wanted_bytes"] == 8 * MIB + 2
    assert warmer.state().targets["weights"].wanted == MIB + 2


@undisturbed
def test_everything_is_dropped_where_that_is_asked_for(tmp_path: Path) -> None:
    (path,) = model(tmp_path / "model", 4 * MIB)
    with warming(tmp_path, [tmp_path / "model"]) as (warmer, timeline):
        wait_for(lambda: warmer.state().complete)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        warmer.drop()
    assert resident_bytes(str(path)) == 0
    assert events(timeline, "warm.dropped")[0]["files"] == 2


def test_every_state_adds_up(tmp_path: Path) -> None:
    """Whatever happens to files in whatever order: wanted is resident, unknown, missing and beyond the budget."""
    dice = random.Random(1)  # noqa: S311 - the same every time
    tracker = Tracker(["a", "b"])
    for _ in range(400):
        name = dice.choice("ab")
        match dice.randrange(4):
            case 0:
                listed = [(f"/{number}", dice.randrange(5) * MIB) for number in range(dice.randrange(6))]
                tracker.set_files(name, listed, [], "")
            case 1:
                tracker.set_budget(dice.randrange(20) * MIB)
            case 2:
                for file in tracker.files(name):
                    tracker.looked(name, file, dice.randint(0, file.share), dice.choice((EXACT, SAMPLED, UNKNOWN)))
            case 3:
                for file in tracker.files(name):
                    tracker.add_read(name, file, MIB)
                    file.parts = [0]
                    tracker.recount(file, 0, dice.randint(0, file.share))
        for each in tracker.totals().values():
            assert each.wanted == each.resident + each.unknown + each.missing + each.over_budget
            assert min(each.resident, each.unknown, each.missing, each.over_budget) >= 0
            assert each.sampled <= each.resident


@undisturbed
def test_of_the_files_of_others_samples_are_taken_and_said_to_be_samples(
    tmp_path: Path, unprivileged: tuple[str, ...]
) -> None:
    """An image's files belong to root, its user is another: the kernel would call every page resident."""
    (path,) = model(tmp_path / "model", 20 * MIB)
    evict(path)
    path.chmod(0o444)
    os.chown(path, 65534, 65534)
    ask = "from warmimage.entrypoint.pagecache.residency import Residency; "
    ask += f"print(*Residency().of_file({str(path)!r}, {20 * MIB}))"

    def asked() -> tuple[int, str]:
        done = subprocess.run([*unprivileged, sys.executable, "-c", ask], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[0]), done.stdout.split()[1]

    assert asked() == (0, SAMPLED)
    tracker = Tracker(["weights"])
    tracker.set_files("weights", [(str(path), 20 * MIB), ("/small", MIB)], [], "")
    tracker.set_budget(1 << 40)
    for file in tracker.files("weights"):
        tracker.looked("weights", file, file.size, SAMPLED)
    assert tracker.totals()["weights"].missing == MIB, "a few samples say little of a file that is mapped in part"
    small = tracker.files("weights")[1]
    tracker.add_read("weights", small, MIB)
    tracker.looked("weights", small, MIB, SAMPLED)
    assert tracker.totals()["weights"].missing == 0, "it has been read once"
    path.read_bytes()
    assert asked() == (20 * MIB, SAMPLED)
