"""StatefulSets: names that last, order, partitions, and never the same identity twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.decide import verbs
from controller.decide.reconcile import reconcile
from controller.model.identity import template_hash
from controller.model.kinds.sets import StatefulSetSpec
from controller.model.workloads import StatefulSet
from tests.agents import Agents
from tests.builders import cluster, put, stateful_set, template

NEW = template("web:2")


def test_pods_are_named_by_ordinals_and_made_in_order() -> None:
    agents = Agents(cluster(3, stateful_set()))
    made: list[str] = []
    for _ in range(30):
        plan = agents.step()
        fresh = [change.record.meta.name for change in plan.changes if change.reason == "SuccessfulCreate"]
        assert len(fresh) <= 1
        if fresh:
            assert all(_ready(agents, name) for name in made), "each waits for those before it"
        made += fresh
    assert made == ["web-0", "web-1", "web-2"]
    [pod] = [pod for pod in agents.world.pods.values() if pod.meta.name == "web-1"]
    assert pod.meta.labels["statefulset.kubernetes.io/pod-name"] == "web-1"
    assert pod.meta.labels["apps.kubernetes.io/pod-index"] == "1"
    assert "controller-revision-hash" in pod.meta.labels


def test_in_parallel_all_are_made_at_once() -> None:
    agents = Agents(cluster(3, stateful_set(podManagementPolicy="Parallel")))
    agents.step()
    assert _names(agents) == ["web-0", "web-1", "web-2"]


def test_ordinals_may_start_elsewhere() -> None:
    agents = _running(stateful_set(replicas=2, ordinals={"start": 5}))
    assert _names(agents) == ["web-5", "web-6"]


def test_host_name_and_subdomain_are_those_of_the_pod_and_its_service() -> None:
    agents = _running(stateful_set(replicas=1, serviceName="db"))
    [pod] = [pod for item in agents.wanted.values() for pod in item.pods]
    assert (pod.hostname, pod.subdomain) == ("web-0", "db")


def test_scaling_down_takes_the_highest_first_one_by_one() -> None:
    agents = _running(stateful_set())
    _edit(agents, replicas=0)
    stopped: list[str] = []
    for _ in range(20):
        plan = agents.step()
        stopped += [change.record.meta.name for change in plan.changes if change.verb == "stop"]
        assert sum(pod.stop is not None for pod in agents.world.pods.values()) <= 1
    assert stopped == ["web-2", "web-1", "web-0"]
    assert not agents.world.pods


# ---- updates ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["OrderedReady", "Parallel"])
def test_a_rolling_update_goes_from_the_highest_down_one_at_a_time(policy: str) -> None:
    agents = _running(stateful_set(podManagementPolicy=policy))
    _edit(agents, template=NEW)
    order: list[str] = []
    for _ in range(60):
        plan = agents.step()
        order += [change.record.meta.name for change in plan.changes if change.verb == "stop"]
        assert sum(not _ready(agents, name) for name in ("web-0", "web-1", "web-2")) <= 1
    assert order == ["web-2", "web-1", "web-0"]
    assert _set(agents).status.revision == template_hash(NEW)


def test_ordinals_below_the_partition_stay_and_come_back_as_they_were() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    agents = _running(stateful_set(updateStrategy=strategy))
    _edit(agents, template=NEW)
    agents.settle(60)
    assert _images(agents) == {"web-0": "web:1", "web-1": "web:1", "web-2": "web:2"}
    _delete(agents, "web-1")
    agents.settle(60)
    assert _images(agents) == {"web-0": "web:1", "web-1": "web:1", "web-2": "web:2"}
    _edit(agents, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    agents.settle(60)
    assert set(_images(agents).values()) == {"web:2"}


def test_more_may_be_missing_where_that_is_said() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}
    agents = _running(stateful_set(replicas=4, podManagementPolicy="Parallel", updateStrategy=strategy))
    _edit(agents, template=NEW)
    plan = agents.step()
    assert [change.record.meta.name for change in plan.changes if change.verb == "stop"] == ["web-3", "web-2"]


def test_in_parallel_a_broken_pod_is_replaced_before_those_that_serve() -> None:
    agents = Agents(cluster(3, stateful_set(podManagementPolicy="Parallel")))
    agents.settle(60)
    broken = {pod.meta.uid for pod in agents.world.pods.values() if pod.meta.name == "web-0"}
    for reports in agents.pods.values():
        for uid in broken & reports.keys():
            reports[uid] = replace(reports[uid], ready=False, ready_since_s=0.0)
    _edit(agents, template=NEW)
    order: list[str] = []
    for _ in range(60):
        plan = agents.step()
        order += [change.record.meta.name for change in plan.changes if change.verb == "stop"]
        assert sum(not _ready(agents, name) for name in ("web-0", "web-1", "web-2")) <= 1
    assert order == ["web-0", "web-2", "web-1"]


def test_an_update_in_parallel_does_not_take_a_silent_nodes_pods_for_broken() -> None:
    """They serve on, and one missed poll must not stop them all."""
    agents = Agents(cluster(1, stateful_set(podManagementPolicy="Parallel")))
    agents.settle(60)
    _edit(agents, template=NEW)
    for number in range(60):
        agents.down = {"n1"} if number == 0 else set()
        agents.step()
        assert sum(not _ready(agents, name) for name in ("web-0", "web-1", "web-2")) <= 1
    assert set(_images(agents).values()) == {"web:2"}


def test_on_delete_replaces_a_pod_once_it_is_deleted() -> None:
    agents = _running(stateful_set(replicas=2, updateStrategy={"type": "OnDelete"}))
    _edit(agents, template=NEW)
    agents.settle(30)
    assert set(_images(agents).values()) == {"web:1"}
    _delete(agents, "web-0")
    agents.settle(30)
    assert _images(agents) == {"web-0": "web:2", "web-1": "web:1"}


def test_a_pod_that_never_gets_ready_holds_up_the_update() -> None:
    agents = _running(stateful_set())
    agents.broken = {"bad:1"}
    _edit(agents, template=template("bad:1"))
    for _ in range(30):
        agents.step()
    assert _images(agents) == {"web-0": "web:1", "web-1": "web:1", "web-2": "bad:1"}


# ---- never twice -----------------------------------------------------------------------------------------------------------


def test_a_silent_node_keeps_the_identity_for_ever() -> None:
    agents = _running(stateful_set())
    [pod] = [pod for pod in agents.world.pods.values() if pod.meta.name == "web-1"]
    agents.down = {pod.node}
    agents.step_s = 600.0
    for _ in range(20):
        plan = agents.step()
    assert [one.meta.uid for one in agents.world.pods.values() if one.meta.name == "web-1"] == [pod.meta.uid]
    assert agents.world.pods[pod.meta.uid].lost is None
    assert f"sshoal node confirm-dead {pod.node}" in _set(agents).status.trouble[0]
    assert plan.settled, "no waiting would help"


def test_confirmed_dead_sets_the_identity_free() -> None:
    agents = _running(stateful_set())
    [pod] = [pod for pod in agents.world.pods.values() if pod.meta.name == "web-1"]
    agents.down = {pod.node}
    agents.step_s = 60.0
    for _ in range(5):
        agents.step()
    agents.pods[pod.node] = {}
    agents.world = put(agents.world, replace(agents.world.nodes[pod.node], confirmed_dead="powered-off"))
    for _ in range(10):
        agents.step()
    [fresh] = [one for one in agents.world.pods.values() if one.meta.name == "web-1"]
    assert fresh.meta.uid != pod.meta.uid
    assert fresh.node != pod.node


@pytest.mark.parametrize("how", ["scaled", "deleted and declared again"])
def test_the_claim_outlives_scaling_and_deletion(how: str) -> None:
    agents = _running(stateful_set())
    [pod] = [pod for pod in agents.world.pods.values() if pod.meta.name == "web-2"]
    agents.down = {pod.node}
    agents.step_s = 60.0
    for _ in range(3):
        agents.step()
    if how == "scaled":
        _edit(agents, replicas=2)
        for _ in range(5):
            agents.step()
        _edit(agents, replicas=3)
    else:
        for change in verbs.delete(agents.world, _set(agents), agents.now):
            agents.world = put(agents.world, change.record)
        for _ in range(5):
            agents.step()
        assert not [item for item in agents.world.workloads.values() if isinstance(item, StatefulSet)]
        again = stateful_set()
        agents.world = put(agents.world, replace(again, meta=replace(again.meta, uid="another")))
    for _ in range(20):
        agents.step()
    assert [one.meta.uid for one in agents.world.pods.values() if one.meta.name == "web-2"] == [pod.meta.uid]
    agents.down = set()
    agents.settle(40)
    [fresh] = [one for one in agents.world.pods.values() if one.meta.name == "web-2"]
    assert fresh.meta.uid != pod.meta.uid


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["OrderedReady", "Parallel"]),
    st.sampled_from([{"type": "OnDelete"}, {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}, {}]),
    st.randoms(use_true_random=False),
)
def test_no_identity_ever_runs_twice(policy: str, strategy: Any, dice: Random) -> None:
    """Nodes fall silent and return, are confirmed dead once they are off, templates and sizes change, pods are deleted by hand."""
    record = stateful_set(podManagementPolicy=policy, updateStrategy=strategy)
    agents = Agents(cluster(4, record), step_s=30.0)
    for _ in range(40):
        match dice.randint(0, 7):
            case 0:
                agents.down = {name for name in agents.world.hosts if dice.random() < 0.4}
            case 1:
                _edit(agents, template=template(f"web:{dice.randint(1, 3)}"))
            case 2:
                _edit(agents, replicas=dice.randint(0, 5))
            case 3:
                agents.broken = {f"web:{dice.randint(1, 3)}"}
            case 4 if agents.world.pods:
                _delete(agents, dice.choice(sorted(pod.meta.name for pod in agents.world.pods.values())))
            case 5 if agents.down:
                name = dice.choice(sorted(agents.down))
                agents.pods[name] = {}  # it is off: nothing runs there
                agents.wanted.pop(name, None)
                agents.world = put(agents.world, replace(agents.world.nodes[name], confirmed_dead="powered-off"))
        agents.step()
        _nothing_twice(agents)
    agents.down, agents.broken = set(), set()
    for _ in range(100):
        agents.step()
        _nothing_twice(agents)
    assert not _set(agents).status.behind
    assert _names(agents) == [f"web-{ordinal}" for ordinal in range(_set(agents).source["spec"]["replicas"])]
    assert reconcile(agents.observed(), agents.now).is_empty


def _nothing_twice(agents: Agents) -> None:
    running = Counter(
        report.name
        for reports in agents.pods.values()
        for report in reports.values()
        if report.phase in ("Pending", "Running", "Stopping")
    )
    assert all(count == 1 for count in running.values()), running


def test_defaults() -> None:
    source = stateful_set().source["spec"]
    spec = StatefulSetSpec.model_validate({key: item for key, item in source.items() if key != "replicas"})
    assert (spec.replicas, spec.pod_management_policy, spec.ordinals.start) == (1, "OrderedReady", 0)
    assert (spec.min_ready_seconds, spec.revision_history_limit) == (0, 10)
    rolling = spec.update_strategy.rolling_update
    assert rolling is not None
    assert (rolling.partition, rolling.unavailable(10)) == (0, 1)
    retention = spec.persistent_volume_claim_retention_policy
    assert (retention.when_deleted, retention.when_scaled) == ("Retain", "Retain")


def _running(record: StatefulSet) -> Agents:
    agents = Agents(cluster(3, record))
    agents.settle(60)
    return agents


def _edit(agents: Agents, **spec: Any) -> None:
    record = _set(agents)
    fields = {**record.source["spec"], **spec}
    meta = replace(record.meta, generation=record.meta.generation + 1)
    source = {**record.source, "spec": fields}
    fresh = replace(record, meta=meta, source=source, template_hash=template_hash(fields["template"]))
    agents.world = put(agents.world, fresh)


def _delete(agents: Agents, name: str) -> None:
    [pod] = [pod for pod in agents.world.pods.values() if pod.meta.name == name]
    for change in verbs.delete(agents.world, pod, agents.now):
        agents.world = put(agents.world, change.record)


def _set(agents: Agents) -> StatefulSet:
    [found] = [item for item in agents.world.workloads.values() if isinstance(item, StatefulSet)]
    return found


def _names(agents: Agents) -> list[str]:
    return sorted(pod.meta.name for pod in agents.world.pods.values())


def _images(agents: Agents) -> dict[str, str]:
    wanted = [pod for item in agents.wanted.values() for pod in item.pods]
    return {pod.name: pod.containers[0].image for pod in sorted(wanted, key=lambda pod: pod.name)}


def _ready(agents: Agents, name: str) -> bool:
    return any(report.name == name and report.ready for reports in agents.pods.values() for report in reports.values())
