"""Explanations, imagined losses and proposals of moves, on worlds small enough to know the answer."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from controller.cli.whatif import _explained, _explanation_text, _machine, _outcome_text
from controller.decide.explain import Explanation, explain
from controller.decide.nodes import judge
from controller.decide.rebalance import rebalance
from controller.decide.whatif import Imagined, Machine, imagine
from controller.model.cluster import Declared, Pod, World
from controller.model.errors import NotFound, UsageError
from controller.model.plan import Change, changed
from nodeagent.protocol import Capacity
from tests.agents import Agents
from tests.builders import (
    bare_pod,
    budget,
    cluster,
    daemon_set,
    deployment,
    edited,
    job,
    meta,
    moment,
    node,
    put,
    replica_set,
    report,
    seen,
    taint,
    template,
    unseen,
    world,
)

GIB = 2**30
_SUM = template("sum:1", restartPolicy="Never", requests={"cpu": "2"})


def settled(start: World) -> World:
    agents = Agents(start)
    agents.settle(60)
    return agents.observed()


def explained(start: World, name: str) -> Explanation:
    pod = next(pod for pod in start.pods.values() if pod.meta.name == name)
    return explain(start, judge(start, moment()).views, pod)


def per_node(of: World) -> dict[str, int]:
    return dict(sorted(Counter(pod.node for pod in of.pods.values() if pod.stop is None and pod.lost is None).items()))


def test_an_imagined_machine_takes_no_name_that_is_there() -> None:
    start = settled(world(node("new-1"), deployment(replicas=2, pods=template(requests={"cpu": "3"}))))
    outcome = imagine(start, Imagined(add=(Machine(8000, 2**34),)), moment(100))
    assert per_node(outcome.world) == {"new-1": 1, "new-2": 1}


# ---- explain ----


def test_a_port_that_a_rootless_node_cannot_give_is_told_with_the_way_out() -> None:
    capacity = Capacity(cpu_m=4000, memory_bytes=4 * GIB, rootless=True, ports_from=1024)
    web = bare_pod(ports=[{"containerPort": 80, "hostPort": 80}])
    found = explained(world(node("n1"), web, sightings={"n1": seen("n1", capacity=capacity)}), "lonely")
    assert [dict(item.objections) for item in found.verdicts] == [
        {"NodePorts": "is rootless: host ports are allowed from 1024 on, not 80"}
    ]
    assert found.remedies == ("on n1: a host port from 1024 on, or net.ipv4.ip_unprivileged_port_start lowered there",)


def test_a_finished_pod_is_explained_with_what_its_siblings_still_take() -> None:
    start = settled(cluster(1, job(completions=2, parallelism=2, pods=_SUM)))
    first, second = sorted(start.pods.values(), key=lambda pod: pod.meta.name)
    full = replace(bare_pod("full", requests={"cpu": "2"}), node="n1")
    start = put(put(start, replace(first, report=report(first, "Succeeded"))), full)
    (of_the_first,) = explained(start, first.meta.name).verdicts
    (of_the_second,) = explained(start, second.meta.name).verdicts
    assert dict(of_the_first.objections) == {"NodeResourcesFit": "cpu: needs 2, free 0"}
    assert dict(of_the_second.objections) == {}


def test_a_pending_pod_is_explained_by_every_filter_of_every_node_and_by_what_would_help() -> None:
    start = world(
        node("n1", 1),
        node("n2", 2, cordoned=True),
        node("n3", 3, taints=(taint("gpu", value="a"),), labels={}),
        bare_pod(requests={"memory": "3Gi"}),
        sightings={"n1": seen("n1", memory_bytes=2 * GIB), "n2": seen("n2"), "n3": seen("n3", memory_bytes=GIB)},
    )
    found = explained(start, "lonely")
    assert {item.node: dict(item.objections) for item in found.verdicts} == {
        "n1": {"NodeResourcesFit": "memory: needs 3Gi, free 2Gi"},
        "n2": {"NodeUnschedulable": "cordoned"},
        "n3": {
            "NodeResourcesFit": "memory: needs 3Gi, free 1Gi",
            "TaintToleration": "has the taint gpu=a:NoSchedule, which is not tolerated",
        },
    }
    assert found.remedies == (
        "on n1: 1024Mi of memory less asked for, or freed there",
        "on n2: sshoal node uncordon n2",
    )


@pytest.mark.parametrize(
    ("fields", "spec", "remedy"),
    [
        ({"taints": (taint("gpu", value="a"),)}, {}, "on n1: a toleration for gpu=a:NoSchedule"),
        ({}, {"nodeSelector": {"disk": "ssd"}}, "on n1: the node with the label disk=ssd"),
        ({}, {"requests": {"cpu": "5"}}, "on n1: 1 of cpu less asked for, or freed there"),
        ({}, {"nodeName": "n7"}, "on n1: another nodeName, or none"),
        ({}, {"priorityClassName": "x"}, "there is no PriorityClass x: create it, or take priorityClassName out"),
    ],
)
def test_what_would_make_a_pod_fit(fields: dict[str, Any], spec: dict[str, Any], remedy: str) -> None:
    assert explained(world(node("n1", **fields), bare_pod(**spec)), "lonely").remedies == (remedy,)


def test_of_a_host_that_is_not_heard_nothing_else_is_said() -> None:
    found = explained(world(node("n1"), bare_pod(), sightings={"n1": unseen()}), "lonely")
    assert found.verdicts[0].objections == {"NodeReady": "Unseen: no route to host"}
    assert found.remedies == ("on n1: the node Ready (it is Unseen: no route to host)",)


def test_a_bound_pod_is_judged_as_if_it_were_placed_now_and_shows_what_decided_then() -> None:
    start = settled(cluster(2, bare_pod(requests={"cpu": "1"})))
    found = explained(start, "lonely")
    assert found.remedies == ()
    assert [(item.node, item.total) for item in found.verdicts] == [("n1", 472), ("n2", 472)]
    assert found.verdicts[0].scores["NodeResourcesFit"] == 85
    text = _explanation_text(found, wide=True)
    assert "pod default/lonely is on n1\nchosen by: 472 points: TaintToleration 3×100" in text
    assert json.loads(json.dumps(_explained(found)))["nodes"][1]["fits"] is True


def test_a_full_node_does_not_reject_the_pod_that_fills_it() -> None:
    start = settled(world(node("n1"), bare_pod(requests={"cpu": "4"})))
    assert explained(start, "lonely").verdicts[0].objections == {}


# ---- simulate ----


def test_a_lost_nodes_pods_would_run_on_the_others() -> None:
    start = settled(cluster(3, deployment(replicas=6)))
    outcome = imagine(start, Imagined(lose=("n1",)), moment(999))
    assert per_node(outcome.world) == {"n2": 3, "n3": 3}
    assert (len(outcome.placed), len(outcome.gone), outcome.unplaced, outcome.at_rest) == (2, 2, (), True)


def test_what_would_not_fit_any_more_is_told_and_a_host_more_helps() -> None:
    start = settled(cluster(2, deployment(replicas=4, pods=template(requests={"cpu": "2"}))))
    outcome = imagine(start, Imagined(lose=("n1",)), moment(999))
    assert {item.summary for _, item in outcome.unplaced} == {
        "0/2 nodes fit: 1 Dead: confirmed powered-off; 1 cpu: needs 2, free 0"
    }
    assert "2 placed, 2 gone, 0 nowhere" in _outcome_text(
        imagine(start, Imagined(lose=("n1",), add=(Machine(4000, GIB),)), moment(999))
    )
    assert "2 nowhere" in _outcome_text(outcome)


def test_a_drained_node_is_empty_but_for_pods_that_nothing_replaces() -> None:
    start = settled(cluster(2, deployment(replicas=2), bare_pod()))
    [alone] = [pod for pod in start.pods.values() if pod.meta.owner is None]
    outcome = imagine(start, Imagined(drain=(alone.node,)), moment(999))
    assert [pod.meta.name for pod in outcome.stuck] == ["lonely"]
    assert per_node(outcome.world)[alone.node] == 1


def test_daemons_of_a_node_that_is_drained_stay() -> None:
    start = settled(cluster(2, daemon_set("logs")))
    outcome = imagine(start, Imagined(drain=("n1",)), moment(999))
    assert per_node(outcome.world) == {"n1": 1, "n2": 1}
    assert (outcome.placed, outcome.gone, outcome.unplaced) == ((), (), ())


def test_what_has_ended_stays_for_its_logs_on_a_node_that_is_drained() -> None:
    """As with `drain` itself: it is not gone, and nothing is placed for it."""
    agents = Agents(cluster(1, job(completions=2)), ends={"sum:1": [0]})
    agents.settle(60)
    outcome = imagine(agents.observed(), Imagined(drain=("n1",)), moment(999))
    assert per_node(outcome.world) == {"n1": 2}
    assert (outcome.placed, outcome.gone, outcome.unplaced) == ((), (), ())


def test_manifests_are_applied_in_imagination() -> None:
    web = deployment(replicas=2, pods=template(requests={"cpu": "2"}))
    start = settled(cluster(1, web))
    [live] = start.deployments.values()
    bigger = Change("update", edited(live, replicas=3), "")
    outcome = imagine(start, Imagined(changes=(bigger,)), moment(999))
    assert [item.summary for _, item in outcome.unplaced] == ["0/1 nodes fit: 1 cpu: needs 2, free 0"]
    assert start.deployments[live.meta.uid] is live


def test_a_silent_host_stays_as_it_is_in_imagination() -> None:
    start = settled(cluster(4, deployment(replicas=4)))
    silent = replace(start, sightings={**start.sightings, "n4": unseen()})
    outcome = imagine(silent, Imagined(lose=("n1",)), moment(99))
    assert per_node(outcome.world)["n4"] == 1
    assert outcome.at_rest


def test_a_node_that_does_not_exist_is_no_simulation() -> None:
    with pytest.raises(NotFound, match='node "n9" not found'):
        imagine(cluster(1), Imagined(lose=("n9",)), moment())


def test_a_converged_cluster_stays_as_it_is_when_nothing_is_imagined() -> None:
    start = settled(cluster(3, deployment(replicas=5, minReadySeconds=30), replica_set()))
    outcome = imagine(start, Imagined(), moment(999))
    assert (outcome.placed, outcome.gone, outcome.unplaced, outcome.stuck) == ((), (), (), ())


@pytest.mark.parametrize("text", ["4,8Gi", "4cpu", "4cpu,lots", "cpu,8Gi", "-1cpu,8Gi"])
def test_a_machine_has_cpu_and_memory(text: str) -> None:
    assert _machine("1500mcpu,8Gi") == Machine(1500, 8 * GIB)
    with pytest.raises(UsageError, match="--add"):
        _machine(text)


# ---- rebalance ----


def returned(replicas: int, **spec: Any) -> World:
    """n1 and n2 run everything; n3 has just come."""
    start = settled(cluster(2, deployment(replicas=replicas, **spec)))
    return put(start, node("n3", 3))


def with_third(start: World) -> World:
    return replace(start, sightings={**start.sightings, "n3": seen("n3")})


def test_after_a_host_came_pods_are_moved_there_until_it_is_even() -> None:
    start = with_third(returned(6))
    moves = rebalance(start, judge(start, moment()).views, 20)
    assert sorted(move.source for move in moves) == ["n1", "n2"]
    assert {move.target for move in moves} == {"n3"}
    assert all(move.gain >= 20 for move in moves)


def test_moves_are_bounded_and_come_in_rounds_of_what_may_be_unavailable() -> None:
    start = with_third(returned(12, strategy={"rollingUpdate": {"maxUnavailable": 1}}))
    views = judge(start, moment()).views
    assert [move.round for move in rebalance(start, views, 20)] == [1, 2, 3, 4]
    assert len(rebalance(start, views, 2)) == 2
    many = with_third(returned(12, strategy={"rollingUpdate": {"maxUnavailable": 2}}))
    assert [move.round for move in rebalance(many, judge(many, moment()).views, 20)] == [1, 1, 2, 2]


def test_the_moves_of_one_round_together_keep_a_budget() -> None:
    """The rollout may stop two at once, the budget lets one go at a time."""
    many = put(with_third(returned(12, strategy={"rollingUpdate": {"maxUnavailable": 2}})), budget(maxUnavailable=1))
    assert [move.round for move in rebalance(many, judge(many, moment()).views, 20)] == [1, 2, 3, 4]


def test_what_is_even_stays_and_so_do_pods_of_cordoned_nodes_and_of_their_own() -> None:
    even = settled(cluster(3, deployment(replicas=6), bare_pod()))
    assert rebalance(even, judge(even, moment()).views, 20) == ()
    lopsided = with_third(returned(6))
    cordoned = put(lopsided, *(replace(lopsided.nodes[name], cordoned=True) for name in ("n1", "n2")))
    assert rebalance(cordoned, judge(cordoned, moment()).views, 20) == ()


def test_a_proposal_done_leaves_nothing_to_propose() -> None:
    start = with_third(returned(9))
    views = judge(start, moment()).views
    pods: dict[str, Pod] = dict(start.pods)
    for move in rebalance(start, views, 20):
        pods[move.pod.meta.uid] = replace(move.pod, node=move.target)
    done = replace(start, pods=pods)
    assert rebalance(done, views, 20) == ()


def test_what_a_namespace_refuses_is_told_and_what_it_refuses_already_is_not() -> None:
    source = {"metadata": {"name": "most", "namespace": "default"}, "spec": {"hard": {"pods": "3"}}}
    start = settled(cluster(2, deployment(replicas=3), Declared(meta("ResourceQuota", "most"), source)))
    (web,) = start.deployments.values()
    bigger = Change("update", edited(web, replicas=4), "")
    outcome = imagine(start, Imagined(changes=(bigger,)), moment(999))
    wanted = "deployment default/web: exceeded quota: most, requested: pods=1, used: pods=3, limited: pods=3"
    assert outcome.refused == (wanted,)
    assert f"! {wanted}" in _outcome_text(outcome)
    assert imagine(changed(start, [bigger]), Imagined(), moment(999)).refused == ()
