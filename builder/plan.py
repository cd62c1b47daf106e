"""The plan: everything that an image is, resolved and frozen.  The templates' only input, and part of the image."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

#: Version of the plan's format; an image's label carries it.
SCHEMA_VERSION: Final = 1

#: Where the model is in a container, whichever strategy brought it there.
MODEL_PATH = "/model"


class Frozen(BaseModel):
    """A part of the plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LoadingPlan(Frozen):
    """How the engine is told which model to load and how; see the adapter's ``Loading``."""

    model_flags: tuple[str, ...] = ()
    revision_flags: tuple[str, ...] = ()
    cache_flags: tuple[str, ...] = ()
    format_flags: tuple[str, ...] = ()
    preferred_weights: tuple[str, ...] = ()
    unread_formats: dict[str, str] = {}
    modelscope_variable: str = ""


class EnginePlan(Frozen):
    """How the engine is launched, watched and preloaded; the adapter's data with this model's values in place."""

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
    caches: dict[str, tuple[str, str, str]] = {}
    start_methods: tuple[str, ...]
    start_method_variable: str


class ClosurePlan(Frozen):
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


class SnapshotPlan(Frozen):
    """The snapshot that the image's own build captures; what was captured is in the image's ``manifest.json``.

    Attributes:
        required: whether the build fails where the engine cannot be captured.
        native: SHA-256 of the native files that restore it, for the image's machine.
        baseline: the instruction set that it is captured for, such as ``x86-64-v3``; empty where there is none.
    """

    required: bool
    native: str
    baseline: str


class CachesPlan(Frozen):
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


class BasePlan(Frozen):
    """The image that is started from."""

    reference: str
    image: str
    digest: str | None
    python: str
    python_version: str
    machine: str


class WheelsPlan(Frozen):
    """The wheels that compose installs; ``warmimage.lock`` names each."""

    requirements: tuple[str, ...]
    count: int
    total_bytes: int
    fingerprint: str
    installer: str


class ModelPlan(Frozen):
    """The model that is served."""

    reference: str
    name: str
    revision: str | None
    architecture: str | None
    path: str
    mounted: bool
    link: str | None


class Folders(Frozen):
    """Where things are in the image."""

    root: str
    home: str
    engine: str


class Plan(Frozen):
    """Everything that an image is.

    Attributes:
        method: ``derive`` adds layers to an engine image, ``compose`` installs wheels on a Python image.
        python: path of the engine's interpreter in the image.
        weights: where weights come from.
        tiers: the start-up tiers of the image, the fastest first.
        start: the tier to begin with.
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
