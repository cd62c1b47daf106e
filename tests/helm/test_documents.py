"""The commands for Helm that documents show are ones that Helm takes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from tests.docs.readme import ROOT, readme_commands
from tests.support.images import warmimage

from .cases import case
from .generate import CHART
from .tool import helm

DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "helm.md", CHART / "README.md")

COMMANDS = [
    pytest.param(command, id=f"{path.name}:{number}")
    for path in DOCUMENTS
    for number, command in readme_commands(include_norun=True, path=path)
    if command.startswith("helm upgrade --install ")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the commands name: a build's values, a user's, and the chart."""
    made = tmp_path_factory.mktemp("documents")
    (made / "values.generated.yaml").write_text(case("minimal").read_text(encoding="utf-8"), encoding="utf-8")
    (made / "mine.yaml").write_text("models: {tiny: {gpus: {count: 1}}}\n", encoding="utf-8")
    warmimage("chart", "--output-dir", str(made / "charts"))
    return made


def test_each_document_shows_the_installation() -> None:
    assert len(COMMANDS) >= len(DOCUMENTS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_installation_is_one_that_helm_takes(command: str, folder: Path) -> None:
    """Every file, flag and chart of the command is what Helm takes; without a cluster, an installation is tried."""
    words = shlex.split(command)[3:]
    words = [str(folder / word) if word.endswith(".yaml") else word for word in words]
    release, chart, *rest = words
    assert chart == "CHART" or chart.endswith("charts/warmimage")
    done = helm("install", release.lower(), folder / "charts" / "warmimage", "--dry-run=client", *rest)
    assert "--wait --timeout" in done.stdout
    assert "nvidia.com/gpu: 1" in done.stdout


def test_the_readmes_example_of_values_is_taken(tmp_path: Path) -> None:
    """The values that documents show as a user's own fit over a build's."""
    for path in DOCUMENTS[1:]:
        text = path.read_text(encoding="utf-8").partition("models:\n")[2].partition("```")[0]
        assert text
        values = yaml.safe_load("models:\n" + text)
        (model,) = values["models"].values()
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump({"models": {"tiny": model}}), encoding="utf-8")
        done = helm("template", "r", CHART, "--values", case("minimal"), "--values", file)
        assert "--targets=image,weights" in done.stdout  # the claim is shared in both
