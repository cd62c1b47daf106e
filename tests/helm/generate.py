"""The chart's schema and the table in its README, from the comments of its ``values.yaml``.

A comment is ``# -- (type) Text.``; without a type, the value's own says it.  ``make docs`` writes both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

CHART = Path(__file__).resolve().parents[2] / "templates" / "chart"

#: Around the table in the chart's README.
BEGIN, END = "<!-- values: begin; written by `make docs` -->", "<!-- values: end -->"

_COMMENT = re.compile(r"^\s*# -- (?:\(([^)]*)\) )?(.*)$")
_KEY = re.compile(r"^( *)([A-Za-z][\w.-]*):")

_SIZE = r"^([0-9]+(\.[0-9]+)?(k|[KMGTP]i|[MGTP])?)?$"
_TEXT: dict[str, Any] = {"type": "string"}
_OBJECT: dict[str, Any] = {"type": "object"}
_AMOUNTS = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}

#: What each word in brackets means.
_TYPES: dict[str, dict[str, Any]] = {
    "text": _TEXT,
    "true or false": {"type": "boolean"},
    "number": {"type": "integer", "minimum": 0},
    "integer": {"type": "integer"},
    "positive": {"type": "integer", "minimum": 1},
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "integer or empty": {"anyOf": [{"type": "integer", "minimum": 0}, {"const": ""}]},
    "integers": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    "size": {"type": "string", "pattern": _SIZE},
    "share": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+%$"}]},
    "positive share": {
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^([1-9][0-9]?|100)%$"}]
    },
    "duration": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "path": {"type": "string", "pattern": "^/"},
    "path or empty": {"type": "string", "pattern": "^(/.*)?$"},
    "subpath": {"type": "string", "not": {"pattern": r"^/|(^|/)\.\.(/|$)"}},
    "name": {"type": "string", "minLength": 1},
    "names": {"type": "array", "items": {"type": "string", "minLength": 1}},
    "list": {"type": "array", "items": _TEXT},
    "texts": {"type": "object", "additionalProperties": _TEXT},
    "object": _OBJECT,
    "objects": {"type": "array", "items": _OBJECT},
    "targets": {"type": "array", "uniqueItems": True, "items": {"enum": ["snapshot", "image", "weights"]}},
    "resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {"requests": _AMOUNTS, "limits": _AMOUNTS},
    },
}


@dataclass(frozen=True)
class Leaf:
    """One value of the chart.

    Attributes:
        path: its keys, from the root.
        type: name of its type, or alternatives with ``|`` between them.
        text: what it is for.
        default: its default.
    """

    path: tuple[str, ...]
    type: str
    text: str
    default: Any

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        if "|" in self.type:
            return {"enum": self.type.split("|")}
        return _TYPES[self.type]


@cache
def values() -> Any:
    """Return the chart's default values."""
    return YAML(typ="safe").load((CHART / "values.yaml").read_text(encoding="utf-8"))


@cache
def comments() -> dict[tuple[str, ...], tuple[str, str]]:
    """Return type and text of every commented key of ``values.yaml`` by its path."""
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    above: list[tuple[int, str]] = []
    said: tuple[str, str] | None = None
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        comment, key = _COMMENT.match(line), _KEY.match(line)
        if comment:
            said = (comment[1] or "", comment[2])
        elif key:
            above = [entry for entry in above if entry[0] < len(key[1])] + [(len(key[1]), key[2])]
            if said:
                found[tuple(name for _, name in above)] = said
            said = None
    return found


def leaves(node: Any = None, path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Yield every value that a user can set: what has a comment, and what below it has one of its own."""
    for name, value in (values() if node is None else node).items():
        here = (*path, name)
        kind, text = comments().get(here, ("", ""))
        if text and kind != "folders":
            assert kind or not isinstance(value, (dict, list)), f"{'.'.join(here)}: no type in its comment"
            yield Leaf(here, kind or _kind(value), text, value)
        else:
            assert isinstance(value, dict), f"{'.'.join(here)} has no comment"
            yield from leaves(value, here)


def _kind(value: Any) -> str:
    return {bool: "true or false", int: "number", str: "text"}[type(value)]


def schema() -> dict[str, Any]:
    """Return the schema of the chart's values: closed, but for ``global``, which parent charts share."""
    root = _closed(values(), ())
    properties = root["properties"]
    model, properties["defaults"] = properties["defaults"], {"$ref": "#/definitions/model"}
    pattern = "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
    properties["models"] |= {
        "propertyNames": {"pattern": pattern},
        "additionalProperties": {"$ref": "#/definitions/model"},
    }
    properties["global"]["additionalProperties"] = True
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the warmimage chart",
        **root,
        "definitions": {"model": model},
    }


def _closed(node: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, value in node.items():
        here = (*path, name)
        kind, text = comments().get(here, ("", ""))
        if kind == "folders":
            folder = _closed(next(iter(value.values())), (*here, next(iter(value))))
            properties[name] = {
                "description": text,
                "type": "object",
                "additionalProperties": folder,
                "propertyNames": {"pattern": "^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$"},
            }
        elif kind == "models":
            properties[name] = {"description": text, "type": "object"}
        elif text:
            (leaf,) = [leaf for leaf in leaves(node, path) if leaf.path == here]
            properties[name] = {"description": text, **leaf.schema}
        else:
            properties[name] = _closed(value, here)
    return {"type": "object", "additionalProperties": False, "properties": properties}


def schema_text() -> str:
    """Return ``values.schema.json``."""
    return json.dumps(schema(), indent=2) + "\n"


def readme_text() -> str:
    """Return the chart's README with its table written anew."""
    before, begin, rest = (CHART / "README.md").read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "the chart's README has lost the marks around its table"  # noqa: PT018 - both or none
    return f"{before}{BEGIN}\n{_table()}{END}{after}"


def _table() -> str:
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for leaf in leaves():
        words = [f"`{word}`" if word else "empty" for word in leaf.type.split("|")]
        kind = ", ".join(words) if "|" in leaf.type else leaf.type
        default = json.dumps(leaf.default) if not isinstance(leaf.default, str) else leaf.default
        told = leaf.text.replace("|", "\\|")
        rows.append(f"| `{'.'.join(leaf.path)}` | {kind} | {f'`{default}`' if default else ''} | {told} |")
    return "\n".join(rows) + "\n"


def documents() -> dict[Path, str]:
    """Return the text of the chart's generated files by path."""
    return {CHART / "values.schema.json": schema_text(), CHART / "README.md": readme_text()}


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")
        print(path.name)
