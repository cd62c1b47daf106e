"""The template environment of everything that is rendered."""

from __future__ import annotations

import operator
import posixpath
from functools import cache
from importlib.resources import files

import jinja2

from . import quoting


@cache
def environment() -> jinja2.Environment:
    """Return the template environment: an undefined name is an error, and quoting is by filter, never by hand.

    A template's name is its path below ``templates/``.
    """
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (files("warmimage.templates") / name).read_text(encoding="utf-8")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - a Dockerfile is no HTML: values are quoted for its own grammars
    )
    made.filters.update(
        comment=quoting.comment,
        dockerfile=quoting.dockerfile,
        shell=quoting.shell,
        exec_form=quoting.exec_form,
        dirname=posixpath.dirname,
        as_json=operator.methodcaller("to_json"),
    )
    return made
