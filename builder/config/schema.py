"""The configuration's JSON schema, and the commented file that ``init`` writes; both from the one model."""

from __future__ import annotations

import json
from typing import Any

from ..rendering.templates import environment
from .model import Config

FILE_NAME = "warmimage.schema.json"


def schema_text() -> str:
    """Return the JSON schema of ``warmimage.yaml``, as it is kept in the repository."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "warmimage.yaml",
    }
    return json.dumps(schema, indent=2) + "\n"


def config_file_text() -> str:
    """Return a ``warmimage.yaml`` in which every key stands with its description and its default."""
    keys = [
        {
            "name": name,
            "description": field.description,
            "default": "" if field.is_required() else _yaml(field.get_default()),
            "required": field.is_required(),
        }
        for name, field in Config.model_fields.items()
    ]
    return environment().get_template("image/warmimage.yaml.j2").render(keys=keys, schema=FILE_NAME)


def _yaml(value: object) -> str:
    """Return a default as YAML; JSON is YAML, and an absent value is written as an empty one."""
    return "" if value is None else json.dumps(value, default=list)
