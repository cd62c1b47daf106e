"""What the chart asks a cluster: the Pod Security level of the namespace.

There is no API server to be had here.  Helm's own client asks a server that answers the paths that it asks for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from .cases import case
from .generate import CHART
from .tool import template

#: What it has of the kinds that the case renders, by group and version.
KINDS = {
    "v1": ("Namespace", "ServiceAccount", "Service", "Pod"),
    "apps/v1": ("Deployment", "DaemonSet"),
    "scheduling.k8s.io/v1": ("PriorityClass",),
}


def resources(version: str) -> dict[str, Any]:
    """Return what a cluster tells of the kinds of a group."""
    listed = [
        {
            "name": f"{kind.lower().removesuffix('s')}{'es' if kind.endswith('s') else 's'}", "singularName": "",
            "namespaced": kind not in ("Namespace", "PriorityClass"), "kind": kind, "verbs": ["get", "create"],
        }
        for kind in KINDS[version]
    ]  # fmt: skip
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": listed}


def group(version: str) -> dict[str, Any]:
    """Return what a cluster tells of a group."""
    one = {"groupVersion": version, "version": version.partition("/")[2]}
    return {"name": version.partition("/")[0], "versions": [one], "preferredVersion": one}


@contextmanager
def cluster(level: str) -> Iterator[str]:
    """Answer as a cluster whose namespace enforces a level, and yield its address."""
    labels = {"pod-security.kubernetes.io/enforce": level} if level else {}
    groups = [group(version) for version in KINDS if "/" in version]
    answers: dict[str, Any] = {
        "/version": {"major": "1", "minor": "35", "gitVersion": "v1.35.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        **{f"/api{'s' if '/' in version else ''}/{version}": resources(version) for version in KINDS},
        "/api/v1/namespaces/models": {
            "kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "models", "labels": labels}
        },
    }  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            body = json.dumps(answer or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_words: object) -> None:
            """Keep test output quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("level", "capability", "granted"),
    [
        ("", "auto", True), ("privileged", "auto", True), ("baseline", "auto", False), ("restricted", "auto", False),
        ("restricted", "always", True), ("privileged", "never", False),
    ],
)  # fmt: skip
def test_a_namespace_that_forbids_the_capability_gets_servers_without_it(
    level: str, capability: str, granted: bool
) -> None:
    """``auto`` leaves it out where the pods would be refused; servers then start in another tier."""
    with cluster(level) as address:
        words = ["--dry-run=server", "--kube-apiserver", address, "--namespace", "models"]
        words += ["--disable-openapi-validation", "--set", f"defaults.snapshot.capability={capability}"]
        words += ["--set", "defaults.snapshot.required=false"]
        assert ("CHECKPOINT_RESTORE" in template(CHART, [case("bake")], *words).stdout) is granted


def test_a_snapshot_that_is_required_where_it_is_forbidden_is_refused() -> None:
    with cluster("restricted") as address:
        words = ["--dry-run=server", "--kube-apiserver", address, "--namespace", "models"]
        words += ["--set", "defaults.snapshot.capability=auto"]
        said = template(CHART, [case("bake")], *words, code=1).stderr
    assert "it is not granted: namespace models enforces Pod Security level restricted; fix" in said
