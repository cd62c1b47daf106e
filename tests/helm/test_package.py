"""The chart as an artifact: from the command to a package, a registry, and back."""

from __future__ import annotations

import re
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.support.images import warmimage
from tests.support.servers import registry

from .cases import case
from .generate import CHART
from .tool import helm, template


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as the command writes it."""
    folder = tmp_path_factory.mktemp("charts")
    assert warmimage("chart", "--output-dir", str(folder)).stdout.strip() == str(folder / "warmimage")
    return folder / "warmimage"


def test_the_command_writes_the_whole_chart(written: Path) -> None:
    """What is in the repository comes with the distribution, but for the tests' own values."""
    found = {path.relative_to(CHART) for path in CHART.rglob("*") if path.is_file()}
    source = {path for path in found if path.parts[0] != "ci"}
    assert {path.relative_to(written) for path in written.rglob("*") if path.is_file()} == source
    assert all((written / path).read_bytes() == (CHART / path).read_bytes() for path in source)


def test_an_older_chart_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    """A folder of another kind stays as it is."""
    warmimage("chart", "--output-dir", str(tmp_path))
    (tmp_path / "warmimage" / "templates" / "old.yaml").write_text("", encoding="utf-8")
    warmimage("chart", "-o", str(tmp_path))
    assert not (tmp_path / "warmimage" / "templates" / "old.yaml").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["warmimage"]
    shutil.rmtree(tmp_path / "warmimage")
    (tmp_path / "warmimage").mkdir()
    (tmp_path / "warmimage" / "mine").write_text("", encoding="utf-8")
    said = warmimage("chart", "--output-dir", str(tmp_path), code=3).stderr
    assert "error: there is something else than this chart" in said
    assert (tmp_path / "warmimage" / "mine").exists()
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    assert "error: the chart cannot be written" in warmimage("chart", "--output-dir", str(file), code=1).stderr


def test_a_package_goes_through_a_registry_unchanged(written: Path, tmp_path: Path) -> None:
    """Package, push, pull by digest: the render is the same at every stage."""
    done = helm("package", written, "--destination", tmp_path, home=tmp_path / "home")
    package = Path(done.stdout.strip().rpartition(": ")[2])
    with tarfile.open(package) as archive:
        assert not [name for name in archive.getnames() if "/ci/" in name]
    wanted = template(CHART, [case("gpu")]).stdout
    assert template(package, [case("gpu")]).stdout == wanted
    with registry(tmp_path / "registry", "") as host:
        pushed = helm("push", package, f"oci://{host}/charts", "--plain-http", home=tmp_path / "home")
        digest = re.search(r"Digest: (sha256:[0-9a-f]{64})", pushed.stdout + pushed.stderr)
        assert digest
        reference = f"oci://{host}/charts/warmimage@{digest[1]}"
        (tmp_path / "pulled").mkdir()
        helm("pull", reference, "--plain-http", "--destination", tmp_path / "pulled", home=tmp_path / "home")
        (pulled,) = (tmp_path / "pulled").iterdir()
        assert pulled.read_bytes() == package.read_bytes()
        again = helm("template", "r", reference, "--plain-http", "--values", case("gpu"), home=tmp_path / "home")
        assert again.stdout == wanted
