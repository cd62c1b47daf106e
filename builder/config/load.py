"""Read the configuration: command line over environment over ``warmimage.yaml`` over defaults, all errors at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ..errors import ConfigError, Problem
from .model import Config

DEFAULT_FILE = Path("warmimage.yaml")

#: Words that pydantic's error types mean to a user; for any other type, pydantic's own message is what was expected.
_EXPECTED = {
    "missing": "a value",
    "int_type": "a whole number",
    "string_type": "text, in quotes",
    "tuple_type": "a list",
    "dict_type": "a mapping of names to values",
    "path_type": "a directory",
    "string_too_short": "a value that is not empty",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}

#: Keys whose values may hold a secret: messages do not repeat them.
_PRIVATE = frozenset({"env", "labels", "secrets", "args", "run", "requirements"})


@dataclass(frozen=True)
class Source:
    """The parsed file: its values, and the line of each key path."""

    path: Path | None
    values: Mapping[str, Any]
    lines: Mapping[tuple[str | int, ...], int]

    def where(self, key: tuple[str | int, ...]) -> str:
        """Return ``FILE:LINE: KEY.PATH``, with the line of the nearest key that the file has."""
        known = next((key[:size] for size in range(len(key), 0, -1) if key[:size] in self.lines), None)
        line = f":{self.lines[known]}" if known else ""
        return f"{self.path}{line}: {'.'.join(str(part) for part in key)}"


def load(path: Path | None, overrides: Mapping[str, Any], origins: Mapping[str, str]) -> Config:
    """Return the configuration.

    Args:
        path: the configuration file; ``None`` reads ``warmimage.yaml`` where there is one.
        overrides: values of the command line and the environment by configuration key; ``None`` and empty values say
            nothing.
        origins: for each override, the flag or variable it came from.

    Raises:
        ConfigError: with every problem found, each with its file and key or its flag.
    """
    source = read(path)
    given = {key: value for key, value in overrides.items() if value not in (None, (), [], {})}
    try:
        return Config.model_validate({**source.values, **_beside(source), **given})
    except ValidationError as error:
        raise ConfigError(list(_problems(error, source, given, origins))) from None


def _beside(source: Source) -> dict[str, str]:
    """Return the file's relative paths, resolved from the file's directory."""
    directory = source.path.parent if source.path else Path()
    paths = {key: source.values.get(key) for key in ("model", "wheelhouse")}
    return {
        key: str(directory / value)
        for key, value in paths.items()
        if isinstance(value, str) and directory != Path() and (value.startswith(".") or (directory / value).exists())
    }


def read(path: Path | None) -> Source:
    """Parse a configuration file.

    Raises:
        ConfigError: the file is missing or no YAML mapping, or has duplicate or unknown keys.
    """
    if path is None:
        if not DEFAULT_FILE.exists():
            return Source(None, {}, {})
        path = DEFAULT_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"cannot read the configuration: {reason}", where=str(path), fix="warmimage init  (writes warmimage.yaml)"
        ) from None
    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = True
    try:
        node = yaml.compose(text)
        values = yaml.load(text)
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        reason = str(getattr(error, "problem", "") or error).splitlines()[0]
        raise ConfigError(
            f"the configuration is not valid YAML: {reason}",
            where=f"{path}:{mark.line + 1}" if mark else str(path),
        ) from None
    except RecursionError:
        raise ConfigError("the configuration is nested too deeply", where=str(path)) from None
    if node is None:
        return Source(path, {}, {})
    if not isinstance(node, MappingNode):
        raise ConfigError(
            "the configuration is not a mapping", where=str(path), got=type(values).__name__, expected="keys and values"
        )
    lines: dict[tuple[str | int, ...], int] = {}
    try:
        duplicates = [_duplicate(path, key, line, first) for key, line, first in _walk(node, (), lines)]
    except RecursionError:
        raise ConfigError("an alias in the configuration refers to itself", where=str(path)) from None
    if duplicates:
        raise ConfigError(duplicates)
    return Source(path, values, lines)


def _walk(
    node: Node, at: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]
) -> Iterator[tuple[tuple[str | int, ...], int, int]]:
    """Note the line of every key below ``node``, and yield the duplicates: key path, its line, the first one's line."""
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            below = (*at, index)
            lines[below] = item.start_mark.line + 1
            yield from _walk(item, below, lines)
    if not isinstance(node, MappingNode):
        return
    for key_node, value_node in node.value:
        key = (*at, key_node.value if isinstance(key_node, ScalarNode) else str(key_node.tag))
        line = key_node.start_mark.line + 1
        if key in lines:
            yield key, line, lines[key]
        lines.setdefault(key, line)
        yield from _walk(value_node, key, lines)


def _duplicate(path: Path, key: tuple[str | int, ...], line: int, first: int) -> Problem:
    return Problem(
        f"duplicate key {key[-1]!r}",
        where=f"{path}:{line}: {'.'.join(str(part) for part in key)}",
        got=f"a second value; the first is on line {first}",
        fix="remove one of the two",
    )


def _problems(
    error: ValidationError, source: Source, given: Mapping[str, Any], origins: Mapping[str, str]
) -> Iterator[Problem]:
    for detail in error.errors():
        key = tuple(part for part in detail["loc"] if part != "[key]")
        name = str(key[0])
        key = (name, *key[1:])
        from_file = name not in given
        where = source.where(key) if from_file and source.path else origins.get(name, name)
        if detail["type"] in ("extra_forbidden", "invalid_key"):
            near = difflib.get_close_matches(name, Config.model_fields, n=1)
            fix = f"write {near[0]}" if near else "remove it; warmimage init writes a file with every key"
            yield Problem(f"unknown key {name!r}", where=where, fix=fix)
        elif detail["type"] == "missing":
            yield Problem(
                "no model is given",
                where=where,
                expected="a local directory or a Hugging Face Hub id",
                fix=f"--model DIR, or model: DIR in {source.path or DEFAULT_FILE}",
            )
        else:
            message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("expected ")
            words = _EXPECTED.get(detail["type"], "").format(**detail.get("ctx", {}))
            expected = words or message.removeprefix("Input should be ")
            yield Problem(f"invalid {name}", where=where, got=_shown(name, detail["input"]), expected=expected)


def _shown(name: str, value: Any) -> str:
    """Return a value for a message, or an empty string if it may be secret."""
    if isinstance(value, str):
        return repr(value) if name not in _PRIVATE and value.isprintable() else ""
    return type(value).__name__ if name in _PRIVATE else repr(value)
