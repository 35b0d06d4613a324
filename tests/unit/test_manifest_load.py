"""Text becomes objects; what was written is kept; what another cluster wrote is not."""

from __future__ import annotations

import copy
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller.model.errors import ManifestError
from controller.model.kinds import ConfigMap, Deployment, Pod
from controller.model.kinds.autoscaling import HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior
from controller.model.manifest import Loaded, load, parse_object, parse_template

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases" / "manifests"
EVERYTHING = (CASES / "good" / "everything.yaml").read_text()
EXAMPLES = [ROOT / "playbooks" / "examples" / f"{name}.yaml" for name in ("hello", "configured", "pod")]
GOOD = [*sorted((CASES / "good").iterdir()), *sorted((CASES / "kubernetes").iterdir()), *EXAMPLES]
KUBECTL = (CASES / "kubectl" / "get-deployment.yaml").read_text()

SMALL = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
"""


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_files_load_without_a_warning_and_read_back(path: Path) -> None:
    loaded = load(path.read_text(), path.name)
    assert loaded.warnings == ()
    assert loaded.manifests
    for manifest in loaded.manifests:
        assert parse_object(manifest.object.kind, manifest.source) == manifest.object
        assert parse_object(manifest.object.kind, manifest.object.dump()) == manifest.object
        assert json.loads(json.dumps(manifest.source)) == manifest.source


def test_samples_of_the_documentation_load() -> None:
    text = (ROOT / "docs" / "manifest.md").read_text()
    samples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(samples) >= 5
    for sample in samples:
        assert load(sample, "docs/manifest.md").manifests, sample


def test_source_is_the_data_as_yaml_has_it() -> None:
    (manifest,) = load(EVERYTHING, "a.yaml").manifests
    # PyYAML's own reading agrees but for `None`: it is the text None in YAML, as dnsPolicy wants.
    assert manifest.source == yaml.safe_load(EVERYTHING)


def test_the_place_is_where_the_object_begins() -> None:
    manifests = load(f"# first\n{SMALL}---\n\n{SMALL.replace('name: a', 'name: b')}", "dir/a.yaml").manifests
    assert [manifest.place for manifest in manifests] == ["dir/a.yaml:2", "dir/a.yaml:8"]


def test_an_empty_file_has_no_objects() -> None:
    assert load("", "a.yaml") == load("---\n# nothing\n---\n", "a.yaml") == Loaded((), ())


def test_a_namespace_is_given_to_objects_that_name_none() -> None:
    text = f"{SMALL}---\n{SMALL}  namespace: own\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n"
    first, second, third = load(text, "a.yaml", namespace="shop").manifests
    assert first.object.key == ("ConfigMap", "shop", "a")
    assert first.source["metadata"] == {"name": "a", "namespace": "shop"}
    assert second.object.key == ("ConfigMap", "own", "a")
    assert third.object.key == ("Namespace", "", "shop")


@pytest.mark.parametrize(("written", "warnings"), [("default", 0), ("shop", 1), ('""', 0)])
def test_a_namespace_of_an_object_without_one_is_cleared_as_the_api_server_does(written: str, warnings: int) -> None:
    text = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: a, namespace: {written}}}\n"
    loaded = load(text, "a.yaml")
    assert loaded.manifests[0].source["metadata"] == {"name": "a"}
    note = "a.yaml:3: metadata.namespace: left out: a Namespace belongs to no namespace"
    assert loaded.warnings == (note,) * warnings


# --- scalars by the type of their field ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written", ["no", "yes", "on", "22:22", "1_000", "0o9", "2024-01-01", "1.2.3", ".inf", "=", "<<x"]
)
def test_a_text_field_gets_the_text(written: str) -> None:
    loaded = load(f"{SMALL}data:\n  k: {written}\n", "a.yaml")
    assert loaded.manifests[0].source["data"] == {"k": written}
    assert loaded.warnings == ()


@pytest.mark.parametrize("written", ["8080", "1.10", "0777", "true", "True", "1e3", "0x1F", "-0"])
def test_a_number_in_a_text_field_is_the_text_as_written_and_noted(written: str) -> None:
    loaded = load(f"{SMALL}data:\n  k: {written}\n", "a.yaml")
    (manifest,) = loaded.manifests
    assert isinstance(manifest.object, ConfigMap)
    assert manifest.object.data == manifest.source["data"] == {"k": written}
    what = "true or false" if written in ("true", "True") else "a number( with a fraction)?"
    (warning,) = loaded.warnings
    assert re.fullmatch(
        rf"a\.yaml:6: data\.k: is {what} without quotes, read as the text it is; Kubernetes wants it in quotes", warning
    )


def test_a_note_never_shows_the_value() -> None:
    loaded = load("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {pin: 471142}\n", "a.yaml")
    assert "471142" not in "".join(loaded.warnings)
    assert loaded.manifests[0].source["stringData"] == {"pin": "471142"}


@pytest.mark.parametrize("written", ["0644", "0o644", "420", "0x1A4"])
def test_file_modes_are_octal_with_a_leading_zero(written: str) -> None:
    text = f"""
apiVersion: v1
kind: Pod
metadata: {{name: a}}
spec:
  containers: [{{name: c, image: "i:1"}}]
  volumes: [{{name: v, secret: {{secretName: s, defaultMode: {written}}}}}]
"""
    pod = load(text, "a.yaml").manifests[0].object
    assert isinstance(pod, Pod)
    assert pod.spec.volumes[0].secret is not None
    assert pod.spec.volumes[0].secret.default_mode == 0o644


def test_a_field_without_value_is_unset_and_a_text_without_value_is_empty() -> None:
    text = f"{SMALL}  labels:\n  annotations: {{k:  }}\nimmutable:\ndata:\n  empty:\n"
    (manifest,) = load(text, "a.yaml").manifests
    assert manifest.source == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "annotations": {"k": ""}},
        "data": {"empty": ""},
    }


def test_an_empty_text_is_an_unset_name_or_choice() -> None:
    """Helm writes them, and Kubernetes' own fields cannot tell the two apart."""
    text = """
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: "", labels: {app: ""}}
spec:
  hostname: ""
  subdomain: ""
  restartPolicy: ""
  dnsPolicy: ""
  schedulerName: ""
  serviceAccountName: ""
  containers:
    - name: c
      image: i:1
      imagePullPolicy: ""
      terminationMessagePath: ""
      terminationMessagePolicy: ""
      env: [{name: E, value: ""}]
      ports: [{containerPort: 80, name: "", protocol: ""}]
      livenessProbe: {httpGet: {port: 80, scheme: "", path: ""}}
"""
    loaded = load(text, "a.yaml", namespace="shop")
    pod = loaded.manifests[0].object
    assert isinstance(pod, Pod)
    assert loaded.warnings == ()
    assert pod.metadata.namespace == "shop"
    assert pod.metadata.labels == {"app": ""}
    container = pod.spec.containers[0]
    assert (container.termination_message_path, container.image_pull_policy) == ("/dev/termination-log", "IfNotPresent")
    assert container.liveness_probe is not None
    assert container.liveness_probe.http_get is not None
    assert container.liveness_probe.http_get.path == "/"
    assert loaded.manifests[0].source["spec"]["containers"][0]["ports"] == [{"containerPort": 80}]


def test_whole_numbers_may_be_written_as_floats() -> None:
    """JSON has one kind of number, and 1e+06 is what tools make of a large one."""
    text = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  replicas: 3.0
  selector: {matchLabels: {a: b}}
  strategy: {rollingUpdate: {maxSurge: 1.0}}
  template:
    metadata: {labels: {a: b}}
    spec:
      securityContext: {runAsUser: 1e+06}
      containers: [{name: c, image: "i:1", ports: [{containerPort: 8e1}]}]
"""
    (manifest,) = load(text, "a.yaml").manifests
    spec = manifest.source["spec"]
    assert repr([spec["replicas"], spec["strategy"]["rollingUpdate"]["maxSurge"]]) == "[3, 1]"
    assert repr(spec["template"]["spec"]["securityContext"]) == "{'runAsUser': 1000000}"
    assert isinstance(manifest.object, Deployment)
    assert manifest.object.spec.template.spec.containers[0].ports[0].container_port == 80


def test_init_containers_may_use_the_ports_of_others_and_0_is_no_port_of_the_host() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  initContainers:
    - {name: i, image: "i:1", ports: [{containerPort: 1, hostPort: 9}]}
    - {name: j, image: "i:1", ports: [{containerPort: 1, hostPort: 9}]}
  containers:
    - {name: c, image: "i:1", ports: [{containerPort: 1, hostPort: 9}, {containerPort: 2, hostPort: 0}, {containerPort: 3, hostPort: 0}]}
"""
    pod = load(text, "a.yaml").manifests[0].object
    assert isinstance(pod, Pod)
    assert [port.host_port for port in pod.spec.containers[0].ports] == [9, None, None]


def test_objects_made_from_one_anchor_do_not_share_their_source() -> None:
    text = """
apiVersion: v1
kind: List
items:
  - &base {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: &data {k: v}}
  - {<<: *base, metadata: {name: b}, data: *data}
"""
    first, second = load(text, "a.yaml").manifests
    first.source["data"]["k"] = "changed"
    assert second.source["data"] == {"k": "v"}


def test_what_is_not_supported_behind_an_alias_is_told_of_each_place() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  containers:
    - {name: c, image: "i:1", securityContext: {procMount: Default}, resources: &r {limits: {nvidia.com/gpu: 1}}}
    - {name: d, image: "i:1", securityContext: {procMount: Unmasked}, resources: *r}
    - &e {name: e, image: "i:1", securityContext: {procMount: Unmasked}}
  initContainers: [*e]
"""
    with pytest.raises(ManifestError) as refused:
        load(text, "a.yaml")
    assert [problem.field for problem in refused.value.problems] == [
        "spec.containers[0].resources.limits.nvidia.com/gpu",
        "spec.containers[1].resources.limits.nvidia.com/gpu",
        "spec.containers[1].securityContext.procMount",
        "spec.containers[2].securityContext.procMount",
        "spec.containers[2].name",
    ]


# --- kubectl get -o yaml -------------------------------------------------------------------------------------------


def test_beside_a_name_generate_name_says_nothing() -> None:
    """`kubectl get pod -o yaml` has both for each pod of a workload."""
    text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: web-abc, generateName: web-}, data: {a: b}}"
    loaded = load(text, "a.yaml")
    assert (list(loaded.warnings), [one.object.metadata.name for one in loaded.manifests]) == ([], ["web-abc"])


HPA_V1 = """apiVersion: autoscaling/v1
kind: HorizontalPodAutoscaler
metadata:
  name: web
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: web
  maxReplicas: 10
"""


@pytest.mark.parametrize(
    ("line", "percent"),
    [("", 80), ("  targetCPUUtilizationPercentage: 50\n", 50), ("  targetCPUUtilizationPercentage: 5e1\n", 50)],
)
def test_an_autoscaler_of_the_first_version_is_one_of_the_second(line: str, percent: int) -> None:
    (made,) = load(HPA_V1 + line, "a.yaml").manifests
    scaler = made.object
    assert isinstance(scaler, HorizontalPodAutoscaler)
    ((metric,), behavior) = scaler.spec.counted, scaler.spec.behavior
    assert metric.resource is not None
    assert (metric.resource.name, metric.resource.target.average_utilization) == ("cpu", percent)
    assert behavior == HorizontalPodAutoscalerBehavior()
    assert parse_object("HorizontalPodAutoscaler", made.source) == scaler


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "targetCPUUtilizationPercentage: 0",
            "targetCPUUtilizationPercentage: must be a whole number, 1 at least, not 0",
        ),
        (
            'targetCPUUtilizationPercentage: "50"',
            "targetCPUUtilizationPercentage: must be a whole number, 1 at least, not a text",
        ),
        ("metrics: []", "metrics: is of autoscaling/v2; autoscaling/v1 has targetCPUUtilizationPercentage"),
        ("behavior: {}", "behavior: is of autoscaling/v2; autoscaling/v1 has targetCPUUtilizationPercentage"),
        ("minReplicas: 0", "minReplicas: must be at least 1"),
    ],
)
def test_the_first_version_of_autoscalers_is_read_as_strictly(line: str, problem: str) -> None:
    with pytest.raises(ManifestError) as refused:
        load(f"{HPA_V1}  {line}\n", "a.yaml")
    assert [str(one) for one in refused.value.problems] == [f"a.yaml:11: spec.{problem}"]


@pytest.mark.parametrize("name", ["metrics", "behavior"])
def test_what_the_first_version_of_autoscalers_keeps_in_annotations_is_not_lost_in_silence(name: str) -> None:
    key = f"autoscaling.alpha.kubernetes.io/{name}"
    text = (
        _HPA.replace("v2", "v1")
        .replace("  metrics: [METRIC]\n", "")
        .replace("{name: a}\nspec", f"{{name: a, annotations: {{{key}: '[]'}}}}\nspec")
    )
    with pytest.raises(ManifestError) as refused:
        load(text, "a.yaml")
    told = f"metadata.annotations.{key}: is not read: write it as autoscaling/v2, which has fields for it"
    assert str(refused.value) == f"a.yaml:4: {told}"
    (note,) = load(text.replace(name, "conditions"), "a.yaml").warnings
    assert note.endswith("left out what the API server wrote: annotation autoscaling.alpha.kubernetes.io/conditions")


def test_kubectl_output_gets_one_list_of_what_is_not_supported_and_what_lenient_would_run() -> None:
    with pytest.raises(ManifestError) as refused:
        load(KUBECTL, "a.yaml")
    assert [str(problem) for problem in refused.value.problems] == [
        "a.yaml:55: items[1].kind: Service: Kubernetes has it, sshoal does not support it yet "
        "(--lenient leaves this object out)",
        "a.yaml:66: items[2].metadata.ownerReferences: belongs to ReplicaSet web-5d4f8c7b9: apply what made it instead "
        "(--lenient leaves this object out)",
    ]
    assert refused.value.hint == "--lenient would run Deployment web, Pod lone and leave out the rest"


def test_lenient_runs_the_rest_and_warns_of_each_thing_left_out() -> None:
    loaded = load(KUBECTL, "a.yaml", lenient=True)
    assert [manifest.object.key for manifest in loaded.manifests] == [
        ("Deployment", "default", "web"),
        ("Pod", "default", "lone"),
    ]
    assert loaded.warnings == (
        "a.yaml:3: items[0]: left out what the API server wrote: status, metadata.creationTimestamp, "
        "metadata.generation, metadata.resourceVersion, metadata.uid, annotation deployment.kubernetes.io/revision, "
        "annotation kubectl.kubernetes.io/last-applied-configuration",
        "a.yaml:55: items[1].kind: Service: Kubernetes has it, sshoal does not support it yet; this object is left out",
        "a.yaml:61: items[2]: left out what the API server wrote: metadata.resourceVersion, metadata.uid",
        "a.yaml:66: items[2].metadata.ownerReferences: belongs to ReplicaSet web-5d4f8c7b9: apply what made it "
        "instead; this object is left out",
        "a.yaml:79: items[3]: left out what the API server wrote: status, metadata.resourceVersion, metadata.uid, "
        "spec.nodeName, volume kube-api-access-x7x8z",
    )
    pod = loaded.manifests[1].object
    assert isinstance(pod, Pod)
    assert (pod.spec.node_name, pod.spec.volumes, pod.spec.containers[0].volume_mounts) == ("", (), ())
    assert [toleration.toleration_seconds for toleration in pod.spec.tolerations] == [300, 300]


def test_what_only_an_api_server_writes_is_a_note_and_no_error() -> None:
    text = f"{SMALL}  uid: x\n  managedFields: [{{manager: kubectl}}]\n"
    loaded = load(text, "a.yaml")
    assert loaded.manifests[0].source["metadata"] == {"name": "a"}
    assert loaded.warnings == ("a.yaml:1: left out what the API server wrote: metadata.managedFields, metadata.uid",)


def test_what_a_claim_of_kubectl_got_from_its_cluster_is_left_out() -> None:
    text = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: data
  annotations: {pv.kubernetes.io/bind-completed: "yes", volume.kubernetes.io/storage-provisioner: x, own: y}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, volumeName: pvc-1}
"""
    (mine,) = load(text, "a.yaml").manifests
    assert mine.source["spec"]["volumeName"] == "pvc-1"
    loaded = load(text.replace("name: data", "name: data\n  uid: x"), "a.yaml")
    assert loaded.manifests[0].source["metadata"] == {"name": "data", "annotations": {"own": "y"}}
    assert "volumeName" not in loaded.manifests[0].source["spec"]
    (note,) = loaded.warnings
    assert note.endswith(
        ": metadata.uid, annotation pv.kubernetes.io/bind-completed, "
        "annotation volume.kubernetes.io/storage-provisioner, spec.volumeName"
    )


def test_a_token_that_somebody_asks_for_is_refused() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  containers: [{name: c, image: "i:1", volumeMounts: [{name: kube-api-access-x, mountPath: /t}]}]
  volumes: [{name: kube-api-access-x, projected: {sources: [{serviceAccountToken: {path: t}}]}}]
"""
    with pytest.raises(ManifestError, match="a service account's token"):
        load(text, "a.yaml")
    assert load(text.replace("name: a}", "name: a, uid: x}"), "a.yaml").manifests[0].source["spec"]["volumes"] == []


def test_a_namespace_of_kubectl_loads() -> None:
    text = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, uid: x, labels: {kubernetes.io/metadata.name: shop}}
spec: {finalizers: [kubernetes]}
status: {phase: Active}
"""
    loaded = load(text, "a.yaml")
    assert loaded.manifests[0].object.key == ("Namespace", "", "shop")
    assert loaded.warnings == ("a.yaml:2: left out what the API server wrote: status, metadata.uid, spec",)


def test_dry_run_output_of_kubectl_create_loads_without_a_word() -> None:
    text = """
apiVersion: apps/v1
kind: Deployment
metadata:
  creationTimestamp: null
  labels: {app: web}
  name: web
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  strategy: {}
  template:
    metadata:
      creationTimestamp: null
      labels: {app: web}
    spec:
      containers:
      - {image: nginx, name: nginx, resources: {}}
status: {}
"""
    assert load(text, "a.yaml").warnings == ()


def test_fields_that_say_what_happens_anyway_are_no_news() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  schedulerName: default-scheduler
  serviceAccountName: default
  automountServiceAccountToken: false
  os: {name: linux}
  containers:
    - {name: c, image: "i:1", securityContext: {procMount: Default}, stdinOnce: true}
"""
    loaded = load(text, "a.yaml")
    assert loaded.warnings == ()
    assert loaded.manifests[0].source["spec"] == {"containers": [{"name": "c", "image": "i:1", "securityContext": {}}]}


def test_lenient_leaves_a_field_out_of_object_and_source() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  readinessGates: []
  containers: [{name: c, image: "i:1", resources: {limits: {nvidia.com/gpu: 1, cpu: 1}}}]
"""
    (manifest,) = (loaded := load(text, "a.yaml", lenient=True)).manifests
    assert manifest.source["spec"] == {
        "containers": [{"name": "c", "image": "i:1", "resources": {"limits": {"cpu": 1}}}]
    }
    assert [warning.partition(": ")[0] for warning in loaded.warnings] == ["a.yaml:6", "a.yaml:7"]


def test_lenient_leaves_out_what_has_a_refused_value() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  securityContext: {seccompProfile: {type: Localhost, localhostProfile: a.json}, runAsUser: 1}
  tolerations: [{key: a, operator: Gt, value: "5"}, {key: b, operator: Exists}, {key: c, operator: Lt, value: "5"}]
  volumes: [{name: v, emptyDir: {medium: HugePages-2Mi, sizeLimit: 1Mi}}]
  containers: [{name: c, image: "i:1"}]
"""
    loaded = load(text, "a.yaml", lenient=True)
    spec = loaded.manifests[0].source["spec"]
    assert spec["securityContext"] == {"runAsUser": 1}
    assert spec["tolerations"] == [{"key": "b", "operator": "Exists"}]
    assert spec["volumes"] == [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]
    assert [warning.partition(": Kubernetes has it")[0] for warning in loaded.warnings] == [
        "a.yaml:6: spec.securityContext.seccompProfile: type Localhost",
        "a.yaml:7: spec.tolerations[2]: operator Lt",
        "a.yaml:7: spec.tolerations[0]: operator Gt",
        "a.yaml:8: spec.volumes[0].emptyDir.medium: HugePages-2Mi",
    ]


@pytest.mark.parametrize(("word", "truth"), [("yes", True), ("On", True), ("y", True), ("NO", False), ("off", False)])
def test_truth_as_yaml_1_1_writes_it_is_read_where_truth_is_wanted(word: str, truth: bool) -> None:
    """As kubectl. In quotes it is a text there too."""
    pod = f"""
apiVersion: v1
kind: Pod
metadata: {{name: a, labels: {{answer: {word}}}}}
spec: {{hostNetwork: {word}, containers: [{{name: c, image: "i:1"}}]}}
"""
    (manifest,) = load(pod, "a.yaml").manifests
    assert manifest.source["spec"]["hostNetwork"] is truth
    assert manifest.source["metadata"]["labels"] == {"answer": word}
    with pytest.raises(ManifestError, match=f"must be true or false, not '{word.lower()}'"):
        load(pod.replace(f"hostNetwork: {word}", f'hostNetwork: "{word}"'), "a.yaml")


def test_a_daemon_set_may_keep_its_rolling_update_while_it_updates_on_delete() -> None:
    """Kubernetes ignores it there, as when somebody pauses updates by changing the type only."""
    text = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: a}
spec:
  updateStrategy: {type: OnDelete, rollingUpdate: {maxUnavailable: 2, maxSurge: 1}}
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: "i:1"}]}}
"""
    assert load(text, "a.yaml").manifests


def test_a_limit_range_may_speak_of_resources_that_there_are_none_of_here() -> None:
    text = """
apiVersion: v1
kind: LimitRange
metadata: {name: a}
spec: {limits: [{type: Container, max: {cpu: 2, nvidia.com/gpu: 1}}]}
"""
    with pytest.raises(ManifestError, match=r"limits\[0\].max.nvidia.com/gpu: Kubernetes has it"):
        load(text, "a.yaml")
    (manifest,) = load(text, "a.yaml", lenient=True).manifests
    assert manifest.source["spec"]["limits"] == [{"type": "Container", "max": {"cpu": 2}}]


@pytest.mark.parametrize(
    "scopes",
    [
        "scopes: [VolumeAttributesClass]",
        "scopeSelector: {matchExpressions: [{scopeName: VolumeAttributesClass, operator: Exists}]}",
    ],
)
def test_a_quota_of_a_scope_that_is_not_known_here_is_left_out_whole(scopes: str) -> None:
    """Without its scope it would count more."""
    text = f"""
apiVersion: v1
kind: ResourceQuota
metadata: {{name: a}}
spec: {{hard: {{pods: 3}}, {scopes}}}
"""
    with pytest.raises(ManifestError, match=r"VolumeAttributesClass: Kubernetes has it.*leaves this object out"):
        load(text, "a.yaml")
    assert load(text, "a.yaml", lenient=True).manifests == ()


_HPA = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: a}
spec:
  maxReplicas: 3
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: a}
  metrics: [METRIC]
"""


@pytest.mark.parametrize(
    "text",
    [
        _HPA.replace("METRIC", "{type: Pods, pods: {metric: {name: m}}}"),
        _HPA.replace("METRIC", "{type: External, external: {metric: {name: m}}}, {type: Object, object: {}}"),
        _HPA.replace("METRIC", "{type: Resource, resource: {name: cpu, target: {type: Value, value: 3}}}"),
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a}\nspec: {accessModes: [ReadWriteOnce], "
        "volumeMode: Block, resources: {requests: {storage: 1Gi}}}\n",
    ],
)
def test_lenient_leaves_out_an_object_that_a_refused_value_ruins(text: str) -> None:
    loaded = load(f"{SMALL}---{text if text.startswith(chr(10)) else chr(10) + text}", "a.yaml", lenient=True)
    assert [manifest.object.kind for manifest in loaded.manifests] == ["ConfigMap"]
    assert all(warning.endswith("; this object is left out") for warning in loaded.warnings)


def test_lenient_never_runs_a_pod_without_its_storage() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  containers: [{name: c, image: "i:1"}]
  volumes: [{name: v, nfs: {server: files, path: /data}}]
"""
    assert load(text, "a.yaml", lenient=True).manifests == ()


def test_lenient_forgives_no_mistake() -> None:
    with pytest.raises(ManifestError, match="did you mean 'data'") as refused:
        load(f"{SMALL}dat: {{}}\n", "a.yaml", lenient=True)
    assert refused.value.hint == ""


def test_lists_of_lists_and_named_lists_are_read() -> None:
    text = json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMapList", "items": [{"kind": "List", "items": [yaml.safe_load(SMALL)]}]}
    )
    assert [manifest.object.metadata.name for manifest in load(text, "a.json").manifests] == ["a"]


# --- read back from the store --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "data"), [("Gone", {}), ("Pod", {}), ("Pod", {"metadata": {"name": "a"}, "spec": 3})])
def test_stored_data_of_another_version_is_told_so(kind: str, data: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match=f"the stored {kind} cannot be read by this version"):
        parse_object(kind, data)


def test_a_stored_template_is_read() -> None:
    (manifest,) = load((ROOT / "playbooks/examples/hello.yaml").read_text(), "hello.yaml").manifests
    assert isinstance(manifest.object, Deployment)
    assert parse_template(manifest.source["spec"]["template"]) == manifest.object.spec.template
    with pytest.raises(ManifestError, match="stored pod template"):
        parse_template({"spec": {}})


# --- hostile input -------------------------------------------------------------------------------------------------


def loads_or_is_refused(text: str) -> None:
    for lenient in (False, True):
        try:
            loaded = load(text, "a.yaml", lenient=lenient)
        except ManifestError as refused:
            assert refused.problems
            assert all(str(problem).startswith("a.yaml") for problem in refused.problems)
            continue
        for manifest in loaded.manifests:
            assert parse_object(manifest.object.kind, manifest.source) == manifest.object
            assert parse_object(manifest.object.kind, manifest.object.dump()) == manifest.object


@given(st.text(max_size=200))
def test_any_text_loads_or_is_refused(text: str) -> None:
    loads_or_is_refused(text)


PIECES = st.sampled_from(
    [
        "apiVersion: v1",
        "kind: Pod",
        "kind: List",
        "items:",
        "- ",
        "metadata:",
        "  name: a",
        "spec:",
        "  containers:",
        "  - name: c",
        "    image: i",
        "&a ",
        "*a",
        "<<: ",
        "{",
        "}",
        "[",
        "]",
        "null",
        "!!str ",
        "---\n",
        "? ",
        ": ",
        "0777",
        "\t",
        "\n",
    ]
)


@given(st.lists(PIECES, max_size=40))
def test_any_pieces_of_yaml_load_or_are_refused(pieces: list[str]) -> None:
    loads_or_is_refused("\n".join(pieces))
    loads_or_is_refused("".join(pieces))


SAMPLES: list[Any] = [*yaml.safe_load_all(EVERYTHING), yaml.safe_load(KUBECTL)]
SAMPLES += yaml.safe_load_all((ROOT / "playbooks/examples/configured.yaml").read_text())
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1.5,
        10**30,
        "",
        "x",
        "-",
        "0",
        "\u202e",
        "a b",
        [],
        {},
        [None],
        {"a": None},
        {"name": 1},
        [[]],
        "None",
    ]
)


@given(st.sampled_from(SAMPLES), st.integers(0, 2**32), st.lists(ODD, min_size=1, max_size=4))
def test_a_good_manifest_with_odd_values_anywhere_loads_or_is_refused(sample: Any, seed: int, odd: list[Any]) -> None:
    thing = json.loads(json.dumps(sample))
    dice = random.Random(seed)
    for value in odd:
        places = list(containers_of(thing))
        container, key = dice.choice(places)
        if dice.random() < 0.2 and isinstance(container, dict):
            container[f"{key}x"] = container.pop(key)
        else:
            container[key] = copy.deepcopy(value)
    loads_or_is_refused(json.dumps(thing))


def containers_of(data: Any) -> Any:
    """Every (container, key) in `data`."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield data, key
        yield from containers_of(value)
