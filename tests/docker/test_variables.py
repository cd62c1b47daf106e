"""Variables that a container sets, value by value against tier ``plain``: what modules hold, what the server does."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import docker
import pytest
from warmimage import timeline
from warmimage.image.read import plan_of

from tests.support import late_variables
from tests.support.images import completion, container, wait_for_event, wait_ready

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

#: The tier that is compared with ``plain``.
TIER = "zygote"

#: Variables that do not disturb each other, with values that differ from the image's own.
FIRST = {
    "TZ": "Asia/Tokyo",
    "LANG": "xx_XX.UTF-8",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HF_HOME": "/tmp/hub",
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "TMPDIR": "/var/tmp",
    "USER": "someone",
    "TRANSFORMERS_VERBOSITY": "debug",
    "NO_COLOR": "1",
    "LOG_LEVEL": "debug",
    "VLLM_LOGGING_LEVEL": "DEBUG",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CACHE_ROOT": "/tmp/cache",
    "VLLM_CONFIG_ROOT": "/tmp/config",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "CUDA_LAUNCH_BLOCKING": "1",
    "HOSTNAME": "other",
}
SECOND = {
    "HOME": "/tmp/home",
    "XDG_CACHE_HOME": "/tmp/xdg",
    "XDG_CONFIG_HOME": "/tmp/config",
    "XDG_DATA_HOME": "/tmp/xdg",
    "HF_HUB_CACHE": "/tmp/hub",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_CACHE": "/tmp/models",
    "LANGUAGE": "de",
    "LC_TIME": "C.UTF-8",
    "LC_ALL": "C",
    "HF_HUB_VERBOSITY": "debug",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}

#: Variables that decline, each by its name.
DECLINING = {
    "PYTHONHASHSEED": "7",
    "PYTHONPATH": "/tmp",
    "LD_PRELOAD": "/tmp/libother.so",
    "MALLOC_ARENA_MAX": "1",
    "OMP_PROC_BIND": "true",
    "LD_LIBRARY_PATH": "/usr/lib/x86_64-linux-gnu",
    "TORCH_LOGS": "+dynamo",
}

#: What differs from tier plain, and why no server does so for it.
KNOWN = {
    "accelerate.commands.": "defaults of the command accelerate, which the server does not run",
    "distutils.command.install install.user_options": "words of a help text",
    "_distutils_system_mod install.user_options": "words of a help text",
    "setuptools._distutils.command.install install.user_options": "words of a help text",
    "encodings": "a module that an import needs only when it reads an address",
    "stringprep": "the same",
    "httpx2._transports.default HTTPCORE_EXC_MAP": "filled at the first use",
    "huggingface_hub.utils._http _GLOBAL_CLIENT": "made at the first use",
    "huggingface_hub.utils.tqdm progress_bar_states": "counts only where HF_HUB_DISABLE_PROGRESS_BARS is not set",
    "sys flags": "the interpreter's own; sys.dont_write_bytecode is what modules look at",
    "torch._dynamo.variables.torch_function banned_attrs": "a list made of a set, in an order by chance",
    "wsgiref.handlers BaseHandler.os_environ": "has what later imports have set too",
}


@pytest.fixture(params=["transformers", pytest.param("vllm", marks=pytest.mark.slow)])
def image(request: pytest.FixtureRequest) -> str:
    """An image of each engine."""
    return str(request.getfixturevalue(f"{request.param}_image"))


@cache
def looked(image: str, python: str, variables: tuple[tuple[str, str], ...], late: str = "") -> list[dict[str, str]]:
    """Return what the engine's modules hold: imported with these variables, or before those in ``late`` came."""
    script = Path(late_variables.__file__)
    options = [word for name, value in variables for word in ("--env", f"{name}={value}")]
    command = [
        "docker",
        "run",
        "--rm",
        "--hostname",
        "here",
        "--env",
        "PYTHONHASHSEED=0",
        *options,
        "--volume",
        f"{script.parent}:/support:ro",
        "--entrypoint",
        python,
        image,
        "-W",
        "ignore",
        f"/support/{script.name}",
        *(("late", late) if late else ("plain",)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert rows, done.stderr[-3000:]
    return rows


def python_of(client: docker.DockerClient, image: str) -> str:
    return plan_of(client.images.get(image), image).python


@pytest.mark.parametrize("variables", [FIRST, SECOND], ids=["first", "second"])
def test_modules_hold_what_they_hold_when_imported_with_the_variables(
    client: docker.DockerClient, image: str, variables: Mapping[str, str]
) -> None:
    python = python_of(client, image)
    unchanged, *late = looked(image, python, (), json.dumps([{}, FIRST, SECOND]))
    found = late[[FIRST, SECOND].index(dict(variables))]
    (bare,) = looked(image, python, ())
    (expected,) = looked(image, python, tuple(sorted(variables.items())))
    assert (found["declined"], found["failed"]) == (None, {})
    # Addresses, moments and random names differ between any two processes.
    chance = {name for name in {*bare, *unchanged} if bare.get(name) != unchanged.get(name)}
    assert not {"time", "locale", "streams", "environment", "logger"} & chance
    changed = {name for name in {*bare, *expected} if bare.get(name) != expected.get(name)} - chance
    assert len(changed) > 10, "the variables change nothing, so this shows nothing"
    wrong = {
        name: (expected.get(name), found.get(name))
        for name in {*expected, *found} - chance - {"declined", "failed"}
        if expected.get(name) != found.get(name) and not name.startswith(tuple(KNOWN))
    }
    assert wrong == {}


def test_each_declining_variable_is_named_with_what_to_do(client: docker.DockerClient, image: str) -> None:
    environments = json.dumps([{name: value} for name, value in DECLINING.items()])
    rows = looked(image, python_of(client, image), (), environments)
    for name, row in zip(DECLINING, rows, strict=True):
        assert row["declined"].startswith(f"{name} "), row["declined"]
        assert f'put "env: {{{name}: ...}}" into warmimage.yaml and build again' in row["declined"]


#: What imports say, which not every process of the fast tiers runs, and what comes at moments that differ.
LEFT_OUT = re.compile(
    r"warmimage: ready|/health|compilation/decorators\.py|utils/flashinfer\.py|_library/triton\.py|"
    r"safetensors checkpoint shards|Loading weights took|output_handler"
)


def _plain_line(line: str) -> str:
    """Return a line of a log without moments, durations and numbers of processes, ports and addresses."""
    line = re.sub(r"\x1b\[[0-9;]*m", "", line)
    line = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|psm_[0-9a-f]+", "NAME", line)
    line = re.sub(r"\d\d-\d\d \d\d:\d\d:\d\d|\b[WE]\d{4} [\d:.]+( \d+)?|pid[= ]\d+|\[\d+\]|0x[0-9a-f]+", "X", line)
    line = re.sub(r"Methods: (.*)", lambda found: "Methods: " + ", ".join(sorted(found[1].split(", "))), line)
    return re.sub(r"(\d+\.){3}\d+:\d+|\d+\.\d+", "N", line)


def _served(client: docker.DockerClient, image: str, model: Path, tier: str, variables: Mapping[str, str]) -> Any:
    """Return what a server says, where it writes to and what time it has, and in which tier it was ready."""
    environment = {**variables, "WARMIMAGE_START": tier, "WARMIMAGE_CACHES": "off"}
    with container(client, image, model=model, environment=environment, shm_size="1g", hostname="here") as made:
        port = wait_ready(made, 600)
        text = completion(port, "tiny-qwen2")
        events = wait_for_event(made, "ready")
        files = {entry["Path"] for entry in made.diff() if "timeline" not in entry["Path"]}
        said = made.logs().decode(errors="replace")
    now = datetime.now(ZoneInfo(variables.get("TZ", "UTC")))
    hours = {(now - timedelta(minutes=minutes)).strftime("%H") for minutes in (0, 10)}
    assert set(re.findall(r"\d\d-\d\d (\d\d):\d\d:\d\d", said)) <= hours
    log = {_plain_line(line) for line in said.splitlines()}
    kept = {line for line in log if not LEFT_OUT.search(line)}
    places = {_plain_line(path) for path in files if not re.search(r"/tmp\w{8}|__pycache__|\.pyc$", path)}
    return timeline.find(events, "ready")[0]["tier"], (text, sorted(kept), sorted(places))


@pytest.mark.parametrize("variables", [FIRST, SECOND], ids=["first", "second"])
def test_the_server_says_and_writes_what_it_does_in_tier_plain(
    client: docker.DockerClient, image: str, tiny_model: Path, variables: Mapping[str, str]
) -> None:
    plain, expected = _served(client, image, tiny_model, "plain", variables)
    tier, found = _served(client, image, tiny_model, TIER, variables)
    assert (plain, tier) == ("plain", TIER)
    assert found[0] == expected[0]
    assert set(found[1]) ^ set(expected[1]) == set()
    assert found[2] == expected[2]
