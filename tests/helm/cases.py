"""The cases of ``ci/`` and what they render to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .generate import CHART
from .tool import template

#: The Kubernetes releases that the chart is tested with.
RELEASES = ("1.29.0", "1.31.0", "1.33.0", "1.35.0")

CASES = sorted((CHART / "ci").glob("*-values.yaml"))

#: APIs that a cluster may have beside Kubernetes' own; nobody validates their resources here.
FOREIGN = ("monitoring.coreos.com/v1", "keda.sh/v1alpha1")

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Item = TypeVar("Item")
Result = TypeVar("Result")


def parse(text: str) -> list[dict[str, Any]]:
    """Return the documents of a render."""
    return [document for document in yaml.load_all(text, Loader=_Loader) if document]


def parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function that waits for Helm for each item, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, items))


def case(name: str) -> Path:
    """Return the file of a case."""
    return CHART / "ci" / f"{name}-values.yaml"


def needs(file: Path) -> str:
    """Return the oldest Kubernetes release that a case can be rendered for."""
    return "1.31.0" if file.name.startswith("image-volume") else "1.29.0"


@cache
def rendered(file: Path, release: str = RELEASES[-1]) -> Sequence[dict[str, Any]]:
    """Return what a case renders to, by default for the newest release."""
    return parse(template(CHART, [file], "--kube-version", release).stdout)


def find(documents: Iterable[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """Return the one document of a kind, and of a name where one is given."""
    (found,) = [
        document for document in documents if document["kind"] == kind and name in ("", document["metadata"]["name"])
    ]
    return found


def pod_specs(documents: Iterable[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return each document that makes pods with its pods' specification."""
    found = []
    for document in documents:
        if document["kind"] in ("Deployment", "DaemonSet"):
            found.append((document, document["spec"]["template"]["spec"]))
        elif document["kind"] == "Pod":
            found.append((document, document["spec"]))
    return found


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all containers of a pod, those that start first first."""
    return [*pod.get("initContainers", []), *pod["containers"]]
