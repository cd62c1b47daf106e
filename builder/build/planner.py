"""From configuration to plan: resolve the model, the base image and the wheels, then put them together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import canonicalize_name

from .. import __version__, engines
from ..config.model import Config
from ..console import note
from ..docker_api import daemon
from ..engines import EngineAdapter
from ..engines.adapter import SERVED_DIRECTORY
from ..entrypoint.tiers import TIERS
from ..entrypoint.tiers.snapshot.native import native_digest
from ..errors import ConfigError, EnvironmentLacks
from ..inputs import base_image, lock, model, wheels
from ..plan import (
    MODEL_PATH,
    SNAPSHOT,
    BasePlan,
    ClosurePlan,
    EnginePlan,
    Folders,
    LoadingPlan,
    ModelPlan,
    Plan,
    SnapshotPlan,
    WheelsPlan,
)

#: The product's own directory in an image, the user's home, and the virtual environment that compose installs into.
FOLDERS = Folders(root="/opt/warmimage", home="/home/warmimage", engine="/opt/engine")

_TIERS = tuple(tier.name for tier in TIERS)

#: The instruction set that a snapshot is captured for, by machine; none is known for other machines.
_BASELINES = {"x86_64": "x86-64-v3"}


@dataclass(frozen=True)
class Inputs:
    """The resolved inputs of a plan, and where their files are on this machine.

    Attributes:
        adapter: the engine's.
        model: the model.
        base: the base image.
        wheelset: the wheels to install; ``None`` where the base image holds the engine.
        snapshot: how a snapshot is captured; ``None`` for none.
        caches: directory of the compile caches that go into the image; ``None`` for none.
    """

    adapter: EngineAdapter
    model: model.Model
    base: base_image.Base
    wheelset: wheels.Wheelset | None
    snapshot: SnapshotPlan | None = None
    caches: Path | None = None


def resolve(config: Config, lock_file: Path) -> Inputs:
    """Find everything that the configuration names.

    Cheap and local checks come first, so that a typing error costs no download.

    Raises:
        ConfigError, EnvironmentLacks, WarmimageError: as the parts do.
    """
    adapter = engines.get(config.engine)
    _check_method(config, adapter)
    found = model.resolve(config)
    client = daemon.connect()
    start = base_image.resolve(config, adapter, client)
    derive = config.method == "derive" or (config.method == "auto" and start.engine_version is not None)
    if derive:
        _refuse_compose_keys(config)
    wheelset = None
    if not derive:
        requirements = requirement_lines(config, adapter)
        wheelset = wheels.resolve(
            requirements, wheels.Target.of(start, config.accelerator), config.wheelhouse, lock_file
        )
    return Inputs(adapter, found, start, wheelset, snapshot_plan(config, start.machine))


def snapshot_plan(config: Config, machine: str) -> SnapshotPlan | None:
    """Return how the image's build captures a snapshot; ``None`` where none is wanted or there are no native files.

    Args:
        config: says whether a snapshot is wanted, and whether it is required.
        machine: the image's architecture.

    Raises:
        EnvironmentLacks: it is required, and there are no native files for this machine.
    """
    if config.snapshot == "off":
        return None
    try:
        return SnapshotPlan(
            required=config.snapshot == "require",
            native=native_digest(machine),
            baseline=baseline(machine, config.engine, config.accelerator),
        )
    except LookupError:
        if config.snapshot == "require":
            raise EnvironmentLacks(
                "a snapshot cannot be captured on this machine type",
                where="snapshot",
                got=machine,
                fix="--snapshot auto, or --snapshot off",
            ) from None
        note(f"no snapshot in this image: there is no native part for {machine}")
        return None


def baseline(machine: str, engine: str, accelerator: str) -> str:
    """Return the instruction set that a snapshot is captured for; empty for that of the capturing CPU.

    Args:
        machine: the image's architecture, for which one must be known.
        engine: the engine's name: one that picks its kernels by the CPU when it is imported has no baseline.
        accelerator: what it serves on.
    """
    return "" if accelerator in engines.get(engine).kernels_at_import else _BASELINES.get(machine, "")


def with_snapshot(plan: Plan, snapshot: SnapshotPlan | None) -> Plan:
    """Return the same plan with another snapshot, or without one: its tiers and its label follow.

    Args:
        plan: any plan.
        snapshot: how the snapshot is captured; ``None`` for none.
    """
    tiers = _tiers(snapshot)
    labels = {**plan.labels, "dev.warmimage.tiers": ",".join(tiers)}
    return replace(plan, snapshot=snapshot, tiers=tiers, labels=labels)


def _tiers(snapshot: SnapshotPlan | None) -> tuple[str, ...]:
    return tuple(name for name in _TIERS if snapshot or name != SNAPSHOT)


def _check_method(config: Config, adapter: EngineAdapter) -> None:
    if config.method == "derive" and not config.base_image:
        raise ConfigError(
            "derive needs the engine image to start from",
            where="base_image",
            fix=f"--base-image with an image of {adapter.name}",
        )
    if config.method == "derive":
        _refuse_compose_keys(config)
    if config.wheelhouse:
        wheels.check_wheelhouse(config.wheelhouse)
    if config.method == "compose" or not config.base_image:
        requirement_lines(config, adapter)


def _refuse_compose_keys(config: Config) -> None:
    key = next((name for name in ("wheelhouse", "requirements", "engine_version") if getattr(config, name)), None)
    if key:
        raise ConfigError(
            f"{key} belongs to compose: derive takes the engine as its image has it",
            where=key,
            fix=f"remove {key}, or --method compose",
        )


def requirement_lines(config: Config, adapter: EngineAdapter) -> list[str]:
    """Return what compose asks pip for.

    Raises:
        ConfigError: the engine cannot be composed for this accelerator.
    """
    lines = adapter.requirements.get(config.accelerator)
    if lines is None:
        raise ConfigError(
            f"{adapter.name} cannot be composed from wheels for {config.accelerator}",
            where="accelerator",
            got=config.accelerator,
            expected=" or ".join(sorted(adapter.requirements)),
            fix=f"--base-image with an image of {adapter.name} for {config.accelerator}",
        )
    version = config.engine_version or adapter.version
    return [*(line.format(version=version) for line in lines), *config.requirements]


def make_plan(config: Config, inputs: Inputs, lock_file: lock.Lock | None = None) -> Plan:
    """Put resolved inputs together; a pure function."""
    adapter, found, start = inputs.adapter, inputs.model, inputs.base
    locked = lock_file or (inputs.wheelset.lock if inputs.wheelset else None)
    values = {
        "path": MODEL_PATH,
        "name": found.name,
        "port": str(config.port),
        "accelerator": config.accelerator,
        "model_type": (found.model_type or "").replace("-", "_"),
    }
    version = start.engine_version or ""
    if locked:
        version = _locked_version(locked, adapter)
    environment = {"HOME": FOLDERS.home, "USER": "warmimage", **adapter.environment, **config.env}
    if locked:
        environment = {"PATH": f"{FOLDERS.engine}/bin:{start.path}", **environment}
    model_modules = [module.format(**values) for module in adapter.model_modules] if found.model_type else []
    return Plan(
        tool_version=__version__,
        method="compose" if locked else "derive",
        accelerator=config.accelerator,
        engine=EnginePlan(
            name=adapter.name,
            version=version,
            command=tuple(word.format(**values) for word in adapter.command),
            args=config.args,
            directory=adapter.directory,
            health_path=adapter.health_path,
            port=config.port,
            port_flags=adapter.port_flags,
            unprobed_flags=adapter.unprobed_flags,
            unchecked_flags=adapter.unchecked_flags,
            quick_flags=adapter.quick_flags,
            loading=LoadingPlan(**vars(adapter.loading)),
            modules=(*adapter.modules, *model_modules),
            required_modules=adapter.required_modules,
            native_libraries=adapter.native_libraries,
            import_environment=dict(adapter.import_environment.get(config.accelerator, {})),
            shared_memory=adapter.shared_memory,
            caches=dict(adapter.caches.get(config.accelerator, {})),
            start_methods=adapter.start_methods,
            start_method_variable=adapter.start_method_variable,
        ),
        closure=ClosurePlan(modules=(*adapter.modules, *model_modules)),
        base=BasePlan(
            reference=start.reference,
            image=start.image,
            digest=start.digest,
            python=start.python,
            python_version=start.python_version,
            machine=start.machine,
        ),
        wheels=_wheels_plan(locked) if locked else None,
        model=ModelPlan(
            reference=found.reference,
            name=found.name,
            revision=found.revision,
            architecture=found.architecture,
            path=MODEL_PATH,
            mounted=config.weights == "mount",
            link=f"{SERVED_DIRECTORY}/{found.name}" if adapter.serves_by_name else None,
        ),
        weights=config.weights,
        python=f"{FOLDERS.engine}/bin/python" if locked else start.python,
        folders=FOLDERS,
        tiers=_tiers(inputs.snapshot),
        start=config.start,
        user=config.user,
        environment=environment,
        labels=_labels(config, inputs, version),
        run=config.run,
        secrets=tuple(secret.split(",")[0].removeprefix("id=") for secret in config.secrets),
        snapshot=inputs.snapshot,
    )


def _locked_version(locked: lock.Lock, adapter: EngineAdapter) -> str:
    wanted = canonicalize_name(adapter.distribution)
    for wheel in locked.wheels:
        if wheel.name == wanted:
            return wheel.version
    raise ConfigError(
        f"the requirements of {adapter.name} do not bring its distribution {adapter.distribution!r}",
        where=f"engine: {adapter.name}",
        got=", ".join(locked.requirements),
        fix="correct the adapter",
    )


def _wheels_plan(locked: lock.Lock) -> WheelsPlan:
    return WheelsPlan(
        requirements=locked.requirements,
        count=len(locked.wheels),
        total_bytes=locked.total_bytes,
        fingerprint=locked.fingerprint(),
        installer=locked.installer,
    )


def _labels(config: Config, inputs: Inputs, version: str) -> dict[str, str]:
    adapter, found, start = inputs.adapter, inputs.model, inputs.base
    labels = {
        "org.opencontainers.image.title": found.name,
        "org.opencontainers.image.description": f"{adapter.name} {version} serving {found.name}",
        "org.opencontainers.image.base.name": start.image,
        "org.opencontainers.image.base.digest": start.digest or "",
        "dev.warmimage.version": __version__,
        "dev.warmimage.engine": f"{adapter.name} {version}",
        "dev.warmimage.model": found.reference,
        "dev.warmimage.revision": found.revision or "",
        "dev.warmimage.weights": config.weights,
        "dev.warmimage.tiers": ",".join(_tiers(inputs.snapshot)),
    }
    return {**{name: value for name, value in labels.items() if value}, **config.labels}
