"""DaemonSets: one pod on each node that shall have one, and how they roll."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.decide import verbs
from controller.decide.reconcile import reconcile
from controller.decide.schedule.ranking import Ranking
from controller.decide.schedule.usage import Crowd, Index
from controller.model.cluster import Declared, Pod, Settings
from controller.model.identity import template_hash
from controller.model.kinds.sets import DaemonSetSpec, RollingUpdateDaemonSet
from controller.model.workloads import DaemonSet, Revision
from tests.agents import Agents
from tests.builders import (
    bare_pod,
    cluster,
    daemon_set,
    deployment,
    job,
    meta,
    moment,
    node,
    put,
    stateful_set,
    taint,
    template,
    world,
)

NEW = template("web:2")


def test_every_node_gets_one_and_a_new_node_too() -> None:
    agents = _running(daemon_set(), 3)
    assert _nodes(agents) == ["n1", "n2", "n3"]
    fourth = world(node("n4", 4))
    agents.world = replace(
        agents.world, hosts={**agents.world.hosts, **fourth.hosts}, nodes={**agents.world.nodes, **fourth.nodes}
    )
    agents.settle(20)
    assert _nodes(agents) == ["n1", "n2", "n3", "n4"]
    assert _daemon(agents).status.desired == 4


def test_cordoned_nodes_get_theirs_too() -> None:
    agents = Agents(world(node("n1", 1, cordoned=True), node("n2", 2), daemon_set()))
    agents.settle(20)
    assert _nodes(agents) == ["n1", "n2"]


@pytest.mark.parametrize(
    ("spec", "nodes"),
    [
        ({}, ["n1"]),
        ({"tolerations": [{"operator": "Exists"}]}, ["n1", "n2"]),
        ({"tolerations": [{"operator": "Exists"}], "nodeSelector": {"disk": "ssd"}}, ["n2"]),
        ({"nodeSelector": {"disk": "none"}}, []),
        ({"nodeName": "n1"}, ["n1"]),
    ],
)
def test_only_nodes_that_fit_selector_and_taints(spec: Any, nodes: list[str]) -> None:
    tainted = node("n2", 2, taints=(taint("dedicated"),), labels={"disk": "ssd"})
    agents = Agents(world(node("n1", 1), tainted, daemon_set(pods=template(**spec))))
    agents.world = replace(agents.world, hosts={**agents.world.hosts})
    agents.settle(20)
    assert _nodes(agents) == nodes


def test_its_pods_tolerate_what_kubernetes_says() -> None:
    agents = _running(daemon_set(), 1)
    [revision] = [item for item in agents.world.workloads.values() if isinstance(item, Revision)]
    tolerated = {(one["key"], one["effect"]) for one in revision.template["spec"]["tolerations"]}
    short = {(key.removeprefix("node.kubernetes.io/"), effect) for key, effect in tolerated}
    assert short == {
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    }
    assert "tolerations" not in revision.written["spec"]


def test_a_pod_that_does_not_fit_its_node_is_not_made_and_the_reason_is_told() -> None:
    agents = Agents(cluster(1, daemon_set(pods=template(requests={"cpu": "64"}))))
    agents.step()
    assert not agents.world.pods
    assert _daemon(agents).status.trouble == ("n1: cpu: needs 64, free 4",)


@pytest.mark.parametrize("allowed", [(), ("/srv",), ("/var/log",)])
def test_a_host_path_that_the_context_does_not_allow_makes_no_pods(allowed: tuple[str, ...]) -> None:
    pods = template(volumes=[{"name": "logs", "hostPath": {"path": "/var/log"}}])
    records = (
        daemon_set("agent", pods),
        stateful_set("db", pods=pods),
        job(pods={**pods, "spec": {**pods["spec"], "restartPolicy": "Never"}}),
    )
    agents = Agents(cluster(1, *records, settings=Settings(host_paths=allowed)))
    plan = agents.step()
    assert bool(agents.world.pods) == (allowed == ("/var/log",))
    if not agents.world.pods:
        assert len([line for line in plan.waiting if "hostPath /var/log is not in the allow-list" in line]) == 3


def test_a_silent_node_keeps_its_pod_and_holds_up_no_one() -> None:
    agents = _running(daemon_set(), 3)
    agents.step_s = 60.0
    agents.down = {"n2"}
    for _ in range(20):
        plan = agents.step()
    assert _nodes(agents) == ["n1", "n2", "n3"]
    assert all(pod.lost is None for pod in agents.world.pods.values())
    assert plan.settled


# ---- rolling ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rolling", "nodes", "missing", "most"),
    [
        ({}, 4, 1, 4),
        ({"maxUnavailable": 2}, 4, 2, 4),
        ({"maxUnavailable": "10%"}, 4, 1, 4),
        ({"maxUnavailable": "50%"}, 5, 3, 5),
        ({"maxUnavailable": 0, "maxSurge": 1}, 4, 0, 5),
        ({"maxUnavailable": 0, "maxSurge": "50%"}, 3, 0, 5),
    ],
)
def test_a_rolling_update_keeps_its_promise(rolling: Any, nodes: int, missing: int, most: int) -> None:
    agents = _running(daemon_set(updateStrategy={"type": "RollingUpdate", "rollingUpdate": rolling}), nodes)
    _edit(agents, NEW)
    fewest, largest = nodes, nodes
    for _ in range(80):
        agents.step()
        ready = [report for reports in agents.pods.values() for report in reports.values() if report.ready]
        fewest, largest = min(fewest, len(ready)), max(largest, len(ready))
    assert (nodes - fewest, largest) == (missing, most)
    assert {pod.template_hash for pod in agents.world.pods.values()} == {template_hash(NEW)}
    assert _daemon(agents).status.updated == nodes


def test_a_node_that_falls_silent_in_the_middle_of_its_turn_counts_as_missing() -> None:
    agents = _running(daemon_set(), 3)
    _edit(agents, NEW)
    plan = agents.step()
    [stopped] = [change.record for change in plan.changes if change.verb == "stop"]
    assert isinstance(stopped, Pod)
    agents.down = {stopped.node}
    for _ in range(10):
        plan = agents.step()
        assert not [change for change in plan.changes if change.verb == "stop"]
    assert (_daemon(agents).status.desired, _daemon(agents).status.available) == (3, 2)
    agents.down = set()
    agents.settle(40)
    assert _daemon(agents).status.updated == 3


def test_a_bad_image_stops_after_the_first_node() -> None:
    agents = _running(daemon_set(), 3)
    agents.broken = {"bad:1"}
    _edit(agents, template("bad:1"))
    for _ in range(20):
        agents.step()
    assert _daemon(agents).status.available == 2
    _edit(agents, template())
    agents.settle(40)
    assert _daemon(agents).status.available == 3, "the broken pod is replaced at once"


def test_on_delete_replaces_a_pod_once_it_is_deleted() -> None:
    agents = _running(daemon_set(updateStrategy={"type": "OnDelete"}), 2)
    _edit(agents, NEW)
    agents.settle(20)
    assert {pod.template_hash for pod in agents.world.pods.values()} == {template_hash(template())}
    first = min(agents.world.pods.values(), key=lambda pod: pod.node)
    for change in verbs.delete(agents.world, first, agents.now):
        agents.world = put(agents.world, change.record)
    agents.settle(20)
    assert [pod.template_hash == template_hash(NEW) for pod in _pods(agents)] == [True, False]


def test_old_revisions_beyond_the_limit_go() -> None:
    agents = _running(daemon_set(revisionHistoryLimit=1), 1)
    for number in range(2, 6):
        _edit(agents, template(f"web:{number}"))
        agents.settle(40)
    numbers = sorted(item.number for item in agents.world.workloads.values() if isinstance(item, Revision))
    assert numbers == [4, 5]


def test_deleting_it_leaves_nothing() -> None:
    agents = _running(daemon_set(), 2)
    for change in verbs.delete(agents.world, _daemon(agents), agents.now):
        agents.world = put(agents.world, change.record)
    agents.settle(20)
    assert not agents.world.workloads
    assert not agents.world.pods


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([{}, {"maxUnavailable": 2}, {"maxUnavailable": 0, "maxSurge": 1}]),
    st.randoms(use_true_random=False),
)
def test_after_faults_and_edits_each_node_has_one_pod_of_the_present_template(rolling: Any, dice: Random) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    agents = Agents(cluster(4, daemon_set(updateStrategy=strategy), deployment(replicas=2)), step_s=30.0)
    for _ in range(30):
        match dice.randint(0, 5):
            case 0:
                agents.down = {name for name in agents.world.hosts if dice.random() < 0.4}
            case 1:
                _edit(agents, template(f"web:{dice.randint(1, 3)}"))
            case 2:
                agents.broken = {f"web:{dice.randint(1, 3)}"}
        agents.step()
    agents.down, agents.broken = set(), set()
    assert agents.settle(80).is_empty
    assert _nodes(agents) == ["n1", "n2", "n3", "n4"]
    assert {pod.template_hash for pod in _pods(agents)} == {_daemon(agents).template_hash}
    assert len(agents.started) == len(set(agents.started))
    assert reconcile(agents.observed(), agents.now).is_empty


@pytest.mark.parametrize(
    ("amount", "desired", "most"), [(1, 10, 1), ("10%", 1, 1), ("10%", 11, 2), ("100%", 3, 3), ("0%", 3, 0)]
)
def test_percentages_round_up(amount: int | str, desired: int, most: int) -> None:
    assert RollingUpdateDaemonSet(max_unavailable=amount).unavailable(desired) == most
    assert RollingUpdateDaemonSet(max_surge=amount).surge(desired) == most


def test_defaults() -> None:
    spec = DaemonSetSpec.model_validate(daemon_set().source["spec"])
    strategy = spec.update_strategy
    assert strategy.rolling_update is not None
    assert (strategy.type, strategy.rolling_update.max_unavailable, strategy.rolling_update.max_surge) == (
        "RollingUpdate",
        1,
        0,
    )
    assert (spec.min_ready_seconds, spec.revision_history_limit) == (0, 10)


_HOST = {"topologyKey": "kubernetes.io/hostname"}


def _required(kind: str, app: str) -> dict[str, Any]:
    term = {**_HOST, "labelSelector": {"matchLabels": {"app": app}}}
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


@pytest.mark.parametrize(
    ("daemons", "other", "nodes"),
    [
        (_required("podAntiAffinity", "db"), {}, ["n2"]),
        ({}, _required("podAntiAffinity", "web"), ["n2"]),
        (_required("podAffinity", "db"), {}, ["n1"]),
        (_required("podAffinity", "web"), {}, ["n1"]),  # the first may go anywhere
        (_required("podAntiAffinity", "web"), {}, ["n1", "n2"]),
    ],
    ids=["avoids the other", "is avoided", "needs the other", "needs itself", "avoids itself"],
)
def test_required_affinity_of_pods_holds_for_daemons_too(daemons: Any, other: Any, nodes: list[str]) -> None:
    pod = bare_pod("db", **other)
    pod = replace(pod, meta=replace(pod.meta, labels={"app": "db"}), node="n1", bound=moment())
    agents = Agents(cluster(2, pod, daemon_set(pods=template(**daemons))))
    for _ in range(10):
        agents.step()
    assert sorted(item.node for item in agents.world.pods.values() if item.meta.owner) == nodes


def test_nodes_that_daemons_are_kept_from_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass asks anew for every such node: with a look at all nodes for each it would take a second where there are 300."""
    looks = []

    class Counted(Ranking):
        def __init__(self, crowd: Crowd, index: Index) -> None:
            looks.append(crowd)
            super().__init__(crowd, index)

    monkeypatch.setattr("controller.decide.daemonset.Ranking", Counted)
    agents = Agents(cluster(20, daemon_set(pods=template(**_required("podAffinity", "db")))))
    agents.settle(5)
    looks.clear()
    assert agents.step().is_empty
    assert (len(looks), agents.started) == (1, [])


def test_daemons_keep_away_from_a_more_important_pod_that_is_on_its_way() -> None:
    """One daemon to a zone, and none beside db: the one that made room for it must not come back on the zone's other node."""
    term = {"topologyKey": "zone", "labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}
    apart = {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
    high = Declared(meta("PriorityClass", "high", ""), {"metadata": {"name": "high"}, "value": 100})
    zone = [node(f"n{number}", number, labels={"zone": "a"}) for number in (1, 2)]
    agents = Agents(world(*zone, high, daemon_set(pods=template(**apart))))
    for _ in range(5):
        agents.step()
    assert len(_nodes(agents)) == 1
    agents.world = put(agents.world, bare_pod("db", priorityClassName="high"))
    preempted = [change for _ in range(10) for change in agents.step().changes if change.reason == "Preempted"]
    assert len(preempted) == 1
    assert [pod.meta.name for pod in agents.world.pods.values()] == ["db"]


def _running(record: DaemonSet, nodes: int) -> Agents:
    agents = Agents(cluster(nodes, record))
    agents.settle(30)
    assert agents.now != moment()
    return agents


def _edit(agents: Agents, pods: Any) -> None:
    record = _daemon(agents)
    source = {**record.source, "spec": {**record.source["spec"], "template": pods}}
    meta = replace(record.meta, generation=record.meta.generation + 1)
    agents.world = put(agents.world, replace(record, meta=meta, source=source, template_hash=template_hash(pods)))


def _daemon(agents: Agents) -> DaemonSet:
    [found] = [item for item in agents.world.workloads.values() if isinstance(item, DaemonSet)]
    return found


def _pods(agents: Agents) -> list[Pod]:
    owned = [pod for pod in agents.world.pods.values() if pod.meta.owner and pod.meta.owner.kind == "DaemonSet"]
    return sorted(owned, key=lambda pod: pod.node)


def _nodes(agents: Agents) -> list[str]:
    return [pod.node for pod in _pods(agents)]
