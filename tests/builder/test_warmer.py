"""The Dockerfile of the warmer's own image."""

from __future__ import annotations

import json
from dataclasses import replace

from warmimage.build.warmer_image import dockerfile
from warmimage.config.model import Config
from warmimage.inputs.lock import Lock, Wheel

from .facts import base_of
from .rules import EVERY_BUILDER, of, violations

BASE = base_of(Config(model="m", method="compose"))

LOCK = Lock(
    requirements=("fastapi", "pip"),
    accelerator="cpu",
    python="3.12",
    platform="manylinux_2_36_x86_64",
    wheels=(Wheel(name="pip", version="26.3", file="pip-26.3-py3-none-any.whl", size=1, sha256="0" * 64),),
)


def test_it_keeps_the_rules_of_every_dockerfile() -> None:
    assert [rule for rule in violations(dockerfile(BASE, LOCK)) if rule != EVERY_BUILDER] == []


def test_it_runs_warm_without_a_gpu_as_no_root() -> None:
    text = dockerfile(BASE, LOCK)
    assert of("USER", text)[-1] == "1000:0"
    assert of("ENV", text) == ['NVIDIA_VISIBLE_DEVICES="void"']
    assert json.loads(of("CMD", text)[0]) == ["warm"]
    assert json.loads(of("ENTRYPOINT", text)[0])[1:] == ["-I", "-S", "/opt/warmimage/entrypoint"]
    assert of("EXPOSE", text) == ["9464"]


def test_a_base_with_an_odd_path_is_quoted() -> None:
    text = dockerfile(replace(BASE, python="/opt/my python/bin/python3"), LOCK)
    assert "'/opt/my python/bin/python3' -m venv" in text
