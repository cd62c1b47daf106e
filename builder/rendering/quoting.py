"""Quote values for the three grammars of a Dockerfile.  A newline or a NUL has no safe spelling in any of them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from ..errors import ConfigError


def _one_line(value: object) -> str:
    text = str(value)
    if any(character in text for character in "\n\r\0"):
        # The value may be secret: it is not repeated.
        raise ConfigError("a value of the image holds a newline or a NUL", expected="one line of text")
    return text


def comment(value: object) -> str:
    """Return the text of a comment, which needs no quotes but must not end early."""
    return _one_line(value)


def dockerfile(value: object) -> str:
    r"""Quote a value of ENV or LABEL: double quotes, in which ``\``, ``"`` and ``$`` are escaped."""
    escaped = _one_line(value).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def shell(value: object) -> str:
    """Quote a word of a RUN command in shell form."""
    return shlex.quote(_one_line(value))


def exec_form(words: Sequence[object]) -> str:
    """Quote the words of CMD, ENTRYPOINT or HEALTHCHECK in exec form."""
    return json.dumps([_one_line(word) for word in words], ensure_ascii=False)
