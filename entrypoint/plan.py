"""The plan: everything that an image is, resolved and frozen.

The builder writes it, renders the image from it, and puts it into the image as ``plan.json``.  PID 1 and the image's
commands read it there.  This is its only definition.
"""

# Annotations are not postponed here: ``Part.from_json`` reads the types of the fields.

import json
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any, Final, Literal, TypeVar, cast, get_args, get_origin

#: Version of the plan's format; an image's label carries it.
SCHEMA_VERSION: Final = 1

_Part = TypeVar("_Part", bound="Part")


class Part:
    """A part of the plan: a frozen dataclass that is read from JSON and written as JSON."""

    @classmethod
    def from_json(cls: type[_Part], text: str | bytes) -> _Part:
        """Return the part that a JSON document holds; keys without a field are ignored.

        Args:
            text: the document.

        Raises:
            ValueError: it is not JSON, or a key is missing or has a value of another type; the message names the key.
        """
        return _part(cls, json.loads(text), "")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, those of the parts as dictionaries."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # every part is a dataclass

    def to_json(self, indent: int | None = None) -> str:
        """Return the JSON document, in the order of the fields.

        Args:
            indent: spaces before a key, per level; ``None`` writes one line.
        """
        separators = (",", ":") if indent is None else None
        return json.dumps(self.to_dict(), indent=indent, separators=separators, ensure_ascii=False)


@dataclass(frozen=True)
class LoadingPlan(Part):
    """The arguments and variables by which the engine takes its model; see the adapter's ``Loading``."""

    model_flags: tuple[str, ...] = ()
    revision_flags: tuple[str, ...] = ()
    cache_flags: tuple[str, ...] = ()
    format_flags: tuple[str, ...] = ()
    preferred_weights: tuple[str, ...] = ()
    unread_formats: dict[str, str] = field(default_factory=dict)
    modelscope_variable: str = ""
    modelscope_values: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EnginePlan(Part):
    """How the engine is launched, watched and preloaded: the adapter's data with this model's values in place."""

    name: str
    version: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    directory: str
    health_path: str
    port: int
    port_flags: tuple[str, ...]
    unprobed_flags: tuple[str, ...]
    unchecked_flags: tuple[str, ...]
    quick_flags: tuple[str, ...]
    loading: LoadingPlan = LoadingPlan()
    modules: tuple[str, ...]
    required_modules: tuple[str, ...]
    native_libraries: tuple[str, ...]
    import_environment: dict[str, str]
    shared_memory: int
    caches: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    start_methods: tuple[str, ...]
    start_method_variable: str


@dataclass(frozen=True)
class ClosurePlan(Part):
    """What a start of the engine imports.

    Attributes:
        modules: names of modules, in load order.
        later: modules that it imports only when it is ready, for the first request.
        preload: what the engine sets in ``LD_PRELOAD`` before it starts its processes.
        recorded: whether a real start was seen; else these are the modules that the adapter lists.
    """

    modules: tuple[str, ...]
    later: tuple[str, ...] = ()
    preload: str = ""
    recorded: bool = False


@dataclass(frozen=True)
class SnapshotPlan(Part):
    """The snapshot that the image's own build captures; what was captured is in the image's ``manifest.json``.

    Attributes:
        required: whether the build fails where the engine cannot be captured.
        native: SHA-256 of the native files that restore it, for the image's machine.
        baseline: the instruction set that it is captured for, such as ``x86-64-v3``; empty where there is none.
    """

    required: bool
    native: str
    baseline: str


@dataclass(frozen=True)
class CachesPlan(Part):
    """The compile caches in the image.

    Attributes:
        files: how many there are.
        bytes: their size.
        driver: version of the driver that they were made with.
        gpus: the models of the GPUs that they were made on.
    """

    files: int
    bytes: int
    driver: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class BasePlan(Part):
    """The image that is started from."""

    reference: str
    image: str
    digest: str | None
    python: str
    python_version: str
    machine: str


@dataclass(frozen=True)
class WheelsPlan(Part):
    """The wheels that compose installs; ``warmimage.lock`` names each."""

    requirements: tuple[str, ...]
    count: int
    total_bytes: int
    fingerprint: str
    installer: str


@dataclass(frozen=True)
class ModelPlan(Part):
    """The model that is served."""

    reference: str
    name: str
    revision: str | None
    architecture: str | None
    path: str
    mounted: bool
    link: str | None


@dataclass(frozen=True)
class Folders(Part):
    """Where things are in the image."""

    root: str
    home: str
    engine: str


@dataclass(frozen=True, kw_only=True)
class Plan(Part):
    """Everything that an image is.

    Attributes:
        schema_version: version of the plan's format.
        tool_version: version of warmimage that made the plan.
        method: ``derive`` adds layers to an engine image, ``compose`` installs wheels on a Python image.
        accelerator: what the engine serves on.
        engine: how the engine is started.
        closure: what a start of the engine imports.
        base: the image that is started from.
        wheels: the wheels to install; ``None`` where the base image holds the engine.
        model: the model that is served.
        weights: where weights come from.
        python: path of the engine's interpreter in the image.
        folders: where things are in the image.
        tiers: the start-up tiers of the image, the fastest first.
        start: the tier to begin with.
        user: id of the user that the server runs as.
        environment: the image's variables.
        labels: the image's labels.
        run: commands of the user that the build runs.
        secrets: ids of the build secrets, never their values.
        snapshot: how a snapshot is captured; ``None`` where the configuration says ``snapshot: off``.
        caches: the compile caches, where the image has them.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    tool_version: str
    method: Literal["derive", "compose"]
    accelerator: Literal["cuda", "cpu"]
    engine: EnginePlan
    closure: ClosurePlan
    base: BasePlan
    wheels: WheelsPlan | None
    model: ModelPlan
    weights: Literal["mount", "bake", "download"]
    python: str
    folders: Folders
    tiers: tuple[str, ...]
    start: str
    user: int
    environment: dict[str, str]
    labels: dict[str, str]
    run: tuple[str, ...]
    secrets: tuple[str, ...]
    snapshot: SnapshotPlan | None = None
    caches: CachesPlan | None = None


def _part(kind: type[_Part], value: object, key: str) -> _Part:
    """Return a part from its JSON object; ``key`` is the path of the object, empty for the document."""
    if not isinstance(value, dict):
        raise ValueError(f"{key or 'the document'}: got {_short(value)}, expected an object")
    given = {}
    for attribute in fields(kind):  # type: ignore[arg-type]  # every part is a dataclass
        name = f"{key}.{attribute.name}" if key else attribute.name
        if attribute.name in value:
            given[attribute.name] = _checked(attribute.type, value[attribute.name], name)
        elif attribute.default is MISSING and attribute.default_factory is MISSING:
            raise ValueError(f"{name} is missing")
    return kind(**given)


def _checked(kind: Any, value: Any, key: str) -> Any:
    """Return a JSON value as the type of its field.

    Raises:
        ValueError: it is of another type.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _part(cast("type[Part]", kind), value, key)
    if type(None) in arguments:
        return None if value is None else _checked(arguments[0], value, key)
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        if len(kinds) == len(value):
            return tuple(_checked(kinds[index], item, f"{key}[{index}]") for index, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {name: _checked(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
    if value in arguments if origin is Literal else type(value) is kind:
        return value
    expected = " or ".join(map(repr, arguments)) if origin is Literal else str(kind) if origin else kind.__name__
    raise ValueError(f"{key}: got {_short(value)}, expected {expected}")


def _short(value: object) -> str:
    return f"{value!r:.60}"
