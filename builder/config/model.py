"""The configuration: what a user can ask for, and its defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .descriptions import DESCRIPTIONS, Start

#: A registry reference as Docker's ``distribution/reference`` grammar has it.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::[0-9]+)?"
_TAG = re.compile(rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?")
_REFERENCE = re.compile(rf"{_TAG.pattern}(?:@sha256:[0-9a-f]{{64}})?")
_SERVED_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_SECRET = re.compile(r"id=[A-Za-z0-9_.-]+,(?:src|source|env)=[^,\s]+")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?")


def _matches(pattern: re.Pattern[str], expected: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check)


def _one_line(value: str) -> str:
    if any(character in value for character in "\n\r\0"):
        raise ValueError("expected one line of text without newline or NUL")  # the value may be secret: not repeated
    return value


def _requirement(value: str) -> str:
    try:
        parsed = Requirement(value)
    except InvalidRequirement:
        parsed = None
    if parsed is None or parsed.url:
        # An address would be in the lock and the plan, credentials and all; pip's own configuration names indexes.
        raise ValueError("expected a name with versions, such as hf-transfer>=0.1; indexes are pip's configuration")
    return value


Reference = Annotated[str, _matches(_REFERENCE, "an image reference, such as registry/team/model:1")]
Tag = Annotated[str, _matches(_TAG, "an image reference without a digest, such as registry/team/model:1")]
OneLine = Annotated[str, AfterValidator(_one_line)]
Variable = Annotated[str, _matches(_VARIABLE, "a variable name: letters, digits and _, no digit first")]
Label = Annotated[str, _matches(_LABEL, "a label name: letters, digits, '.', '_', '-' and '/'")]
Secret = Annotated[str, _matches(_SECRET, "id=NAME,src=FILE or id=NAME,env=VARIABLE")]
Size = Annotated[str, _matches(_SIZE, "a size, such as 12GB or 900MiB")]


def _field(key: str, default: Any, **limits: Any) -> Any:
    return Field(default, description=DESCRIPTIONS[key], **limits)


class Config(BaseModel):
    """Everything that ``warmimage.yaml``, the environment and the command line can say about an image."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    model: OneLine = _field("model", ..., min_length=1)
    revision: OneLine | None = _field("revision", None)
    served_name: Annotated[str, _matches(_SERVED_NAME, "letters, digits, '.', '_', '-' and '/'")] | None = _field(
        "served_name", None
    )
    engine: OneLine = _field("engine", "transformers")
    engine_version: OneLine | None = _field("engine_version", None)
    accelerator: Literal["cuda", "cpu"] = _field("accelerator", "cuda")
    weights: Literal["mount", "bake", "download"] = _field("weights", "mount")
    base_image: Reference | None = _field("base_image", None)
    method: Literal["auto", "derive", "compose"] = _field("method", "auto")
    wheelhouse: Path | None = _field("wheelhouse", None)
    requirements: tuple[Annotated[str, AfterValidator(_requirement)], ...] = _field("requirements", ())
    run: tuple[OneLine, ...] = _field("run", ())
    network: Literal["none", "default"] = _field("network", "none")
    secrets: tuple[Secret, ...] = _field("secrets", ())
    tags: tuple[Tag, ...] = _field("tags", ())
    port: int = _field("port", 8000, strict=True, ge=1, le=65535)
    args: tuple[OneLine, ...] = _field("args", ())
    env: dict[Variable, OneLine] = _field("env", {})
    labels: dict[Label, OneLine] = _field("labels", {})
    user: int = _field("user", 1000, strict=True, ge=0, le=2**31 - 1)
    record: Literal["auto", "off", "require"] = _field("record", "auto")
    snapshot: Literal["auto", "off", "require"] = _field("snapshot", "auto")
    start: Start = _field("start", "auto")
    max_size: Size | None = _field("max_size", None)


def parse_size(text: str) -> int:
    """Return the bytes that a size such as ``12GB`` (decimal) or ``900MiB`` (binary) means."""
    match = _SIZE.fullmatch(text)
    assert match, text
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kMGT".index(prefix or " "))
