"""What the chart refuses to render, and what it says: where, what, and the fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from .cases import case, parallel
from .generate import CHART
from .test_values import merged
from .tool import helm, template

#: Over the least case: values, and words of the one message that they bring.
REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no image": ({"image": {"repository": ""}}, ("models.tiny.image.repository: no image to run",)),
    "no digest": (
        {"image": {"digest": "", "tag": ""}},
        ('models.tiny.image: got tag "" and no digest', "fix: set models.tiny.image.digest"),
    ),
    "a floating tag": ({"image": {"digest": "", "tag": "latest"}}, ('got tag "latest" and no digest',)),
    "no size": ({"weights": {"bytes": ""}}, ("models.tiny.weights.bytes: the size of the weights is unknown",)),
    "no rate": ({"startup": {"readRate": "0"}}, ('models.tiny.startup.readRate: got "0"',)),
    "no claim": (
        {"weights": {"volume": {"pvc": {"claimName": ""}}}},
        ("models.tiny.weights.volume.pvc.claimName: which claim holds the model?",),
    ),
    "a claim without a size": (
        {"weights": {"volume": {"pvc": {"create": True}}}},
        ("models.tiny.weights.volume.pvc.size: a created claim needs a size",),
    ),
    "a claim that is too small": (
        {"weights": {"volume": {"pvc": {"create": True, "size": "10Gi"}}}},
        ("models.tiny.weights.volume.pvc.size: got 10Gi for 17179869184 bytes of weights",),
    ),
    "no model image": (
        {"weights": {"volume": {"type": "image"}}},
        ("models.tiny.weights.volume.image.reference: which image",),
    ),
    "a download into an image": (
        {"weights": {"strategy": "download", "volume": {"type": "image", "image": {"reference": "m:1"}}}},
        ("models.tiny.weights.volume.type: nothing can be downloaded into an image volume",),
    ),
    "no path": (
        {"weights": {"volume": {"type": "hostPath"}}},
        ('models.tiny.weights.volume.hostPath.path: got ""',),
    ),
    "the whole disk": (
        {"weights": {"volume": {"type": "hostPath", "hostPath": {"path": "/models"}}}},
        ('models.tiny.weights.volume.hostPath.path: got "/models"', "at least two levels below /"),
    ),
    "the kubelet's folder": (
        {"weights": {"volume": {"type": "hostPath", "hostPath": {"path": "/srv/../var/lib/kubelet/pods"}}}},
        ("models.tiny.weights.volume.hostPath.path: got /var/lib/kubelet/pods, a system directory",),
    ),
    "a download onto the host": (
        {"weights": {"strategy": "download", "volume": {"type": "hostPath", "hostPath": {"path": "/srv/m/x"}}}},
        ("models.tiny.weights.volume.type: hostPath is read-only",),
    ),
    "an empty model": ({"weights": {"volume": {"type": "emptyDir"}}}, ("an emptyDir contains no model",)),
    "no snapshot": (
        {"snapshot": {"required": True}},
        ("models.tiny.snapshot.required: the image holds no snapshot",),
    ),
    "another tier": (
        {"snapshot": {"required": True, "inImage": True}, "start": "zygote"},
        (
            'models.tiny.snapshot.required: the server would not start from its snapshot: start is "zygote"',
            "fix: set models.tiny.start to auto",
        ),
    ),
    "a gate that may never open": (
        {"sidecar": {"mode": "gate", "deadline": 0}},
        ("models.tiny.sidecar.mode: gate holds the server back", "a deadline", "fix: set models.tiny.sidecar.deadline"),
    ),
    "an init container that may never end": (
        {"sidecar": {"mode": "once", "deadline": 0}},
        ("once holds the server back and needs a deadline",),
    ),
    "a limit that defeats the warmer": (
        {"weights": {"volume": {"pvc": {"shared": True}}}, "warmer": {"resources": {"limits": {"memory": "1Gi"}}}},
        ("models.tiny.warmer.resources.limits.memory: got 1Gi for 17179869184 bytes to warm",),
    ),
    "a limit that defeats the sidecar": (
        {"sidecar": {"mode": "overlap", "resources": {"limits": {"memory": "1G"}}}},
        ("models.tiny.sidecar.resources.limits.memory: got 1G for 17179869184 bytes to warm",),
    ),
    "another floating tag": ({"warmImage": {"repository": "warmer"}}, ('models.tiny.warmImage: got tag ""',)),
    "an image for weights alone without weights": (
        {"warmImage": {"repository": "warmer", "tag": "1"}},
        ("models.tiny.warmImage: a separate image can warm only weights; got warmer.targets []",),
    ),
    "an image for weights alone for more": (
        {"warmImage": {"repository": "warmer", "tag": "1"}, "warmer": {"targets": ["image"]}},
        ('got warmer.targets ["image"]; fix: leave warmImage empty, or name targets: [weights]',),
    ),
    "memory pinned without end": ({"warmer": {"lock": True}}, ("models.tiny.warmer.lock: pinned memory needs",)),
    "one port for two": (
        {"sidecar": {"mode": "overlap", "port": 8000}},
        ("models.tiny.sidecar.port: got 8000, which is",),
    ),
    "weights that a node cannot share": (
        {"warmer": {"targets": ["weights"]}},
        ("models.tiny.warmer.targets: a DaemonSet cannot warm weights on a volume that only one node",),
    ),
    "bounds the wrong way round": (
        {"autoscaling": {"type": "keda", "minReplicas": 5}},
        ("minReplicas 5 is above maxReplicas 4",),
    ),
    "no server by HPA": (
        {"autoscaling": {"type": "hpa", "minReplicas": 0}},
        ("autoscaling.minReplicas: got 0, which needs type keda",),
    ),
    "no metric": ({"autoscaling": {"type": "hpa"}}, ("models.tiny.autoscaling.hpa.metrics: no metric",)),
    "no trigger": ({"autoscaling": {"type": "keda"}}, ("models.tiny.autoscaling.keda.triggers: no trigger",)),
    "no replacement": ({"strategy": {"maxUnavailable": "0%"}}, ("no server could ever be replaced",)),
    "a folder of no path": ({"writable": {"cache": {"seed": True}}}, ("tiny.writable.cache.path: which directory",)),
    "two folders at one path": ({"writable": {"cache": {"path": "/tmp"}}}, ("got /tmp, which is mounted already",)),
    "a gate before a download": (
        {"weights": {"strategy": "download"}, "sidecar": {"mode": "gate"}},
        (
            "models.tiny.sidecar.mode: gate holds the server back until the weights are in memory",
            "fix: mode overlap, or models.tiny.sidecar.targets without weights",
        ),
    ),
    "an init container before a download": (
        {"weights": {"strategy": "download"}, "sidecar": {"mode": "once", "targets": ["weights"]}},
        ("once holds the server back until the weights are in memory",),
    ),
    "a token in the open": (
        {"env": {"HF_TOKEN": "hf_unsaid"}},
        (
            "models.tiny.env.HF_TOKEN: a secret as a plain value",
            "fix: models.tiny.extraEnv with valueFrom.secretKeyRef",
        ),
    ),
    "a key in the open": (
        {"extraEnv": [{"name": "VLLM_API_KEY", "value": "hf_unsaid"}]},
        ("models.tiny.extraEnv, VLLM_API_KEY: a secret as a plain value", "or models.tiny.envFrom with secretRef"),
    ),
    "a folder over the model": ({"writable": {"cache": {"path": "/model"}}}, ("got /model, which is mounted already",)),
}


def test_what_is_wrong_with_a_model_is_named(tmp_path: Path) -> None:
    """Each mistake ends the render with one message that names the value, what it is, and what to do."""
    least = yaml.safe_load(case("minimal").read_text(encoding="utf-8"))

    def said(name: str) -> str:
        file = tmp_path / f"{name}.yaml"
        file.write_text(json.dumps(merged(least, {"models": {"tiny": REFUSED[name][0]}})), encoding="utf-8")
        return template(CHART, [file], code=1).stderr

    for name, message in zip(REFUSED, parallel(said, REFUSED), strict=True):
        for words in REFUSED[name][1]:
            assert words in message, f"{name}: {message}"
        assert "hf_unsaid" not in message


def test_what_only_looks_like_a_mistake_is_rendered(tmp_path: Path) -> None:
    """A switch is no secret, and one that comes from a Secret is in no value; overlap and a download go together."""
    least = yaml.safe_load(case("minimal").read_text(encoding="utf-8"))
    secret = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    for number, words in enumerate(
        (
            {"env": {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "MAX_TOKENS": "4096"}, "extraEnv": [secret]},
            {"weights": {"strategy": "download"}, "sidecar": {"mode": "overlap"}},
            {"weights": {"strategy": "download"}, "sidecar": {"mode": "gate", "targets": ["image"]}},
        )
    ):
        file = tmp_path / f"{number}.yaml"
        file.write_text(json.dumps(merged(least, {"models": {"tiny": words}})), encoding="utf-8")
        template(CHART, [file])


@pytest.mark.parametrize("override", ["1st", "chat.example", "Chat"])
def test_a_name_that_no_service_may_have(override: str) -> None:
    """Kubernetes would refuse it, after the other resources were made."""
    said = template(CHART, [case("minimal")], "--set", f"fullnameOverride={override}", code=1).stderr
    assert f'models.tiny: its resources would be called "{override}-tiny", but a Service\'s name must begin' in said
    assert "fix: set fullnameOverride" in said


def test_two_warmers_of_one_label(tmp_path: Path) -> None:
    """Each would take the other's label away when its own files leave the memory."""
    least = yaml.safe_load(case("minimal").read_text(encoding="utf-8"))["models"]["tiny"]
    label = {"warmer": {"nodeLabel": {"enabled": True, "key": "example.com/warm"}}}
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps({"defaults": label, "models": {"one": least, "two": least}}), encoding="utf-8")
    said = template(CHART, [file], code=1).stderr
    assert "warmer.nodeLabel.key: the warmers of one and two would both set example.com/warm; fix:" in said
    label["warmer"]["nodeLabel"]["key"] = ""
    file.write_text(json.dumps({"defaults": label, "models": {"one": least, "two": least}}), encoding="utf-8")
    template(CHART, [file])


def test_two_models_with_one_name(tmp_path: Path) -> None:
    """Names that differ only in what a resource's name cannot have would be one resource."""
    least = yaml.safe_load(case("minimal").read_text(encoding="utf-8"))["models"]["tiny"]
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps({"models": {"qwen3-8b": least, "Qwen3.8B": least}}), encoding="utf-8")
    said = template(CHART, [file], code=1).stderr
    assert 'two models with one name: models.Qwen3.8B and models.qwen3-8b would both be "r-warmimage-qwen3-8b"' in said


@pytest.mark.parametrize(
    ("budget", "apart", "refused"), [("20Gi", False, True), ("32Gi", False, False), ("20Gi", True, False)]
)
def test_weights_beyond_the_budget_of_a_node(tmp_path: Path, budget: str, apart: bool, refused: bool) -> None:
    """Models that share nodes share their budget; models on nodes of their own do not."""
    least = yaml.safe_load(case("minimal").read_text(encoding="utf-8"))["models"]["tiny"]
    shared = merged(least, {"weights": {"volume": {"pvc": {"shared": True}}}})
    other = merged(shared, {"nodeSelector": {"pool": "other"}} if apart else {})
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps({"nodeBudget": budget, "models": {"one": shared, "two": other}}), encoding="utf-8")
    said = template(CHART, [file], code=int(refused)).stderr
    if refused:
        assert (
            "nodeBudget: got 20Gi for the 34359738368 bytes that the warmers of one, two would keep on one node" in said
        )


def test_lint_says_it_too() -> None:
    """Helm's lint renders on after such a message, and shows it."""
    done = helm("lint", "--strict", CHART, "--values", case("minimal"), "--set", "models.tiny.image.repository=")
    assert "models.tiny.image.repository: no image to run" in done.stderr
