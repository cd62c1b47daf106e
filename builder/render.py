"""From plan to Dockerfile."""

from __future__ import annotations

import operator
import posixpath
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import jinja2

from . import quoting
from .plan import Plan


@cache
def environment() -> jinja2.Environment:
    """Return the template environment: an undefined name is an error, and quoting is by filter, never by hand."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (files("warmimage.templates") / name).read_text(encoding="utf-8")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - a Dockerfile is no HTML: values are quoted for its own grammars
    )
    made.filters.update(
        comment=quoting.comment, dockerfile=quoting.dockerfile, shell=quoting.shell, exec_form=quoting.exec_form,
        dirname=posixpath.dirname, as_json=operator.methodcaller("model_dump_json"),
    )  # fmt: skip
    return made


def dockerfile(plan: Plan) -> str:
    """Return the plan's Dockerfile."""
    return environment().get_template("Dockerfile.j2").render(plan=plan)


def snapshot_dockerfile(plan: Plan, source: str, *, caches: bool, names: Sequence[str]) -> str:
    """Return the Dockerfile that adds a snapshot to an image.

    Args:
        plan: the plan of the image with the snapshot.
        source: tag of the image to start from.
        caches: whether the context holds compile caches to add.
        names: names of the variables that the image has.
    """
    template = environment().get_template("Snapshot.Dockerfile.j2")
    return template.render(plan=plan, source=source, caches=plan.caches if caches else None, names=names)
