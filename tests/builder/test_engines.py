"""Engine adapters: complete as shipped, and added to by other distributions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from warmimage import engines
from warmimage.build import planner
from warmimage.config.model import Config
from warmimage.errors import ConfigError

from tests.builder import facts

SHIPPED = ("transformers", "vllm", "sglang")


@pytest.fixture(autouse=True)
def forget_adapters() -> Iterator[None]:
    engines.adapters.cache_clear()
    yield
    engines.adapters.cache_clear()


def plan(engine: str, **values: str) -> str:
    """Return all that an engine's plan says, as one text."""
    config = Config.model_validate({"model": "./tiny-llama", "engine": engine, **values})
    return facts.plan_of(config).engine.to_json()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_placeholder_of_an_adapter_is_filled_in(name: str) -> None:
    made = plan(name)
    assert "{" not in made.replace('{"', "").replace("{}", "")
    assert "tiny-llama" in made
    assert "8000" in made


@pytest.mark.parametrize("name", SHIPPED)
def test_an_adapters_parts_fit_together(name: str) -> None:
    adapter = engines.get(name)
    assert set(adapter.required_modules) <= set(adapter.modules)
    assert adapter.health_path.startswith("/")
    assert set(adapter.port_flags) & set(adapter.command)
    assert set(adapter.import_environment) == {"cuda", "cpu"}
    assert SpecifierSet(adapter.python).contains("3.12.0")
    for accelerator in adapter.requirements:
        config = Config.model_validate({"model": "m", "engine": name, "accelerator": accelerator})
        wanted = [Requirement(line) for line in planner.requirement_lines(config, adapter)]
        assert wanted[0].name == adapter.distribution
        assert all(len(requirement.specifier) == 1 for requirement in wanted), "pinned"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_models_own_module_is_preloaded_last_and_only_where_the_type_is_known(name: str) -> None:
    adapter = engines.get(name)
    config = Config(model="./tiny-llama", engine=name)
    known, inputs = facts.plan_of(config).engine.modules, facts.inputs_of(config)
    assert known[: len(adapter.modules)] == adapter.modules
    assert [module for module in known[len(adapter.modules) :] if "llama" in module] == [known[-1]]
    unknown = replace(inputs, model=replace(inputs.model, model_type=None))
    assert planner.make_plan(config, unknown).engine.modules == adapter.modules


def test_the_engines_version_is_the_locked_one_whatever_the_distribution_is_spelled() -> None:
    config = Config(model="./tiny-llama")
    inputs = facts.inputs_of(config)
    made = planner.make_plan(config, replace(inputs, adapter=replace(inputs.adapter, distribution="Transformers")))
    assert made.engine.version == inputs.adapter.version


def distribution(folder: Path, name: str, module: str, entry_points: str) -> None:
    """Write an installed distribution: a module, and metadata that registers it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(module, encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[warmimage.engines]\n{entry_points}\n", encoding="utf-8")


ADAPTER = """\
from warmimage.engines import EngineAdapter
ADAPTER = EngineAdapter(
    name={name!r}, distribution="tiny", version="1", requirements={{"cpu": ("tiny=={{version}}",)}}, python=">=3.10",
    command=("tiny", "{{path}}", "--port", "{{port}}"), health_path="/ok",
    modules=("tiny",), required_modules=("tiny",),
)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python imports from and finds distributions in."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)
    return folder


def test_another_distribution_adds_its_engine_by_entry_point(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(site, "engine_one", ADAPTER.format(name="one"), "one = engine_one:ADAPTER")
    assert sorted(engines.adapters()) == ["one", *sorted(SHIPPED)]
    made = facts.plan_of(Config(model="./tiny-llama", engine="one", accelerator="cpu"))
    assert made.engine.command == ("tiny", "/model", "--port", "8000")
    assert made.wheels
    assert made.wheels.requirements == ("tiny==1", "pip")
    monkeypatch.delitem(sys.modules, "engine_one")


@pytest.mark.parametrize(
    ("name", "point", "got"),
    [
        ("two", "x = engine_two:ADAPTER", "the taken name 'vllm'"),
        ("two", "x = engine_two:EngineAdapter", "a type"),
    ],
    ids=["the name of a shipped one", "no adapter"],
)
def test_what_cannot_be_registered_is_refused_by_name(
    site: Path, monkeypatch: pytest.MonkeyPatch, name: str, point: str, got: str
) -> None:
    distribution(site, "engine_two", ADAPTER.format(name="vllm"), point)
    with pytest.raises(ConfigError) as caught:
        engines.get("transformers")
    assert str(caught.value) == (
        f"error: engine 'x' cannot be registered\n  at entry point warmimage.engines: {point}\n"
        f"  got {got}, expected an EngineAdapter with an unused name\n  fix: pip uninstall engine_two"
    )
    monkeypatch.delitem(sys.modules, "engine_two")


def test_a_registered_module_that_does_not_import_is_refused_by_name(site: Path) -> None:
    distribution(site, "engine_three", "import nowhere_to_be_found\n", "x = engine_three:ADAPTER")
    with pytest.raises(ConfigError) as caught:
        engines.get("transformers")
    assert str(caught.value) == (
        "error: engine 'x' cannot be registered\n  at entry point warmimage.engines: x = engine_three:ADAPTER\n"
        "  got ModuleNotFoundError: No module named 'nowhere_to_be_found', "
        "expected an EngineAdapter with an unused name\n  fix: pip uninstall engine_three"
    )
