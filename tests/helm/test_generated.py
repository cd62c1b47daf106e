"""``values.generated.yaml``: what a build writes is all that the chart needs beside the volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from warmimage.config.model import Config
from warmimage.engines import adapters
from warmimage.errors import ConfigError
from warmimage.helm import values
from warmimage.helm.values import Built
from warmimage.image.snapshot_facts import Captured
from warmimage.plan import Plan

from tests.builder.facts import plan_of

from .cases import find, parse
from .generate import CHART
from .invariants import broken
from .tool import helm, template

DIGEST = "sha256:" + "ab" * 32
GIB = 1 << 30


def plan(**words: object) -> Plan:
    """Return a plan of vLLM on CUDA with other words of the configuration."""
    given = {"model": "./qwen", "engine": "vllm", "method": "derive", "base_image": "vllm/vllm-openai:v0.33.0", **words}
    return plan_of(Config.model_validate(given))


def built(made: Plan, **words: object) -> Built:
    """Return an image of a plan, pushed."""
    facts: dict[str, Any] = {"digest": f"registry.example.com:5000/team/qwen@{DIGEST}", "size": 12_000_000_000, **words}
    facts.setdefault("weight_bytes", 16 * GIB + 1)
    return Built(plan=made, tag="registry.example.com:5000/team/qwen:1", environment=dict(made.environment), **facts)


def captured(**reads: str) -> Captured:
    """Return a snapshot whose imports have read variables: for each, the modules that did."""
    environment = {"reads": reads, "hidden": {"HIDDEN": ""}}
    return Captured(bytes=700_000_000, modules=5000, kernel="6.1", machine="x86_64", environment=environment)


def test_the_values_and_a_claim_are_enough(tmp_path: Path) -> None:
    """``-f values.generated.yaml -f mine.yaml`` renders a server with the build's facts."""
    file, mine = tmp_path / "values.generated.yaml", tmp_path / "mine.yaml"
    made = plan(args=("--tensor-parallel-size", "4"), env={"HF_HOME": "/cache/hf"})
    values.write(file, built(made, filled=frozenset({"/cache/hf"}), snapshot=captured(VLLM_PLUGINS="vllm.envs")))
    mine.write_text("models: {tiny-llama: {weights: {volume: {pvc: {claimName: models}}}}}", encoding="utf-8")
    documents = parse(template(CHART, [file, mine]).stdout)
    assert broken(documents) == []
    pod = find(documents, "Deployment")["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    assert server["image"] == f"registry.example.com:5000/team/qwen@{DIGEST}"
    assert server["resources"]["limits"] == {"nvidia.com/gpu": 4}
    assert server["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["nodeSelector"]["kubernetes.io/arch"] == "amd64"
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Mi"}} in pod["volumes"]
    (seed,) = pod["initContainers"]
    assert seed["command"][4:] == ["/cache/hf", "/seed/hf-home"]  # the home is empty, and costs nothing
    assert template(CHART, [file], code=1).stderr.count("weights.volume.pvc.claimName: which claim holds the model?")


def test_sizes_are_texts_and_the_header_says_what_it_was_made_from() -> None:
    text = values.text(built(plan(), weight_bytes=140_000_000_000))
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert header[0].startswith("# Written by warmimage ")
    assert f"# Image:  registry.example.com:5000/team/qwen@{DIGEST}" in header
    assert "# Inputs: vllm 0.33.0 for cuda; model tiny-llama; weights mount; base vllm/vllm-openai:v0.33.0" in header
    model = yaml.safe_load(text)["models"]["tiny-llama"]
    assert model["weights"]["bytes"] == "133515Mi"
    assert model["image"] == {"registry": "registry.example.com:5000", "repository": "team/qwen", "digest": DIGEST}


@pytest.mark.parametrize(
    ("tag", "image"),
    [
        ("qwen:1", {"repository": "qwen", "tag": "1"}),
        ("team/qwen:1", {"repository": "team/qwen", "tag": "1"}),
        ("localhost/qwen:1", {"registry": "localhost", "repository": "qwen", "tag": "1"}),
        ("r:5000/qwen", {"registry": "r:5000", "repository": "qwen"}),
    ],
)
def test_an_image_that_was_not_pushed_has_its_tag(tag: str, image: dict[str, str]) -> None:
    made = plan()
    text = values.text(Built(made, tag, "", 1, 1, {}))
    assert "not pushed yet: no digest is known" in text
    assert yaml.safe_load(text)["models"]["tiny-llama"]["image"] == image


@pytest.mark.parametrize("words", [{"weights": "bake"}, {"weights": "download", "model": "org/Model_1.5"}])
def test_the_other_strategies_need_no_claim_of_the_users(tmp_path: Path, words: dict[str, str]) -> None:
    """Baked weights need no volume; for downloaded ones one word is enough."""
    file = tmp_path / "values.generated.yaml"
    values.write(file, built(plan(**words)))
    key = "model-1-5" if words["weights"] == "download" else "tiny-llama"
    extra = ["--set", f"models.{key}.weights.volume.type=emptyDir"] if words["weights"] == "download" else []
    documents = parse(template(CHART, [file], *extra).stdout)
    assert broken(documents) == []


def test_the_values_have_the_snapshots_size_and_the_variables_that_cost_it() -> None:
    """A variable is not among them where a restored process makes good every module's reading of it."""
    reads = {
        "VLLM_PLUGINS": "vllm.envs",
        "SAGEMAKER_*": "a.copier",
        "CUDA_VISIBLE_DEVICES": "torch",
        "HF_HUB_CACHE": "huggingface_hub.constants",
        "HF_HOME": "huggingface_hub.constants, some.other.module",
        "HIDDEN": "torch",
    }
    text = values.text(built(plan(), snapshot=captured(**reads)))
    snapshot = yaml.safe_load(text)["models"]["tiny-llama"]["snapshot"]
    variables = set(snapshot.pop("variables"))
    assert snapshot == {"inImage": True, "bytes": "668Mi"}
    assert variables & set(reads) == {"VLLM_PLUGINS", "SAGEMAKER_*", "HF_HOME"}
    assert {"MALLOC_ARENA_MAX", "PYTHONPATH"} <= variables  # read by the C library and the interpreter at their start
    assert not {"TZ", "LANG", "OMP_NUM_THREADS"} & variables
    without = yaml.safe_load(values.text(built(plan())))["models"]["tiny-llama"]
    assert without["snapshot"] == {"inImage": False, "bytes": ""}


def test_a_change_of_such_a_variable_is_told_by_the_notes(tmp_path: Path) -> None:
    """The build's values and a user's ``env`` are enough for the warning."""
    file, mine = tmp_path / "values.generated.yaml", tmp_path / "mine.yaml"
    values.write(file, built(plan(weights="bake"), snapshot=captured(VLLM_PLUGINS="vllm.envs")))
    mine.write_text("models: {tiny-llama: {env: {VLLM_PLUGINS: other}}}", encoding="utf-8")
    done = helm("install", "r", CHART, "--dry-run=client", "--values", file, "--values", mine)
    assert "tier snapshot is lost if VLLM_PLUGINS differs from its value in the image" in done.stdout


def test_an_unknown_size_leaves_a_file_that_works(tmp_path: Path) -> None:
    """Where the Hub could not be asked, a start may take long, and the header says what to set."""
    text = values.text(built(plan(), weight_bytes=0))
    assert "# The size of the weights is unknown: set models.tiny-llama.weights.bytes." in text
    assert yaml.safe_load(text)["models"]["tiny-llama"]["startup"]["seconds"] == 1800


def test_an_image_whose_warmer_nobody_could_ask_has_none() -> None:
    """Without the packages of its HTTP face the DaemonSet's pods would end at once, again and again."""
    text = values.text(built(plan(), lacking=("fastapi", "uvicorn")))
    assert "# No warmer: the image lacks fastapi, uvicorn." in text
    assert yaml.safe_load(text)["models"]["tiny-llama"]["warmer"] == {"enabled": False}


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ({}, "/metrics"),
        ({"engine": "sglang"}, ""),
        ({"engine": "sglang", "args": ("--enable-metrics",)}, "/metrics"),
        ({"engine": "transformers", "accelerator": "cpu"}, ""),
    ],
)
def test_a_server_is_scraped_where_it_has_metrics(words: dict[str, object], path: str) -> None:
    """A target that never answers would raise alarms."""
    (model,) = yaml.safe_load(values.text(built(plan(**words))))["models"].values()
    assert model["metricsPath"] == path


@pytest.mark.parametrize(
    ("engine", "args", "count"),
    [
        ("vllm", (), 1),
        ("vllm", ("--tensor_parallel_size=4",), 4),
        ("vllm", ("--tensor_parallel_size", "4", "-pp", "2"), 8),
        ("vllm", ("-tp", "2", "-dp", "4"), 8),
        ("vllm", ("--data-parallel-size=8", "--data-parallel-size-local=2"), 2),
        ("vllm", ("--tensor-parallel-size", "many"), 1),
        ("sglang", ("--tp", "4", "--dp-size", "2"), 8),
        ("sglang", ("--tp", "4", "--dp", "4", "--enable-dp-attention"), 4),
        ("transformers", ("--tp", "4"), 1),
    ],
)
def test_a_server_asks_for_the_gpus_of_all_its_ranks(engine: str, args: tuple[str, ...], count: int) -> None:
    """Tensor, pipeline and data parallelism multiply, in every spelling that the engine takes."""
    assert values.gpus(plan(engine=engine, args=args)) == count


@pytest.mark.parametrize(
    ("name", "key"),
    [("Qwen/Qwen3-8B", "qwen3-8b"), ("my_model.v2", "my-model-v2"), ("a" * 70, "a" * 40), ("_", "model")],
)
def test_the_models_key_is_a_resources_name(name: str, key: str) -> None:
    assert values.model_key(name) == key


def test_only_a_file_of_a_build_is_overwritten(tmp_path: Path) -> None:
    """A file that a person wrote is refused before anything is built; one of a build is replaced."""
    file = tmp_path / "values.yaml"
    values.check(file)
    values.write(file, built(plan()))
    values.check(file)
    file.write_text("models: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="was not written by a build"):
        values.check(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        values.check(file)
    with pytest.raises(ConfigError, match="is a directory"):
        values.check(tmp_path)


def test_caches_that_a_variable_moves_are_folders_to_write_to() -> None:
    """Those below a folder that is writable already are not mounted twice."""
    environment = {
        "VLLM_CACHE_ROOT": "/cache/vllm",
        "TRITON_CACHE_DIR": "/cache/vllm/triton",
        "HF_HOME": "/home/warmimage/hf",
        "PATH": "/bin",
        "XDG_CACHE_HOME": "relative",
        "TORCH_EXTENSIONS_DIR": "/cache/extensions",
    }
    found = values.writable_directories(plan(), environment)
    assert found == {
        "home": "/home/warmimage",
        "torch-extensions-dir": "/cache/extensions",
        "triton-cache-dir": "/cache/vllm/triton",
        "vllm-cache-root": "/cache/vllm",
    }


def test_every_cache_that_an_engine_compiles_into_can_be_written_to() -> None:
    """What the adapters know of caches is what the chart mounts."""
    places = [place for adapter in adapters().values() for kind in adapter.caches.values() for place in kind.values()]
    environment = {variable: f"/moved/{number}" for number, (variable, _, _) in enumerate(places)}
    assert len(environment) > 6
    assert set(values.writable_directories(plan(), environment).values()) == {"/home/warmimage", *environment.values()}
