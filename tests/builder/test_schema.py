"""The JSON schema: kept in the repository, fresh, and saying what the configuration accepts."""

from __future__ import annotations

import json
from pathlib import Path

from warmimage.config import schema
from warmimage.config.descriptions import DESCRIPTIONS
from warmimage.config.model import Config

KEPT = Path(__file__).parents[2] / "docs" / schema.FILE_NAME


def test_the_kept_schema_is_fresh() -> None:
    assert KEPT.read_text(encoding="utf-8") == schema.schema_text(), "make docs"


def test_the_schema_names_and_describes_every_key_and_no_other() -> None:
    made = json.loads(schema.schema_text())
    described = {name: entry.get("description") for name, entry in made["properties"].items()}
    assert described == DESCRIPTIONS
    assert list(described) == list(Config.model_fields)
    assert made["additionalProperties"] is False
    assert made["required"] == ["model"]


def test_every_description_is_one_line_that_ends_in_a_full_stop() -> None:
    assert [text for text in DESCRIPTIONS.values() if "\n" in text or not text.endswith(".")] == []
