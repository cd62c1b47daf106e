"""The command: what it prints where, its exit codes, and what wins over what."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from warmimage import __version__, cli, engines
from warmimage.cli import options
from warmimage.config import load, schema
from warmimage.config.descriptions import DESCRIPTIONS
from warmimage.config.model import Config

from tests.support.images import COMMAND, warmimage

NO_DAEMON = "unix:///nowhere/docker.sock"

#: What costs time to import and is of no use to ``--help``.  Typer itself takes pydantic; our models must not.
HEAVY = {
    "docker",
    "huggingface_hub",
    "jinja2",
    "requests",
    "rich",
    "ruamel.yaml",
    "safetensors",
    "warmimage.config.model",
    "warmimage.plan",
}


def test_help_shows_every_verb_with_its_whole_summary() -> None:
    """At the narrowest width that typer uses."""
    commands = warmimage("--help", COLUMNS="80").stdout.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in commands] == list(cli.VERBS)
    assert not [line for line in commands if line.endswith("...")]
    assert not [line for line in commands if len(line.split(maxsplit=1)[1]) > 45]


@pytest.mark.parametrize(
    "words", [[], *([verb] for verb in cli.VERBS)], ids=lambda words: words[0] if words else "warmimage"
)
def test_help_is_printed_without_importing_anything_heavy(words: list[str]) -> None:
    code = (
        "import json, sys\n"
        "from warmimage.cli import main\n"
        f"sys.argv = ['warmimage', *{words!r}, '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    print(json.dumps([end.code, sorted(sys.modules)]), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, modules = json.loads(done.stderr)
    assert status == 0
    assert done.stdout.startswith(" ".join(["Usage: warmimage", *words]))
    assert HEAVY & set(modules) == set()


def test_the_version_is_the_distributions() -> None:
    assert warmimage("--version").stdout == f"warmimage {__version__}\n"
    module = subprocess.run(
        [sys.executable, "-m", "warmimage", "--version"], capture_output=True, text=True, check=True
    )
    assert module.stdout == f"warmimage {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Usage: warmimage"),
        (["biuld"], "No such command 'biuld'"),
        (["build", "--modle", "m"], "No such option: --modle"),
        (["build", "--model"], "requires an argument"),
        (["build", "--model", "m", "--progress", "loud"], "--progress"),
        (["build", "--model", "m", "--push"], "error: --push needs a tag\n  fix: --tag REGISTRY/NAME:TAG\n"),
        (["run"], "Missing argument 'IMAGE'"),
        (["run", "i", "--port", "70000"], "--port"),
        (["run", "i", "--env", "A"], "error: not an environment variable\n  at --env\n  expected NAME=VALUE\n"),
        (["inspect"], "Missing argument 'IMAGE'"),
        (["init", "nowhere"], "error: nowhere is not a directory\n  fix: mkdir -p nowhere\n"),
    ],
    ids=" ".join,
)
def test_a_usage_error_ends_with_code_2(words: list[str], message: str) -> None:
    done = warmimage(*words, code=2)
    assert message in done.stderr + (done.stdout if not words else "")
    assert "Traceback" not in done.stderr


def test_init_writes_file_and_schema_and_prints_the_files_name_alone() -> None:
    done = warmimage("init")
    assert done.stdout == "warmimage.yaml\n"
    assert done.stderr == "Next: name your model in warmimage.yaml, then run: warmimage build\n"
    assert sorted(path.name for path in Path().glob("warmimage.*")) == ["warmimage.schema.json", "warmimage.yaml"]
    assert Path("warmimage.schema.json").read_text(encoding="utf-8") == schema.schema_text()
    assert (
        Path("warmimage.yaml")
        .read_text(encoding="utf-8")
        .startswith("# yaml-language-server: $schema=./warmimage.schema.json\n")
    )


def test_init_overwrites_only_when_forced() -> None:
    Path("warmimage.yaml").write_text("model: mine\n", encoding="utf-8")
    done = warmimage("init", code=2)
    assert done.stderr == "error: warmimage.yaml exists already\n  fix: --force overwrites it\n"
    assert Path("warmimage.yaml").read_text(encoding="utf-8") == "model: mine\n"
    assert not Path("warmimage.schema.json").exists()
    warmimage("init", "--force")
    assert Path("warmimage.yaml").read_text(encoding="utf-8") == schema.config_file_text()


def test_the_file_that_init_writes_is_the_defaults_as_written_and_with_every_key_uncommented() -> None:
    path = Path("warmimage.yaml")
    text = schema.config_file_text()
    expected = Config(model="./model")
    path.write_text(text, encoding="utf-8")
    assert load.load(path, {}, {}) == expected
    uncommented, count = re.subn(r"^# ([a-z_]+:(?: .*)?)$", r"\1", text, flags=re.MULTILINE)
    path.write_text(uncommented, encoding="utf-8")
    assert load.load(path, {}, {}) == expected
    assert set(load.read(path).values) == set(Config.model_fields)
    assert count == len(Config.model_fields) - 1
    for description in DESCRIPTIONS.values():
        assert f"# {description}\n" in text


@pytest.mark.parametrize(
    ("flag", "variable", "file", "where", "got"),
    [
        ("a", "b", "c", "--weights", "a"),
        (None, "b", "c", "WARMIMAGE_WEIGHTS", "b"),
        (None, None, "c", "warmimage.yaml:2: weights", "c"),
        ("a", None, None, "--weights", "a"),
        (None, "", "c", "warmimage.yaml:2: weights", "c"),
    ],
)
def test_flags_win_over_variables_over_the_file_and_the_error_names_the_winner(
    flag: str | None, variable: str | None, file: str | None, where: str, got: str
) -> None:
    Path("warmimage.yaml").write_text("model: ./m\n" + (f"weights: {file}\n" if file else ""), encoding="utf-8")
    words = ["--weights", flag] if flag else []
    variables = {} if variable is None else {"WARMIMAGE_WEIGHTS": variable}
    done = warmimage("build", *words, code=3, **variables)
    assert done.stderr == (
        f"error: invalid weights\n  at {where}\n  got '{got}', expected 'mount', 'bake' or 'download'\n"
    )


def test_a_flag_mends_what_the_file_has_wrong() -> None:
    Path("warmimage.yaml").write_text("model: ./m\nweights: c\n", encoding="utf-8")
    done = warmimage("build", "--weights", "bake", code=3)
    assert done.stderr.startswith("error: the model is not a directory\n  at model\n  got './m'")


def test_a_variable_holds_a_list_separated_by_spaces() -> None:
    done = warmimage("build", "--model", "m", code=3, WARMIMAGE_TAGS="good:1 BAD")
    assert done.stderr.startswith("error: invalid tags\n  at WARMIMAGE_TAGS\n  got 'BAD', expected ")


def test_a_variable_names_the_file() -> None:
    Path("other.yaml").write_text("port: 1\n", encoding="utf-8")
    done = warmimage("build", code=3, WARMIMAGE_FILE="other.yaml")
    assert done.stderr.startswith("error: no model is given\n  at other.yaml: model\n")


def test_without_a_daemon_a_read_verb_gives_its_error_as_json_on_stdout_too() -> None:
    done = warmimage("inspect", "--json", "image", code=4, DOCKER_HOST=NO_DAEMON)
    (problem,) = json.loads(done.stdout)["errors"]
    assert problem["what"] == "the Docker daemon does not answer"
    assert problem["fix"] == "start it (systemctl start docker), or name it with DOCKER_HOST"
    assert set(problem) == {"what", "where", "got", "expected", "fix"}
    assert done.stderr.startswith("error: the Docker daemon does not answer\n  got ")


def test_json_after_the_engines_own_arguments_is_the_engines() -> None:
    assert warmimage("bench", "image", "--", "--json", code=4, DOCKER_HOST=NO_DAEMON).stdout == ""


def test_bench_gives_its_error_as_json_only_when_json_was_asked_for() -> None:
    assert warmimage("bench", "image", "--output", "result.json", code=4, DOCKER_HOST=NO_DAEMON).stdout == ""
    done = warmimage("bench", "image", "--json", code=4, DOCKER_HOST=NO_DAEMON)
    assert json.loads(done.stdout)["errors"][0]["what"] == "the Docker daemon does not answer"


def test_engines_that_other_distributions_register_are_in_help(tmp_path: Path) -> None:
    """Their modules are not imported for that."""
    metadata = tmp_path / "tinyserve-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tinyserve\nVersion: 1\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(
        f"[{engines.GROUP}]\ntinyserve = tinyserve_does_not_exist:ADAPTER\n", encoding="utf-8"
    )
    shown = warmimage("build", "--help", PYTHONPATH=str(tmp_path)).stdout
    assert f"--engine {'|'.join((*engines.names(), 'tinyserve'))}" in shown


@pytest.mark.parametrize("verb", ["inspect", "run"])
def test_without_a_daemon_a_verb_prints_nothing_on_stdout(verb: str) -> None:
    assert warmimage(verb, "image", code=4, DOCKER_HOST=NO_DAEMON).stdout == ""


@pytest.mark.parametrize(
    ("words", "variables", "shown"),
    [((), {}, False), (("-v",), {}, True), (("--verbose",), {}, True), ((), {"WARMIMAGE_DEBUG": "1"}, True)],
)
def test_a_traceback_is_shown_when_asked_for_and_the_exit_code_stays(
    words: tuple[str, ...], variables: dict[str, str], shown: bool
) -> None:
    done = warmimage(*words, "build", code=3, **variables)
    assert ("Traceback (most recent call last)" in done.stderr) is shown
    assert done.stderr.startswith("error: no model is given\n")


def test_an_internal_error_is_one_message_with_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(load, "load", fail)
    monkeypatch.setattr(sys, "argv", ["warmimage", "build"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "error: internal error: RuntimeError: boom\n  fix: warmimage -v shows the traceback; please report it\n"
    )


def test_colour_is_for_those_who_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" not in warmimage("build", code=3, FORCE_COLOR="1", NO_COLOR="1", TERM="xterm").stderr
    monkeypatch.delenv("NO_COLOR")
    done = subprocess.run([COMMAND, "build"], capture_output=True, text=True, check=False)
    assert "\x1b[" not in done.stderr
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    done = subprocess.run([COMMAND, "build"], capture_output=True, text=True, check=False)
    assert "\x1b[31m" in done.stderr


@pytest.mark.parametrize("verb", ["build", "render"])
def test_every_flag_says_what_its_key_says_and_names_its_variable(verb: str) -> None:
    command = typer.main.get_command(cli.app).commands[verb]  # type: ignore[attr-defined]
    by_name = {parameter.name: parameter for parameter in command.params}
    for flag in options.FLAGS:
        assert by_name[flag.key].help == DESCRIPTIONS[flag.key] == Config.model_fields[flag.key].description
        assert by_name[flag.key].envvar == f"WARMIMAGE_{flag.key.upper()}"
        assert by_name[flag.key].default in (None, [])
