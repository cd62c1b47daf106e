"""The options that say what image to build, one for each configuration key, shared by the verbs that build."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config.descriptions import DESCRIPTIONS


@dataclass(frozen=True)
class Given:
    """What the command line and the environment say.

    Attributes:
        file: the configuration file named, or ``None``.
        values: by configuration key; ``None`` and empty where nothing was said.
        origins: by configuration key, the flag or variable it came from.
    """

    file: Path | None
    values: Mapping[str, Any]
    origins: Mapping[str, str]

    @property
    def lock_file(self) -> Path:
        """The lock beside the configuration file, or in the current folder."""
        return (self.file.parent if self.file else Path()) / "warmimage.lock"


@dataclass(frozen=True)
class _Flag:
    key: str
    names: tuple[str, ...]
    metavar: str
    panel: str
    many: bool = False


_FLAGS = (
    _Flag("model", ("--model",), "DIR|ID", "Model"),
    _Flag("revision", ("--revision",), "REVISION", "Model"),
    _Flag("served_name", ("--served-name",), "NAME", "Model"),
    _Flag("weights", ("--weights",), "mount|bake|download", "Model"),
    _Flag("engine", ("--engine",), "transformers|vllm|sglang", "Engine"),
    _Flag("engine_version", ("--engine-version",), "VERSION", "Engine"),
    _Flag("accelerator", ("--accelerator",), "cuda|cpu", "Engine"),
    _Flag("base_image", ("--base-image",), "IMAGE", "Image"),
    _Flag("method", ("--method",), "auto|derive|compose", "Image"),
    _Flag("wheelhouse", ("--wheelhouse",), "DIR", "Image"),
    _Flag("secrets", ("--secret",), "id=NAME,src=FILE", "Image", many=True),
    _Flag("tags", ("--tag", "-t"), "REFERENCE", "Image", many=True),
    _Flag("record", ("--record",), "auto|off|require", "Image"),
    _Flag("snapshot", ("--snapshot",), "auto|off|require", "Image"),
    _Flag("max_size", ("--max-size",), "SIZE", "Image"),
)


def _parameter(flag: _Flag) -> inspect.Parameter:
    option = typer.Option(
        *flag.names,
        envvar=f"WARMIMAGE_{flag.key.upper()}",
        help=DESCRIPTIONS[flag.key],
        metavar=flag.metavar,
        show_default=False,
        rich_help_panel=flag.panel,
    )
    kind: Any = list[str] if flag.many else str | None
    return inspect.Parameter(
        flag.key, inspect.Parameter.KEYWORD_ONLY, default=[] if flag.many else None, annotation=Annotated[kind, option]
    )


def takes_configuration(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the configuration's options; it receives them as one ``Given`` in its first parameter."""
    file = inspect.Parameter(
        "file",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            Path | None,
            typer.Option(
                "--file",
                "-f",
                metavar="FILE",
                help="Configuration file. Default: warmimage.yaml, if there.",
                envvar="WARMIMAGE_FILE",
                show_default=False,
            ),
        ],
    )
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    own = list(inspect.signature(verb, eval_str=True).parameters.values())[1:]
    parameters = [context, *(_parameter(flag) for flag in _FLAGS), file, *own]

    def command(context: typer.Context, **words: Any) -> None:
        values = {flag.key: words.pop(flag.key) for flag in _FLAGS}
        origins = {flag.key: _origin(context, flag) for flag in _FLAGS}
        verb(Given(words.pop("file"), values, origins), **words)

    command.__doc__ = verb.__doc__
    command.__name__ = verb.__name__
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _origin(context: typer.Context, flag: _Flag) -> str:
    source = context.get_parameter_source(flag.key)
    return f"WARMIMAGE_{flag.key.upper()}" if source and source.name == "ENVIRONMENT" else flag.names[0]


def variables(entries: Sequence[str]) -> dict[str, str]:
    """Return the variables that ``--env NAME=VALUE`` options give a container.

    Raises:
        UsageError: one has no name or no value.
    """
    from ..errors import UsageError

    found = dict(entry.partition("=")[::2] for entry in entries)
    if "" in found or any("=" not in entry for entry in entries):
        raise UsageError("a variable needs a name and a value", where="--env", expected="NAME=VALUE")
    return found
