"""How a configuration is refused, for the tests of bad configurations and of bad models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from warmimage.build import planner
from warmimage.config import load
from warmimage.errors import ConfigError


def refusal(**values: Any) -> str:
    """Return the message with which a build of a configuration ends before it asks any daemon, index or hub."""
    with pytest.raises(ConfigError) as caught:
        planner.resolve(load.load(None, values, {}), Path("warmimage.lock"))
    assert caught.value.exit_code == 3
    return str(caught.value)
