"""From plan to Dockerfile."""

from __future__ import annotations

from collections.abc import Sequence

from ..plan import Plan
from .templates import environment


def dockerfile(plan: Plan) -> str:
    """Return the plan's Dockerfile."""
    return environment().get_template("image/Dockerfile.j2").render(plan=plan)


def snapshot_dockerfile(plan: Plan, source: str, *, caches: bool, names: Sequence[str]) -> str:
    """Return the Dockerfile that adds a snapshot to an image.

    Args:
        plan: the plan of the image with the snapshot.
        source: tag of the image to start from.
        caches: whether the context holds compile caches to add.
        names: names of the variables that the image has.
    """
    template = environment().get_template("image/Snapshot.Dockerfile.j2")
    return template.render(plan=plan, source=source, caches=plan.caches if caches else None, names=names)
