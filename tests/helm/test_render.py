"""What the chart renders: valid for every Kubernetes release that it is for, and whole."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from warmimage.entrypoint.warm import metrics, options

from .cases import CASES, FOREIGN, RELEASES, case, containers, find, needs, parallel, parse, pod_specs, rendered
from .generate import CHART
from .invariants import broken
from .tool import helm, template


def releases_of(file: Path) -> list[str]:
    """Return the releases that a case is rendered for."""
    return [release for release in RELEASES if release >= needs(file)]


def changed(name: str, *words: str) -> list[dict[str, Any]]:
    """Return what a case renders to with values over it, each as ``KEY=JSON``."""
    return parse(template(CHART, [case(name)], *(part for word in words for part in ("--set-json", word))).stdout)


def pod_of(documents: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """Return the pods' specification of the one resource of a kind."""
    return dict(find(documents, kind, name)["spec"]["template"]["spec"])


def test_lint() -> None:
    """``helm lint --strict`` finds nothing, with the defaults and with every case."""
    words = [["--values", str(file)] for file in CASES]
    for done in parallel(lambda given: helm("lint", "--strict", CHART, *given), [[], *words]):
        assert "0 chart(s) failed" in done.stdout
        assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("release", RELEASES)
def test_every_case_is_valid(release: str) -> None:
    """Every resource of every case is valid for the release, read strictly, and keeps our own invariants."""
    files = [file for file in CASES if release in releases_of(file)]
    wrong = []
    for file, documents in zip(files, parallel(lambda file: rendered(file, release), files), strict=True):
        assert documents, file
        wrong += [f"{file.name}: {found}" for found in broken(documents)]
        for document in documents:
            if document["apiVersion"] in FOREIGN:
                continue
            try:
                kubernetes_validate.validate(document, release.rpartition(".")[0], strict=True)
            except kubernetes_validate.ValidationError as error:
                wrong.append(f"{file.name}: {document['kind']} {error}")
    assert wrong == []


def test_an_image_volume_needs_a_release_that_has_them() -> None:
    done = template(CHART, [case("image-volume")], "--kube-version", "1.29.0", code=1)
    assert "image volumes need Kubernetes 1.31, got v1.29.0; fix: pvc or hostPath" in done.stderr
    done = template(CHART, [case("minimal")], "--kube-version", "1.28.0", code=1)
    assert "kubeVersion" in done.stderr


def test_the_defaults_alone_serve_nothing() -> None:
    assert [document["kind"] for document in yaml.safe_load_all(template(CHART, []).stdout)] == ["ServiceAccount"]


def _selector(documents: list[dict[str, Any]]) -> None:
    find(documents, "Service")["spec"]["selector"]["warmimage.dev/model"] = "another"


def _mount(documents: list[dict[str, Any]]) -> None:
    find(documents, "Deployment")["spec"]["template"]["spec"]["volumes"].pop()


def _port(documents: list[dict[str, Any]]) -> None:
    find(documents, "Service")["spec"]["ports"][0]["targetPort"] = "web"


def _probe(documents: list[dict[str, Any]]) -> None:
    find(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]["startupProbe"]["failureThreshold"] = 0


def _float(documents: list[dict[str, Any]]) -> None:
    find(documents, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["args"].append("--budget=1.4e+11")


def _name(documents: list[dict[str, Any]]) -> None:
    find(documents, "Service")["metadata"]["name"] = "a" * 64


def _secret(documents: list[dict[str, Any]]) -> None:
    pod = find(documents, "Deployment")["spec"]["template"]["spec"]
    pod["containers"][0]["env"] = [{"name": "HF_TOKEN", "value": "hf_1"}]


def _root(documents: list[dict[str, Any]]) -> None:
    pod = find(documents, "Deployment")["spec"]["template"]["spec"]
    pod["containers"][0]["securityContext"]["capabilities"]["add"] = ["SYS_ADMIN"]


def _escalation(documents: list[dict[str, Any]]) -> None:
    pod = find(documents, "Deployment")["spec"]["template"]["spec"]
    pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True


def _gpu(documents: list[dict[str, Any]]) -> None:
    find(documents, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["env"] = []


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (_selector, "selectors"),
        (_mount, "mounts"),
        (_port, "ports"),
        (_probe, "probes"),
        (_float, "numbers"),
        (_name, "names"),
        (_secret, "secrets"),
        (_root, "security"),
        (_escalation, "security"),
        (_gpu, "warmers"),
    ],
)
def test_a_broken_render_is_noticed(damage: Callable[[list[dict[str, Any]]], None], found: str) -> None:
    """The invariants can fail: each damage is found by the one that is for it."""
    documents = copy.deepcopy(list(rendered(case("minimal"))))
    assert broken(documents) == []
    damage(documents)
    assert {line.partition(":")[0] for line in broken(documents)} >= {found}


def test_a_model_overrides_the_defaults_with_false_zero_and_empty_too() -> None:
    """Of two models, one has what `defaults` say, and the other its own, which sprig's merge would drop."""
    documents = rendered(case("overlap"))
    budgets = []
    for name in ("r-warmimage-small", "r-warmimage-large-70b"):
        pod = find(documents, "Deployment", name)["spec"]["template"]["spec"]
        budgets += [word for word in containers(pod)[0]["args"] if word.startswith("--budget")]
    assert budgets == ["--budget=60Gi", "--budget=200Gi"]
    words = ",".join(f"models.tiny.{word}" for word in ("replicas=0", "topologySpread=false", "preStopSeconds=0"))
    changed = template(CHART, [case("minimal")], "--set", words)
    spec = find(list(yaml.safe_load_all(changed.stdout)), "Deployment")["spec"]
    assert spec["replicas"] == 0
    assert "topologySpreadConstraints" not in spec["template"]["spec"]
    assert "lifecycle" not in spec["template"]["spec"]["containers"][0]


def test_the_start_up_budget_follows_from_the_bytes() -> None:
    """16 GiB at 100 MiB/s are 164 seconds, and 300 for the rest; the rollout has the pull beside that."""
    deployment = find(rendered(case("minimal")), "Deployment")
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    probe = server["startupProbe"]
    assert (probe["failureThreshold"] - 1) * probe["periodSeconds"] == 465  # whole periods
    assert deployment["spec"]["progressDeadlineSeconds"] == 464 + 900 + 60


def test_a_download_has_its_time_too() -> None:
    """What is downloaded first and then read takes its bytes twice."""
    server = pod_of(list(rendered(case("download"))), "Deployment")["containers"][0]
    assert (server["startupProbe"]["failureThreshold"] - 1) * 5 == 630  # 300 + 2 * 16384 / 100, in whole periods


def test_servers_with_gpus_are_replaced_without_a_surplus() -> None:
    """GPUs are rarely free twice."""
    strategy = find(rendered(case("gpu")), "Deployment")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


@pytest.mark.parametrize(("least", "cooldown"), [(0, 464 + 900 + 60), (1, 300)])
def test_the_last_server_is_not_taken_away_while_it_starts(least: int, cooldown: int) -> None:
    """KEDA counts from the last work, which may be what began the start; the others are the HPA's."""
    spec = find(changed("keda", f"defaults.autoscaling.minReplicas={least}"), "ScaledObject")["spec"]
    assert (spec["cooldownPeriod"], spec["initialCooldownPeriod"]) == (cooldown, cooldown)


def test_the_modes_of_the_sidecar() -> None:
    """Overlap holds nothing back, gate holds the server back for less long than the kubelet would wait, once ends."""
    sidecars = {}
    for name in ("overlap", "gate", "once"):
        documents = rendered(case(name))
        deployment = next(document for document in documents if document["kind"] == "Deployment")
        sidecars[name] = deployment["spec"]["template"]["spec"]["initContainers"][0]
        assert sidecars[name]["name"] == "warm"
    assert sidecars["overlap"]["restartPolicy"] == sidecars["gate"]["restartPolicy"] == "Always"
    assert "startupProbe" not in sidecars["overlap"]
    probe = sidecars["gate"]["startupProbe"]
    assert probe["httpGet"]["path"] == "/readyz"
    assert (probe["failureThreshold"] - 1) * probe["periodSeconds"] > 600
    assert "restartPolicy" not in sidecars["once"]
    assert "--once" in sidecars["once"]["args"]


def test_the_image_takes_every_command_line_that_the_chart_gives_it() -> None:
    """The entrypoint's own parser reads the arguments of every warming container."""
    seen = set()
    for file in CASES:
        for document, pod in pod_specs(rendered(file)):
            for each in containers(pod):
                if each["name"] == "warm":
                    first, *words = each["args"]
                    assert first == "warm", document
                    read = options.parse(words)
                    assert read.port or read.once
                    seen |= {word.partition("=")[0] for word in words}
    assert seen == {
        "--dir",
        "--targets",
        "--budget",
        "--rate",
        "--interval",
        "--deadline",
        "--lock",
        "--on-exit",
        "--port",
        "--node-label",
        "--once",
    }


def test_a_snapshot_brings_the_server_no_privilege() -> None:
    """Image, start and snapshot change nothing in what a server's container is granted."""
    contexts = []
    for words in ([], ["snapshot.inImage=false"], ['start="zygote"']):
        pod = pod_of(changed("gpu", *(f"defaults.{word}" for word in words)), "Deployment")
        contexts.append((pod["securityContext"], [each["securityContext"] for each in containers(pod)]))
    assert contexts[0] == contexts[1] == contexts[2]
    assert "CHECKPOINT_RESTORE" not in "".join(path.read_text() for path in CHART.rglob("*") if path.is_file())


def test_an_empty_volume_hides_no_baked_cache() -> None:
    """A folder that is mounted for writing is filled from the image, unless the values say that nothing is there."""
    pod = find(rendered(case("download")), "Deployment")["spec"]["template"]["spec"]
    (seed,) = [each for each in pod["initContainers"] if each["name"] == "seed"]
    pairs = dict(zip(seed["command"][4::2], seed["command"][5::2], strict=True))
    assert pairs == {"/home/warmimage": "/seed/home", "/home/warmimage/.cache/vllm": "/seed/inductor"}
    (server,) = pod["containers"]
    mounted = {mount["mountPath"]: mount for mount in server["volumeMounts"]}
    filled = {mount["mountPath"]: mount for mount in seed["volumeMounts"]}
    for path, seeded in pairs.items():
        assert {**mounted[path], "mountPath": ""} == {**filled[seeded], "mountPath": ""}
    assert "initContainers" not in find(rendered(case("bake")), "Deployment")["spec"]["template"]["spec"]


def test_warmers_run_where_servers_may() -> None:
    """With GPUs and no selector of the user's, on nodes that have any; and tolerating what the server tolerates."""
    pod = find(rendered(case("gpu")), "DaemonSet")["spec"]["template"]["spec"]
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert "nvidia.com/gpu.present" in [term["matchExpressions"][0]["key"] for term in terms]
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert [entry["key"] for entry in pod["tolerations"]] == ["nvidia.com/gpu"]
    pod = find(rendered(case("hostpath")), "DaemonSet")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "pool": "gpu"}
    assert "affinity" not in pod


def test_warmers_keep_to_the_nodes_that_the_servers_affinity_requires() -> None:
    """The user's own words win over the labels of GPU nodes; what they only prefer is the server's affair."""
    terms = [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["gpu"]}]}]
    affinity: dict[str, Any] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
    }
    documents = changed("gpu", f"models.qwen3-8b.affinity={json.dumps(affinity)}")
    required = affinity["nodeAffinity"]
    assert pod_of(documents, "DaemonSet")["affinity"] == {"nodeAffinity": required}
    node = pod_of(documents, "Deployment")["affinity"]["nodeAffinity"]
    assert node.items() >= required.items()


def test_warmers_of_other_gpus_look_for_none_of_nvidias_labels() -> None:
    """A part of a GPU is on a node with the taint of whole ones."""
    for resource, keys, placed in (
        ("amd.com/gpu", ["amd.com/gpu"], False),
        ("nvidia.com/mig-1g.10gb", ["nvidia.com/mig-1g.10gb", "nvidia.com/gpu"], True),
    ):
        documents = changed("gpu", f'defaults.gpus.resource="{resource}"')
        for kind in ("DaemonSet", "Deployment"):
            assert [entry["key"] for entry in pod_of(documents, kind)["tolerations"]] == keys
        assert ("affinity" in pod_of(documents, "DaemonSet")) is placed


def test_the_node_label_brings_an_account_that_may_change_nodes_and_nothing_else_does() -> None:
    """Only with the label is there a role, and a token, and servers prefer the nodes."""
    documents = rendered(case("gpu"))
    role = find(documents, "ClusterRole")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["patch"]}]
    accounts = {
        where["kind"]: (pod["serviceAccountName"], pod["automountServiceAccountToken"])
        for where, pod in pod_specs(documents)
        if where["kind"] != "Pod"
    }
    assert accounts == {"DaemonSet": ("r-warmimage-qwen3-8b-warmer", True), "Deployment": ("r-warmimage", False)}
    key = "default.warm.warmimage.dev/r-warmimage-qwen3-8b"
    (warm,) = containers(pod_of(list(documents), "DaemonSet"))
    assert f"--node-label={key}" in warm["args"]
    preferred = [{"weight": 100, "preference": {"matchExpressions": [{"key": key, "operator": "Exists"}]}}]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    assert pod_of(list(documents), "Deployment")["affinity"] == affinity
    for file in CASES:
        if file.name not in ("gpu-values.yaml", "everything-values.yaml"):
            assert not [document for document in rendered(file) if "Role" in document["kind"]]
            assert not [pod for _, pod in pod_specs(rendered(file)) if pod["automountServiceAccountToken"]]


@pytest.mark.parametrize(
    ("name", "words", "group"),
    [
        ("download", ['defaults.writable.inductor.claimName=""'], 1000),
        ("minimal", ['defaults.writable.home.claimName="homes"'], 1000),
        ("minimal", ['defaults.writable.home.claimName="homes"', "defaults.writable.home.enabled=false"], None),
        ("download", ["defaults.podSecurityContext.fsGroup=2000"], 2000),
        ("download", ["defaults.podSecurityContext.fsGroup=0"], 0),
        ("download", ['defaults.podSecurityContext.runAsUser=""'], None),
        ("minimal", [], None),
    ],
)
def test_a_claim_that_the_server_writes_to_is_given_to_its_group(
    name: str, words: list[str], group: int | None
) -> None:
    """A new volume is root's own, and the server is not root; what it only reads is left as it is."""
    documents = changed(name, *words)
    assert broken(documents) == []
    assert pod_of(documents, "Deployment")["securityContext"].get("fsGroup") == group
    if words[:1] != ["defaults.podSecurityContext.fsGroup=2000"] and group:
        assert "fsGroup" not in pod_of(documents, "DaemonSet")["securityContext"]


def test_a_claim_is_read_only_as_a_whole_unless_the_server_downloads_to_it() -> None:
    """A mount that is read-only would not keep the kubelet from changing the group of every file."""
    claims = {}
    for name in ("gpu", "download"):
        for document, pod in pod_specs(rendered(case(name))):
            for volume in pod.get("volumes") or []:
                if volume["name"] == "weights":
                    claims[name, document["kind"]] = volume["persistentVolumeClaim"].get("readOnly", False)
    assert claims == {("gpu", "Deployment"): True, ("gpu", "DaemonSet"): True, ("download", "Deployment"): False}


@pytest.mark.parametrize("nothing", ['""', "null"])
def test_a_user_id_may_be_left_to_the_cluster(nothing: str) -> None:
    """Empty is not root's."""
    words = [f"defaults.podSecurityContext.{name}={nothing}" for name in ("runAsUser", "runAsGroup")]
    for document, pod in pod_specs(changed("minimal", *words)):
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod["securityContext"]), document["kind"]
        assert pod["securityContext"]["runAsNonRoot"]


def test_a_name_of_digits_stays_a_text() -> None:
    """The folder of this image on a claim is called 9075442958468212."""
    words = [
        'models.downloaded.image.repository="registry.example.com/team/qwen"',
        'models.downloaded.image.tag="1.1573"',
        'defaults.weights.volume.pvc.claimName="1e3"',
        'defaults.env={"NO": "off"}',
        'imagePullSecrets=["123"]',
    ]
    pod = pod_of(changed("download", *words), "Deployment")
    folders = {mount["subPath"] for each in containers(pod) for mount in each["volumeMounts"] if "subPath" in mount}
    assert folders == {"9075442958468212"}
    assert pod["imagePullSecrets"] == [{"name": "123"}]
    (weights,) = [volume for volume in pod["volumes"] if volume["name"] == "weights"]
    assert weights["persistentVolumeClaim"] == {"claimName": "1e3"}
    assert {"name": "NO", "value": "off"} in pod["containers"][0]["env"]


def test_the_priority_class_of_another_is_used() -> None:
    """Without ``create`` a name is one that is there; without a name there is none."""
    documents = changed("minimal", 'priorityClass={"create": false, "name": "theirs"}')
    assert pod_of(documents, "DaemonSet")["priorityClassName"] == "theirs"
    assert "PriorityClass" not in [document["kind"] for document in documents]
    assert "priorityClassName" not in pod_of(changed("minimal", "priorityClass.create=false"), "DaemonSet")


def test_a_network_policy_names_numbers_and_lets_the_test_in() -> None:
    """A name that only an init container has is not found by every network; peers of the user's are not the tests."""
    policies = {
        document["metadata"]["name"]: document["spec"]["ingress"]
        for document in changed("gate", 'networkPolicy.from=[{"podSelector": {}}]')
        if document["kind"] == "NetworkPolicy"
    }
    server, test = policies["r-warmimage-gated"]
    assert server == {"ports": [{"port": 8000}, {"port": 9464}], "from": [{"podSelector": {}}]}
    assert test["ports"] == [{"port": 8000}]
    (peer,) = test["from"]
    tested = find(rendered(case("gate")), "Pod")["metadata"]["labels"]
    assert peer["podSelector"]["matchLabels"].items() <= tested.items()
    assert [rule["ports"] for rule in policies["r-warmimage-gated-warmer"]] == [[{"port": 9464}]]
    for words in (['networkPolicy.from=[{"podSelector": {}}]', "tests.enabled=false"], []):
        assert len(find(changed("gate", *words), "NetworkPolicy", "r-warmimage-gated")["spec"]["ingress"]) == 1


def test_every_metric_of_the_dashboard_exists() -> None:
    """What the dashboard asks for is what the warmer gives."""
    source = Path(metrics.__file__).read_text(encoding="utf-8")
    names = set(
        re.findall(r'^\s*\(?"([a-z_]+)", "(?:gauge|counter)"|PREFIX \+ "([a-z_]+)"|^\s*\("([a-z_]+)", "', source, re.M)
    )
    known = {name for found in names for name in found if name}
    text = (CHART / "dashboards" / "warmimage.json").read_text(encoding="utf-8")
    asked = set(re.findall(rf"{metrics.PREFIX}([a-z_]+?)(?:_total)?[{{,]", text))
    assert len(json.loads(text)["panels"]) > 8
    assert asked
    assert asked <= known
