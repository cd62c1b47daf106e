"""Bad configurations: each ends with one exact message, which says the place and the fix, and with exit code 3."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warmimage.config import load
from warmimage.errors import ConfigError
from warmimage.inputs import lock, wheels

from tests.builder.refusals import refusal
from tests.support.images import warmimage

TAG = "an image reference without a digest, such as registry/team/model:1"
SECRET = "id=NAME,src=FILE or id=NAME,env=VARIABLE"
NO_SUCH_KEY = "remove it; warmimage init writes a file with every key"
WEIGHTS = "got 'foo', expected 'mount', 'bake' or 'download'"


def invalid(key: str, line: int, expected: str, got: str = "", path: str = "") -> str:
    """Return the message for a value in the file."""
    found = f"got {got}, expected {expected}" if got else f"expected {expected}"
    return f"error: invalid {key}\n  at warmimage.yaml:{line}: {path or key}\n  {found}"


def unknown(key: str, line: int, fix: str) -> str:
    """Return the message for a key in the file that no one knows."""
    return f"error: unknown key {key!r}\n  at warmimage.yaml:{line}: {key}\n  fix: {fix}"


def duplicate(key: str, line: int, first: int) -> str:
    """Return the message for a key that stands in the file twice."""
    return (
        f"error: duplicate key {key.rpartition('.')[2]!r}\n  at warmimage.yaml:{line}: {key}\n"
        f"  got a second value; the first is on line {first}\n  fix: remove one of the two"
    )


def not_yaml(reason: str, line: int) -> str:
    """Return the message for a file that the YAML parser refuses."""
    return f"error: the configuration is not valid YAML: {reason}\n  at warmimage.yaml:{line}"


FILES: dict[str, tuple[str, str]] = {
    "unknown key with suggestion": ("model: m\nenigne: vllm\n", unknown("enigne", 2, "write engine")),
    "unknown key without suggestion": ("model: m\n\nzzzz: 1\n", unknown("zzzz", 3, NO_SUCH_KEY)),
    "key that is no text": ("model: m\n5: x\n", unknown("5", 2, NO_SUCH_KEY)),
    "duplicate key": ("model: m\nport: 1\nmodel: n\n", duplicate("model", 3, 1)),
    "duplicate nested key": ("model: m\nenv:\n  A: x\n  A: y\n", duplicate("env.A", 4, 3)),
    "not YAML": ('model: "m\n', not_yaml("found unexpected end of stream", 2)),
    "tab for indentation": ("model: m\n\tport: 1\n", not_yaml("found character '\\t' that cannot start any token", 2)),
    "object tag": (
        "model: !!python/object:os.system m\n",
        not_yaml("could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'", 1),
    ),
    "alias of itself": (
        "model: m\ntags: &a [*a]\n",
        "error: an alias in the configuration refers to itself\n  at warmimage.yaml",
    ),
    "3,000 levels": (
        "model: m\ntags: " + "[" * 3000 + "]" * 3000 + "\n",
        "error: the configuration is nested too deeply\n  at warmimage.yaml",
    ),
    "list instead of mapping": (
        "- model: m\n",
        "error: the configuration is not a mapping\n  at warmimage.yaml\n  got list, expected keys and values",
    ),
    "missing model": (
        "engine: vllm\n",
        "error: no model is given\n  at warmimage.yaml: model\n"
        "  expected a local directory or a Hugging Face Hub id\n  fix: --model DIR, or model: DIR in warmimage.yaml",
    ),
    "empty model": ("model: ''\n", invalid("model", 1, "a value that is not empty", "''")),
    "model of two lines": ('model: "a\\nb"\n', invalid("model", 1, "one line of text without newline or NUL")),
    "version read as a number": (
        "model: m\nengine_version: 0.33\n",
        invalid("engine_version", 2, "text, in quotes", "0.33"),
    ),
    "port too large": ("model: m\nport: 65536\n", invalid("port", 2, "at most 65535", "65536")),
    "port zero": ("model: m\nport: 0\n", invalid("port", 2, "at least 1", "0")),
    "port as a word": ("model: m\nport: http\n", invalid("port", 2, "a whole number", "'http'")),
    "port as a truth value": ("model: m\nport: true\n", invalid("port", 2, "a whole number", "True")),
    "port with a fraction": ("model: m\nport: 80.5\n", invalid("port", 2, "a whole number", "80.5")),
    "accelerator": ("model: m\naccelerator: tpu\n", invalid("accelerator", 2, "'cuda' or 'cpu'", "'tpu'")),
    "weights": ("model: m\nweights: copy\n", invalid("weights", 2, "'mount', 'bake' or 'download'", "'copy'")),
    "method": ("model: m\nmethod: make\n", invalid("method", 2, "'auto', 'derive' or 'compose'", "'make'")),
    "start": (
        "model: m\nstart: warp\n",
        invalid("start", 2, "'auto', 'snapshot', 'zygote', 'preload' or 'plain'", "'warp'"),
    ),
    "network": ("model: m\nnetwork: host\n", invalid("network", 2, "'none' or 'default'", "'host'")),
    "tag in upper case": ("model: m\ntags: [ok:1, Model:1]\n", invalid("tags", 2, TAG, "'Model:1'", "tags.1")),
    "tag with a space": ("model: m\ntags:\n  - my model:1\n", invalid("tags", 3, TAG, "'my model:1'", "tags.0")),
    "empty tag": ("model: m\ntags: ['']\n", invalid("tags", 2, TAG, "''", "tags.0")),
    "tag with a digest": (
        f"model: m\ntags: ['a@sha256:{'0' * 64}']\n",
        invalid("tags", 2, TAG, f"'a@sha256:{'0' * 64}'", "tags.0"),
    ),
    "tags as one text": ("model: m\ntags: a:1\n", invalid("tags", 2, "a list", "'a:1'")),
    "base image": (
        "model: m\nbase_image: 'python:'\n",
        invalid("base_image", 2, "an image reference, such as registry/team/model:1", "'python:'"),
    ),
    "served name": (
        "model: m\nserved_name: ../x\n",
        invalid("served_name", 2, "letters, digits, '.', '_', '-' and '/'", "'../x'"),
    ),
    "secret without id": ("model: m\nsecrets: ['src=f']\n", invalid("secrets", 2, SECRET, path="secrets.0")),
    "secret that names no source": ("model: m\nsecrets: ['id=f']\n", invalid("secrets", 2, SECRET, path="secrets.0")),
    "newline in a variable": (
        'model: m\nenv:\n  TOKEN: "hunter2\\n"\n',
        invalid("env", 3, "one line of text without newline or NUL", path="env.TOKEN"),
    ),
    "number in a variable": ("model: m\nenv:\n  N: 4\n", invalid("env", 3, "text, in quotes", "int", "env.N")),
    "variable's name": (
        "model: m\nenv:\n  1A: x\n",
        invalid("env", 3, "a variable name: letters, digits and _, no digit first", path="env.1A"),
    ),
    "variables as a list": (
        "model: m\nenv: [A=hunter2]\n",
        invalid("env", 2, "a mapping of names to values", "list"),
    ),
    "label's name": (
        "model: m\nlabels:\n  a=b: hunter2\n",
        invalid("labels", 3, "a label name: letters, digits, '.', '_', '-' and '/'", path="labels.a=b"),
    ),
    "requirements as one text": (
        "model: m\nrequirements: 'x @ https://u:hunter2@example.com/x.whl'\n",
        invalid("requirements", 2, "a list"),
    ),
    "size": ("model: m\nmax_size: big\n", invalid("max_size", 2, "a size, such as 12GB or 900MiB", "'big'")),
    "user by name": ("model: m\nuser: root\n", invalid("user", 2, "a whole number", "'root'")),
    "user below zero": ("model: m\nuser: -1\n", invalid("user", 2, "at least 0", "-1")),
    "wheelhouse as a number": ("model: m\nwheelhouse: 5\n", invalid("wheelhouse", 2, "a directory", "5")),
}


@pytest.mark.parametrize(("text", "message"), FILES.values(), ids=FILES)
def test_a_bad_file_gives_its_one_message_and_repeats_no_private_value(text: str, message: str) -> None:
    Path("warmimage.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load.load(None, {}, {})
    assert str(caught.value) == message
    assert caught.value.exit_code == 3
    assert "hunter2" not in str(caught.value)


def test_all_mistakes_of_a_file_and_of_the_flags_are_reported_at_once_each_with_its_place() -> None:
    Path("warmimage.yaml").write_text("port: 0\nmodel: m\nenv:\n  A: x\n  2B: y\nenigne: vllm\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load.load(None, {"weights": "copy", "engine": None, "tags": ()}, {"weights": "--weights"})
    assert [(problem.what, problem.where) for problem in caught.value.problems] == [
        ("invalid weights", "--weights"),
        ("invalid port", "warmimage.yaml:1: port"),
        ("invalid env", "warmimage.yaml:5: env.2B"),
        ("unknown key 'enigne'", "warmimage.yaml:6: enigne"),
    ]


def test_two_duplicate_keys_are_two_problems() -> None:
    Path("warmimage.yaml").write_text("model: m\nmodel: n\nport: 1\nport: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load.load(None, {}, {})
    assert str(caught.value) == duplicate("model", 2, 1) + "\n" + duplicate("port", 4, 3)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (Path.mkdir, "Is a directory"),
        (lambda path: path.write_bytes(b"model: \xff\n"), "not UTF-8 text"),
    ],
    ids=["missing", "directory", "latin-1"],
)
def test_a_named_file_that_cannot_be_read_says_why(make: Callable[[Path], Any], reason: str) -> None:
    make(Path("w.yaml"))
    with pytest.raises(ConfigError) as caught:
        load.load(Path("w.yaml"), {}, {})
    assert str(caught.value) == (
        f"error: cannot read the configuration: {reason}\n  at w.yaml\n  fix: warmimage init  (writes warmimage.yaml)"
    )


def test_an_unknown_engine_is_refused_with_the_nearest_name() -> None:
    assert refusal(model="m", engine="vlm") == (
        "error: unknown engine 'vlm'\n  at engine\n  expected sglang, transformers, vllm\n  fix: --engine vllm"
    )


def test_derive_without_an_image_is_refused() -> None:
    assert refusal(model="m", engine="vllm", method="derive") == (
        "error: derive needs the engine image to start from\n  at base_image\n  fix: --base-image with an image of vllm"
    )


@pytest.mark.parametrize(
    ("key", "value"), [("wheelhouse", "w"), ("requirements", ["x"]), ("engine_version", "1")], ids=lambda value: ""
)
def test_derive_with_a_key_of_compose_is_refused(key: str, value: Any) -> None:
    assert refusal(model="m", engine="vllm", method="derive", base_image="vllm/vllm-openai:v1", **{key: value}) == (
        f"error: {key} belongs to compose: derive takes the engine as its image has it\n  at {key}\n"
        f"  fix: remove {key}, or --method compose"
    )


def test_composing_vllm_for_cpu_is_refused() -> None:
    assert refusal(model="m", engine="vllm", accelerator="cpu") == (
        "error: vllm cannot be composed from wheels for cpu\n  at accelerator\n  got cpu, expected cuda\n"
        "  fix: --base-image with an image of vllm for cpu"
    )


def test_a_missing_wheelhouse_is_refused_before_any_engine_is_asked() -> None:
    assert refusal(model="m", wheelhouse="nowhere") == (
        "error: the wheelhouse is not a directory\n  at wheelhouse\n  got nowhere, expected a directory of wheels\n"
        "  fix: pip download --dest DIR REQUIREMENTS, then --wheelhouse DIR"
    )


@pytest.mark.parametrize(
    ("text", "got"),
    [
        (json.dumps({"version": 2, "requirements": [], "python": "", "platform": "", "wheels": []}), "version"),
        ("{}", "requirements"),
        ("[]", ""),
    ],
    ids=["of a later version", "without its keys", "no object"],
)
def test_a_lock_of_another_format_is_refused(text: str, got: str) -> None:
    path = Path("warmimage.lock")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        lock.read(path)
    first, where, found, fix = str(caught.value).splitlines()
    assert first == "error: this version of warmimage did not write the lock"
    assert where == "  at warmimage.lock"
    assert found.startswith(f"  got {got}: " if got else "  got ")
    assert fix == "  fix: rm warmimage.lock  (the next build writes it)"


def test_a_requirement_that_the_wheelhouse_lacks_is_refused() -> None:
    Path("house").mkdir()
    target = wheels.Target("3.12", "2.36", "x86_64", "cpu")
    with pytest.raises(ConfigError) as caught:
        wheels.resolve(["absent==1"], target, Path("house"), Path("warmimage.lock"))
    assert str(caught.value) == (
        "error: no wheel matches Python 3.12 on x86_64, glibc 2.36\n  at wheelhouse: house\n"
        "  got No matching distribution found for absent==1\n"
        "  fix: another --base-image or engine_version, or the wheel in the wheelhouse"
    )
    assert not Path("warmimage.lock").exists()


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        (("--weights", "foo"), {}, f"invalid weights\n  at --weights\n  {WEIGHTS}"),
        ((), {"WARMIMAGE_WEIGHTS": "foo"}, f"invalid weights\n  at WARMIMAGE_WEIGHTS\n  {WEIGHTS}"),
        (("-t", "UPPER"), {}, f"invalid tags\n  at --tag\n  got 'UPPER', expected {TAG}"),
        (("--secret", "hunter2"), {}, f"invalid secrets\n  at --secret\n  expected {SECRET}"),
        (
            ("-f", "nowhere.yaml"),
            {},
            "cannot read the configuration: No such file or directory\n  at nowhere.yaml\n"
            "  fix: warmimage init  (writes warmimage.yaml)",
        ),
    ],
    ids=["flag", "variable", "tag", "secret", "file"],
)
@pytest.mark.parametrize("verb", ["build", "render"])
def test_the_command_ends_with_code_3_and_the_message_alone(
    verb: str, words: tuple[str, ...], variables: dict[str, str], message: str
) -> None:
    done = warmimage(verb, "--model", "m", *words, code=3, **variables)
    assert done.stderr == f"error: {message}\n"
    assert done.stdout == ""
    assert "hunter2" not in done.stderr


def test_the_command_without_a_model_says_how_to_name_one() -> None:
    done = warmimage("build", code=3)
    assert done.stderr == (
        "error: no model is given\n  at --model\n  expected a local directory or a Hugging Face Hub id\n"
        "  fix: --model DIR, or model: DIR in warmimage.yaml\n"
    )
