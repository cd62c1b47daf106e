"""Wheels and their lock: resolved from a folder, kept, taken again, and never changed unnoticed."""

from __future__ import annotations

import hashlib
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from warmimage.errors import ConfigError, WarmimageError
from warmimage.inputs import lock, wheels
from warmimage.inputs.wheels import Target

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TARGET = Target(PYTHON, "2.36", "x86_64", "cpu")
LOCK = Path("warmimage.lock")


def make_wheel(folder: Path, name: str, version: str, *requires: str, content: str = "") -> Path:
    """Write a wheel of one module, as much of one as pip looks at when it resolves and downloads."""
    info = f"{name}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    files = {
        f"{name}.py": content,
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return made


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A wheelhouse of an engine, a library that it needs and that sorts before it by file name only, and pip."""
    folder = tmp_path / "house"
    folder.mkdir()
    make_wheel(folder, "engine", "1.0", "Zlib_ng>=2", "absent; python_version < '3'")
    make_wheel(folder, "Zlib_ng", "2.1")
    make_wheel(folder, "pip", "30.0")
    return folder


def names(found: wheels.Wheelset) -> list[str]:
    return [f"{wheel.name}=={wheel.version}" for wheel in found.lock.wheels]


@pytest.mark.parametrize(
    ("glibc", "machine", "expected"),
    [
        (
            "2.18",
            "x86_64",
            ["manylinux_2_18_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_16_x86_64"],
        ),
        ("2.6", "x86_64", ["manylinux_2_6_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64", "linux_x86_64"]),
        ("2.17", "aarch64", ["manylinux_2_17_aarch64", "manylinux2014_aarch64", "manylinux_2_16_aarch64"]),
    ],
)
def test_platforms_are_the_newest_first_each_legacy_name_after_its_own(
    glibc: str, machine: str, expected: list[str]
) -> None:
    assert Target("3.12", glibc, machine, "cpu").platforms[: len(expected)] == expected


def test_platforms_are_those_that_packaging_computes_for_this_interpreter() -> None:
    from packaging.tags import platform_tags

    own = [tag for tag in platform_tags() if tag.startswith("manylinux")]
    if not own:
        pytest.skip("not a glibc platform")
    major, minor, machine = own[0].split("_", 3)[1:]
    assert Target("3.12", f"{major}.{minor}", machine, "cpu").platforms[: len(own)] == own


def test_the_lock_has_every_wheel_sorted_by_name_and_no_file_until_it_is_written(house: Path) -> None:
    found = wheels.resolve(["engine"], TARGET, house, LOCK)
    assert found.fresh
    assert names(found) == ["engine==1.0", "pip==30.0", "zlib-ng==2.1"]
    assert found.lock.requirements == ("engine", "pip")
    assert found.lock.installer == "pip-30.0-py3-none-any.whl"
    assert not LOCK.exists()
    for wheel in found.lock.wheels:
        content = (found.directory / wheel.file).read_bytes()
        assert (wheel.size, wheel.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    wheels.write_lock(found, LOCK)
    assert lock.read(LOCK) == found.lock


def test_a_second_build_takes_the_lock_and_downloads_nothing(house: Path) -> None:
    first = wheels.resolve(["engine"], TARGET, house, LOCK)
    wheels.write_lock(first, LOCK)
    written = LOCK.read_text(encoding="utf-8")
    make_wheel(house, "Zlib_ng", "2.2")
    (house / "engine-1.0-py3-none-any.whl").unlink()  # nothing asks for it any more
    second = wheels.resolve(["engine"], TARGET, house, LOCK)
    assert not second.fresh
    assert second.lock.fingerprint() == first.lock.fingerprint()
    assert second.directory == first.directory
    wheels.write_lock(second, LOCK)
    assert LOCK.read_text(encoding="utf-8") == written


def test_with_an_empty_cache_the_lock_brings_the_very_same_wheels(house: Path, tmp_path: Path) -> None:
    first = wheels.resolve(["engine"], TARGET, house, LOCK)
    wheels.write_lock(first, LOCK)
    make_wheel(house, "Zlib_ng", "2.2")
    shutil.rmtree(tmp_path / "cache")
    second = wheels.resolve(["engine"], TARGET, house, LOCK)
    assert (second.fresh, names(second)) == (False, names(first))
    assert sorted(path.name for path in second.directory.iterdir()) == sorted(wheel.file for wheel in first.lock.wheels)


def test_another_requirement_resolves_anew_and_says_so(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheels.write_lock(wheels.resolve(["engine"], TARGET, house, LOCK), LOCK)
    make_wheel(house, "Zlib_ng", "2.2")
    capsys.readouterr()
    found = wheels.resolve(["engine", "Zlib_ng>=2.2"], TARGET, house, LOCK)
    assert "warmimage.lock: resolved for other inputs, resolving again\n" in capsys.readouterr().err
    assert (found.fresh, names(found)) == (True, ["engine==1.0", "pip==30.0", "zlib-ng==2.2"])


@pytest.mark.parametrize(
    "target", [Target(PYTHON, "2.31", "x86_64", "cpu"), Target(PYTHON, "2.36", "aarch64", "cpu")], ids=str
)
def test_a_lock_for_another_target_is_not_taken(house: Path, target: Target) -> None:
    wheels.write_lock(wheels.resolve(["engine"], TARGET, house, LOCK), LOCK)
    assert wheels.resolve(["engine"], target, house, LOCK).fresh


def test_a_dependency_that_the_wheelhouse_lacks_is_named(house: Path, tmp_path: Path) -> None:
    (house / "Zlib_ng-2.1-py3-none-any.whl").unlink()
    with pytest.raises(ConfigError) as caught:
        wheels.resolve(["engine"], TARGET, house, LOCK)
    (problem,) = caught.value.problems
    assert problem.what == f"no wheel matches Python {PYTHON} on x86_64, glibc 2.36"
    assert problem.where == f"wheelhouse: {house}"
    assert "Zlib_ng" in problem.got
    assert not LOCK.exists()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [], "something half-made was kept"


def test_a_wheel_that_changed_under_the_lock_is_refused(house: Path, tmp_path: Path) -> None:
    wheels.write_lock(wheels.resolve(["engine"], TARGET, house, LOCK), LOCK)
    shutil.rmtree(tmp_path / "cache")
    make_wheel(house, "pip", "30.0", content="import evil\n")
    with pytest.raises(WarmimageError) as caught:
        wheels.resolve(["engine"], TARGET, house, LOCK)
    (problem,) = caught.value.problems
    assert (problem.what, problem.fix) == ("a locked wheel has changed", "rm warmimage.lock to resolve again")
    assert caught.value.exit_code == 1
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_lock_is_the_same_after_a_round_trip_through_its_file(house: Path) -> None:
    made = wheels.resolve(["engine"], TARGET, house, LOCK).lock
    again = lock.Lock.model_validate_json(made.to_json())
    assert again == made
    assert again.to_json() == made.to_json()
    assert made.to_json().endswith("}\n")


def test_the_locks_requirements_leave_the_installer_out_unless_asked_for(house: Path) -> None:
    made = wheels.resolve(["engine"], TARGET, house, LOCK).lock
    digests = {wheel.name: wheel.sha256 for wheel in made.wheels}
    assert made.as_requirements() == (
        f"engine==1.0 --hash=sha256:{digests['engine']}\nzlib-ng==2.1 --hash=sha256:{digests['zlib-ng']}\n"
    )
    assert f"\npip==30.0 --hash=sha256:{digests['pip']}\n" in made.as_requirements(with_installer=True)
