"""Disruption budgets: how many pods have to stay, and which may go. Numbers are Kubernetes'."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.decide.budgets import Budgets
from controller.decide.drain import order_drain
from controller.decide.reconcile import reconcile
from controller.model.cluster import Drain, Pod, Stop, World
from controller.model.errors import ManifestError
from controller.model.manifest import load
from controller.model.policies import Budget, BudgetStatus
from nodeagent.protocol import PENDING
from tests.agents import Agents
from tests.builders import (
    bare_pod,
    budget,
    cluster,
    daemon_set,
    deployment,
    moment,
    put,
    replica_set,
    report,
    stateful_set,
    template,
)


def standing(pods: int = 3, *, ready: int | None = None, **spec: Any) -> BudgetStatus:
    """Of one budget over a Deployment of so many pods."""
    agents = settled(deployment(replicas=pods), budget(**spec))
    uids = sorted(agents.world.pods)
    budgets = Budgets(agents.world, uids[: pods if ready is None else ready])
    return next(iter(budgets.statuses.values()))


def settled(*things: Any, nodes: int = 3) -> Agents:
    agents = Agents(cluster(nodes, *things))
    agents.settle(60)
    return agents


@pytest.mark.parametrize(
    ("spec", "pods", "ready", "desired", "allowed"),
    [
        ({"minAvailable": 2}, 3, 3, 2, 1),
        ({"minAvailable": 3}, 3, 3, 3, 0),
        ({"minAvailable": 5}, 3, 3, 5, 0),
        ({"minAvailable": 0}, 3, 3, 0, 3),
        ({"minAvailable": "50%"}, 7, 6, 4, 2),  # 3.5 rounds up
        ({"minAvailable": "0%"}, 3, 1, 0, 1),
        ({"minAvailable": "100%"}, 3, 3, 3, 0),
        ({"maxUnavailable": 1}, 3, 3, 2, 1),
        ({"maxUnavailable": 1}, 3, 2, 2, 0),
        ({"maxUnavailable": 0}, 3, 3, 3, 0),
        ({"maxUnavailable": 9}, 3, 3, 0, 3),
        ({"maxUnavailable": "30%"}, 7, 7, 4, 3),  # 2.1 rounds up
        ({"maxUnavailable": "1%"}, 3, 3, 2, 1),
        ({}, 3, 3, 0, 0),  # neither number: nothing may go
    ],
)
def test_what_has_to_stay_and_what_may_go(
    spec: dict[str, Any], pods: int, ready: int, desired: int, allowed: int
) -> None:
    status = standing(pods, ready=ready, **spec)
    assert (status.current_healthy, status.desired_healthy, status.disruptions_allowed) == (ready, desired, allowed)


def test_percentages_are_of_what_is_wanted_and_plain_numbers_of_what_is_there() -> None:
    agents = settled(deployment(replicas=4), budget(maxUnavailable="50%"), budget("plain", minAvailable=1))
    gone = next(iter(agents.world.pods))
    world = replace(agents.world, pods={uid: pod for uid, pod in agents.world.pods.items() if uid != gone})
    by_name = {world.policies[uid].meta.name: status for uid, status in Budgets(world, world.pods).statuses.items()}
    assert (by_name["web"].expected_pods, by_name["plain"].expected_pods) == (4, 3)


def test_stateful_sets_and_replica_sets_say_how_many_they_want() -> None:
    for thing in (stateful_set(replicas=4), replica_set(replicas=4)):
        agents = settled(thing, budget(maxUnavailable=1))
        [status] = Budgets(agents.world, agents.world.pods).statuses.values()
        assert (status.expected_pods, status.desired_healthy, status.disruptions_allowed) == (4, 3, 1)


def test_pods_whose_owner_has_no_number_of_replicas_make_a_percentage_say_nothing() -> None:
    agents = settled(daemon_set(), budget(maxUnavailable="50%"))
    [status] = Budgets(agents.world, agents.world.pods).statuses.values()
    assert status.disruptions_allowed == 0
    assert "DaemonSet web, which has no number of replicas" in status.trouble


def test_the_status_is_stored_when_it_changes_and_only_then() -> None:
    agents = settled(deployment(), budget(minAvailable=2))
    [item] = agents.world.policies.values()
    assert isinstance(item, Budget)
    assert item.status == BudgetStatus(1, 3, 2, 1, 3)
    assert reconcile(agents.observed(), agents.now).is_empty


# ---- who may go ----


def pods_of(world: World) -> list[Pod]:
    return sorted(world.pods.values(), key=lambda pod: pod.meta.key)


def test_each_pod_that_goes_takes_one_of_what_is_allowed() -> None:
    agents = settled(deployment(replicas=4), budget(minAvailable=2))
    budgets = Budgets(agents.world, agents.world.pods)
    refusals = [budgets.refusal(pod) for pod in pods_of(agents.world)]
    assert [bool(text) for text in refusals] == [False, False, True, True]
    assert refusals[2] == "disruption budget web allows none to go: 2 healthy, 2 have to be"


@pytest.mark.parametrize("ready", range(4))
def test_what_goes_without_asking_is_counted_as_the_next_pass_will(ready: int) -> None:
    """What was not ready was none of the healthy ones. Two budgets are both told."""
    agents = settled(deployment(), budget(minAvailable=1), budget("other", maxUnavailable=2))
    pods = pods_of(agents.world)
    healthy = {pod.meta.uid for pod in pods[:ready]}
    for count in range(len(pods) + 1):
        victims = [replace(pod, stop=Stop("room is made", moment())) for pod in pods[:count]]
        budgets = Budgets(agents.world, healthy)
        budgets.gone(pods[:count])
        after = Budgets(put(agents.world, *victims), healthy - {pod.meta.uid for pod in victims})
        assert budgets.statuses == after.statuses


def test_two_budgets_over_one_pod_let_it_never_go() -> None:
    agents = settled(deployment(), budget(minAvailable=0), budget("other", minAvailable=0))
    assert "more than one disruption budget covers it" in Budgets(agents.world, agents.world.pods).refusal(
        pods_of(agents.world)[0]
    )


def test_pods_that_have_not_started_ask_no_budget() -> None:
    agents = settled(deployment(), budget(minAvailable=3))
    pod = pods_of(agents.world)[0]
    pending = replace(pod, report=report(pod, PENDING))
    assert Budgets(put(agents.world, pending), ()).refusal(pending) == ""


@pytest.mark.parametrize(
    ("policy", "ready", "may_go"),
    [("AlwaysAllow", 0, True), ("AlwaysAllow", 2, True), ("IfHealthyBudget", 2, True), ("IfHealthyBudget", 1, False)],
)
def test_pods_that_run_and_are_not_ready(policy: str, ready: int, may_go: bool) -> None:
    agents = settled(deployment(), budget(minAvailable=2, unhealthyPodEvictionPolicy=policy))
    *others, ill = pods_of(agents.world)
    budgets = Budgets(agents.world, {pod.meta.uid for pod in others[:ready]})
    assert (budgets.refusal(ill) == "") == may_go


def test_no_selector_covers_nothing_and_an_empty_one_all_of_the_namespace() -> None:
    agents = settled(deployment())
    for selector, covered in ((None, 0), ({}, 3)):
        item = budget(minAvailable=1)
        item = replace(
            item,
            source={
                **item.source,
                "spec": {"minAvailable": 1, "selector": selector} if selector is not None else {"minAvailable": 1},
            },
        )
        [status] = Budgets(put(agents.world, item), agents.world.pods).statuses.values()
        assert status.expected_pods == covered


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{minAvailable: 1, maxUnavailable: 1}", "spec.maxUnavailable: may not be set together with minAvailable"),
        ("{minAvailable: 101%}", "spec.minAvailable: may not be more than 100%, not 101%"),
        ("{minAvailable: -1}", "spec.minAvailable"),
        ("{unhealthyPodEvictionPolicy: Never}", "spec.unhealthyPodEvictionPolicy"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(spec: str, words: str) -> None:
    text = f"apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{name: web}}\nspec: {spec}\n"
    with pytest.raises(ManifestError, match=words):
        load(text, "pdb.yaml")


@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from(["minAvailable", "maxUnavailable"]), st.integers(0, 100))
def test_letting_go_all_that_is_allowed_never_goes_below_what_has_to_stay(
    pods: int, ready: int, field: str, percent: int
) -> None:
    made = [replace(bare_pod(f"p{number}"), report=report(bare_pod(f"p{number}"))) for number in range(pods)]
    item = replica_set(replicas=pods)
    owned = [replace(pod, meta=replace(pod.meta, owner=_owner(item))) for pod in made]
    healthy = {pod.meta.uid for pod in owned[:ready]}
    budgets = Budgets(cluster(1, item, *owned, budget(**{field: f"{percent}%"})), healthy)
    [before] = budgets.statuses.values()
    gone = [pod for pod in owned if not budgets.refusal(pod)]
    left = len(healthy) - sum(pod.meta.uid in healthy for pod in gone)
    assert left >= min(before.desired_healthy, before.current_healthy)


def _owner(item: Any) -> Any:
    from controller.model.cluster import Ref

    return Ref("ReplicaSet", item.meta.name, item.meta.uid)


def test_lost_hosts_ask_no_budget() -> None:
    agents = Agents(cluster(3, deployment(pods=template(tolerations=[])), budget(minAvailable=3)), step_s=60.0)
    agents.settle(40)
    silent = next(pod.node for pod in agents.world.pods.values())
    agents.down = {silent}
    for _ in range(12):
        agents.step()
    assert any(pod.lost is not None for pod in agents.world.pods.values())


def test_an_order_to_drain_names_the_budget_to_nobody_before_it_is_stored() -> None:
    agents = settled(deployment(), budget(minAvailable=3))
    node = agents.world.nodes["n1"]
    changes, pods = order_drain(agents.world, node, Drain(moment()), ignore_daemon_sets=False)
    assert [change.reason for change in changes] == ["NodeDraining"]
    assert all(pod.node == "n1" for pod in pods)
