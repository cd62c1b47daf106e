"""Images read back: sizes by purpose, the plan in the label, and the reference that a base is pinned by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from docker.models.images import Image
from warmimage import docker_engine, image
from warmimage.config import Config
from warmimage.errors import ConfigError

from tests.builder import facts

#: An image's history, the newest first, as an engine gives it for the template's instructions.
HISTORY = [
    ("CMD []", 0),
    ('ENTRYPOINT ["/opt/engine/bin/python" "-I" "-S" "/opt/warmimage/entrypoint"]', 0),
    ("LABEL dev.warmimage.engine=transformers 5 dev.warmimage.plan={}", 0),
    ("ENV A=b PATH=/opt/engine/bin", 0),
    ("COPY plan.json /opt/warmimage/plan.json # buildkit", 3),
    ("RUN /bin/sh -c /opt/engine/bin/python -m compileall -q /opt/warmimage/entrypoint # buildkit", 50),
    ("COPY entrypoint/ /opt/warmimage/entrypoint/ # buildkit", 100),
    ("RUN /bin/sh -c mkdir -p /opt/warmimage && python /tmp/record.py /tmp/imports.json # buildkit", 7),
    ("COPY --chmod=755 model/ /model/ # buildkit", 10_000),  # as current BuildKit writes it; 20.10 without --chmod
    ("RUN /bin/sh -c /opt/engine/bin/python /tmp/bytecode.py # buildkit", 2_000),
    ("RUN /bin/sh -c python3 -m venv && pip install --requirement /wheels/requirements.txt # buildkit", 6_000),
    ("RUN /bin/sh -c sh -euc 'python -m compileall /srv; COPY model/ record.py bytecode.py' # buildkit", 900),
    ("USER 0", 0),
    ("LABEL dev.warmimage.schema=1", 0),
    ('CMD ["python3"]', 0),
    ("COPY entrypoint/ /srv # the base's own", 40_000),
    ("/bin/sh -c #(nop) ADD file:1 in / ", 80_000),
]


def history(*entries: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"CreatedBy": text, "Size": size} for text, size in entries]


def test_sizes_go_to_the_purpose_of_their_instruction_and_older_layers_to_the_base() -> None:
    assert image.sizes_by_purpose(history(*HISTORY)) == {
        "base": 120_000,
        "steps": 900,
        "wheels": 6_000,
        "bytecode": 2_000,
        "criu": 0,
        "weights": 10_000,
        "closure": 7,
        "entrypoint": 150,
        "settings": 3,
        "snapshot": 0,
    }


def test_an_image_derived_from_one_of_ours_counts_the_older_one_as_its_base() -> None:
    again = [entry for entry in HISTORY[:14] if "wheels" not in entry[0]]
    sizes = image.sizes_by_purpose(history(*again, *HISTORY))
    assert sizes["base"] == sum(size for _, size in HISTORY)
    assert sizes["wheels"] == 0
    assert sizes["weights"] == 10_000


def labelled(**labels: str) -> Image:
    return cast(Image, SimpleNamespace(labels={name.replace("_", "."): value for name, value in labels.items()}))


def test_the_plan_comes_back_from_the_label() -> None:
    plan = facts.plan_of(Config(model="./tiny-llama"))
    assert image.plan_of(labelled(dev_warmimage_plan=plan.model_dump_json()), "x:1") == plan


def test_an_image_of_others_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        image.plan_of(labelled(), "x:1")
    assert str(caught.value) == ("error: not an image built by warmimage\n  at x:1\n  fix: warmimage build --model DIR")


def test_a_plan_of_another_version_is_refused_by_that_version() -> None:
    text = facts.plan_of(Config(model="./tiny-llama")).model_dump_json()
    text = text.replace('"schema_version":1', '"schema_version":2')
    with pytest.raises(ConfigError) as caught:
        image.plan_of(labelled(dev_warmimage_plan=text, dev_warmimage_version="9.0"), "x:1")
    assert str(caught.value) == (
        "error: the image's plan is of another version\n  at x:1\n"
        "  got warmimage 9.0: Input should be 1\n  fix: build the image again"
    )


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("python", "python"),
        ("python:3.12", "python"),
        ("localhost:5000/team/python", "localhost:5000/team/python"),
        ("localhost:5000/team/python:3.12", "localhost:5000/team/python"),
        (f"python@sha256:{'0' * 64}", "python"),
        (f"localhost:5000/python:3.12@sha256:{'0' * 64}", "localhost:5000/python"),
    ],
)
def test_a_repository_is_its_reference_without_tag_and_digest(reference: str, expected: str) -> None:
    assert docker_engine.repository(reference) == expected


def test_an_images_digest_is_that_of_the_repository_it_was_asked_for_by() -> None:
    digests = ["other/python@sha256:1", "python@sha256:2"]
    found = cast(Image, SimpleNamespace(attrs={"RepoDigests": digests}))
    assert docker_engine.digest_of(found, "python:3.12") == "sha256:2"
    assert docker_engine.digest_of(found, "docker.io/library/python:3.12") == "sha256:2"
    assert docker_engine.digest_of(found, "other/python") == "sha256:1"
    assert docker_engine.digest_of(found, "nowhere:1") is None
