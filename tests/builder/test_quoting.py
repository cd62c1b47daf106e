"""Quoting: every value comes back byte for byte from the program whose grammar it is quoted for."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warmimage.docker_api import buildkit
from warmimage.errors import ConfigError
from warmimage.rendering import quoting

#: Any line of text, with what shells and Dockerfiles treat as special far more often than chance would have it.
LINES = st.lists(
    st.sampled_from([*"\\\"'$`#{}<>|&;*?~! \t", "\\\\", "$VAR", "${V}", "<<EOF"]) | st.characters(codec="utf-8"),
    max_size=20,
).map(lambda parts: re.sub(r"[\n\r\0]", "", "".join(parts)))

NASTY = [
    "",
    " ",
    "  two  spaces  ",
    "\ttab\t",
    "plain",
    "a b",
    "'",
    '"',
    "''",
    '""',
    "it's",
    'say "hi"',
    "\\",
    "\\\\",
    "ends in a backslash\\",
    "ends in two\\\\",
    "\\n",
    "\\$",
    '\\"',
    "\\'",
    "$VAR",
    "${VAR}",
    "${VAR:-x}",
    "$$",
    "$(id)",
    "`id`",
    "$",
    "#",
    "# comment",
    "a # b",
    "#!/bin/sh",
    "<<EOF",
    "cat <<EOF",
    "<<-'EOF'",
    "=",
    "a=b",
    "=b",
    "[",
    '["x"]',
    "{{ x }}",
    "{% raw %}",
    "%s",
    "*",
    "~",
    "!",
    "&&",
    "a;b",
    "naïve",
    "日本語",
    "🚀",
    "\u200b",
    "\u2028",
    "\x85",
    "\x0b\x0c",
    "\x01",
    "\x7f",
    "x" * 5000,
]


def unquoted_by_docker(text: str) -> str:
    """Read one double-quoted word by Docker's rules (``escape=\\``): parser first, then the shell lexer's expansion."""
    assert not re.search(r"\\[ \t]*$", text), "the line would go on"
    assert text[0] == '"'
    value, position = "", 1
    while text[position] != '"':
        character = text[position]
        assert character != "$", "a variable would be put in"
        if character == "\\" and text[position + 1] in '\\"$':
            position += 1
            character = text[position]
        value += character
        position += 1
    assert position == len(text) - 1, "something follows the word"
    return value


@given(LINES)
def test_dockerfile_values_are_read_back_by_dockers_rules(value: str) -> None:
    assert unquoted_by_docker(quoting.dockerfile(value)) == value


@settings(deadline=None, max_examples=30)
@given(st.lists(LINES, min_size=1, max_size=60))
def test_shell_words_come_out_of_a_real_shell_unchanged(values: list[str]) -> None:
    command = "printf '%s\\0' " + " ".join(quoting.shell(value) for value in values)
    output = subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout
    assert output.decode().split("\0")[:-1] == values


@given(st.lists(LINES))
def test_exec_form_is_json_on_one_line(words: list[str]) -> None:
    text = quoting.exec_form(words)
    assert json.loads(text) == words
    assert "\n" not in text


@given(LINES)
def test_a_comment_is_its_text(value: str) -> None:
    assert quoting.comment(value) == value


@pytest.mark.parametrize(
    "quote", [quoting.dockerfile, quoting.shell, quoting.comment, lambda text: quoting.exec_form([text])]
)
@pytest.mark.parametrize("character", ["\n", "\r", "\0"])
@given(LINES, LINES)
def test_a_value_of_two_lines_is_refused_and_not_repeated(
    quote: Callable[[str], str], character: str, before: str, after: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        quote(f"{before}{character}{after}")
    assert str(caught.value) == "error: a value of the image holds a newline or a NUL\n  expected one line of text"


@pytest.mark.docker
def test_docker_reads_nasty_environment_labels_and_words_back_byte_for_byte(tmp_path: Path) -> None:
    lines = ["FROM scratch"]
    lines += [f"ENV V{index}={quoting.dockerfile(value)}" for index, value in enumerate(NASTY)]
    lines += [
        f"LABEL {quoting.dockerfile(f'l.{index}')}={quoting.dockerfile(value)}" for index, value in enumerate(NASTY)
    ]
    lines += [f"CMD {quoting.exec_form(NASTY)}"]
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tag = "warmimage-test/quoting:1"
    client = docker.from_env()
    buildkit.build(buildkit.find_builder(), tmp_path / "context", [tag], (), "none", "quiet")
    try:
        config = client.images.get(tag).attrs["Config"]
    finally:
        client.images.remove(tag, force=True)
        client.close()
    values = dict(entry.split("=", 1) for entry in config["Env"])
    assert [values[f"V{index}"] for index in range(len(NASTY))] == NASTY
    assert [config["Labels"][f"l.{index}"] for index in range(len(NASTY))] == NASTY
    assert config["Cmd"] == NASTY
