"""The golden Dockerfiles: every pair of engine, weights strategy and way to an image, and one with everything.

``python -m tests.builder.golden`` says what differs; with ``--write`` it writes them anew.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

from warmimage.build import planner
from warmimage.config import load
from warmimage.rendering import dockerfile as render

from tests.builder import facts

FOLDER = Path(__file__).parents[1] / "golden"

_IMAGES = {
    "transformers": "registry.example.com/transformers:5.23.0",
    "vllm": "vllm/vllm-openai:v0.33.0",
    "sglang": "lmsysorg/sglang:v0.5.23",
}

#: Each engine, each weights strategy and each method, with each method beside each of the others.
_CASES = (
    ("transformers", "mount", "compose"),
    ("transformers", "bake", "derive"),
    ("vllm", "bake", "compose"),
    ("vllm", "download", "derive"),
    ("sglang", "download", "compose"),
    ("sglang", "mount", "derive"),
)

#: All that a configuration can ask of the template at once, with values that every grammar has to quote.
_EVERYTHING = """\
model: ./tiny-llama
served_name: team/tiny
engine: transformers
weights: bake
method: compose
requirements: [sentencepiece==0.2.1]
run:
  - apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
  - 'echo "it''s $HOME" <<EOF # $(id) \\'
secrets: ['id=netrc,src=./private/netrc', 'id=index,env=PRIVATE_INDEX']
port: 9000
args: [--max-model-len, '4096', 'a "b" $c']
env:
  GREETING: 'say "hi" to $USER # \\'
  ZERO: ''
labels:
  com.example.team: 'a\\b $c'
user: 4000000
start: plain
"""


def cases() -> dict[str, str]:
    """Return the text of every case's ``warmimage.yaml`` by the case's name."""
    found = {"everything": _EVERYTHING}
    for engine, weights, method in _CASES:
        model = "example/tiny-llama" if weights == "download" else "./tiny-llama"
        image = f"base_image: {_IMAGES[engine]}\n" if method == "derive" else ""
        text = f"model: {model}\nengine: {engine}\nweights: {weights}\nmethod: {method}\n{image}"
        found[f"{engine}-{weights}-{method}"] = text
    return found


def rendered(config_file: Path) -> str:
    """Return the Dockerfile of a configuration; facts and the tool's version are given, not found."""
    config = load.load(config_file, {}, {})
    with patch.object(planner, "__version__", facts.TOOL_VERSION):
        return render.dockerfile(facts.plan_of(config))


def _differing(*, write: bool) -> list[Path]:
    """Return the files that are not as they would be written, and write them where that is asked for."""
    found = []
    for name, text in cases().items():
        config_file = FOLDER / name / "warmimage.yaml"
        if not config_file.is_file() or config_file.read_text(encoding="utf-8") != text:
            found.append(config_file)
            if write:
                config_file.parent.mkdir(parents=True, exist_ok=True)
                config_file.write_text(text, encoding="utf-8")
        if not config_file.is_file():
            continue
        dockerfile = config_file.with_name("Dockerfile")
        expected = rendered(config_file)
        if not dockerfile.is_file() or dockerfile.read_text(encoding="utf-8") != expected:
            found.append(dockerfile)
            if write:
                dockerfile.write_text(expected, encoding="utf-8")
    return found


if __name__ == "__main__":
    differing = _differing(write="--write" in sys.argv[1:])
    for path in differing:
        print(path.relative_to(FOLDER.parent.parent))
    sys.exit(bool(differing) and "--write" not in sys.argv[1:])
