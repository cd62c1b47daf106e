"""Options for the configuration keys, which the verbs that build an image share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import engines
from ..config.descriptions import DESCRIPTIONS


@dataclass(frozen=True)
class Given:
    """Configuration from the command line and the environment.

    Attributes:
        file: the configuration file, ``None`` for the default one.
        values: value by configuration key; ``None`` or empty if the key is not set.
        origins: flag or variable of the value, by configuration key.
    """

    file: Path | None
    values: Mapping[str, Any]
    origins: Mapping[str, str]

    @property
    def lock_file(self) -> Path:
        """The lock file, in the configuration file's directory or else in the current one."""
        return (self.file.parent if self.file else Path()) / "warmimage.lock"


@dataclass(frozen=True)
class Flag:
    """The option of one configuration key.

    Attributes:
        key: the configuration key.
        names: long name first.
        metavar: placeholder in ``--help``.
        panel: heading in ``--help``.
        many: whether it may be given several times.
    """

    key: str
    names: tuple[str, ...]
    metavar: str
    panel: str
    many: bool = False


#: Options of the configuration keys that have one.
FLAGS = (
    Flag("model", ("--model",), "DIR|ID", "Model"),
    Flag("revision", ("--revision",), "REVISION", "Model"),
    Flag("served_name", ("--served-name",), "NAME", "Model"),
    Flag("weights", ("--weights",), "mount|bake|download", "Model"),
    Flag("engine", ("--engine",), "|".join(engines.names()), "Engine"),
    Flag("engine_version", ("--engine-version",), "VERSION", "Engine"),
    Flag("accelerator", ("--accelerator",), "cuda|cpu", "Engine"),
    Flag("base_image", ("--base-image",), "IMAGE", "Image"),
    Flag("method", ("--method",), "auto|derive|compose", "Image"),
    Flag("wheelhouse", ("--wheelhouse",), "DIR", "Image"),
    Flag("secrets", ("--secret",), "id=NAME,src=FILE", "Image", many=True),
    Flag("tags", ("--tag", "-t"), "REFERENCE", "Image", many=True),
    Flag("record", ("--record",), "auto|off|require", "Image"),
    Flag("snapshot", ("--snapshot",), "auto|off|require", "Image"),
    Flag("max_size", ("--max-size",), "SIZE", "Image"),
)


def _parameter(flag: Flag) -> inspect.Parameter:
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
    """Add the configuration's options to a verb, which gets them as one ``Given`` in its first parameter."""
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
                help="Configuration file. Default: warmimage.yaml, if it exists.",
                envvar="WARMIMAGE_FILE",
                show_default=False,
            ),
        ],
    )
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    own = list(inspect.signature(verb, eval_str=True).parameters.values())[1:]
    parameters = [context, *(_parameter(flag) for flag in FLAGS), file, *own]

    def command(context: typer.Context, **arguments: Any) -> None:
        values = {flag.key: arguments.pop(flag.key) for flag in FLAGS}
        origins = {flag.key: _origin(context, flag) for flag in FLAGS}
        verb(Given(arguments.pop("file"), values, origins), **arguments)

    command.__doc__ = verb.__doc__
    command.__name__ = verb.__name__
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _origin(context: typer.Context, flag: Flag) -> str:
    source = context.get_parameter_source(flag.key)
    return f"WARMIMAGE_{flag.key.upper()}" if source and source.name == "ENVIRONMENT" else flag.names[0]


def variables(entries: Sequence[str]) -> dict[str, str]:
    """Return the environment variables in ``--env NAME=VALUE`` options.

    Raises:
        UsageError: an option has no name or no value.
    """
    from ..errors import UsageError

    values = dict(entry.partition("=")[::2] for entry in entries)
    if "" in values or any("=" not in entry for entry in entries):
        raise UsageError("not an environment variable", where="--env", expected="NAME=VALUE")
    return values
