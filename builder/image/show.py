"""An image as ``inspect`` shows it: a page for people, JSON for programs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from ..console import human_bytes
from .host_compat import Declined
from .read import ImageReport
from .snapshot_facts import Captured


def to_json(report: ImageReport, host: Sequence[Declined]) -> str:
    """Return all facts about an image as JSON, with sizes in bytes."""
    data = {
        "reference": report.reference,
        "id": report.id,
        "digests": report.digests,
        "size_bytes": report.size_bytes,
        "sizes": report.sizes,
        "tiers": report.plan.tiers,
        "snapshot": _snapshot_data(report.snapshot) if report.snapshot else None,
        "snapshot_absent": report.snapshot_absent,
        "declined_here": [asdict(entry) for entry in host],
        "labels": report.labels,
        "plan": report.plan.to_dict(),
    }
    return json.dumps(data, indent=2)


def as_text(report: ImageReport, host: Sequence[Declined]) -> str:
    """Return the page for people."""
    return "\n".join(_lines(report, host))


def _lines(report: ImageReport, host: Sequence[Declined]) -> Iterator[str]:
    plan = report.plan
    facts = {
        "image": report.reference,
        "id": report.id,
        "engine": f"{plan.engine.name} {plan.engine.version} on {plan.accelerator}, {plan.method}d",
        "base": plan.base.reference,
        "python": f"{plan.python} ({plan.base.python_version})",
        "model": plan.model.name + (f" at {plan.model.revision}" if plan.model.revision else ""),
        "architecture": plan.model.architecture or "unknown",
        "weights": f"{plan.weights} at {plan.model.path}",
        "command": shlex.join([*plan.engine.command, *plan.engine.args]),
        "user": f"{plan.user}:0",
        "tiers": ", ".join(plan.tiers) + f" (start: {plan.start})",
    }
    facts["snapshot"] = _snapshot(report.snapshot) if report.snapshot else f"none: {report.snapshot_absent}"
    if plan.wheels:
        facts["wheels"] = f"{plan.wheels.count}, lock {plan.wheels.fingerprint[:12]}"
    for name, value in facts.items():
        yield f"{name:<13} {value}"
    yield ""
    for purpose, size in report.sizes.items():
        yield f"  {purpose:<11} {human_bytes(size):>10}"
    yield f"  {'image':<11} {human_bytes(report.size_bytes):>10}"
    yield ""
    yield "does not work on this host:" if host else "every part works on this host"
    for entry in host:
        yield f"  {entry.what}: {entry.reason}"
    yield ""
    yield "labels:"
    for name, value in report.labels.items():
        yield f"  {name}={value}"


def _snapshot(captured: Captured) -> str:
    """Return a snapshot's facts in one line."""
    baseline = f" for {captured.baseline}" if captured.baseline else ""
    return (
        f"{human_bytes(captured.bytes)}, {captured.modules} modules, captured on kernel {captured.kernel} "
        f"({captured.machine}{baseline})"
    )


def _snapshot_data(captured: Captured) -> dict[str, object]:
    """Return a snapshot's facts as data, with the names of its variables only: a value may be secret."""
    return {**captured.model_dump(exclude={"environment"}), "variables": captured.variables}
