"""Rollouts, scaling, status and the end of Deployments, as Kubernetes does them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.decide.admission.gate import Admission
from controller.decide.deployment import CHANGE_CAUSE
from controller.decide.reconcile import reconcile
from controller.decide.replicaset import replicate, stop_order
from controller.decide.status import condition
from controller.model.cluster import Deployment, Pod, Ref, ReplicaSet, Settings, StatusCondition, World
from controller.model.identity import template_hash
from nodeagent.protocol import FAILED
from tests.agents import Agents
from tests.builders import (
    after,
    bare_pod,
    cluster,
    config_map,
    deployment,
    edited,
    host,
    moment,
    namespace,
    put,
    replica_set,
    report,
    template,
    world,
)

NEW = template("web:2")


def test_one_pass_takes_a_deployment_all_the_way_to_bound_pods() -> None:
    start = world(host("n1"), host("n2"), host("n3"), deployment(replicas=6))
    plan = reconcile(start, moment())
    assert {name: len(item.pods) for name, item in plan.wanted.items()} == {"n1": 2, "n2": 2, "n3": 2}
    assert not plan.settled
    assert plan.waiting == ("deployment default/web: 6 of 6 updated, 0 available, 6 in all",)


def test_every_change_says_why_in_kubernetes_words() -> None:
    start = cluster(1, deployment(replicas=1))
    shown = [(change.verb, change.reason) for change in reconcile(start, moment()).changes if not change.quiet]
    assert shown == [
        ("create", ""),
        ("scale", "ScalingReplicaSet"),
        ("create", "SuccessfulCreate"),
        ("bind", "Scheduled"),
    ]


def test_the_replica_set_is_named_after_the_template_and_selects_its_pods() -> None:
    web = deployment()
    [made] = after(cluster(1, web), reconcile(cluster(1, web), moment())).replica_sets.values()
    assert made.meta.name == f"web-{template_hash(template())}"
    assert made.selector == {"matchLabels": {"app": "web", "pod-template-hash": web.template_hash}}
    assert made.meta.labels == {"app": "web", "pod-template-hash": web.template_hash}


def test_pods_carry_the_template_s_labels_and_the_hash() -> None:
    web = deployment()
    for pod in after(cluster(1, web), reconcile(cluster(1, web), moment())).pods.values():
        assert pod.meta.labels == {"app": "web", "pod-template-hash": web.template_hash}


# ---- rolling ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "steps"),
    [
        (10, 3, 2, [(8, 3), (8, 5), (5, 5), (3, 8), (3, 10), (0, 10)]),
        (3, 1, 0, [(3, 1), (2, 1), (2, 2), (1, 2), (1, 3), (0, 3)]),
        (3, 0, 1, [(2, 0), (2, 1), (1, 1), (1, 2), (0, 2), (0, 3)]),
        (4, "100%", "100%", [(0, 4)]),
        (4, "0%", "0%", [(3, 0), (3, 1), (2, 1), (2, 2), (1, 2), (1, 3), (0, 3), (0, 4)]),
    ],
    ids=["ten, 3 up and 2 down", "three, one up", "three, one down", "all at once", "0/0 lets one be missing"],
)
def test_a_rolling_update_goes_in_these_steps(
    replicas: int, surge: int | str, unavailable: int | str, steps: list[tuple[int, int]]
) -> None:
    """Sizes of the old and the new ReplicaSet, each time that one of them changed."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    agents = _running(deployment(replicas=replicas, strategy=strategy))
    _edit(agents, pods=NEW)
    seen: list[tuple[int, int]] = []
    for _ in range(40):
        agents.step()
        sizes = _sizes(agents.world)
        if not seen or seen[-1] != sizes:
            seen.append(sizes)
    assert seen == steps


def test_a_bad_image_leaves_the_old_version_serving_and_says_so() -> None:
    agents = _running(deployment(replicas=4))
    agents.broken = {"bad:1"}
    _edit(agents, pods=template("bad:1"))
    plan = agents.settle(40)
    web = _web(agents.world)
    assert web.status.available == 3
    found = _condition(web, "Progressing")
    assert (found.status, found.reason) == (False, "ProgressDeadlineExceeded")
    assert not plan.settled
    assert "exceeded its progress deadline" in plan.waiting[0]


def test_broken_old_pods_go_first() -> None:
    agents = _running(deployment(replicas=4, strategy=_rolling(0, 2)))
    [first, *_] = sorted(pod.meta.uid for pod in agents.world.pods.values())
    for name, reports in agents.pods.items():
        agents.pods[name] = {uid: replace(item, ready=uid != first) for uid, item in reports.items()}
    _edit(agents, pods=NEW)
    stopped = [change.record.meta.uid for change in agents.step().changes if change.verb == "stop"]
    assert first in stopped
    assert len(stopped) == 2


def test_an_edit_during_a_rollout_drops_the_half_done_revision() -> None:
    agents = _running(deployment(replicas=6))
    agents.broken = {"bad:1"}
    _edit(agents, pods=template("bad:1"))
    for _ in range(3):
        agents.step()
    _edit(agents, pods=NEW)
    agents.settle(40)
    assert {image for image, size in _images(agents.world).items() if size} == {"web:2"}


def test_min_ready_seconds_hold_up_the_rollout_and_set_the_alarm() -> None:
    agents = _running(deployment(replicas=2, minReadySeconds=30, strategy=_rolling(1, 0)))
    _edit(agents, pods=NEW)
    for _ in range(3):
        plan = agents.step()
    assert plan.wake_s == 30
    assert _sizes(agents.world) == (2, 1)
    agents.settle(60)
    assert _sizes(agents.world) == (0, 2)


def test_recreate_waits_until_every_old_pod_is_gone() -> None:
    agents = _running(deployment(replicas=3, strategy={"type": "Recreate"}))
    _edit(agents, pods=NEW)
    for _ in range(20):
        agents.step()
        images = {
            agents.world.replica_sets[pod.meta.owner.uid].template_hash
            for pod in agents.world.pods.values()
            if pod.meta.owner
        }
        assert len(images) <= 1
    assert _sizes(agents.world) == (0, 3)


def test_recreate_waits_for_a_silent_node_too() -> None:
    agents = _running(deployment(replicas=3, strategy={"type": "Recreate"}), nodes=3)
    _edit(agents, pods=NEW)
    agents.down = {"n1"}
    agents.step_s = 60
    for _ in range(20):
        agents.step()
    assert _images(agents.world) == {"web:1": 0}
    agents.down = set()
    agents.settle(20)
    assert _images(agents.world) == {"web:1": 0, "web:2": 3}


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    agents = _running(deployment(replicas=2))
    _edit(agents, pods=NEW, paused=True, replicas=5)
    plan = agents.settle(20)
    assert _images(agents.world) == {"web:1": 5}
    assert plan.settled
    assert _condition(_web(agents.world), "Progressing").reason == "DeploymentPaused"
    _edit(agents, paused=False)
    agents.settle(40)
    assert {image for image, size in _images(agents.world).items() if size} == {"web:2"}


def test_a_paused_deployment_scales_from_nothing() -> None:
    agents = _running(deployment(replicas=0))
    _edit(agents, paused=True, replicas=2)
    agents.settle(20)
    assert _images(agents.world) == {"web:1": 2}


# ---- scaling -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [0, 1, 5, 12])
def test_scaling_changes_one_replica_set_at_once(replicas: int) -> None:
    agents = _running(deployment(replicas=4))
    _edit(agents, replicas=replicas)
    agents.settle(20)
    assert len(agents.world.pods) == replicas
    assert len(agents.world.replica_sets) == 1


def test_scaling_during_a_rollout_is_shared_in_proportion() -> None:
    """10 wanted, surge 3, unavailable 2, stuck at 8 old and 5 new. Scaled to 15 with surge 3: 18 are allowed, 5 more than 13."""
    agents = _running(deployment(replicas=10, strategy=_rolling(3, 2)))
    agents.broken = {"bad:1"}
    _edit(agents, pods=template("bad:1"))
    agents.settle(20)
    assert _sizes(agents.world) == (8, 5)
    _edit(agents, replicas=15)
    agents.step()
    assert _sizes(agents.world) == (11, 7)


def test_scaling_down_stops_pods_that_are_not_ready_first() -> None:
    agents = _running(deployment(replicas=4))
    bad = sorted(agents.world.pods)[2]
    for name, reports in agents.pods.items():
        agents.pods[name] = {uid: replace(item, ready=uid != bad) for uid, item in reports.items()}
    _edit(agents, replicas=3)
    assert [change.record.meta.uid for change in agents.step().changes if change.verb == "stop"] == [bad]


# ---- revisions ---------------------------------------------------------------------------------------------------------------


def test_a_revision_that_comes_back_gets_a_new_number_and_its_change_cause() -> None:
    agents = _running(deployment(replicas=1))
    _edit(agents, pods=NEW)
    agents.settle(20)
    back = edited(_web(agents.world), template("web:1"))
    agents.world = put(agents.world, replace(back, meta=replace(back.meta, annotations={CHANGE_CAUSE: "undo"})))
    agents.settle(20)
    revisions = {item.template["spec"]["containers"][0]["image"]: item for item in agents.world.replica_sets.values()}
    assert {image: item.revision for image, item in revisions.items()} == {"web:1": 3, "web:2": 2}
    assert revisions["web:1"].change_cause == "undo"


def test_old_revisions_beyond_the_limit_are_forgotten_once_the_rollout_is_complete() -> None:
    agents = _running(deployment(replicas=1, revisionHistoryLimit=2))
    for number in range(2, 7):
        _edit(agents, pods=template(f"web:{number}"))
        agents.settle(20)
    assert sorted(item.revision for item in agents.world.replica_sets.values()) == [4, 5, 6]


def test_a_template_that_returns_after_it_was_forgotten_gives_its_pods_new_uids() -> None:
    agents = _running(deployment(replicas=1, revisionHistoryLimit=0))
    for image in ("web:2", "web:1", "web:2", "web:1"):
        _edit(agents, pods=template(image))
        agents.settle(20)
    assert len(agents.started) == 5
    assert len(set(agents.started)) == 5


# ---- status ------------------------------------------------------------------------------------------------------------------


def test_status_counts_what_agents_say_in_this_pass() -> None:
    agents = _running(deployment(replicas=3), nodes=3)
    agents.down = {"n2"}
    agents.step()
    status = _web(agents.world).status
    assert (status.replicas, status.updated, status.ready, status.available) == (3, 3, 2, 2)


def test_conditions_of_a_complete_rollout() -> None:
    web = _web(_running(deployment(replicas=3)).world)
    assert [(item.kind, item.status, item.reason) for item in web.status.conditions] == [
        ("Available", True, "MinimumReplicasAvailable"),
        ("Progressing", True, "NewReplicaSetAvailable"),
    ]
    assert web.status.observed_generation == web.meta.generation


def test_a_condition_keeps_the_moment_of_its_last_turn() -> None:
    agents = _running(deployment(replicas=4))
    turned = _condition(_web(agents.world), "Available").moment
    _edit(agents, replicas=5)
    agents.settle(20)
    assert _condition(_web(agents.world), "Available").moment == turned


def test_pods_that_fail_after_the_rollout_do_not_reopen_it() -> None:
    agents = _running(deployment(replicas=2, progressDeadlineSeconds=10))
    for name, reports in agents.pods.items():
        agents.pods[name] = {uid: replace(item, ready=False) for uid, item in reports.items()}
    agents.step_s = 100
    for _ in range(3):
        agents.step()
    assert _condition(_web(agents.world), "Progressing").reason == "NewReplicaSetAvailable"


def test_the_progress_deadline_is_a_condition_only_and_passes_when_there_is_progress() -> None:
    agents = _running(deployment(replicas=2, progressDeadlineSeconds=60))
    agents.broken = {"web:2"}
    _edit(agents, pods=NEW)
    agents.settle(40)
    assert _condition(_web(agents.world), "Progressing").reason == "ProgressDeadlineExceeded"
    agents.broken = set()
    assert agents.settle(40).settled
    assert _condition(_web(agents.world), "Progressing").reason == "NewReplicaSetAvailable"


def test_the_plan_says_when_the_progress_deadline_ends() -> None:
    start = cluster(1, deployment(replicas=1, progressDeadlineSeconds=60))
    start = after(start, reconcile(start, moment()))
    assert reconcile(start, moment(20)).wake_s == 41


def test_a_host_path_outside_the_allow_list_makes_no_pods_and_is_told() -> None:
    volume = [{"name": "data", "hostPath": {"path": "/etc"}}]
    start = cluster(1, deployment(pods=template(volumes=volume)), settings=Settings(host_paths=("/srv",)))
    plan = reconcile(start, moment())
    assert not after(start, plan).pods
    found = _condition(_web(after(start, plan)), "ReplicaFailure")
    assert (found.status, found.reason) == (True, "FailedCreate")
    assert "/etc is not in the allow-list" in plan.waiting[0]
    assert [change.reason for change in plan.changes if change.warning] == ["FailedCreate"]


@pytest.mark.parametrize(("path", "made"), [("/srv", 1), ("/srv/a", 1), ("/srvx", 0), ("/", 0)])
def test_the_allow_list_is_of_directories(path: str, made: int) -> None:
    volume = [{"name": "data", "hostPath": {"path": path}}]
    start = cluster(1, deployment(replicas=1, pods=template(volumes=volume)), settings=Settings(host_paths=("/srv/",)))
    assert len(after(start, reconcile(start, moment())).pods) == made


# ---- replica sets and pods -----------------------------------------------------------------------------------------------------


def test_a_replica_set_of_its_own_keeps_its_number() -> None:
    agents = _running(replica_set(replicas=3))
    victim = sorted(agents.world.pods)[0]
    for name in agents.pods:
        agents.pods[name] = {
            uid: replace(item, phase=FAILED if uid == victim else item.phase) for uid, item in agents.pods[name].items()
        }
    agents.settle(20)
    assert len(agents.world.pods) == 3
    assert victim not in agents.world.pods


def test_a_stand_in_goes_before_originals_that_share_a_node() -> None:
    """Kubernetes' order alone would take one of the two on n1."""

    def pod(name: str, on: str, created_s: float) -> Pod:
        bound = replace(bare_pod(name), node=on)
        made = replace(bound, meta=replace(bound.meta, created=moment(created_s)))
        return replace(made, report=report(made))

    pods = [pod("a", "n1", 0), pod("b", "n1", 0), pod("back", "n3", 0), pod("stand-in", "n2", 400)]
    ages = {item.meta.uid: 500.0 - item.meta.created.boottime_s + 1000.0 for item in pods}
    restored = {pods[2].meta.uid: moment(390)}
    order = stop_order(replica_set(replicas=3), pods, ages, restored)
    assert order[0].meta.name == "stand-in"
    assert stop_order(replica_set(replicas=3), pods, ages, {})[0].meta.name in ("a", "b")


def test_pods_stop_in_this_order() -> None:
    """No node, not running, not ready, ready but not yet available, available."""
    owner = replace(replica_set(replicas=1), min_ready_s=30)
    homeless, pending, unready, young, old = (bare_pod(name) for name in ("e", "d", "c", "b", "a"))
    pending = replace(pending, node="n1", report=report(pending, "Pending"))
    unready = replace(unready, node="n1", report=report(unready, ready=False))
    young = replace(young, node="n2", report=report(young))
    young_twin = replace(young, meta=replace(young.meta, uid="twin", name="b2"))
    old = replace(old, node="n2", report=report(old))
    ages = {young.meta.uid: 5.0, "twin": 6.0, old.meta.uid: 100.0}
    order = stop_order(owner, [old, young, young_twin, unready, pending, homeless], ages, {})
    assert [pod.meta.name for pod in order] == ["e", "d", "c", "b", "b2", "a"]


@pytest.mark.parametrize(
    ("cost", "first"),
    [({}, "b"), ({"controller.kubernetes.io/pod-deletion-cost": "-5"}, "a")],
    ids=["newer", "cheaper"],
)
def test_the_deletion_cost_comes_before_age(cost: dict[str, str], first: str) -> None:
    one, other = bare_pod("a"), bare_pod("b")
    pods = [
        replace(one, node="n1", meta=replace(one.meta, annotations=cost)),
        replace(other, node="n2", meta=replace(other.meta, created=moment(10))),
    ]
    assert stop_order(replica_set(replicas=1), pods, {}, {})[0].meta.name == first


def test_recreate_that_is_paused_half_way_still_waits_for_the_old_pods() -> None:
    agents = Agents(cluster(2, deployment(replicas=2, strategy={"type": "Recreate"})))
    for pods in (NEW, template()):
        agents.settle(40)
        (record,) = agents.world.deployments.values()
        agents.world = put(agents.world, edited(record, pods))
    agents.down = {"n1"}
    agents.step()  # stops the pods of NEW; the one on n1 does not hear of it
    (record,) = agents.world.deployments.values()
    agents.world = put(agents.world, edited(record, paused=True))
    for _ in range(5):
        agents.step()
        assert {pod.template_hash for pod in agents.world.pods.values()} == {template_hash(NEW)}
    agents.down = set()
    agents.settle(40)
    assert [pod.template_hash for pod in agents.world.pods.values()] == [template_hash(template())] * 2


def test_a_rollout_takes_the_old_pod_from_the_node_that_has_a_new_one() -> None:
    """As Kubernetes ranks pods by all of their Deployment: else both that are left would be on one node."""
    record = deployment(replicas=2, pods=template("web:2"))
    owner = Ref("Deployment", "web", record.meta.uid)
    old, new = (
        replace(item, meta=replace(item.meta, owner=owner), revision=number)
        for number, item in enumerate((replica_set("old", 1), replica_set("new", 1, template("web:2"))), 1)
    )
    pods = []
    for name, its, on, created_s in (("a", old, "n1", 0), ("b", old, "n2", 1), ("c", new, "n1", 50)):
        bound = replace(bare_pod(name), source=None, node=on)
        belongs = Ref("ReplicaSet", its.meta.name, its.meta.uid)
        made = replace(bound, meta=replace(bound.meta, created=moment(created_s), owner=belongs))
        pods.append(replace(made, report=report(made)))
    ages = {pod.meta.uid: 100.0 - pod.meta.created.boottime_s + 1000.0 for pod in pods}
    state = cluster(2, record, old, new, *pods)
    changes = replicate(state, ages, {}, {}, Admission(state), moment(120))
    assert [change.record.meta.name for change in changes if change.verb == "stop"] == ["a"]


@pytest.mark.parametrize("text", ["--5", "5-", "-", "", "+5", "007", "٣", "99999999999", "2147483648"])
def test_a_deletion_cost_that_is_no_number_counts_as_none(text: str) -> None:
    """It comes from the annotations of a template, which may hold any text: no pass may end for it."""
    older, newer = bare_pod("a"), bare_pod("b")
    annotations = {"controller.kubernetes.io/pod-deletion-cost": text}
    pods = [
        replace(older, node="n1"),
        replace(newer, node="n2", meta=replace(newer.meta, created=moment(10), annotations=annotations)),
    ]
    assert stop_order(replica_set(replicas=1), pods, {}, {})[0].meta.name == "b"


def test_pod_names_are_unique_though_five_letters_collide() -> None:
    start = cluster(1, deployment(replicas=6000))
    pods = after(start, reconcile(start, moment())).pods.values()
    assert len({pod.meta.name for pod in pods}) == 6000


# ---- the end -------------------------------------------------------------------------------------------------------------------


def test_a_deleted_deployment_goes_with_all_that_it_owns() -> None:
    agents = _running(deployment(replicas=3))
    agents.world = put(agents.world, _deleted(_web(agents.world)))
    plan = agents.settle(20)
    assert not agents.world.deployments
    assert not agents.world.replica_sets
    assert not agents.world.pods
    assert plan.settled


def test_a_deleted_deployment_does_not_wait_for_a_silent_node_but_its_pods_are_told_on_return() -> None:
    agents = _running(deployment(replicas=3), nodes=3)
    agents.down = {"n1"}
    agents.step_s = 60
    agents.world = put(agents.world, _deleted(_web(agents.world)))
    for _ in range(6):
        plan = agents.step()
    assert not agents.world.deployments
    assert plan.settled
    assert {pod.node for pod in agents.world.pods.values()} == {"n1"}
    agents.down = set()
    agents.settle(20)
    assert not agents.world.pods
    assert not agents.world.replica_sets
    assert not any(agents.pods.values())


def test_a_deleted_deployment_does_not_wait_for_lost_pods_though_the_controller_was_away() -> None:
    """After a long gap the node's series of misses begins anew: it is not Unknown yet, but its pods were given up before."""
    agents = _running(deployment(replicas=3), nodes=3)
    agents.down = {"n1"}
    agents.step_s = 60
    for _ in range(7):
        agents.step()
    agents.world = put(agents.world, _deleted(_web(agents.world)))
    agents.step_s = 7200
    for _ in range(4):
        plan = agents.step()
    assert plan.nodes["n1"].state == "Unseen"
    assert not agents.world.deployments


def test_a_new_deployment_may_take_the_name_while_old_pods_wait_for_their_node() -> None:
    agents = _running(deployment(replicas=3), nodes=3)
    agents.down = {"n1"}
    agents.step_s = 60
    agents.world = put(agents.world, _deleted(_web(agents.world)))
    for _ in range(6):
        agents.step()
    fresh = deployment(replicas=3)
    agents.world = put(agents.world, replace(fresh, meta=replace(fresh.meta, uid="another")))
    for _ in range(6):
        agents.step()
    assert _web(agents.world).status.available == 3
    agents.down = set()
    agents.settle(20)
    assert len(agents.world.pods) == 3


def test_pods_of_a_deleted_deployment_on_a_node_confirmed_dead_are_gone() -> None:
    agents = _running(deployment(replicas=3), nodes=3)
    agents.down = {"n1"}
    agents.world = put(
        agents.world, _deleted(_web(agents.world)), replace(agents.world.nodes["n1"], confirmed_dead="wiped")
    )
    agents.settle(20)
    assert not agents.world.pods


def test_a_deleted_namespace_takes_everything_in_it_and_nothing_else() -> None:
    agents = _running(
        namespace("shop"),
        deployment("web", namespace="shop"),
        config_map("settings", {"a": "1"}, namespace="shop"),
        deployment("web"),
        bare_pod(),
    )
    [space] = [item for item in agents.world.declared.values() if item.meta.kind == "Namespace"]
    agents.world = put(agents.world, replace(space, meta=replace(space.meta, deleting=moment())))
    agents.settle(20)
    assert not agents.world.declared
    assert {item.meta.namespace for item in agents.world.deployments.values()} == {"default"}
    assert {item.meta.namespace for item in agents.world.pods.values()} == {"default"}


def test_a_config_map_stays_until_the_last_pod_of_its_namespace_is_stopped() -> None:
    agents = _running(namespace("shop"), deployment(namespace="shop"), config_map("settings", {}, namespace="shop"))
    [space] = [item for item in agents.world.declared.values() if item.meta.kind == "Namespace"]
    agents.world = put(agents.world, replace(space, meta=replace(space.meta, deleting=moment())))
    while agents.world.pods:
        agents.step()
        assert len(agents.world.declared) == (2 if agents.world.pods else 0)


# ---- helpers -------------------------------------------------------------------------------------------------------------------


def _running(*things: Any, nodes: int = 4) -> Agents:
    agents = Agents(cluster(nodes, *things))
    agents.settle(30)
    return agents


def _edit(agents: Agents, pods: dict[str, Any] | None = None, **spec: Any) -> None:
    agents.world = put(agents.world, edited(_web(agents.world), pods, **spec))


def _web(of: World) -> Deployment:
    [found] = of.deployments.values()
    return found


def _deleted(record: Deployment) -> Deployment:
    return replace(record, meta=replace(record.meta, deleting=moment()))


def _rolling(surge: int, unavailable: int) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


def _sizes(of: World) -> tuple[int, int]:
    """(old ones together, new one)."""
    web = _web(of)
    new = [item.replicas for item in of.replica_sets.values() if item.template_hash == web.template_hash]
    return sum(item.replicas for item in of.replica_sets.values()) - sum(new), sum(new)


def _images(of: World) -> dict[str, int]:
    def image(item: ReplicaSet) -> str:
        return str(item.template["spec"]["containers"][0]["image"])

    return {image(item): item.replicas for item in of.replica_sets.values()}


def _condition(record: Deployment, kind: str) -> StatusCondition:
    found = condition(record.status, kind)
    assert found is not None
    return found
