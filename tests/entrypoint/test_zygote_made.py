"""Tier ``zygote``: variables that imports set or remove, as ``vllm.env_override`` does, stay so in every process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from . import zygotes
from .harness import Image

pytestmark = pytest.mark.timeout(60)

SETTING = """
import os
os.environ["MADE_NEW"] = "by the import"
os.environ["MADE_OVER"] = "by the import"
os.environ.setdefault("MADE_DEFAULT", "by the import")
os.environ.setdefault("MADE_OWN", "by the import")
os.environ["HIDDEN"] = "by the import"
os.environ.pop("MADE_GONE", None)
"""

ENGINE = """
import ctypes, multiprocessing, os, setting
def show():
    names = sorted(name for name in os.environ if name.startswith(("MADE_", "HIDDEN")))
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    print({name: (os.environ[name], getenv(name.encode())) for name in names}, flush=True)
def start():
    process = multiprocessing.get_context("spawn").Process(target=show)
    process.start()
    process.join(20)
    print(process.exitcode, flush=True)
if __name__ == "__main__":
    show()
    start()
    del os.environ["MADE_NEW"], os.environ["MADE_DEFAULT"]
    start()
"""


def test_variables_that_imports_set_are_those_of_plain(image: Image, tmp_path: Path) -> None:
    (image.model / "setting.py").write_text(SETTING, encoding="utf-8")
    image.closure({"modules": ["setting"], "files": [], "libraries": []})
    script = image.script("served", ENGINE)
    variables = {
        "PYTHONPATH": str(image.model),
        "MADE_OVER": "the user's",
        "MADE_OWN": "the user's",
        "MADE_GONE": "the user's",
    }
    plain = zygotes.run(image, script, tier="plain", **variables)
    done = zygotes.run(image, script, **variables)
    assert done.stdout == plain.stdout, os.linesep.join((plain.stdout, done.stdout, done.stderr))
    assert done.stdout.count("by the import") > 8
    assert zygotes.reasons(image) == []
    assert len(zygotes.forked(image)) == 2
