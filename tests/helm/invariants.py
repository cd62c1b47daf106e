"""What every render keeps, and no schema of Kubernetes checks: each function yields what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .cases import containers, pod_specs

Documents = Sequence[dict[str, Any]]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_FLOAT = re.compile(r"(?<![\w.:/@-])\d+(?:\.\d+)?[eE][+-]?\d+(?![\w.])")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
#: Every container's security context: what Pod Security level restricted asks for, and a read-only root.
_RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
_SECRET = re.compile(r"(?i)(password|passwd|token|secret|credential|api_?key)")


def where(document: dict[str, Any]) -> str:
    """Return a document's kind and name."""
    return f"{document['kind']}/{document['metadata']['name']}"


def names(documents: Documents) -> Iterator[str]:
    """Names are DNS labels of at most 63 characters, values of labels too, and no two resources have one name."""
    seen = set()
    for document in documents:
        metadata = document["metadata"]
        if not _NAME.fullmatch(metadata["name"]):
            yield f"{where(document)}: no name"
        key = (document["apiVersion"], document["kind"], metadata.get("namespace"), metadata["name"])
        if key in seen:
            yield f"{where(document)}: twice"
        seen.add(key)
        template = document.get("spec", {}).get("template", {}).get("metadata", {})
        for labels in (metadata.get("labels", {}), template.get("labels", {})):
            for name, value in labels.items():
                if not _LABEL_VALUE.fullmatch(str(value)) or not isinstance(value, str):
                    yield f"{where(document)}: label {name}={value!r}"


def selectors(documents: Documents) -> Iterator[str]:
    """Selectors match the pods that they are for, and no other pods of the release; no selector holds a version."""
    pods = [
        (where(document), document["spec"]["template"]["metadata"]["labels"])
        for document in documents
        if document["kind"] in ("Deployment", "DaemonSet")
    ]
    pods += [(where(document), document["metadata"]["labels"]) for document in documents if document["kind"] == "Pod"]
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            selector = spec["selector"]
        elif document["kind"] in ("Deployment", "DaemonSet", "PodDisruptionBudget", "PodMonitor"):
            selector = spec["selector"]["matchLabels"]
        elif document["kind"] == "NetworkPolicy":
            selector = spec["podSelector"]["matchLabels"]
        else:
            continue
        matched = [name for name, labels in pods if selector.items() <= labels.items()]
        if len(matched) != 1:
            yield f"{where(document)}: selects {matched}"
        own = where(document)
        if document["kind"] in ("Deployment", "DaemonSet") and matched != [own]:
            yield f"{own}: does not select its own pods"
        if set(selector) != {
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/component",
            "warmimage.dev/model",
        }:
            yield f"{own}: selects by {sorted(selector)}"


def service_monitors(documents: Documents) -> Iterator[str]:
    """A ServiceMonitor selects one Service, and names one of its ports; a PodMonitor a port of its pods."""
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "ServiceMonitor":
            found = [
                other
                for other in documents
                if other["kind"] == "Service"
                and spec["selector"]["matchLabels"].items() <= other["metadata"]["labels"].items()
            ]
            if len(found) != 1:
                yield f"{where(document)}: selects {[where(other) for other in found]}"
            ports = {port["name"] for other in found for port in other["spec"]["ports"]}
            if not {endpoint["port"] for endpoint in spec["endpoints"]} <= ports:
                yield f"{where(document)}: no such port"
        if document["kind"] == "PodMonitor":
            ports = set()
            for other, pod in pod_specs(documents):
                if other["kind"] == "Pod":
                    continue
                labels = other["spec"]["template"]["metadata"]["labels"]
                if spec["selector"]["matchLabels"].items() <= labels.items():
                    ports |= {port["name"] for each in containers(pod) for port in each.get("ports", [])}
            if not {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]} <= ports:
                yield f"{where(document)}: no such port"


def mounts(documents: Documents) -> Iterator[str]:
    """Every mount has a volume, every volume a mount, and no two mounts of a container one path."""
    for document, pod in pod_specs(documents):
        volumes = [volume["name"] for volume in pod.get("volumes") or []]
        if len(set(volumes)) != len(volumes):
            yield f"{where(document)}: two volumes with one name"
        used = set()
        for each in containers(pod):
            paths = [mount["mountPath"] for mount in each.get("volumeMounts") or []]
            if len(set(paths)) != len(paths):
                yield f"{where(document)}: {each['name']} mounts twice at one path"
            used |= {mount["name"] for mount in each.get("volumeMounts") or []}
        if used != set(volumes):
            yield f"{where(document)}: mounts and volumes differ by {sorted(used ^ set(volumes))}"


def ports(documents: Documents) -> Iterator[str]:
    """Ports are numbers in range, named once in a pod, and every port that is named is there."""
    for document, pod in pod_specs(documents):
        found: dict[str, int] = {}
        for each in containers(pod):
            for port in each.get("ports", []):
                if port["name"] in found or port["containerPort"] in found.values():
                    yield f"{where(document)}: port {port} twice"
                found[port["name"]] = port["containerPort"]
                if not 0 < port["containerPort"] < 65536 or len(port["name"]) > 15:
                    yield f"{where(document)}: port {port}"
            own = {port["name"] for port in each.get("ports", [])}
            for name in _PROBES:
                if name in each and each[name]["httpGet"]["port"] not in own:
                    yield f"{where(document)}: {each['name']} {name} asks an unknown port"
        for service in documents:
            if service["kind"] == "Service" and _selected(service, document):
                unknown = [port["targetPort"] for port in service["spec"]["ports"] if port["targetPort"] not in found]
                if unknown:
                    yield f"{where(service)}: target {unknown}"


def _selected(service: dict[str, Any], document: dict[str, Any]) -> bool:
    labels = document["spec"].get("template", document)["metadata"]["labels"]
    return bool(service["spec"]["selector"].items() <= labels.items())


def probes(documents: Documents) -> Iterator[str]:
    """Probes have numbers of at least one, and the server's start-up budget fits below the deadline of its rollout."""
    for document, pod in pod_specs(documents):
        for each in containers(pod):
            for name in _PROBES:
                numbers = {key: value for key, value in each.get(name, {}).items() if key != "httpGet"}
                if any(not isinstance(value, int) or value < 1 for value in numbers.values()):
                    yield f"{where(document)}: {each['name']} {name} {numbers}"
            if document["kind"] == "Deployment" and each["name"] == "server":
                probe = each["startupProbe"]
                window = (probe["failureThreshold"] - 1) * probe["periodSeconds"]
                if window >= document["spec"]["progressDeadlineSeconds"]:
                    yield f"{where(document)}: the rollout fails before the start-up probe does"


def numbers(documents: Documents) -> Iterator[str]:
    """Nothing looks like a float: a large integer that has become one would be 1.4e+11."""
    for document in documents:
        if document["kind"] == "ConfigMap":
            continue  # a dashboard is no manifest
        for found in _FLOAT.findall(json.dumps(document)):
            yield f"{where(document)}: {found}"
        yield from (f"{where(document)}: {value!r}" for value in _floats(document))


def _floats(node: Any) -> Iterator[float]:
    if isinstance(node, float):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _floats(value)
    elif isinstance(node, list):
        for value in node:
            yield from _floats(value)


def secrets(documents: Documents) -> Iterator[str]:
    """No ConfigMap holds anything that is called a secret, and no variable of such a name has a value in the open."""
    for document, pod in pod_specs(documents):
        for each in containers(pod):
            for entry in each.get("env", []):
                if _SECRET.search(entry["name"]) and "value" in entry:
                    yield f"{where(document)}: {entry['name']} in the open"
    for document in documents:
        if document["kind"] == "ConfigMap" and any(_SECRET.search(f"{k}{v}") for k, v in document["data"].items()):
            yield f"{where(document)}: a secret"


def security(documents: Documents) -> Iterator[str]:
    """Containers of the chart need no privilege and run on a read-only root; a host's directory is only read."""
    for document, pod in pod_specs(documents):
        if (
            not pod["securityContext"]["runAsNonRoot"]
            or pod["securityContext"]["seccompProfile"]["type"] == "Unconfined"
        ):
            yield f"{where(document)}: pod's security context"
        if pod["securityContext"].get("fsGroupChangePolicy", "OnRootMismatch") != "OnRootMismatch":
            yield f"{where(document)}: walks over every file"
        host = {volume["name"] for volume in pod.get("volumes") or [] if "hostPath" in volume}
        for each in containers(pod):
            context = each["securityContext"]
            if context != _RESTRICTED:
                yield f"{where(document)}: {each['name']} {context}"
            for mount in each.get("volumeMounts") or []:
                if mount["name"] in host and not mount["readOnly"]:
                    yield f"{where(document)}: {each['name']} writes to the host"


def images(documents: Documents) -> Iterator[str]:
    """No image floats."""
    for document, pod in pod_specs(documents):
        for each in containers(pod):
            if not re.search(r"@sha256:[0-9a-f]{64}$|:[\w.-]+$", each["image"]) or each["image"].endswith(":latest"):
                yield f"{where(document)}: {each['image']}"


def warmers(documents: Documents) -> Iterator[str]:
    """What warms has no GPU and no limit of memory, and does not preempt."""
    for document, pod in pod_specs(documents):
        for each in containers(pod):
            if each["name"] != "warm":
                continue
            if {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} not in each["env"]:
                yield f"{where(document)}: sees GPUs"
            if "limits" in each["resources"]:
                yield f"{where(document)}: {each['resources']}"
            if document["kind"] == "DaemonSet" and "runtimeClassName" in pod:
                yield f"{where(document)}: has a RuntimeClass"
    for document in documents:
        if document["kind"] == "PriorityClass" and (document["value"] >= 0 or document["preemptionPolicy"] != "Never"):
            yield f"{where(document)}: may preempt"


INVARIANTS: tuple[Callable[[Documents], Iterator[str]], ...] = (
    names,
    selectors,
    service_monitors,
    mounts,
    ports,
    probes,
    numbers,
    secrets,
    security,
    images,
    warmers,
)


def broken(documents: Documents) -> list[str]:
    """Return everything that is wrong with a render."""
    return [f"{check.__name__}: {found}" for check in INVARIANTS for found in check(documents)]
