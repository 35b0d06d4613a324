"""Where pods go, and why not elsewhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.decide.reconcile import reconcile
from controller.decide.schedule.usage import HELD_MAX
from controller.model.cluster import Pod, Sighting, World
from nodeagent.agent import PODS_MAX
from nodeagent.protocol import SUCCEEDED, Capacity
from tests.agents import Agents
from tests.builders import (
    after,
    bare_pod,
    cluster,
    condition,
    deployment,
    job,
    meta,
    moment,
    node,
    put,
    report,
    seen,
    taint,
    template,
    unseen,
    with_sightings,
    world,
)

GIB = 2**30


def test_pods_of_one_owner_are_spread_over_the_nodes() -> None:
    assert _places(cluster(3, deployment(replicas=7))) == {"n1": 3, "n2": 2, "n3": 2}


def test_a_new_owner_s_pods_go_where_most_is_free() -> None:
    busy = bare_pod("busy", requests={"cpu": "3"}, nodeName="n1")
    placed = _places(cluster(2, busy, deployment(replicas=1, pods=template(requests={"cpu": "500m"}))))
    assert placed == {"n1": 1, "n2": 1}


def test_ties_go_to_the_first_name() -> None:
    assert _places(cluster(3, bare_pod())) == {"n1": 1}


REJECTIONS: list[tuple[str, dict[str, Any], dict[str, Any], Sighting, str]] = [
    (
        "memory",
        {"requests": {"memory": "512Mi"}},
        {},
        seen("n1", memory_bytes=300 * 2**20),
        "memory: needs 512Mi, free 300Mi",
    ),
    ("cpu", {"requests": {"cpu": "1500m"}}, {}, seen("n1", cpu_m=1000), "cpu: needs 1500m, free 1"),
    ("silent", {}, {}, unseen(), "Unseen: no route to host"),
    ("cordon", {}, {"cordoned": True}, seen("n1"), "cordoned"),
    ("node selector", {"nodeSelector": {"disk": "ssd"}}, {}, seen("n1"), "lacks the label disk=ssd"),
    ("node name", {"nodeName": "n7"}, {}, seen("n1"), "is not n7, which nodeName asks for"),
    (
        "taint",
        {},
        {"taints": (taint("gpu", value="a"),)},
        seen("n1"),
        "has the taint gpu=a:NoSchedule, which is not tolerated",
    ),
    (
        "sick",
        {},
        {},
        seen("n1", conditions=(condition("DiskPressure"),)),
        "NotReady: DiskPressure: DiskPressure is said",
    ),
]


@pytest.mark.parametrize(
    ("spec", "fields", "sighting", "why"), [case[1:] for case in REJECTIONS], ids=[case[0] for case in REJECTIONS]
)
def test_a_rejected_node_has_a_reason_with_numbers(
    spec: dict[str, Any], fields: dict[str, Any], sighting: Sighting, why: str
) -> None:
    plan = reconcile(world(node("n1", **fields), bare_pod(**spec), sightings={"n1": sighting}), moment())
    [unplaced] = plan.unplaced
    assert unplaced.rejected == {"n1": why}
    assert unplaced.summary == f"0/1 nodes fit: 1 {why}"
    assert [(change.reason, change.because) for change in plan.changes if change.reason == "FailedScheduling"] == [
        ("FailedScheduling", unplaced.summary)
    ]


def test_the_summary_counts_reasons_and_tells_the_nearest_miss() -> None:
    start = with_sightings(
        cluster(3, node("n4", 4, cordoned=True), bare_pod(requests={"memory": "2Gi"})),
        n1=seen("n1", memory_bytes=GIB),
        n2=seen("n2", memory_bytes=GIB // 2),
        n3=seen("n3", memory_bytes=GIB // 4),
    )
    [unplaced] = reconcile(start, moment()).unplaced
    assert unplaced.summary == "0/4 nodes fit: 3 memory: needs 2Gi, free 1Gi; 1 cordoned"


def test_a_pod_that_fits_nowhere_is_told_so_once_and_placed_when_there_is_room() -> None:
    start = world(node("n1", cordoned=True), bare_pod())
    told = after(start, reconcile(start, moment()))
    assert _only(told).unplaced == "0/1 nodes fit: 1 cordoned"
    assert reconcile(told, moment(60)).is_empty
    freed = put(told, replace(told.nodes["n1"], cordoned=False))
    placed = after(freed, reconcile(freed, moment(120)))
    assert (_only(placed).node, _only(placed).unplaced) == ("n1", "")


def test_what_is_waited_for_takes_a_line_per_reason_not_per_pod() -> None:
    plan = reconcile(world(node("n1", cordoned=True), deployment(replicas=30)), moment())
    assert [line.partition(" and ")[2] for line in plan.waiting if line.startswith("pod")] == [
        "29 more: 0/1 nodes fit: 1 cordoned"
    ]


def test_without_nodes_that_is_the_reason() -> None:
    assert reconcile(world(bare_pod()), moment()).unplaced[0].summary == "there are no nodes yet"


@pytest.mark.parametrize(
    ("tolerations", "fits"),
    [
        ([], False),
        ([{"key": "gpu", "value": "a"}], True),
        ([{"key": "gpu", "value": "b"}], False),
        ([{"key": "gpu", "operator": "Exists"}], True),
        ([{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}], False),
        ([{"operator": "Exists"}], True),
    ],
)
def test_tolerations_match_as_in_kubernetes(tolerations: list[dict[str, Any]], fits: bool) -> None:
    plan = reconcile(world(node("n1", taints=(taint("gpu", value="a"),)), bare_pod(tolerations=tolerations)), moment())
    assert bool(plan.unplaced) != fits


def test_a_preferred_taint_only_moves_pods_elsewhere_while_there_is_an_elsewhere() -> None:
    avoided = node("n1", taints=(taint("slow", "PreferNoSchedule"),))
    assert _places(world(avoided, node("n2", 2), bare_pod())) == {"n2": 1}
    assert _places(world(avoided, bare_pod())) == {"n1": 1}


def test_node_name_passes_by_cordon_and_no_schedule_taints() -> None:
    pinned = node("n1", cordoned=True, taints=(taint("gpu"),))
    assert _places(world(pinned, bare_pod(nodeName="n1"))) == {"n1": 1}


def test_node_name_passes_by_what_pods_say_of_each_other() -> None:
    """Kubernetes' scheduler does not see such a pod; kubelet asks for room and ports."""
    term = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    skew = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    fussy = {"affinity": apart, "topologySpreadConstraints": [skew]}
    db = replace(bare_pod("db", nodeName="n1"), meta=replace(meta("Pod", "db"), labels={"app": "db"}))
    pinned = bare_pod("pinned", nodeName="n1", **fussy)
    assert _places(cluster(2, db, pinned)) == {"n1": 2}


def test_pods_of_jobs_are_not_spread_unless_they_ask_for_it() -> None:
    """As by Kubernetes' default constraints, which count pods of replica sets, stateful sets and services."""
    sizes = {"n1": seen("n1", cpu_m=32_000, memory_bytes=64 * GIB), "n2": seen("n2", cpu_m=2000, memory_bytes=4 * GIB)}
    asks = {"cpu": "100m", "memory": "100Mi"}
    one = job(parallelism=6, completions=6, pods=template("sum:1", restartPolicy="Never", requests=asks))
    assert _places(cluster(2, one, sightings=sizes)) == {"n1": 6}
    assert _places(cluster(2, deployment(replicas=6, pods=template(requests=asks)), sightings=sizes)) == {
        "n1": 3,
        "n2": 3,
    }


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ({"hostPort": 80}, {"hostPort": 80}, True),
        ({"hostPort": 80}, {"hostPort": 81}, False),
        ({"hostPort": 80}, {"hostPort": 80, "protocol": "UDP"}, False),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80, "hostIP": "10.0.0.2"}, False),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80, "hostIP": "0.0.0.0"}, True),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80}, True),
    ],
)
def test_a_host_port_is_given_once_per_address_and_protocol(
    one: dict[str, Any], other: dict[str, Any], conflict: bool
) -> None:
    pods = [bare_pod(name, ports=[{"containerPort": 8080, **port}]) for name, port in (("a", one), ("b", other))]
    assert len(reconcile(cluster(1, *pods), moment()).unplaced) == conflict


def test_replicas_with_a_host_port_get_a_node_each() -> None:
    web = deployment(replicas=3, pods=template(ports=[{"containerPort": 80, "hostPort": 80}]))
    plan = reconcile(cluster(2, web), moment())
    assert len(plan.unplaced) == 1
    assert plan.unplaced[0].summary == "0/2 nodes fit: 2 host port 80/TCP is taken"


@pytest.mark.parametrize(
    ("port", "why"), [(80, "is rootless: host ports are allowed from 1024 on, not 80"), (1024, "")]
)
def test_a_rootless_node_gets_no_pod_with_a_host_port_that_it_cannot_bind(port: int, why: str) -> None:
    capacity = Capacity(cpu_m=4000, memory_bytes=4 * GIB, rootless=True, ports_from=1024)
    here = world(node("n1"), bare_pod(ports=[{"containerPort": 8080, "hostPort": port}]))
    plan = reconcile(with_sightings(here, n1=seen("n1", capacity=capacity)), moment())
    assert [one.summary for one in plan.unplaced] == [f"0/1 nodes fit: 1 {why}"] * bool(why)


@pytest.mark.parametrize("rootless", ["n1", "n2"])
def test_only_a_rootless_node_refuses_a_low_port(rootless: str) -> None:
    """Whichever is asked first: nodes that are alike in all else are not alike in this."""
    capacity = Capacity(cpu_m=4000, memory_bytes=4 * GIB, rootless=True, ports_from=1024)
    sightings = {"n1": seen("n1"), "n2": seen("n2"), rootless: seen(rootless, capacity=capacity)}
    other = {"n1": "n2", "n2": "n1"}[rootless]
    web = bare_pod(ports=[{"containerPort": 80, "hostPort": 80}])
    assert _places(cluster(2, web, sightings=sightings)) == {other: 1}


def test_init_containers_count_by_their_largest_moment_and_sidecars_stay() -> None:
    """Sidecar 1 + main 1 run together: 2. While the init container runs: sidecar 1 + init 2 = 3."""

    def container(name: str, cpu: str, **fields: str) -> dict[str, Any]:
        return {"name": name, "image": "web:1", "resources": {"requests": {"cpu": cpu}}, **fields}

    inits = [container("side", "1", restartPolicy="Always"), container("init", "2")]
    pod = bare_pod(requests={"cpu": "1"}, initContainers=inits)
    assert reconcile(world(node("n1"), pod, sightings={"n1": seen("n1", cpu_m=2999)}), moment()).unplaced
    assert not reconcile(world(node("n1"), pod, sightings={"n1": seen("n1", cpu_m=3000)}), moment()).unplaced


def test_a_node_runs_at_most_as_many_pods_as_it_says() -> None:
    plan = reconcile(cluster(1, deployment(replicas=112)), moment())
    assert len(plan.unplaced) == 2
    assert plan.unplaced[0].summary == "0/1 nodes fit: 1 runs 110 pods of at most 110"


@pytest.mark.parametrize(("held", "fits"), [(HELD_MAX - 1, 1), (HELD_MAX, 0)])
def test_finished_pods_take_no_room_but_a_place_in_what_the_agent_is_told(held: int, fits: int) -> None:
    """Beyond that it would refuse all its orders."""
    finished = [
        replace(pod, node="n1", report=report(pod, SUCCEEDED))
        for pod in (bare_pod(f"done-{number}", restartPolicy="Never") for number in range(held))
    ]
    agents = Agents(cluster(1, *finished, bare_pod("fresh")))
    agents.pods = {"n1": {pod.meta.uid: pod.report for pod in finished if pod.report is not None}}
    plan = reconcile(agents.observed(), agents.now)
    assert sum(change.verb == "bind" for change in plan.changes) == fits
    assert len(plan.wanted["n1"].pods) == HELD_MAX < PODS_MAX
    assert [item.summary for item in plan.unplaced] == (
        [] if fits else ["0/1 nodes fit: 1 has 500 pods, those that are over included, of at most 500"]
    )


def test_pods_that_are_stopping_still_take_room_and_finished_ones_do_not() -> None:
    big = bare_pod("big", requests={"cpu": "4"})
    start = cluster(1, big)
    start = after(start, reconcile(start, moment()))
    waiting = put(start, bare_pod("next", requests={"cpu": "4"}))
    assert reconcile(waiting, moment()).unplaced
    bound = start.pods[big.meta.uid]
    done = with_sightings(waiting, n1=seen("n1", [report(bound, "Succeeded")]))
    assert not reconcile(done, moment()).unplaced


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 4096)), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2000), st.integers(0, 2048)), min_size=1, max_size=4),
)
def test_no_node_ever_gets_more_than_it_has(nodes: list[tuple[int, int]], owners: list[tuple[int, int, int]]) -> None:
    records = [node(f"n{number}", number) for number in range(len(nodes))]
    told: dict[str, Sighting] = {
        f"n{number}": seen(f"n{number}", cpu_m=cpu_m, memory_bytes=memory * 2**20)
        for number, (cpu_m, memory) in enumerate(nodes)
    }
    webs = [
        deployment(f"web{number}", count, template(requests={"cpu": f"{cpu_m}m", "memory": f"{memory}Mi"}))
        for number, (count, cpu_m, memory) in enumerate(owners)
    ]
    start = world(*records, *webs, sightings=told)
    plan = reconcile(start, moment())
    used_cpu: Counter[str] = Counter()
    used_memory: Counter[str] = Counter()
    for pod in after(start, plan).pods.values():
        assert pod.meta.owner is not None
        owner = int(pod.meta.owner.name.split("-")[0].removeprefix("web"))
        used_cpu[pod.node] += owners[owner][1]
        used_memory[pod.node] += owners[owner][2]
    for number, (cpu_m, memory) in enumerate(nodes):
        assert used_cpu[f"n{number}"] <= cpu_m
        assert used_memory[f"n{number}"] <= memory
    assert len(plan.unplaced) == sum(not pod.node for pod in after(start, plan).pods.values())


def _places(start: World) -> dict[str, int]:
    return dict(sorted(Counter(pod.node for pod in after(start, reconcile(start, moment())).pods.values()).items()))


def _only(of: World) -> Pod:
    [pod] = of.pods.values()
    return pod


def test_a_pod_behind_gates_waits_until_the_last_is_taken_out() -> None:
    gates = [{"name": "example.com/foo"}, {"name": "example.com/bar"}]
    plan = reconcile(cluster(1, bare_pod(schedulingGates=gates)), moment())
    assert [item.summary for item in plan.unplaced] == [
        "waits behind scheduling gates: example.com/foo, example.com/bar"
    ]
    assert _places(cluster(1, bare_pod(schedulingGates=[]))) == {"n1": 1}
