"""Images read back: sizes by purpose, the plan in the label, and the reference that a base is pinned by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from docker.models.images import Image
from warmimage.config.model import Config
from warmimage.docker_api import daemon
from warmimage.errors import ConfigError
from warmimage.image import read

from tests.builder import facts

#: An image's history, the newest first, as a daemon gives it for the template's instructions.
BUILDKIT = [
    ("CMD []", 0),
    ('ENTRYPOINT ["/opt/engine/bin/python" "-I" "-S" "/opt/warmimage/entrypoint"]', 0),
    ("LABEL dev.warmimage.engine=transformers 5 dev.warmimage.plan={}", 0),
    ("COPY plan.json /opt/warmimage/plan.json # buildkit", 3),
    ("LABEL dev.warmimage.layer=settings", 0),
    ("RUN /bin/sh -c python -I -S /opt/warmimage/entrypoint capture /opt/warmimage/snapshot # buildkit", 300_000),
    ("LABEL dev.warmimage.layer=snapshot", 0),
    ("COPY caches/ /opt/warmimage/caches/ # buildkit", 70),
    ("LABEL dev.warmimage.layer=caches", 0),
    ("ENV A=b PATH=/opt/engine/bin", 0),
    ("RUN /bin/sh -c { grep -q : /etc/passwd || echo warmimage; } && mkdir -p /run/warmimage # buildkit", 2),
    ("LABEL dev.warmimage.layer=settings", 0),
    ("RUN /bin/sh -c home=$(mktemp -d) && python /opt/warmimage/entrypoint record-closure # buildkit", 7),
    ("COPY imports.json /opt/warmimage/imports.json # buildkit", 1),
    ("LABEL dev.warmimage.layer=closure", 0),
    ("RUN /bin/sh -c /opt/engine/bin/python -m compileall -q /opt/warmimage/entrypoint # buildkit", 50),
    ("COPY entrypoint/ /opt/warmimage/entrypoint/ # buildkit", 100),
    ("LABEL dev.warmimage.layer=entrypoint", 0),
    ("COPY model/ /model/ # buildkit", 10_000),
    ("LABEL dev.warmimage.layer=weights", 0),
    ("RUN /bin/sh -c /opt/engine/bin/python /opt/warmimage/compile-bytecode.py # buildkit", 2_000),
    ("COPY entrypoint/bytecode.py /opt/warmimage/compile-bytecode.py # buildkit", 4),
    ("LABEL dev.warmimage.layer=bytecode", 0),
    ("COPY /opt/engine/ /opt/engine/ # buildkit", 6_000),
    ("LABEL dev.warmimage.layer=wheels", 0),
    ("RUN /bin/sh -c sh -euc 'python -m compileall /srv; LABEL dev.warmimage.layer=model bytecode.py' # buildkit", 900),
    ("LABEL dev.warmimage.layer=steps", 0),
    ("USER 0", 0),
    ("LABEL dev.warmimage.schema=1", 0),
]

#: The same as the classic builder and buildah write it.
CLASSIC = [
    ("/bin/sh -c #(nop)  CMD []", 0),
    ('/bin/sh -c #(nop)  LABEL dev.warmimage.plan={"run":["sh -euc "]}', 0),
    ("/bin/sh -c #(nop) COPY file:1f in /opt/warmimage/plan.json ", 3),
    ("/bin/sh -c #(nop)  LABEL dev.warmimage.layer=settings", 0),
    ("/bin/sh -c python -I -S /opt/warmimage/entrypoint capture /opt/warmimage/snapshot", 300_000),
    ("/bin/sh -c #(nop)  LABEL dev.warmimage.layer=snapshot", 0),
    ("/bin/sh -c #(nop) COPY dir:2f in /opt/warmimage/caches/ ", 70),
    ("/bin/sh -c #(nop)  LABEL dev.warmimage.layer=caches", 0),
    ("/bin/sh -c #(nop)  ENV A=b PATH=/opt/engine/bin", 0),
    ("/bin/sh -c { grep -q : /etc/passwd || echo warmimage; } && mkdir -p /run/warmimage", 2),
    ("/bin/sh -c #(nop)  LABEL dev.warmimage.layer=settings", 0),
    ("/bin/sh -c home=$(mktemp -d) && python /opt/warmimage/entrypoint record-closure /opt/warmimage/imports.json", 7),
    ("/bin/sh -c #(nop) COPY file:3f in /opt/warmimage/imports.json ", 1),
    ("/bin/sh -c #(nop)  LABEL dev.warmimage.layer=closure", 0),
    ("/bin/sh -c /opt/engine/bin/python -m compileall -q /opt/warmimage/entrypoint", 50),
    ("/bin/sh -c #(nop) COPY dir:4f in /opt/warmimage/entrypoint/ ", 100),
    ("/bin/sh -c #(nop)  LABEL dev.warmimage.layer=entrypoint", 0),
    ("/bin/sh -c #(nop) COPY dir:5f in /model/ ", 10_000),
    ("/bin/sh -c #(nop)  LABEL dev.warmimage.layer=weights", 0),
    ("/bin/sh -c /opt/engine/bin/python /opt/warmimage/compile-bytecode.py", 2_000),
    ("/bin/sh -c #(nop) COPY file:6f in /opt/warmimage/compile-bytecode.py ", 4),
    ("/bin/sh -c #(nop)  LABEL dev.warmimage.layer=bytecode", 0),
    ("/bin/sh -c #(nop) COPY dir:7f in /opt/engine/", 6_000),
    ("/bin/sh -c #(nop)  LABEL dev.warmimage.layer=wheels", 0),
    ("/bin/sh -c sh -euc 'python -m compileall /srv; LABEL dev.warmimage.layer=model bytecode.py'", 900),
    ("/bin/sh -c #(nop)  LABEL dev.warmimage.layer=steps", 0),
    ("/bin/sh -c #(nop)  USER 0", 0),
    ("/bin/sh -c #(nop)  LABEL dev.warmimage.schema=1", 0),
]

BASE = [
    ('CMD ["python3"]', 0),
    ("COPY entrypoint/ /srv # the base's own", 40_000),
    ("/bin/sh -c #(nop) ADD file:1 in / ", 80_000),
]


def history(*entries: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"CreatedBy": text, "Size": size} for text, size in entries]


@pytest.mark.parametrize("own", [BUILDKIT, CLASSIC], ids=["buildkit", "classic"])
def test_sizes_go_to_the_purpose_of_their_instruction_and_older_layers_to_the_base(own: list[tuple[str, int]]) -> None:
    assert read.sizes_by_purpose(history(*own, *BASE)) == {
        "base": 120_000,
        "steps": 900,
        "wheels": 6_000,
        "bytecode": 2_004,
        "weights": 10_000,
        "entrypoint": 150,
        "closure": 8,
        "settings": 5,
        "caches": 70,
        "snapshot": 300_000,
    }


def test_an_image_derived_from_one_of_ours_counts_the_older_one_as_its_base() -> None:
    again = [entry for entry in BUILDKIT if "/opt/engine/ " not in entry[0] and "layer=wheels" not in entry[0]]
    sizes = read.sizes_by_purpose(history(*again, *BUILDKIT, *BASE))
    assert sizes["base"] == sum(size for _, size in [*BUILDKIT, *BASE])
    assert sizes["wheels"] == 0
    assert sizes["weights"] == 10_000


def labelled(**labels: str) -> Image:
    return cast(Image, SimpleNamespace(labels={name.replace("_", "."): value for name, value in labels.items()}))


def test_the_plan_comes_back_from_the_label() -> None:
    plan = facts.plan_of(Config(model="./tiny-llama"))
    assert read.plan_of(labelled(dev_warmimage_plan=plan.to_json()), "x:1") == plan


def test_an_image_of_others_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        read.plan_of(labelled(), "x:1")
    assert str(caught.value) == ("error: not an image built by warmimage\n  at x:1\n  fix: warmimage build --model DIR")


def test_a_plan_of_another_version_is_refused_by_that_version() -> None:
    text = facts.plan_of(Config(model="./tiny-llama")).to_json()
    text = text.replace('"schema_version":1', '"schema_version":2')
    with pytest.raises(ConfigError) as caught:
        read.plan_of(labelled(dev_warmimage_plan=text, dev_warmimage_version="9.0"), "x:1")
    assert str(caught.value) == (
        "error: another version of warmimage wrote the image's plan\n  at x:1\n"
        "  got warmimage 9.0: schema_version: got 2, expected 1\n  fix: build the image again"
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
    assert daemon.repository(reference) == expected


def test_an_images_digest_is_that_of_the_repository_it_was_asked_for_by() -> None:
    digests = ["other/python@sha256:1", "python@sha256:2"]
    found = cast(Image, SimpleNamespace(attrs={"RepoDigests": digests}))
    assert daemon.digest_of(found, "python:3.12") == "sha256:2"
    assert daemon.digest_of(found, "docker.io/library/python:3.12") == "sha256:2"
    assert daemon.digest_of(found, "other/python") == "sha256:1"
    assert daemon.digest_of(found, "nowhere:1") is None
