"""What namespaces allow: LimitRange, ResourceQuota and Pod Security, in tables and at work in passes and in `apply`."""

# ruff: noqa: E501  (tables)
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.cli.describe import describe
from controller.cli.objects import to_object
from controller.cli.scene import Scene
from controller.cli.tables import rows_of
from controller.decide import verbs
from controller.decide.admission.limits import defaults_of, objections
from controller.decide.admission.quota import matches, used_of
from controller.decide.admission.rules import Rules
from controller.decide.phases import is_finished
from controller.decide.shapes import Shapes
from controller.decide.standing import progress_of
from controller.model import manifest
from controller.model.cluster import Declared, World
from controller.model.errors import Forbidden, ManifestError
from controller.model.kinds import KINDS
from controller.model.kinds.pod import PodSpec
from controller.model.kinds.policy import COUNTED, LimitRange, ResourceQuota, ScopeRequirement
from controller.model.plan import changed
from controller.model.workloads import DaemonSet, Job, StatefulSet
from tests import builders
from tests.agents import Agents

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def declared(kind: str, name: str, spec: Mapping[str, Any], space: str = "default") -> Declared:
    source = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": space}, "spec": dict(spec)}
    return Declared(builders.meta(kind, name, space), source)


def quota(hard: Mapping[str, str], name: str = "most", **spec: Any) -> Declared:
    return declared("ResourceQuota", name, {"hard": dict(hard), **spec})


def limit_range(*limits: Mapping[str, Any], name: str = "each") -> Declared:
    return declared("LimitRange", name, {"limits": [dict(item) for item in limits]})


def space(labels: Mapping[str, str], name: str = "default") -> Declared:
    return Declared(builders.meta("Namespace", name, "", labels=dict(labels)), {"metadata": {"name": name}})


def spec_of(*resources: Mapping[str, Any], **fields: Any) -> PodSpec:
    containers = [{"name": f"c{number}", "image": "i:1", "resources": item} for number, item in enumerate(resources)]
    return PodSpec.model_validate({"containers": containers, **fields})


def ranges(*limits: Mapping[str, Any]) -> list[LimitRange]:
    return [LimitRange.model_validate({"metadata": {"name": "r"}, "spec": {"limits": [dict(item) for item in limits]}})]


# ---- LimitRange -------------------------------------------------------------------------------------------------------

CPU = {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "200m"}}


@pytest.mark.parametrize(
    ("limits", "resources", "given"),
    [
        (CPU, {}, {"limits": {"cpu": "500m"}, "requests": {"cpu": "200m"}}),
        (CPU, {"limits": {"cpu": "300m"}}, None),  # a limit alone is a request too
        (CPU, {"requests": {"cpu": "100m"}}, {"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}),
        (CPU, {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}, None),
        (CPU, {"limits": {"memory": "1Gi"}}, {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "200m", "memory": "1Gi"}}),
        ({"type": "Container", "default": {"cpu": "1"}}, {}, {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}),
        ({"type": "Container", "max": {"cpu": "2"}}, {}, {"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}),
        ({"type": "Container", "min": {"cpu": "50m"}}, {}, {"limits": {}, "requests": {"cpu": "50m"}}),
        ({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}, "default": {"cpu": "2"}, "defaultRequest": {"cpu": "1"}}, {}, {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}),
        ({"type": "Pod", "max": {"cpu": "2"}}, {}, None),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}, {}, None),
    ],
)  # fmt: skip
def test_a_container_that_says_nothing_gets_what_the_namespace_says(
    limits: Mapping[str, Any], resources: Mapping[str, Any], given: Mapping[str, Any] | None
) -> None:
    assert defaults_of(ranges(limits), spec_of(resources)) == ({"c0": given} if given else {})


def test_init_containers_get_defaults_too() -> None:
    spec = spec_of({"limits": {"cpu": "1"}}, initContainers=[{"name": "first", "image": "i:1"}])
    assert defaults_of(ranges(CPU), spec) == {"first": {"limits": {"cpu": "500m"}, "requests": {"cpu": "200m"}}}


BOUNDS = {"type": "Container", "min": {"memory": "10Mi"}, "max": {"memory": "1Gi"}}
RATIO = {"type": "Container", "maxLimitRequestRatio": {"memory": "2"}}
WHOLE = {"type": "Pod", "max": {"cpu": "1"}}


@pytest.mark.parametrize(
    ("limits", "spec", "said"),
    [
        (BOUNDS, spec_of({"requests": {"memory": "10Mi"}, "limits": {"memory": "1Gi"}}), []),
        (BOUNDS, spec_of({"limits": {"memory": "9Mi"}}), ["container c0 has requests.memory 9Mi, at least 10Mi per Container is wanted", "container c0 has limits.memory 9Mi, at least 10Mi per Container is wanted"]),
        (BOUNDS, spec_of({"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}), ["container c0 has limits.memory 2Gi, at most 1Gi per Container is allowed"]),
        (BOUNDS, spec_of({}), ["container c0 asks for no memory, at least 10Mi per Container is wanted", "container c0 has no limit of memory, at most 1Gi per Container is allowed"]),
        (RATIO, spec_of({"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}), []),
        (RATIO, spec_of({"requests": {"memory": "1Gi"}, "limits": {"memory": "3Gi"}}), ["container c0 has a limit of memory 3 times its request, 2 times at most is allowed"]),
        (RATIO, spec_of({"requests": {"memory": "1Gi"}}), ["container c0 needs a request and a limit of memory, whose ratio may be 2 at most"]),
        (WHOLE, spec_of({"limits": {"cpu": "500m"}}, {"limits": {"cpu": "500m"}}), []),
        (WHOLE, spec_of({"limits": {"cpu": "500m"}}, {"limits": {"cpu": "501m"}}), ["the pod has requests.cpu 1001m, at most 1 per Pod is allowed", "the pod has limits.cpu 1001m, at most 1 per Pod is allowed"]),
        (WHOLE, spec_of({"limits": {"cpu": "1"}}, initContainers=[{"name": "i", "image": "i:1", "resources": {"limits": {"cpu": "1"}}}]), []),
        (WHOLE, spec_of({"limits": {"cpu": "1"}}, initContainers=[{"name": "i", "image": "i:1", "restartPolicy": "Always", "resources": {"limits": {"cpu": "1m"}}}]), ["the pod has requests.cpu 1001m, at most 1 per Pod is allowed", "the pod has limits.cpu 1001m, at most 1 per Pod is allowed"]),
    ],
)  # fmt: skip
def test_what_is_too_little_or_too_much_is_said(limits: Mapping[str, Any], spec: PodSpec, said: list[str]) -> None:
    assert list(objections(ranges(limits), spec)) == said


def test_a_default_limit_below_the_request_makes_no_valid_pod() -> None:
    world = builders.world(limit_range(CPU))
    why = Rules(world).admit(builders.template(requests={"cpu": "600m"}), "default").why
    assert why == "container main asks for 600m of cpu, more than its limit, 500m"


def test_pods_get_the_defaults_of_the_day_they_were_made_and_their_hash_knows_nothing_of_it() -> None:
    agents = Agents(builders.cluster(2, builders.deployment(replicas=2), limit_range(CPU)))
    agents.settle(30)
    pods = list(agents.world.pods.values())
    assert {pod.template_hash for pod in pods} == {next(iter(agents.world.deployments.values())).template_hash}
    wired = [pod for item in agents.wanted.values() for pod in item.pods]
    assert {(pod.containers[0].cpu_request_m, pod.containers[0].cpu_limit_m) for pod in wired} == {(200, 500)}
    started = len(agents.started)
    tighter = limit_range({"type": "Container", "default": {"cpu": "1"}})
    agents.world = builders.put(agents.world, tighter)
    agents.settle(30)
    assert len(agents.started) == started, "pods that are there stay as they are"


# ---- ResourceQuota ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "fields", "counts"),
    [
        (("BestEffort", "Exists"), {}, True),
        (("NotBestEffort", "Exists"), {}, False),
        (("BestEffort", "Exists"), {"requests": {"cpu": "1m"}}, False),
        (("BestEffort", "Exists"), {"requests": {"cpu": "0"}}, True),
        (("Terminating", "Exists"), {"activeDeadlineSeconds": 5}, True),
        (("NotTerminating", "Exists"), {"activeDeadlineSeconds": 5}, False),
        (("PriorityClass", "In", "high"), {"priorityClassName": "high"}, True),
        (("PriorityClass", "NotIn", "high"), {"priorityClassName": "high"}, False),
        (("PriorityClass", "Exists"), {}, False),
        (("PriorityClass", "DoesNotExist"), {}, True),
        (("CrossNamespacePodAffinity", "Exists"), {}, False),
    ],
)
def test_a_scope_says_which_pods_count(scope: tuple[str, ...], fields: dict[str, Any], counts: bool) -> None:
    name, operator, *values = scope
    requirement = ScopeRequirement.model_validate({"scopeName": name, "operator": operator, "values": values})
    resources = {"requests": fields.pop("requests")} if "requests" in fields else {}
    assert matches([requirement], spec_of(resources, **fields)) is counts


def test_a_pod_without_a_priority_class_counts_as_one_of_the_default_class() -> None:
    """Kubernetes writes the class into the pod before quotas are asked."""
    standard = Declared(
        builders.meta("PriorityClass", "standard", ""),
        {"metadata": {"name": "standard"}, "value": 5, "globalDefault": True},
    )
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": ["standard"]}
    mine = quota({"pods": "2"}, scopeSelector={"matchExpressions": [scope]})
    rules = Rules(builders.world(standard, mine, replace(builders.bare_pod(), node="n1")))
    whys = [rules.admit(builders.template(), "default").why for _ in range(2)]
    assert whys == ["", "exceeded quota: most, requested: pods=1, used: pods=2, limited: pods=2"]
    assert rules.admit(builders.template(priorityClassName="other"), "default").why == ""


def used(world: World) -> dict[str, str]:
    quotas = [
        ResourceQuota.model_validate(item.source)
        for item in world.declared.values()
        if item.meta.kind == "ResourceQuota"
    ]
    shapes = Shapes(world)
    return used_of(world, quotas, lambda pod: shape.spec if (shape := shapes.of(pod)) else None)[0].texts()


ALL = {"pods": "9", "cpu": "9", "requests.memory": "9Gi", "limits.cpu": "9", "count/pods": "9", "count/deployments.apps": "9", "configmaps": "9", "services": "9"}  # fmt: skip


def test_used_is_what_pods_ask_for_that_have_not_ended() -> None:
    pods = builders.template(requests={"cpu": "250m", "memory": "1Gi"})
    agents = Agents(builders.cluster(2, builders.deployment(replicas=2, pods=pods), builders.config_map("a", {})))
    agents.settle(30)
    ended, running = agents.world.pods.values()
    world = builders.put(agents.world, replace(ended, report=builders.report(ended, "Failed")), quota(ALL))
    assert used(world) == {
        "pods": "1",
        "cpu": "250m",
        "requests.memory": "1Gi",
        "limits.cpu": "0",
        "count/pods": "2",
        "count/deployments.apps": "1",
        "configmaps": "1",
        "services": "0",
    }
    lost = replace(running, lost=builders.moment())
    assert used(builders.put(world, lost))["pods"] == "0", "a pod that was given up is not counted"


def test_every_kind_of_a_namespace_can_be_counted() -> None:
    assert {kind for kind in KINDS if KINDS[kind].namespaced} == {*COUNTED.values(), "PersistentVolumeClaim"}


ASKING = builders.template(requests={"cpu": "100m"})


def test_a_deployment_gets_as_many_pods_as_its_namespace_may_have_and_says_why_no_more() -> None:
    agents = Agents(builders.cluster(2, builders.deployment(replicas=3, pods=ASKING), quota({"pods": "2"})))
    plan = [agents.step() for _ in range(6)][-1]
    assert len(agents.world.pods) == 2
    (deployment,) = agents.world.deployments.values()
    (failed,) = [item for item in deployment.status.conditions if item.kind == "ReplicaFailure"]
    assert failed.message == "exceeded quota: most, requested: pods=1, used: pods=2, limited: pods=2"
    assert plan.waiting == ("deployment default/web: 2 of 3 updated, 2 available, 2 in all; " + failed.message,)
    assert plan.is_empty, "what is refused is not tried into the store again and again"
    agents.world = builders.put(agents.world, quota({"pods": "3"}))
    agents.settle(30)
    assert len(agents.world.pods) == 3


def test_a_pod_that_is_to_stop_on_a_silent_host_takes_no_part_of_a_quota() -> None:
    """Else a full namespace could not be rolled while a host is off."""
    in_place = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    record = builders.deployment(replicas=3, pods=ASKING, strategy=in_place)
    agents = Agents(builders.cluster(3, record, quota({"pods": "3"})), step_s=20.0)
    agents.settle(30)
    agents.down = {"n3"}
    agents.step()
    (before,) = agents.world.deployments.values()
    fresh = builders.edited(before, builders.template("web:2", requests={"cpu": "100m"}))
    agents.world = builders.put(agents.world, fresh)
    for _ in range(20):
        agents.step()
        assert len([pod for pod in agents.world.pods.values() if pod.stop is None]) <= 3
    (after,) = agents.world.deployments.values()
    assert progress_of(agents.world, after).done
    agents.down = set()
    agents.settle(30)
    assert used(agents.world)["pods"] == "3"


@pytest.mark.parametrize("name", ["ephemeral-storage", "requests.ephemeral-storage", "limits.ephemeral-storage"])
def test_a_quota_of_ephemeral_storage_asks_no_container_to_name_it(name: str) -> None:
    agents = Agents(builders.cluster(2, builders.deployment(replicas=3), quota({name: "1Gi"})))
    agents.settle(30)
    assert len(agents.world.pods) == 3


def test_pods_of_one_pass_count_together_whatever_makes_them() -> None:
    sets = (builders.stateful_set("db", 2, ASKING, podManagementPolicy="Parallel"), builders.daemon_set("each", ASKING))
    things = (builders.deployment(replicas=2, pods=ASKING), builders.job(pods=builders.template("sum:1", restartPolicy="Never", requests={"cpu": "100m"})), *sets)  # fmt: skip
    agents = Agents(builders.cluster(2, *things, quota({"requests.cpu": "500m"})))
    for _ in range(6):
        agents.step()
        assert len([pod for pod in agents.world.pods.values() if pod.stop is None]) <= 5
    refused = {
        item.meta.kind: item.status.refused if isinstance(item, Job) else item.status.trouble
        for item in agents.world.workloads.values()
        if isinstance(item, Job | DaemonSet | StatefulSet)
    }
    assert "exceeded quota: most" in str(refused["StatefulSet"])


@pytest.mark.parametrize(
    ("thing", "word"),
    [
        (builders.job(), "sum"),
        (builders.daemon_set("each"), "each"),
        (builders.stateful_set("db", 1), "db"),
        (builders.deployment(), "web"),
        (builders.replica_set(), "bare"),
    ],
    ids=lambda item: getattr(item, "meta", None) and item.meta.kind,
)
def test_whoever_is_refused_pods_is_told_of_once(thing: Any, word: str) -> None:
    agents = Agents(builders.cluster(1, thing, quota({"limits.memory": "1Gi"})))
    told = [change for _ in range(4) for change in agents.step().changes if change.reason == "FailedCreate"]
    assert [change.because for change in told] == [f"{word}: failed quota: most: each container must say limits.memory"]
    assert told[0].warning
    assert not agents.world.pods


def test_a_replica_set_of_its_own_says_why_it_gets_no_more_pods_until_it_gets_them() -> None:
    agents = Agents(builders.cluster(1, builders.replica_set(replicas=2, pods=ASKING), quota({"pods": "1"})))
    for _ in range(5):
        agents.step()
    (record,) = agents.world.replica_sets.values()
    progress = progress_of(agents.world, record)
    assert progress.trouble == ("FailedCreate: exceeded quota: most, requested: pods=1, used: pods=1, limited: pods=1",)
    agents.world = builders.put(agents.world, quota({"pods": "2"}))
    agents.settle(30)
    (record,) = agents.world.replica_sets.values()
    assert (len(agents.world.pods), record.refused) == (2, "")


@given(
    hard=st.integers(0, 6),
    sizes=st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)),
    ends=st.lists(st.sampled_from([0, 1]), max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_no_pass_gives_a_namespace_more_than_its_quota(hard: int, sizes: tuple[int, int, int], ends: list[int]) -> None:
    work = builders.template("sum:1", restartPolicy="Never", requests={"cpu": "100m"})
    things = (
        builders.deployment(replicas=sizes[0], pods=ASKING),
        builders.stateful_set("db", sizes[1], ASKING),
        builders.job(pods=work, completions=sizes[2], parallelism=2),
    )
    agents = Agents(
        builders.cluster(2, *things, quota({"pods": str(hard), "requests.cpu": f"{hard * 100}m"})), ends={"sum:1": ends}
    )
    for _ in range(15):
        agents.step()
        living = [pod for pod in agents.world.pods.values() if not is_finished(pod)]
        assert len(living) <= hard


# ---- Pod Security -----------------------------------------------------------------------------------------------------


def test_a_level_keeps_new_pods_out_and_leaves_those_that_are_there() -> None:
    agents = Agents(builders.cluster(2, builders.deployment(replicas=2)))
    agents.settle(30)
    agents.world = builders.put(agents.world, space(RESTRICTED))
    assert agents.settle(10).settled
    (deployment,) = agents.world.deployments.values()
    agents.world = builders.put(agents.world, builders.edited(deployment, replicas=3))
    for _ in range(4):
        agents.step()
    assert len(agents.world.pods) == 2
    (deployment,) = agents.world.deployments.values()
    (failed,) = [item for item in deployment.status.conditions if item.kind == "ReplicaFailure"]
    assert failed.message.startswith(
        'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container main'
    )


# ---- apply ------------------------------------------------------------------------------------------------------------

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: one}\nspec: {containers: [{name: c, image: 'i:1'}]}\n"
WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: "i:1"}]}}
"""
CLAIM = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: fast, resources: {requests: {storage: 3Gi}}}
"""
BUDGET = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: b}\nspec: {minAvailable: 1, selector: {matchLabels: {app: web}}}\n"
MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n"


def apply(world: World, text: str) -> tuple[verbs.Applied, ...]:
    return verbs.apply(world, manifest.load(text, "app.yaml").manifests, lambda values: "", builders.moment(5))


@pytest.mark.parametrize(
    ("rule", "text", "said"),
    [
        (space(RESTRICTED), POD, 'app.yaml:1: pod default/one is forbidden: violates PodSecurity "restricted:latest": '),
        (quota({"count/configmaps": "0"}), MAP, "app.yaml:1: configmap default/m is forbidden: exceeded quota: most, requested: count/configmaps=1, used: count/configmaps=0, limited: count/configmaps=0"),
        (quota({"count/deployments.apps": "0"}), WEB, "app.yaml:1: deployment default/web is forbidden: exceeded quota: most"),
        (quota({"count/poddisruptionbudgets.policy": "0"}), BUDGET, "app.yaml:1: poddisruptionbudget default/b is forbidden: exceeded quota: most"),
        (quota({"pods": "0"}), POD, "app.yaml:1: pod default/one is forbidden: exceeded quota: most"),
        (quota({"limits.cpu": "1"}), POD, "failed quota: most: each container must say limits.cpu"),
        (quota({"persistentvolumeclaims": "0"}), CLAIM, "app.yaml:1: persistentvolumeclaim default/data is forbidden: exceeded quota: most, requested: persistentvolumeclaims=1"),
        (quota({"requests.storage": "2Gi"}), CLAIM, "requested: requests.storage=3Gi, used: requests.storage=0, limited: requests.storage=2Gi"),
        (quota({"fast.storageclass.storage.k8s.io/requests.storage": "2Gi"}), CLAIM, "exceeded quota: most"),
        (limit_range({"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}), CLAIM, "it asks for 3Gi of storage, at most 2Gi per PersistentVolumeClaim is allowed"),
        (limit_range({"type": "PersistentVolumeClaim", "min": {"storage": "5Gi"}}), CLAIM, "it asks for 3Gi of storage, at least 5Gi per PersistentVolumeClaim is wanted"),
        (limit_range({"type": "Pod", "min": {"cpu": "1"}}), POD, "the pod asks for no cpu, at least 1 per Pod is wanted"),
    ],
)  # fmt: skip
def test_what_a_namespace_forbids_is_refused_at_once(rule: Declared, text: str, said: str) -> None:
    with pytest.raises(Forbidden) as refused:
        apply(builders.world(rule), text)
    assert said in str(refused.value)
    assert refused.value.exit_code == 1


def test_a_stateful_set_gets_no_more_claims_than_its_namespace_may_have() -> None:
    templates = [{"metadata": {"name": "data"}, "spec": builders.claim(size="2Gi").source["spec"]}]
    rule = quota({"requests.storage": "3Gi", "slow.storageclass.storage.k8s.io/persistentvolumeclaims": "0"})
    agents = Agents(builders.cluster(1, builders.stateful_set(replicas=2, volumeClaimTemplates=templates), rule))
    for _ in range(12):
        agents.step()
    assert [item.meta.name for item in agents.world.claims.values()] == ["data-web-0"]
    [record] = [item for item in agents.world.workloads.values() if isinstance(item, StatefulSet)]
    assert "web-1 is not made: volume claim data-web-1: exceeded quota: most, requested: requests.storage=2Gi" in str(
        record.status.trouble
    )


def test_a_pod_that_is_not_made_for_want_of_its_claim_takes_none_of_the_quota() -> None:
    templates = [{"metadata": {"name": "data"}, "spec": builders.claim(size="2Gi").source["spec"]}]
    first = builders.stateful_set("first", replicas=1, volumeClaimTemplates=templates)
    rule = quota({"requests.storage": "1Gi", "pods": "1"})
    agents = Agents(builders.cluster(1, first, builders.stateful_set("second", replicas=1), rule))
    agents.step()
    assert [item.meta.name for item in agents.world.pods.values()] == ["second-0"]


def test_the_claims_of_a_pod_that_is_refused_are_made_and_count() -> None:
    """As in Kubernetes; next time they are there, and nothing counts twice."""
    templates = [{"metadata": {"name": "data"}, "spec": builders.claim(size="2Gi").source["spec"]}]
    agents = Agents(builders.cluster(1, builders.stateful_set(replicas=1, volumeClaimTemplates=templates)))
    agents.world = builders.put(agents.world, quota({"requests.storage": "2Gi", "pods": "0"}))
    agents.settle(10)
    assert ([item.meta.name for item in agents.world.claims.values()], agents.world.pods) == (["data-web-0"], {})
    agents.world = builders.put(agents.world, quota({"requests.storage": "2Gi", "pods": "1"}))
    agents.settle(30)
    assert [item.node for item in agents.world.pods.values()] == ["n1"]


def test_rules_of_the_same_file_count_and_every_refusal_is_told() -> None:
    rules = """\
apiVersion: v1
kind: ResourceQuota
metadata: {name: most}
spec: {hard: {count/configmaps: 1}}
---
"""
    with pytest.raises(Forbidden) as refused:
        apply(builders.world(builders.config_map("there", {})), f"{rules}{MAP}---\n{MAP.replace('name: m', 'name: n')}")
    assert [line.partition(": ")[0] for line in str(refused.value).splitlines()] == ["app.yaml:6", "app.yaml:10"]


def test_what_is_there_already_may_be_changed_whatever_the_quota() -> None:
    world = builders.world(builders.config_map("m", {"a": "b"}), quota({"configmaps": "0"}))
    assert [one.outcome for one in apply(world, MAP)] == ["configured"]


def test_a_pod_of_its_own_gets_the_defaults_when_it_is_declared() -> None:
    (one,) = apply(builders.world(limit_range(CPU)), POD)
    assert one.change is not None
    world = changed(builders.world(limit_range(CPU)), [one.change])
    (pod,) = world.pods.values()
    assert pod.defaults == {"c": {"limits": {"cpu": "500m"}, "requests": {"cpu": "200m"}}}
    assert [again.outcome for again in apply(world, POD)] == ["unchanged"]
    shape = Shapes(world).of(pod)
    assert shape is not None and shape.cpu_m == 200


@pytest.mark.parametrize(
    ("labels", "warned", "audited"),
    [
        ({}, False, False),
        ({"enforce": "restricted"}, True, False),
        ({"enforce": "restricted", "warn": "privileged"}, False, False),
        ({"warn": "restricted"}, True, False),
        ({"audit": "restricted"}, False, True),
        ({"warn": "baseline", "audit": "baseline"}, False, False),
    ],
)
def test_who_applies_a_workload_is_warned_of_what_its_pods_will_meet(
    labels: Mapping[str, str], warned: bool, audited: bool
) -> None:
    world = builders.world(space({f"pod-security.kubernetes.io/{key}": value for key, value in labels.items()}))
    (one,) = apply(world, WEB)
    assert bool(one.warnings) is warned
    assert all(
        text.startswith('deployment default/web would violate PodSecurity "restricted:latest": ')
        for text in one.warnings
    )
    assert (one.audit is not None and one.audit.reason == "PodSecurityAudit") is audited


def test_a_new_level_names_the_pods_that_would_not_be_made_again() -> None:
    pods = [replace(builders.bare_pod(f"p{number}"), report=None) for number in range(7)]
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {pod-security.kubernetes.io/enforce: restricted}}\n"
    (one,) = apply(builders.world(*pods), text)
    assert one.warnings == (
        'pods of namespace default violate the new level "restricted:latest" and stay: p0, p1, p2, p3, p4 and 2 more',
    )


def test_a_namespace_with_a_level_that_does_not_exist_is_refused() -> None:
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {pod-security.kubernetes.io/enforce: tight}}\n"
    with pytest.raises(ManifestError, match="must be privileged, baseline or restricted, not 'tight'"):
        manifest.load(text, "a.yaml")


@pytest.mark.parametrize("kind", ["Container", "Pod"])
@pytest.mark.parametrize("field", ["max", "min", "maxLimitRequestRatio"])
def test_a_limit_range_gives_containers_no_storage(kind: str, field: str) -> None:
    """It would become their default, and no pod has such a resource."""
    limits = f"[{{type: {kind}, {field}: {{storage: 1Gi}}}}]"
    text = f"apiVersion: v1\nkind: LimitRange\nmetadata: {{name: a}}\nspec: {{limits: {limits}}}\n"
    with pytest.raises(ManifestError, match=f"{field}.storage: is of volume claims, not of type {kind}"):
        manifest.load(text, "a.yaml")


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ("{type: PersistentVolumeClaim, default: {storage: 1Gi}}", "limits.0.: needs min or max of storage"),
        (
            "{type: Container, max: {cpu: 2}, min: {cpu: 1}, maxLimitRequestRatio: {cpu: 3}}",
            "cpu: is more than max / min, 2",
        ),
    ],
)
def test_a_limit_range_that_cannot_be_kept_is_refused(limits: str, problem: str) -> None:
    text = f"apiVersion: v1\nkind: LimitRange\nmetadata: {{name: a}}\nspec: {{limits: [{limits}]}}\n"
    with pytest.raises(ManifestError, match=problem):
        manifest.load(text, "a.yaml")


def test_the_scopes_of_a_quota_stay() -> None:
    text = (
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: a}\nspec: {hard: {pods: 1}, scopes: [NotTerminating]}\n"
    )
    before = changed(builders.world(), [one.change for one in apply(builders.world(), text) if one.change])
    apply(before, text.replace("pods: 1", "pods: 2"))
    with pytest.raises(ManifestError, match="the scopes of a quota cannot be changed"):
        apply(before, text.replace("NotTerminating", "Terminating"))


# ---- priority classes -------------------------------------------------------------------------------------------------

CLASS = "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: NAME}\nvalue: 5\n"


def with_class(world: World, name: str, more: str = "") -> World:
    applied = apply(world, CLASS.replace("NAME", name) + more)
    return changed(world, [one.change for one in applied if one.change])


def test_one_priority_class_only_is_the_default() -> None:
    world = with_class(builders.world(), "first", "globalDefault: true\n")
    assert with_class(world, "first", "globalDefault: true\ndescription: same\n") != world
    with pytest.raises(Forbidden, match="first has globalDefault already"):
        with_class(world, "second", "globalDefault: true\n")
    with_class(world, "second")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("preemptionPolicy: Never\n", "the preemptionPolicy of a priority class cannot be changed"),
        ("preemptionPolicy: PreemptLowerPriority\n", ""),
        ("description: other\n", ""),
    ],
)
def test_what_a_priority_class_means_cannot_be_changed(more: str, problem: str) -> None:
    world = with_class(builders.world(), "shop")
    if not problem:
        with_class(world, "shop", more)
        return
    with pytest.raises(ManifestError, match=problem):
        with_class(world, "shop", more)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("system-node-critical", 2_000_001_000, ""),
        ("system-node-critical", 5, "must be 2000001000: system-node-critical is built in"),
        ("system-mine", 5, "may not begin with 'system-'"),
    ],
)
def test_system_classes_are_built_in(name: str, value: int, problem: str) -> None:
    text = CLASS.replace("NAME", name).replace("value: 5", f"value: {value}")
    if not problem:
        assert manifest.load(text, "a.yaml").manifests
        return
    with pytest.raises(ManifestError, match=problem):
        manifest.load(text, "a.yaml")


# ---- what is shown ----------------------------------------------------------------------------------------------------


def scene_of(*things: Any) -> Scene:
    agents = Agents(builders.cluster(1, builders.deployment(replicas=1, pods=ASKING), *things))
    agents.settle(30)
    return Scene(agents.world, {}, builders.moment(60))


def test_a_quota_shows_what_is_used_of_it() -> None:
    most = quota({"requests.cpu": "1", "pods": "4"}, scopes=["NotTerminating"])
    scene = scene_of(most)
    assert to_object(scene, most)["status"] == {
        "hard": {"requests.cpu": "1", "pods": "4"},
        "used": {"requests.cpu": "100m", "pods": "1"},
    }
    _, ((*row,),) = rows_of(scene, "ResourceQuota", [most], wide=False, namespaces=False)
    assert (row[0], *row[2:]) == ("most", "pods: 1/4, requests.cpu: 100m/1", "")
    said = describe(scene, most, [])
    assert "Scopes:           NotTerminating" in said
    assert "requests.cpu   100m   1" in said


def test_a_namespace_shows_its_rules() -> None:
    said = describe(scene_of(quota({"pods": "4"}), limit_range(CPU)), space(RESTRICTED), [])
    assert "Pod security:     enforce restricted:latest, audit privileged:latest, warn restricted:latest" in said
    assert "Resource quota most:" in said
    assert "Container   cpu        -     -     200m              500m" in said
