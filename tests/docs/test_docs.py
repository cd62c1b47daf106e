"""The documents are exact: generated text is fresh, links lead somewhere, commands, events and files exist."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from warmimage import engines
from warmimage.cli import VERBS
from warmimage.config import load as configfile
from warmimage.config.descriptions import DESCRIPTIONS, Start
from warmimage.config.model import Config
from warmimage.entrypoint.tiers import TIERS

from tests.helm import generate as chart

from . import benchmarks, generate
from .readme import README, ROOT, fenced_blocks, readme_commands

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

#: Commands of README.md and of the other documents, with the document that shows them.
COMMANDS = [
    pytest.param(command, id=f"{path.name}:{number}")
    for path in DOCUMENTS
    for number, command in readme_commands(include_norun=True, path=path)
]

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_EVENT = re.compile(r"\.event\(\s*f?\"([a-z.{}]+)\"")


def prose(path: Path) -> str:
    """Return a document without its fenced blocks."""
    return prose_of(path.read_text(encoding="utf-8"))


def prose_of(text: str) -> str:
    """Return a document's text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", generate.documents(), ids=lambda path: path.name)
def test_generated_document_is_fresh(path: Path) -> None:
    """``make docs`` would change nothing."""
    assert path.read_text(encoding="utf-8") == generate.documents()[path], "run: make docs"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    """Every relative link names an existing file, and a heading in it."""
    for target in _LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_shell_blocks_are_marked_as_run_or_not(path: Path) -> None:
    """A block of commands is ``sh`` if any machine can run it, else ``sh norun``; only README.md has the first kind.

    An unknown word would hide a block from the tests.
    """
    for info, number, _ in fenced_blocks(path.read_text(encoding="utf-8")):
        allowed = [["sh", "norun"], ["json"], ["yaml"], ["toml"], ["python"], ["text"]]
        allowed += [["sh"]] if path == README else []
        assert info in allowed, f"line {number - 1}: {info}"


def test_readme_has_commands_to_run() -> None:
    """The commands run from top to bottom: they build one image before they use it, and name no other."""
    commands = [command for _, command in readme_commands()]
    assert commands[0].startswith("warmimage build ")
    tag = shlex.split(commands[0])[-1]
    users = [shlex.split(command) for command in commands if re.match(r"docker run|warmimage (run|inspect)", command)]
    assert all(tag in argv for argv in users)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_exists(command: str) -> None:
    """Every ``warmimage`` command names a verb and flags that exist, every ``make`` command a target."""
    argv = shlex.split(command)
    if argv[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [argument for argument in argv[1:] if "=" not in argument]
        assert set(targets) <= set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    if argv[0] == "warmimage":
        verb, *rest = argv[1:]
        assert verb in VERBS
        own = rest[: rest.index("--")] if "--" in rest else rest
        flags = {argument.partition("=")[0] for argument in own if argument.startswith("-")}
        known = set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", options_of(verb)))
        assert flags <= known


@cache
def options_of(verb: str) -> str:
    """Return the options of a verb's ``--help``; its examples may name other programs' flags."""
    return generate.help_text(verb).partition("Options:")[2]


def test_readme_is_short() -> None:
    """A reader sees all of it."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_first_screen_of_the_readme_has_the_figures_and_the_first_commands() -> None:
    """The first 25 lines show the gain and how to try it."""
    lines = README.read_text(encoding="utf-8").splitlines()[:25]
    assert benchmarks.END in lines
    assert any(line.startswith("warmimage build ") for line in lines)
    assert any(line.startswith("docker run ") for line in lines)


def test_readme_states_no_speed() -> None:
    """Claims about speed come only from benchmarks, with figures that anyone can reproduce."""
    text = benchmarks.without_figures(README.read_text(encoding="utf-8"))
    assert not re.search(r"\d\s*(?:x|%|s|ms|seconds|times)(?:\W|$)", prose_of(text))


def test_changelog_begins_with_this_version() -> None:
    """The newest version in the changelog is the project's."""
    newest = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    version = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest
    assert version
    assert newest[1] == version[1]


def test_every_event_is_documented() -> None:
    """docs/timeline.md names every event that the entrypoint writes, and no other."""
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "entrypoint").rglob("*.py"))
    written = {
        name.replace("{name}", helper)
        for source in sources
        for name in _EVENT.findall(source)
        for helper in ("check", "prefetch")
    }
    tables = (ROOT / "docs" / "timeline.md").read_text(encoding="utf-8").partition("## Phases")[0]
    documented = set(re.findall(r"^\| `([a-z]+(?:\.[a-z]+)?)` \| .* \|$", tables, flags=re.MULTILINE))
    fields = {"t", "pid", "process", "event", "target", "files", "seconds", "rate", "reason", "failures"}
    assert documented - fields == written


def test_every_list_of_tiers_is_the_same() -> None:
    """Configuration, chart and README name the tiers of ``TIERS``, in its order."""
    names = [tier.name for tier in TIERS]
    assert list(get_args(Start)) == ["auto", *names]
    (start,) = [leaf for leaf in chart.leaves() if leaf.path == ("defaults", "start")]
    assert start.type.split("|") == ["auto", *names]
    table = README.read_text(encoding="utf-8").partition("| tier |")[2].partition("\n\n")[0]
    assert re.findall(r"^ *\| `(\w+)` \|", table, flags=re.MULTILINE) == names


def test_every_shipped_engine_is_named() -> None:
    """The key's description and the table of docs/engines.md name every adapter."""
    table = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8").partition("## Fields")[0]
    for name in engines.adapters():
        assert re.search(rf"\b{name}\b", DESCRIPTIONS["engine"]), name
        assert f"| `{name}` |" in table, name


def test_every_field_of_the_adapter_is_documented() -> None:
    """docs/engines.md names every field of an adapter, and no other."""
    table = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8").partition("## Fields")[2].partition("##")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE)) == set(engines.EngineAdapter.__dataclass_fields__)


def test_every_module_has_a_place_in_the_architecture() -> None:
    """docs/architecture.md names every module and package of the builder and of the entrypoint, and no other."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in ("builder", "entrypoint"):
        section = text.partition(f"### Modules of `{name}/`")[2].partition("\n#")[0]
        cells = re.findall(r"^\| (`.+?) \|", section, flags=re.MULTILINE)
        named = [module for cell in cells for module in re.findall(r"`([\w/]+)`", cell)]
        root = ROOT / name
        modules = {path.stem for path in root.glob("*.py") if not path.stem.startswith("__")}
        packages = {f"{path.parent.relative_to(root)}/" for path in root.glob("*/**/__init__.py")}
        assert sorted(named) == sorted(modules | packages)


def test_every_file_that_a_recipe_names_exists() -> None:
    """``Where do I change X`` of docs/architecture.md: each file is there, or is marked as new."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## Where do I change X")[2].partition("\n## ")[0]
    paths = re.findall(r"`([\w.-]+(?:/[\w.-]+)+/?|[A-Z]+\.md|pyproject\.toml)`( \(new\))?", section)
    assert len(paths) > 30
    examples = {"entrypoint/tiers/sleep/"}  # a package that a reader may make
    for path, new in paths:
        # A new file may be there already, where somebody has followed the recipe.
        assert new or path in examples or (ROOT / path).exists(), path


def test_glossary_has_at_most_twenty_words() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = text.partition("## Glossary")[2].partition("\n## ")[0].count("\n| ")
    assert 10 < rows - 2 <= 20


def test_configuration_example_is_valid(tmp_path: Path) -> None:
    """The examples of configuration files are valid."""
    for path in DOCUMENTS:
        for info, _, lines in fenced_blocks(path.read_text(encoding="utf-8")):
            if info == ["yaml"]:
                file = tmp_path / "warmimage.yaml"
                file.write_text("\n".join(lines) + "\n", encoding="utf-8")
                assert isinstance(configfile.load(file, {}, {}), Config)


def test_engine_example_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry accepts the example of a third-party engine, under the name that the example's command uses."""
    blocks = list(fenced_blocks((ROOT / "docs" / "engines.md").read_text(encoding="utf-8")))
    (source,) = ("\n".join(lines) for info, _, lines in blocks if info == ["python"])
    (project,) = ("\n".join(lines) for info, _, lines in blocks if info == ["toml"])
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102 - our own example

    class Point:
        name, value, dist = "tinyserve", "warmimage_tinyserve:ADAPTER", None

        @staticmethod
        def load() -> object:
            return names["ADAPTER"]

    assert f'{Point.name} = "{Point.value}"' in project
    assert f'[project.entry-points."{engines.GROUP}"]' in project
    monkeypatch.setattr(engines, "entry_points", lambda group: [Point] if group == engines.GROUP else [])
    engines.adapters.cache_clear()
    try:
        assert engines.get("tinyserve") is names["ADAPTER"]
    finally:
        engines.adapters.cache_clear()


@pytest.mark.parametrize("number", range(1, 6))
def test_invariant_has_a_test(number: int) -> None:
    """The ``grep`` of docs/architecture.md finds a test for each invariant."""
    tests = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert any(f'"""Invariant {number}:' in text for text in tests)
