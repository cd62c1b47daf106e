"""Facts that a plan is made of, as a build would have found them: no Docker daemon, model, index or clock is asked."""

from __future__ import annotations

from pathlib import Path

from warmimage import engines
from warmimage.build import planner
from warmimage.config.model import Config
from warmimage.inputs.base_image import Base
from warmimage.inputs.lock import Lock, Wheel
from warmimage.inputs.model import Model
from warmimage.inputs.wheels import Target, Wheelset
from warmimage.plan import Plan, SnapshotPlan

#: Version that plans are said to be made by, so that a release of the tool changes no golden file.
TOOL_VERSION = "1.2.3"

HUB_COMMIT = "4f4e2f3c1d5a6b7c8d9e0f1a2b3c4d5e6f708192"


def base_of(config: Config) -> Base:
    """Return an engine image for ``derive``, and a Python image that a registry gave for ``compose``."""
    adapter = engines.get(config.engine)
    if config.method == "derive":
        assert config.base_image
        return Base(
            reference=config.base_image,
            image=config.base_image,
            digest=None,
            python="/usr/bin/python3",
            python_version="3.12",
            glibc="2.35",
            machine="x86_64",
            engine_version=adapter.version,
            path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
    digest = "sha256:" + "5a" * 32
    return Base(
        reference=f"python@{digest}",
        image="python:3.12-slim-bookworm",
        digest=digest,
        python="/usr/local/bin/python3",
        python_version="3.12",
        glibc="2.36",
        machine="x86_64",
        engine_version=None,
        path="/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
    )


def model_of(config: Config) -> Model:
    """Return a Hub model's facts for ``download``, and a directory's for the other strategies."""
    directory = None if config.weights == "download" else Path("tiny-llama")
    return Model(
        reference=config.model if directory is None else directory.name,
        name=config.served_name or (config.model if directory is None else directory.name),
        directory=directory,
        revision=HUB_COMMIT if directory is None else None,
        architecture="LlamaForCausalLM",
        model_type="llama",
        weight_bytes=1_000_000,
    )


def lock_of(config: Config, base: Base) -> Lock:
    """Return a lock of the engine, pip and one library."""
    adapter = engines.get(config.engine)
    version = config.engine_version or adapter.version
    wanted = ((adapter.distribution, version, 40_000_000), ("pip", "26.3", 1_800_000), ("torch", "2.13.0", 900_000_000))
    wheels = tuple(
        Wheel(name=name, version=number, file=f"{name}-{number}-py3-none-any.whl", size=size, sha256=f"{index}" * 64)
        for index, (name, number, size) in enumerate(sorted(wanted), 1)
    )
    requirements = (*planner.requirement_lines(config, adapter), "pip")
    target = Target.of(base, "cpu")
    return Lock(
        requirements=requirements, accelerator="cpu", python=target.python, platform=target.platforms[0], wheels=wheels
    )


def inputs_of(config: Config) -> planner.Inputs:
    """Return everything that ``planner.resolve`` would have found."""
    base = base_of(config)
    wheelset = None if config.method == "derive" else Wheelset(lock_of(config, base), Path("wheels"))
    return planner.Inputs(engines.get(config.engine), model_of(config), base, wheelset, snapshot_of(config))


def snapshot_of(config: Config) -> SnapshotPlan | None:
    """Return how a snapshot is captured; the native files' digest is made up, so that no golden file depends on it."""
    if config.snapshot == "off":
        return None
    return SnapshotPlan(required=config.snapshot == "require", native="4e" * 32, baseline="x86-64-v3")


def plan_of(config: Config) -> Plan:
    """Return the plan of a configuration."""
    return planner.make_plan(config, inputs_of(config))
