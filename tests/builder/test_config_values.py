"""Values that a configuration may hold, and those that would leak or mislead."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from warmimage.config.model import Config, parse_size


@pytest.mark.parametrize(
    "line",
    [
        "--extra-index-url https://user:hunter2@index.example/simple",
        "thing @ https://user:hunter2@host.example/thing-1-py3-none-any.whl",
        "./thing.whl",
        "not a requirement",
    ],
)
def test_requirements_are_names_so_that_no_address_gets_into_lock_and_plan(line: str) -> None:
    with pytest.raises(ValidationError, match="indexes are pip's configuration"):
        Config(model="m", requirements=(line,))


def test_requirements_with_extras_versions_and_markers_are_taken() -> None:
    lines = ("hf-transfer>=0.1", "thing[extra]==1.0; python_version < '3.13'")
    assert Config(model="m", requirements=lines).requirements == lines


@pytest.mark.parametrize(
    ("text", "size"), [("12GB", 12 * 10**9), ("900MiB", 900 * 2**20), ("1.5k", 1500), ("7", 7), ("7B", 7)]
)
def test_sizes_are_decimal_or_binary_as_written(text: str, size: int) -> None:
    assert parse_size(text) == size
