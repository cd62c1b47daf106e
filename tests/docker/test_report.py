"""A start of the real image, traced, looked at while it starts, and drawn."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest
from warmimage import timeline
from warmimage.report import Start
from warmimage.report.view import View

from tests.support.images import container, wait_for_event, warmimage

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("tier", ["plain", "preload"])
def test_traced_start_is_drawn_with_its_processes_and_imports(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path, tmp_path: Path, tier: str
) -> None:
    environment = {"WARMIMAGE_START": tier, "WARMIMAGE_TRACE": "imports"}
    with container(client, transformers_image, model=tiny_model, environment=environment) as made:
        wait_for_event(made, "ready")
        chunks, _ = made.get_archive(timeline.DEFAULT_PATH)
        assert b"".join(chunks)
        events = timeline.fetch(made)
        view = View(Start(tier, events, timeline.created(made)))
        file = tmp_path / "timeline.jsonl"
        file.write_bytes(made.exec_run(["cat", timeline.DEFAULT_PATH]).output)
    engine = next(lane for lane in view.lanes() if lane.name == "engine")
    assert engine.usage[-1][1] > 1, "importing torch takes more than a second of CPU"
    assert {"torch", "transformers"} <= {module.name for one in view.imports() for module in one.modules}
    assert view.phases[0].name == "container"
    assert view.phases[-1].ended == pytest.approx(view.ready, abs=0.01)

    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    done = warmimage("report", str(file), "--output", str(page), "--png", str(picture), "--title", "A real start")
    assert done.stdout.split() == [str(page), str(picture)]
    text = page.read_text(encoding="utf-8")
    assert "<h1>A real start</h1>" in text
    assert "transformers.cli" in text
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_start_that_is_not_traced_has_no_word_of_it_in_the_engines_environment(
    client: docker.DockerClient, transformers_image: str, tiny_model: Path
) -> None:
    """Invariant 1: with the trace off nothing of it reaches the engine."""
    with container(client, transformers_image, model=tiny_model) as made:
        wait_for_event(made, "engine.listening")
        (engine,) = made.exec_run(["cat", "/proc/1/task/1/children"]).output.decode().split()[-1:]
        environment = made.exec_run(["cat", f"/proc/{engine}/environ"]).output
    assert b"PATH=" in environment
    assert b"TRACE" not in environment
    assert b"PYTHONPATH" not in environment
