"""A plan, and the part of it that a build imports, for tests of what runs in an image."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from warmimage.entrypoint.imports import Imports
from warmimage.entrypoint.plan import BasePlan, ClosurePlan, EnginePlan, Folders, LoadingPlan, ModelPlan, Plan


def make_plan(model: str = "/model", python: str = "python", **engine: Any) -> Plan:
    """Return the plan of an image with a mounted model, without a closure and without a snapshot.

    Args:
        model: path of the model.
        python: path of the engine's interpreter.
        engine: fields of the engine that differ from those of an engine without options.
    """
    given = {
        "name": "stub",
        "version": "1",
        "command": ("engine",),
        "args": (),
        "directory": "/",
        "health_path": "/health",
        "port": 8000,
        "port_flags": ("--port",),
        "unprobed_flags": ("--ssl-keyfile",),
        "unchecked_flags": ("--load-format",),
        "quick_flags": ("--help",),
        "modules": (),
        "required_modules": (),
        "native_libraries": (),
        "import_environment": {},
        "shared_memory": 0,
        "start_methods": (),
        "start_method_variable": "",
    }
    return Plan(
        tool_version="1.2.3",
        method="compose",
        accelerator="cpu",
        engine=EnginePlan(**{**given, **engine}),
        closure=ClosurePlan(()),
        base=BasePlan("python", "python", None, python, "3.10", "x86_64"),
        wheels=None,
        model=ModelPlan("org/model", "model", "abc", None, model, mounted=True, link=None),
        weights="mount",
        python=python,
        folders=Folders("/", "/", "/"),
        tiers=("preload", "plain"),
        start="auto",
        user=1000,
        environment={},
        labels={},
        run=(),
        secrets=(),
    )


def loading_plan(adapter: Any) -> LoadingPlan:
    """Return how an adapter's engine takes its model, as its plan has it."""
    return LoadingPlan(**vars(adapter.loading))


def make_imports(**changes: Any) -> Imports:
    """Return what a build imports and captures: no modules, with these changes."""
    nothing = Imports(
        required_modules=(),
        native_libraries=(),
        import_environment={},
        modules=(),
        later=(),
        preload="",
        accelerator="cpu",
        command=("engine",),
        python="python",
        user=os.getuid(),
        environment=(),
        baseline="x86-64-v3" if os.uname().machine == "x86_64" else "",
    )
    return replace(nothing, **changes)
