"""The plan, as the builder makes and renders it; ``entrypoint.plan`` defines it, for the image reads it too."""

from __future__ import annotations

from .entrypoint.plan import (
    SCHEMA_VERSION,
    BasePlan,
    CachesPlan,
    ClosurePlan,
    EnginePlan,
    Folders,
    LoadingPlan,
    ModelPlan,
    Plan,
    SnapshotPlan,
    WheelsPlan,
)

__all__ = [
    "MODEL_PATH",
    "SCHEMA_VERSION",
    "SNAPSHOT",
    "BasePlan",
    "CachesPlan",
    "ClosurePlan",
    "EnginePlan",
    "Folders",
    "LoadingPlan",
    "ModelPlan",
    "Plan",
    "SnapshotPlan",
    "WheelsPlan",
]

#: Where the model is in a container, for every way that brings its weights there.
MODEL_PATH = "/model"

#: The tier that only an image with a snapshot has.
SNAPSHOT = "snapshot"
