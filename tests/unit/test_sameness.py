"""What is written differently and says the same changes nothing: no refusal, no rollout. As Kubernetes compares, after defaulting."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controller.cli.describe import describe
from controller.cli.objects import to_object
from controller.cli.scene import Scene
from controller.decide import verbs
from controller.model import manifest
from controller.model.cluster import World
from controller.model.errors import ManifestError
from controller.model.plan import changed
from controller.model.workloads import Job
from tests.agents import Agents
from tests.builders import cluster, moment, put, world

NOW = moment(100.0)
HEADS = {
    "Deployment": "apiVersion: apps/v1\nkind: Deployment",
    "ReplicaSet": "apiVersion: apps/v1\nkind: ReplicaSet",
    "DaemonSet": "apiVersion: apps/v1\nkind: DaemonSet",
    "StatefulSet": "apiVersion: apps/v1\nkind: StatefulSet",
    "Job": "apiVersion: batch/v1\nkind: Job",
    "Pod": "apiVersion: v1\nkind: Pod",
    "PersistentVolumeClaim": "apiVersion: v1\nkind: PersistentVolumeClaim",
}
DATA = (
    "{{metadata: {{name: data}}, spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: {}}}}}{}}}{}}}"
)


def workload(kind: str, *, spec: str = "", pod: str = "", container: str = "", selector: str = "") -> str:
    """A manifest; the rest is put in where it belongs, as flow YAML that begins with a comma."""
    chosen = "" if kind == "Job" else f", selector: {{matchLabels: {{app: web}}{selector}}}"
    restart = ", restartPolicy: Never" if kind == "Job" else ""
    pods = f"spec: {{containers: [{{name: main, image: 'web:1'{container}}}]{restart}{pod}}}"
    return f"""\
{HEADS[kind]}
metadata: {{name: web}}
spec: {{template: {{metadata: {{labels: {{app: web}}}}, {pods}}}{chosen}{spec}}}
"""


def lone(pod: str = "", container: str = "") -> str:
    return f"{HEADS['Pod']}\nmetadata: {{name: web}}\nspec: {{containers: [{{name: main, image: 'web:1'{container}}}]{pod}}}\n"


def claim(size: str = "1Gi", more: str = "") -> str:
    spec = f"accessModes: [ReadWriteOnce], resources: {{requests: {{storage: {size}}}}}{more}"
    return f"{HEADS['PersistentVolumeClaim']}\nmetadata: {{name: data}}\nspec: {{{spec}}}\n"


def templates(size: str = "1Gi", more: str = "", head: str = "") -> str:
    return f", volumeClaimTemplates: [{DATA.format(size, more, head)}]"


def apply(before: World, text: str) -> World:
    found = verbs.apply(before, manifest.load(text, "app.yaml").manifests, lambda _: "hash", NOW)
    return changed(before, [one.change for one in found if one.change is not None])


def hashes(state: World) -> set[str]:
    records = (*state.deployments.values(), *state.replica_sets.values(), *state.workloads.values())
    return {str(getattr(record, "template_hash", "")) for record in records}


def specs(state: World) -> list[object]:
    """Of pods, which stay as they were declared first."""
    return [one.source["spec"] for one in state.pods.values() if one.source is not None]


TEMPLATES = [
    ({"pod": ", restartPolicy: Always"}, {}),
    ({"pod": ", terminationGracePeriodSeconds: 30, dnsPolicy: ClusterFirst"}, {}),
    ({"container": ", imagePullPolicy: IfNotPresent, resources: {}"}, {}),
    ({"container": ", resources: {limits: {cpu: 1}}"}, {"container": ", resources: {limits: {cpu: '1'}}"}),
    ({"container": ", resources: {limits: {cpu: 1000m}}"}, {"container": ", resources: {limits: {cpu: 1}}"}),
    (
        {"container": ", resources: {requests: {memory: 1Gi}}"},
        {"container": ", resources: {requests: {memory: 1024Mi}}"},
    ),
    (
        {"pod": ", volumes: [{name: v, emptyDir: {sizeLimit: 1Gi}}]"},
        {"pod": ", volumes: [{name: v, emptyDir: {sizeLimit: 1024Mi}}]"},
    ),
    ({"pod": ", volumes: [{name: v}]"}, {"pod": ", volumes: [{name: v, emptyDir: {}}]"}),
    (
        {"pod": ", hostNetwork: true", "container": ", ports: [{containerPort: 80}]"},
        {"pod": ", hostNetwork: true", "container": ", ports: [{containerPort: 80, hostPort: 80}]"},
    ),
    (
        {"container": ", env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]"},
        {"container": ", env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: '0'}}}]"},
    ),
    ({"container": ", ports: [{containerPort: 80, protocol: TCP}]"}, {"container": ", ports: [{containerPort: 80}]"}),
]


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet"])
@pytest.mark.parametrize(("one", "other"), TEMPLATES)
def test_a_template_that_says_the_same_is_no_new_revision(
    kind: str, one: dict[str, str], other: dict[str, str]
) -> None:
    for first, second in ((one, other), (other, one)):
        before = apply(world(), workload(kind, **first))
        assert hashes(apply(before, workload(kind, **second))) == hashes(before)


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet"])
@pytest.mark.parametrize(
    "other", [{"container": ", resources: {limits: {cpu: 1001m}}"}, {"pod": ", terminationGracePeriodSeconds: 31"}]
)
def test_a_template_that_says_something_else_is_one(kind: str, other: dict[str, str]) -> None:
    before = apply(world(), workload(kind, container=", resources: {limits: {cpu: 1}}"))
    assert hashes(apply(before, workload(kind, **other))) != hashes(before)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (workload("StatefulSet"), workload("StatefulSet", spec=", podManagementPolicy: OrderedReady")),
        (workload("StatefulSet", spec=templates()), workload("StatefulSet", spec=templates("1024Mi"))),
        (
            workload("StatefulSet", spec=templates()),
            workload("StatefulSet", spec=templates(more=", volumeMode: Filesystem")),
        ),
        (
            workload("StatefulSet", spec=templates()),
            workload("StatefulSet", spec=templates(head=", apiVersion: v1, kind: PersistentVolumeClaim")),
        ),
        (claim(), claim("1024Mi")),
        (claim(), claim(more=", volumeMode: Filesystem")),
        (claim(), claim(more=", storageClassName: podman")),
        (claim(more=", storageClassName: podman"), claim()),
        (workload("Job"), workload("Job", spec=", completions: 1, completionMode: NonIndexed")),
        (workload("Job"), workload("Job", spec=", podReplacementPolicy: TerminatingOrFailed")),
        (workload("Job"), workload("Job", pod=", terminationGracePeriodSeconds: 30")),
        (workload("Deployment"), workload("Deployment", selector=", matchExpressions: []")),
        (workload("ReplicaSet"), workload("ReplicaSet", selector=", matchExpressions: []")),
        (lone(), lone(", restartPolicy: Always")),
        (
            lone(container=", resources: {limits: {cpu: 1}}"),
            lone(container=", resources: {limits: {cpu: 1}, requests: {cpu: 1}}"),
        ),
        (lone(container=", resources: {limits: {cpu: 1}}"), lone(container=", resources: {limits: {cpu: 1000m}}")),
    ],
)
def test_what_may_not_change_may_be_written_differently(first: str, second: str) -> None:
    for one, other in ((first, second), (second, first)):
        before = apply(world(), one)
        after = apply(before, other)
        assert hashes(after) == hashes(before)
        assert specs(after) == specs(before)
        assert apply(after, other) == after


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        (
            workload("StatefulSet"),
            workload("StatefulSet", spec=", podManagementPolicy: Parallel"),
            "podManagementPolicy",
        ),
        (
            workload("StatefulSet", spec=templates()),
            workload("StatefulSet", spec=templates("2Gi")),
            "volumeClaimTemplates",
        ),
        (claim(), claim(more=", storageClassName: fast"), "storageClassName"),
        (claim(more=", storageClassName: fast"), claim(), "storageClassName"),
        (workload("Job"), workload("Job", spec=", completions: 2"), "completions"),
        (workload("Job"), workload("Job", pod=", terminationGracePeriodSeconds: 31"), "template"),
    ],
)
def test_what_may_not_change_is_refused_by_its_field(first: str, second: str, field: str) -> None:
    with pytest.raises(ManifestError, match="cannot be changed once the") as caught:
        apply(apply(world(), first), second)
    assert caught.value.field == f"spec.{field}"


@pytest.mark.parametrize(
    "text", [*map(workload, list(HEADS)[:5]), lone(), claim(), workload("StatefulSet", spec=templates())]
)
def test_the_same_text_changes_nothing(text: str) -> None:
    (again,) = verbs.apply(apply(world(), text), manifest.load(text, "app.yaml").manifests, lambda _: "hash", NOW)
    assert again.outcome == "unchanged"


def test_what_a_newer_version_stored_can_be_declared_anew() -> None:
    before = apply(world(), workload("Deployment"))
    (stored,) = before.deployments.values()
    template = stored.source["spec"]["template"]
    newer = {**template, "spec": {**template["spec"], "inventedLater": True}}
    before = put(
        before, replace(stored, source={**stored.source, "spec": {**stored.source["spec"], "template": newer}})
    )
    (after,) = apply(before, workload("Deployment")).deployments.values()
    assert after.source["spec"]["template"] == template
    with pytest.raises(ManifestError, match="cannot be changed once the deployment is there"):
        apply(before, workload("Deployment", selector=", matchExpressions: [{key: app, operator: Exists}]"))


def test_a_job_of_one_stays_so_when_more_pods_at_a_time_are_allowed() -> None:
    more = workload("Job", spec=", parallelism: 2")
    after = apply(apply(world(), workload("Job")), more)
    assert apply(after, more) == after
    (job,) = after.workloads.values()
    assert isinstance(job, Job)
    assert job.source["spec"]["completions"] == 1


LIMITS = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: each}\nspec: {limits: [{type: Container, default: {cpu: 500m}}]}\n"
CLASS = "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: shop}\nvalue: 5\n"


@pytest.mark.parametrize(
    "text",
    [
        *map(workload, list(HEADS)[:5]),
        workload("StatefulSet", spec=templates()),
        lone(),
        lone(pod=", nodeName: n1"),
        f"{LIMITS}---\n{lone()}",
        f"{claim()}---\n{lone(pod=', volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]')}",
        CLASS,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
    ],
)
def test_what_get_shows_can_be_applied_again(text: str) -> None:
    agents = Agents(apply(cluster(1), text))
    agents.settle(30)
    declared = [(one.kind, one.name) for one in verbs.apply(cluster(1), _load(text), lambda _: "hash", NOW)]
    scene = Scene(agents.observed(), agents.step().nodes, moment(agents.seconds))
    for kind, name in declared:
        (record,) = (one for one in scene.records(kind) if one.meta.name == name)
        (again,) = verbs.apply(scene.world, _load(json.dumps(to_object(scene, record))), lambda _: "hash", NOW)
        assert again.outcome in ("unchanged", "configured")
        assert hashes(changed(scene.world, [again.change] if again.change else [])) == hashes(scene.world)


def test_a_pod_of_a_stateful_set_shows_its_own_claim_and_name() -> None:
    agents = Agents(apply(cluster(1), workload("StatefulSet", spec=templates())))
    agents.settle(30)
    scene = Scene(agents.observed(), agents.step().nodes, moment(agents.seconds))
    (pod,) = scene.records("Pod")
    spec = to_object(scene, pod)["spec"]
    assert spec["hostname"] == "web-0"
    assert [volume["persistentVolumeClaim"]["claimName"] for volume in spec["volumes"]] == ["data-web-0"]
    assert "persistentVolumeClaim data-web-0" in describe(scene, pod, [])


def _load(text: str) -> tuple[manifest.Manifest, ...]:
    return manifest.load(text, "app.yaml").manifests


def test_nobody_is_told_to_delete_a_claim() -> None:
    with pytest.raises(ManifestError) as caught:
        apply(apply(world(), claim()), claim(more=", storageClassName: fast"))
    assert caught.value.hint == "make another claim"
