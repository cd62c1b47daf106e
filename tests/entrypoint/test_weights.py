"""What an engine will read: which folder, which files, in which order; found as the engines' own clients find it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from warmimage import engines
from warmimage.entrypoint.model import hub_cache, weights
from warmimage.entrypoint.model.weights import Model
from warmimage.entrypoint.plan import Plan
from warmimage.entrypoint.settings import Settings

from .plans import loading_plan, make_plan

SETTINGS = Callable[..., Settings]


@pytest.fixture
def start(tmp_path: Path) -> SETTINGS:
    """Return a function that makes the settings of a start of an engine."""
    (tmp_path / "model").mkdir()

    def make(*arguments: str, engine: str = "vllm", environment: Mapping[str, str] | None = None) -> Settings:
        plan = make_plan(
            str(tmp_path / "model"),
            command=(engine, "serve", str(tmp_path / "model")),
            directory=str(tmp_path),
            loading=loading_plan(engines.get(engine)),
        )
        variables = {"HOME": str(tmp_path / "home"), **(environment or {})}
        return Settings(plan, arguments, variables, "auto", "", "")

    return make


def write(folder: Path, *names: str, **texts: str) -> Path:
    """Make files in a folder: each holds its own name, or the text given for it."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts.get(name, str(path)))
    return folder


def index(*names: str) -> str:
    return json.dumps({"weight_map": {f"layer.{number}": name for number, name in enumerate(names)}})


def names(model: Model) -> list[str]:
    return [os.path.relpath(path, model.directory) for path in model.files]


def shards(model: Model) -> list[str]:
    return [os.path.relpath(path, model.directory) for path in model.weights]


CONFIG = ("config.json", "tokenizer.json", "generation_config.json")
SHARDS = ("model-1-of-10.safetensors", "model-2-of-10.safetensors", "model-10-of-10.safetensors")


def test_configuration_comes_first_and_shards_in_load_order(tmp_path: Path) -> None:
    write(tmp_path, *SHARDS, *CONFIG, "README.md", "figure.png", "vocab.txt", "chat_template.jinja", ".hidden.json")
    model = weights.in_directory(str(tmp_path))
    assert names(model) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "vocab.txt",
        *SHARDS,
    ]
    assert model.size == sum(os.path.getsize(path) for path in model.files)


@pytest.mark.parametrize(
    ("present", "load_format", "expected"),
    [
        (("a.safetensors", "pytorch_model.bin"), "auto", ["a.safetensors"]),
        (("a.safetensors", "pytorch_model.bin"), "npcache", ["pytorch_model.bin"]),
        (("pytorch_model.bin", "training_args.bin", "optimizer.bin"), "auto", ["pytorch_model.bin"]),
        (("model.pt", "pytorch_model.bin", "optimizer.pt"), "pt", ["model.pt"]),
        (("q4.gguf",), "auto", ["q4.gguf"]),
        (("consolidated.safetensors",), "auto", ["consolidated.safetensors"]),
        (("consolidated.safetensors", "model.safetensors"), "auto", ["model.safetensors"]),
        (("consolidated.safetensors", "model.safetensors"), "mistral", ["consolidated.safetensors"]),
        (("a.safetensors",), "pt", []),
        ((), "auto", []),
    ],
)
def test_weights_are_of_the_kind_that_the_engine_loads(
    tmp_path: Path, present: tuple[str, ...], load_format: str, expected: list[str]
) -> None:
    assert shards(weights.in_directory(str(write(tmp_path, *present)), load_format)) == expected


def test_weights_in_mistrals_own_format_are_taken_by_engines_that_prefer_them(start: SETTINGS, tmp_path: Path) -> None:
    texts = {"consolidated.safetensors.index.json": index("consolidated-1.safetensors")}
    write(tmp_path / "model", *texts, "consolidated-1.safetensors", "model.safetensors", **texts)
    assert shards(weights.find(start())) == ["consolidated-1.safetensors"]
    assert shards(weights.find(start(engine="sglang"))) == ["consolidated-1.safetensors"]
    assert shards(weights.find(start(engine="transformers"))) == ["model.safetensors"]
    assert shards(weights.find(start("--load-format", "safetensors"))) == ["model.safetensors"]
    assert shards(weights.find(start("--load-format", "mistral"))) == ["consolidated-1.safetensors"]


def test_weights_that_lie_there_twice_are_those_of_the_index(tmp_path: Path) -> None:
    texts = {"model.safetensors.index.json": index("m-1.safetensors", "m-2.safetensors")}
    write(tmp_path, *texts, "m-1.safetensors", "m-2.safetensors", "merged.safetensors", **texts)
    assert shards(weights.in_directory(str(tmp_path))) == ["m-1.safetensors", "m-2.safetensors"]
    assert len(shards(weights.in_directory(str(tmp_path), "sharded_state"))) == 3


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 1}', '{"weight_map": {"a": "../../etc/passwd"}}'])
def test_a_damaged_index_costs_nothing(tmp_path: Path, text: str) -> None:
    name = "model.safetensors.index.json"
    write(tmp_path, name, "m-1.safetensors", **{name: text})
    assert shards(weights.in_directory(str(tmp_path))) == ["m-1.safetensors"]


def test_a_file_of_two_names_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, "a.safetensors")
    os.link(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").symlink_to("a.safetensors")
    assert shards(weights.in_directory(str(tmp_path))) == ["a.safetensors"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "volume", "good.safetensors")
    outside = write(tmp_path, "secret") / "secret"
    (folder / "gone.safetensors").symlink_to("nothing")
    (folder / "loop.safetensors").symlink_to("loop.safetensors")
    (folder / "out.safetensors").symlink_to(outside)
    (folder / "folder.safetensors").mkdir()
    model = weights.in_directory(str(folder))
    assert shards(model) == ["good.safetensors"]
    assert list(model.skipped) == [
        f"{folder}/gone.safetensors: No such file or directory",
        f"{folder}/loop.safetensors: Too many levels of symbolic links",
        f"{folder}/out.safetensors: {outside} is outside the volume",
    ]


def test_a_volume_may_itself_be_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real", "a.safetensors")
    (tmp_path / "link").symlink_to("real")
    assert shards(weights.in_directory(str(tmp_path / "link"))) == ["a.safetensors"]


def test_the_plans_model_is_read_unless_the_arguments_name_another(start: SETTINGS, tmp_path: Path) -> None:
    write(tmp_path / "model", "plan.safetensors")
    write(tmp_path / "other", "other.safetensors")
    assert shards(weights.find(start())) == ["plan.safetensors"]
    assert shards(weights.find(start("--model", str(tmp_path / "other")))) == ["other.safetensors"]
    assert shards(weights.find(start("--model=other"))) == ["other.safetensors"]
    assert shards(weights.find(start("--model-path", "other", engine="sglang"))) == ["other.safetensors"]


def hub(cache: Path, name: str, commit: str, *files: str, ref: str = "main") -> Path:
    """Lay out a repository as ``huggingface_hub`` does: blobs, links to them in a snapshot, and a ref."""
    repository = cache / ("models--" + name.replace("/", "--"))
    snapshot = repository / "snapshots" / commit
    (repository / "blobs").mkdir(parents=True, exist_ok=True)
    for file in files:
        blob = repository / "blobs" / f"{commit}-{file.replace('/', '-')}"
        blob.write_text(str(blob))
        link = snapshot / file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / ref).write_text(commit)
    return snapshot


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "home/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "{0}/xdg"}, "xdg/huggingface/hub"),
        ({"HF_HOME": "{0}/hf", "XDG_CACHE_HOME": "{0}/xdg"}, "hf/hub"),
        ({"HF_HUB_CACHE": "{0}/cache", "HF_HOME": "{0}/hf"}, "cache"),
        ({"HF_HOME": "~/own"}, "home/own/hub"),
    ],
)
def test_the_hugging_face_cache_is_found_as_its_client_finds_it(
    start: SETTINGS, tmp_path: Path, variables: dict[str, str], folder: str
) -> None:
    snapshot = hub(tmp_path / folder, "org/name", "abc", "config.json", "model.safetensors")
    environment = {name: value.format(tmp_path) for name, value in variables.items()}
    model = weights.find(start("--model", "org/name", environment=environment))
    assert (model.directory, names(model)) == (str(snapshot), ["config.json", "model.safetensors"])
    assert not model.skipped, "links into the repository's blobs are inside the volume"


def test_the_caches_place_is_that_of_the_client_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of ``huggingface_hub``, for the variables that name it."""
    import subprocess
    import sys

    for variables in ({}, {"HF_HOME": "/a"}, {"XDG_CACHE_HOME": "/b"}, {"HF_HUB_CACHE": "/c", "HF_HOME": "/a"}):
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], **variables}
        asked = subprocess.run(
            [sys.executable, "-c", "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert hub_cache.hub_cache(environment) == asked.stdout.strip()


def test_the_revision_that_the_engine_is_told_is_the_one_that_is_read(start: SETTINGS, tmp_path: Path) -> None:
    cache = tmp_path / "home/.cache/huggingface/hub"
    hub(cache, "org/name", "aaa", "old.safetensors")
    hub(cache, "org/name", "bbb", "new.safetensors", ref="v2")
    named = start("--model", "org/name")
    assert shards(weights.find(named)) == ["old.safetensors"]
    assert shards(weights.find(start("--model", "org/name", "--revision", "v2"))) == ["new.safetensors"]
    assert shards(weights.find(start("--model", "org/name", "--revision=bbb"))) == ["new.safetensors"]
    absent = weights.find(start("--model", "org/name", "--revision", "v3"))
    assert absent.declined == "org/name is no directory, and not in the Hugging Face cache"


@pytest.mark.parametrize("flag", ["--download-dir", "--download_dir"])
def test_the_download_folder_wins_and_configuration_may_be_in_the_other(
    start: SETTINGS, tmp_path: Path, flag: str
) -> None:
    own = hub(tmp_path / "home/.cache/huggingface/hub", "org/name", "abc", "config.json", "wrong.safetensors")
    hub(tmp_path / "downloads", "org/name", "abc", "right.safetensors")
    model = weights.find(start("--model", "org/name", flag, str(tmp_path / "downloads")))
    assert shards(model) == ["right.safetensors"]
    assert model.config == (str(own / "config.json"),)
    assert model.size == sum(os.path.getsize(path) for path in model.files)


@pytest.mark.parametrize(
    "folder",
    [
        "home/.cache/modelscope/hub/models/org/name___5",
        "home/.cache/modelscope/hub/org/name___5",
        "home/.cache/modelscope/models/org--name.5/snapshots/master",
    ],
)
def test_modelscope_is_asked_where_the_engine_asks_it(start: SETTINGS, tmp_path: Path, folder: str) -> None:
    hub(tmp_path / "home/.cache/huggingface/hub", "org/name.5", "abc", "wrong.safetensors")
    write(tmp_path / folder, "right.safetensors")
    environment = {"VLLM_USE_MODELSCOPE": "True"}
    model = weights.find(start("--model", "org/name.5", environment=environment))
    assert (model.directory, shards(model)) == (str(tmp_path / folder), ["right.safetensors"])
    assert shards(weights.find(start("--model", "org/name.5"))) == ["wrong.safetensors"]
    absent = weights.find(start("--model", "org/none", environment=environment))
    assert absent.declined == "org/none is no directory, and not in the ModelScope cache"


def test_modelscopes_own_cache_variable_and_the_download_folder(start: SETTINGS, tmp_path: Path) -> None:
    write(tmp_path / "ms/models/org/name", "a.safetensors")
    write(tmp_path / "dl/org/name", "b.safetensors")
    environment = {"VLLM_USE_MODELSCOPE": "true", "MODELSCOPE_CACHE": str(tmp_path / "ms")}
    assert shards(weights.find(start("--model", "org/name", environment=environment))) == ["a.safetensors"]
    there = start("--model", "org/name", "--download-dir", "dl", environment=environment)
    assert shards(weights.find(there)) == ["b.safetensors"]


@pytest.mark.parametrize(
    ("engine", "variable", "value", "asked"),
    [
        ("vllm", "VLLM_USE_MODELSCOPE", "TRUE", True),
        ("vllm", "VLLM_USE_MODELSCOPE", "1", False),
        ("sglang", "SGLANG_USE_MODELSCOPE", "True", True),
        ("sglang", "SGLANG_USE_MODELSCOPE", "1", True),
        ("sglang", "SGLANG_USE_MODELSCOPE", "0", False),
        ("sglang", "SGLANG_USE_MODELSCOPE", "", False),
    ],
)
def test_each_engine_has_its_own_words_for_true(
    start: SETTINGS, engine: str, variable: str, value: str, asked: bool
) -> None:
    assert weights.loading(start(engine=engine, environment={variable: value})).modelscope is asked


def test_one_gguf_file_and_its_further_parts(start: SETTINGS, tmp_path: Path) -> None:
    parts = [f"q4-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    folder = write(tmp_path / "model", *parts, "q8.gguf")
    assert shards(weights.find(start("--model", str(folder / "q8.gguf")))) == ["q8.gguf"]
    assert shards(weights.find(start("--model", str(folder / parts[0])))) == parts


def test_a_quantisation_of_a_repository(start: SETTINGS, tmp_path: Path) -> None:
    files = ("q4/m-Q4_K_M-00001-of-00002.gguf", "q4/m-Q4_K_M-00002-of-00002.gguf", "m-Q8_0.gguf")
    hub(tmp_path / "home/.cache/huggingface/hub", "org/name", "abc", "config.json", *files)
    assert shards(weights.find(start("--model", "org/name:Q4_K_M"))) == list(files[:2])
    assert shards(weights.find(start("--model", "org/name:q8_0"))) == [files[2]]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("load_format", ["dummy", "runai_streamer", "fastsafetensors", "instanttensor"])
def test_loaders_that_read_past_the_page_cache_are_declined_by_name(
    start: SETTINGS, tmp_path: Path, engine: str, load_format: str
) -> None:
    write(tmp_path / "model", "a.safetensors")
    model = weights.find(start("--load-format", load_format, engine=engine))
    assert str(model.declined).startswith(f"load format {load_format}: it ")
    assert not model.files
    assert weights.find(start("--load-format", "safetensors", engine=engine)).files


@pytest.mark.parametrize("name", ["s3://bucket/model", "gs://bucket/model"])
def test_a_model_in_an_object_store_is_declined(start: SETTINGS, name: str) -> None:
    assert weights.find(start("--model", name)).declined == f"{name} is not on a volume"


@pytest.mark.parametrize("name", ["../../etc", "a/b/c", "..", "org/..", "/nowhere", ".", "org/name\n", ""])
def test_no_name_leads_out_of_the_cache(start: SETTINGS, tmp_path: Path, name: str) -> None:
    for folder in ("huggingface/hub", "modelscope/hub/models", "modelscope/models"):
        (tmp_path / "home/.cache" / folder).mkdir(parents=True)
    found = hub_cache.find(name, "main", "", {"HOME": str(tmp_path / "home")}, modelscope=True)
    assert found == ""


@pytest.mark.parametrize("revision", ["../../other", "../../../other", "..", "refs/../../x"])
def test_no_revision_leads_out_of_the_cache(tmp_path: Path, revision: str) -> None:
    cache = tmp_path / "cache"
    hub(cache, "org/name", "abc", "a.safetensors")
    for folder in (tmp_path / "other", cache / "other", cache / "x"):
        write(folder, "x.safetensors")
    assert hub_cache.find("org/name", revision, str(cache), {}, modelscope=False) == ""
    for ref in ("v1", "v2"):  # a ref's text is somebody's file too
        (cache / "models--org--name" / "refs" / ref).write_text("../../other" if ref == "v1" else "..")
        assert hub_cache.find("org/name", ref, str(cache), {}, modelscope=False) == ""


def test_what_is_no_text_or_no_number_is_no_crash(start: SETTINGS, tmp_path: Path) -> None:
    hub(tmp_path / "home/.cache/huggingface/hub", "org/name", "abc", "a.safetensors")
    (tmp_path / "home/.cache/huggingface/hub/models--org--name/refs/main").write_bytes(b"\xff\xfe")
    absent = weights.find(start("--model", "org/name"))
    assert absent.declined == "org/name is no directory, and not in the Hugging Face cache"
    write(tmp_path / "model", "shard1\N{SUPERSCRIPT TWO}.safetensors", "shard1.safetensors")
    assert len(weights.find(start()).weights) == 2
    no_name = weights.find(start("--model", "org/name", "--revision", "a\0b"))
    assert no_name.declined == "org/name: embedded null byte"


def test_an_unreadable_volume_is_declined(start: SETTINGS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert weights.find(start()).declined == f"{tmp_path}/model: Permission denied"


def test_a_plan_of_before_has_no_data_and_its_own_model_is_read(start: SETTINGS, tmp_path: Path) -> None:
    write(tmp_path / "model", "a.safetensors")
    settings = start("--model", "elsewhere")
    document = settings.plan.to_dict()
    del document["engine"]["loading"]
    settings = replace(settings, plan=Plan.from_json(json.dumps(document)))
    assert shards(weights.find(settings)) == ["a.safetensors"]
