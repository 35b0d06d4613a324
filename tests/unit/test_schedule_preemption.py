"""Pods of higher priority get room: whose pods go, and whose do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.decide.phases import is_finished
from controller.decide.reconcile import reconcile
from controller.decide.schedule.usage import HELD_MAX
from controller.model.cluster import Declared, Pod, World
from controller.model.plan import Plan
from nodeagent.protocol import FAILED, RUNNING_PHASE, STOPPED, SUCCEEDED
from tests.agents import Agents
from tests.builders import (
    after,
    bare_pod,
    budget,
    daemon_set,
    meta,
    moment,
    node,
    put,
    replica_set,
    report,
    seen,
    template,
    unseen,
    with_sightings,
    world,
)


def priority_class(name: str, value: int, **fields: Any) -> Declared:
    return Declared(meta("PriorityClass", name, ""), {"metadata": {"name": name}, "value": value, **fields})


LOW, MIDDLE, HIGH = priority_class("low", -10), priority_class("middle", 50), priority_class("high", 100)


def pod(name: str, priority: str = "", cpu: str = "1", **fields: Any) -> Pod:
    spec = {"requests": {"cpu": cpu}, **fields}
    if priority:
        spec["priorityClassName"] = priority
    return bare_pod(name, **spec)


def running(pods: dict[str, list[Pod]], *, cpu_m: int = 2000, started: dict[str, float] | None = None) -> World:
    """Pods already on their nodes, each node full with two of them."""
    bound = [
        replace(one, node=name, bound=moment((started or {}).get(one.meta.name, 0.0)), report=report(one))
        for name, items in pods.items()
        for one in items
    ]
    nodes = [node(name, number) for number, name in enumerate(pods)]
    told = {name: seen(name, [report(one) for one in items], cpu_m=cpu_m) for name, items in pods.items()}
    return world(*nodes, *bound, LOW, MIDDLE, HIGH, sightings=told)


def preempted(plan: Plan) -> list[str]:
    return [change.record.meta.name for change in plan.changes if change.reason == "Preempted"]


def nominated(of: World, name: str) -> str:
    return next(pod.nominated for pod in of.pods.values() if pod.meta.name == name)


def test_a_pod_of_higher_priority_takes_the_room_of_a_lower_one_once_that_has_stopped() -> None:
    start = put(running({"n1": [pod("a"), pod("b", "middle")]}), pod("vip", "high"))
    plan = reconcile(start, moment(10))
    assert preempted(plan) == ["a"]
    waiting = after(start, plan)
    assert nominated(waiting, "vip") == "n1"
    assert reconcile(waiting, moment(20)).is_empty  # its victim is on its way
    gone = with_sightings(waiting, n1=seen("n1", [report(pod("b"))], cpu_m=2000))
    placed = after(gone, reconcile(gone, moment(30)))
    assert {one.meta.name: one.node for one in placed.pods.values()} == {"b": "n1", "vip": "n1"}
    assert nominated(placed, "vip") == ""


def test_room_that_is_being_made_is_kept_from_less_important_pods() -> None:
    """After a stops 1 cpu is free for vip; a later pod of middle priority must not get it."""
    start = put(running({"n1": [pod("a"), pod("b", "high")]}), pod("vip", "high"), pod("late", "middle"))
    waiting = after(start, reconcile(start, moment(10)))
    gone = with_sightings(waiting, n1=seen("n1", [report(pod("b"))], cpu_m=2000))
    placed = after(gone, reconcile(gone, moment(20)))
    assert {one.meta.name: one.node for one in placed.pods.values()} == {"b": "n1", "vip": "n1", "late": ""}


_TWO = {"n1": [pod("a"), pod("b", "high")], "n2": [pod("c"), pod("d", "high")]}
_MANY = {
    "n1": [pod("a", cpu="600m"), pod("b", cpu="700m"), pod("e", "high", "700m")],
    "n2": [pod("c"), pod("d", "high")],
}
_LOWER = {"n1": [pod("a"), pod("b", "high")], "n2": [pod("c", "low"), pod("d", "high")]}
_LEAST = {"n1": [pod("a", "middle"), pod("b", "middle")], "n2": [pod("c"), pod("d")]}

CHOICES: list[tuple[str, dict[str, list[Pod]], dict[str, float], list[str]]] = [
    ("the least important go", _LEAST, {}, ["d"]),
    ("fewer go rather than more", _MANY, {}, ["c"]),
    ("the smaller sum goes", _LOWER, {}, ["c"]),
    ("who started last goes", _TWO, {"a": 5, "c": 9}, ["c"]),
    ("else the first node's", _TWO, {}, ["a"]),
    ("the more important stay", {"n1": [pod("a"), pod("b", "low")]}, {}, ["b"]),
    ("the older stay", {"n1": [pod("a"), pod("b")]}, {"a": 1, "b": 5}, ["b"]),
    ("equals do not go", {"n1": [pod("a", "high"), pod("b", "high")]}, {}, []),
]


@pytest.mark.parametrize(
    ("pods", "started", "victims"), [case[1:] for case in CHOICES], ids=[case[0] for case in CHOICES]
)
def test_who_makes_room(pods: dict[str, list[Pod]], started: dict[str, float], victims: list[str]) -> None:
    start = put(running(pods, started=started), pod("vip", "high"))
    assert preempted(reconcile(start, moment(60))) == victims


@pytest.mark.parametrize(
    ("classes", "spec"),
    [
        ([], {"preemptionPolicy": "Never"}),
        ([priority_class("high", 100, preemptionPolicy="Never")], {}),
    ],
)
def test_who_must_not_preempt_waits(classes: list[Declared], spec: dict[str, Any]) -> None:
    start = put(running({"n1": [pod("a"), pod("b")]}), *classes, pod("vip", "high", **spec))
    plan = reconcile(start, moment())
    assert preempted(plan) == []
    assert [item.summary for item in plan.unplaced] == ["0/1 nodes fit: 1 cpu: needs 1, free 0"]


def test_nobody_goes_where_the_pod_could_not_run_even_then() -> None:
    start = put(running({"n1": [pod("a"), pod("b")]}), pod("vip", "high", nodeSelector={"disk": "ssd"}))
    assert preempted(reconcile(start, moment())) == []
    too_big = put(running({"n1": [pod("a"), pod("b")]}), pod("vip", "high", cpu="3"))
    assert preempted(reconcile(too_big, moment())) == []


APART: dict[str, Any] = {
    "affinity": {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}
            ]
        }
    }
}


def test_a_pod_that_keeps_others_apart_goes_too() -> None:
    start = put(running({"n1": [pod("loner", **APART)]}, cpu_m=4000), pod("vip", "high"))
    assert preempted(reconcile(start, moment())) == ["loner"]


def test_the_most_important_pods_are_placed_first_whatever_their_age() -> None:
    old = pod("old")
    vip = pod("vip", "high")
    vip = replace(vip, meta=replace(vip.meta, created=moment(50)))
    start = world(node("n1"), old, vip, HIGH, sightings={"n1": seen("n1", cpu_m=1000)})
    placed = after(start, reconcile(start, moment(60)))
    assert {one.meta.name: one.node for one in placed.pods.values()} == {"old": "", "vip": "n1"}


def test_the_default_class_is_that_of_pods_without_one() -> None:
    default = priority_class("usual", 200, globalDefault=True)
    start = put(running({"n1": [pod("a", "high"), pod("b", "high")]}), default, pod("plain"))
    assert len(preempted(reconcile(start, moment()))) == 1


def test_a_class_that_does_not_exist_is_told() -> None:
    plan = reconcile(world(node("n1"), pod("a", "nosuch")), moment())
    assert [item.summary for item in plan.unplaced] == ["there is no PriorityClass nosuch"]


def test_a_stopped_pod_is_no_victim_twice() -> None:
    """The victim's node says that it has stopped: nothing else is preempted, the pod is bound in the same pass."""
    start = put(running({"n1": [pod("a"), pod("b", "high")]}), pod("vip", "high"))
    waiting = after(start, reconcile(start, moment(10)))
    told = [report(pod("a"), STOPPED), report(pod("b"))]
    plan = reconcile(with_sightings(waiting, n1=seen("n1", told, cpu_m=2000)), moment(20))
    assert preempted(plan) == []
    assert [change.record.meta.name for change in plan.changes if change.verb == "bind"] == ["vip"]


@pytest.mark.parametrize(("polls", "victims"), [(1, []), (2, ["d"])])
def test_room_is_made_elsewhere_when_the_node_falls_silent(polls: int, victims: list[str]) -> None:
    """Its victim may never be known to have stopped; a single missed poll changes nothing yet."""
    start = running({"n1": [pod("a"), pod("b")], "n2": [pod("c", "middle"), pod("d", "middle")]})
    waiting = after(start := put(start, pod("vip", "high")), reconcile(start, moment(10)))
    assert nominated(waiting, "vip") == "n1"
    silent = with_sightings(waiting, n1=unseen())
    for poll in range(polls):
        plan = reconcile(silent, moment(20 + 10 * poll))
        silent = after(silent, plan)
    assert preempted(plan) == victims
    assert nominated(silent, "vip") == ("n2" if victims else "n1")


def test_the_room_of_one_is_kept_when_another_like_it_finds_none() -> None:
    """A node falls silent, and the pod that waited for it finds no other: what is free on n2 is still kept for the second pod."""
    pods = {name: [pod(f"{name}-low", cpu="700m"), pod(f"{name}-high", "high")] for name in ("n1", "n2")}
    two = replica_set("vip", 2, template(requests={"cpu": "1"}, priorityClassName="high"))
    start = put(running(pods, cpu_m=2200), two)
    for seconds in (10, 11):
        start = after(start, plan := reconcile(start, moment(seconds)))
    first = next(item for item in plan.unplaced if start.pods[item.pod].nominated)
    silent = start.pods[first.pod].nominated
    start = with_sightings(put(start, pod("late", "middle", cpu="400m")), **{silent: unseen()})
    for seconds in (20, 30):
        start = after(start, reconcile(start, moment(seconds)))
    named = {one.meta.name: (one.node, one.nominated) for one in start.pods.values()}
    assert named["late"] == ("", "")
    assert sorted(room for _, room in named.values()) == ["", "", "", "", "", "", {"n1": "n2", "n2": "n1"}[silent]]


@pytest.mark.parametrize(
    ("priority", "cpu", "spec", "stays"), [("", "3", {}, False), ("", "1", APART, False), ("high", "3", {}, True)]
)
def test_a_daemon_set_does_not_take_the_room_that_its_pod_has_made(
    priority: str, cpu: str, spec: dict[str, Any], stays: bool
) -> None:
    daemons = daemon_set("agent", template(requests={"cpu": cpu}, priorityClassName=priority))
    agents = Agents(world(node("n1"), LOW, MIDDLE, HIGH, daemons))
    agents.settle(20)
    agents.world = put(agents.world, labelled(pod("vip", "high", cpu="2", **spec), "vip"))
    stopped: list[str] = []
    agents.settle(20, lambda plan: stopped.extend(preempted(plan)))
    assert len(stopped) == (not stays)
    assert ("vip" in [one.meta.name for one in agents.world.pods.values() if one.node]) is not stays


def test_those_that_two_pods_want_to_be_near_to_do_not_go_for_both() -> None:
    """Else neither could come, and with an owner that makes the former anew it would begin again, for ever."""
    term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "db"}}}
    near = {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
    there = [replace(labelled(pod(f"db{number}", cpu="3"), "db"), node=f"n{number}") for number in (1, 2)]
    agents = Agents(world(*(node(f"n{number}", number, labels={"zone": "a"}) for number in (1, 2)), *there, HIGH))
    agents.settle(10)
    agents.world = put(
        agents.world, replica_set("vip", 2, template(requests={"cpu": "3"}, priorityClassName="high", **near))
    )
    stopped: list[str] = []
    agents.settle(20, lambda plan: stopped.extend(preempted(plan)))
    assert len(stopped) == 1
    assert sorted(one.meta.labels["app"] for one in agents.world.pods.values() if one.node) == ["db", "web"]


def test_those_for_whom_no_room_can_be_made_are_told_as_well() -> None:
    """Two alike; only one pod may go for them."""
    start = put(running({"n1": [pod("a"), pod("b", "high")]}), pod("vip1", "high"), pod("vip2", "high"))
    plan = reconcile(start, moment(10))
    assert preempted(plan) == ["a"]
    waiting = after(start, plan)
    assert (nominated(waiting, "vip1"), nominated(waiting, "vip2")) == ("n1", "")
    assert len(plan.unplaced) == 2


def test_a_node_whose_pods_no_budget_keeps_is_preferred_and_a_budget_is_broken_where_there_is_no_other() -> None:
    guarded = budget("guard", labels={"guarded": "yes"}, minAvailable=1)
    kept = replace(pod("c", "low"), meta=replace(pod("c", "low").meta, labels={"guarded": "yes"}))
    start = running({"n1": [pod("a"), pod("b", "high")], "n2": [kept, pod("d", "high")]})
    assert preempted(reconcile(put(start, pod("vip", "high")), moment(10))) == ["c"]  # the lower priority goes
    assert preempted(reconcile(put(start, guarded, pod("vip", "high")), moment(10))) == ["a"]
    alone = running({"n2": [kept, pod("d", "high")]})
    assert preempted(reconcile(put(alone, guarded, pod("vip", "high")), moment(10))) == ["c"]


def ended(name: str, phase: str = SUCCEEDED, priority: str = "low", **fields: Any) -> Pod:
    """One that has ended on n1 and stays for its logs."""
    one = replace(pod(name, priority, restartPolicy="Never", **fields), node="n1", bound=moment())
    return replace(one, report=report(one, phase))


def told_by_n1(*pods: Pod, cpu_m: int = 2000) -> World:
    sightings = {"n1": seen("n1", [one.report for one in pods if one.report], cpu_m=cpu_m)}
    return world(node("n1"), *pods, LOW, MIDDLE, HIGH, sightings=sightings)


@pytest.mark.parametrize("ports", [{}, {"ports": [{"containerPort": 80, "hostPort": 8080}]}], ids=["plain", "hostPort"])
@pytest.mark.parametrize("phase", [SUCCEEDED, FAILED])
def test_what_has_ended_is_no_victim_as_it_takes_no_room(phase: str, ports: dict[str, Any]) -> None:
    done = ended("done", phase, cpu="2", **ports)
    full = replace(pod("full", "high", cpu="2"), node="n1", bound=moment())
    start = told_by_n1(done, replace(full, report=report(full)))
    plan = reconcile(put(start, pod("vip", "high", **ports)), moment(10))
    assert preempted(plan) == []
    assert [item.summary for item in plan.unplaced] == ["0/1 nodes fit: 1 cpu: needs 1, free 0"]
    runs = replace(pod("runs", cpu="2", **ports), node="n1", bound=moment())
    start = told_by_n1(done, replace(runs, report=report(runs)))
    assert preempted(reconcile(put(start, pod("vip", "high", **ports)), moment(10))) == ["runs"]


def test_a_victim_gives_back_its_place_in_what_the_agent_is_told_and_what_has_ended_does_not() -> None:
    over = [ended(f"done-{number}") for number in range(HELD_MAX)]
    assert preempted(reconcile(put(told_by_n1(*over), pod("vip", "high")), moment(10))) == []
    runs = replace(pod("runs"), node="n1", bound=moment())
    start = told_by_n1(*over[1:], replace(runs, report=report(runs)))
    assert preempted(reconcile(put(start, pod("vip", "high")), moment(10))) == ["runs"]


_kinds = st.tuples(st.sampled_from(["low", "", "middle", "high"]), st.sampled_from(["0", "1", "2"]), st.booleans())
_phases = st.sampled_from([RUNNING_PHASE, RUNNING_PHASE, SUCCEEDED, FAILED])


def _of_kind(name: str, kind: tuple[str, str, bool]) -> Pod:
    priority, cpu, has_port = kind
    ports = {"ports": [{"containerPort": 80, "hostPort": 8080}]} if has_port else {}
    return pod(name, priority, cpu, restartPolicy="Never", **ports)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(_kinds, st.integers(1, 2), _phases), max_size=7),
    st.lists(_kinds, min_size=1, max_size=4),
)
def test_room_is_made_by_less_important_pods_that_run_until_all_is_at_rest(
    there: list[tuple[tuple[str, str, bool], int, str]], waiting: list[tuple[str, str, bool]]
) -> None:
    """Some of those on the nodes have ended, with ports or without, and stay. Nodes may be fuller than full: then nothing more fits."""
    agents = Agents(world(node("n1", 1), node("n2", 2), LOW, MIDDLE, HIGH))
    for number, (kind, on, phase) in enumerate(there):
        one = replace(_of_kind(f"there-{number}", kind), node=f"n{on}", bound=moment(number))
        one = replace(one, report=report(one, phase))
        agents.world = put(agents.world, one)
        agents.pods.setdefault(one.node, {})[one.meta.uid] = report(one, phase)
    agents.world = put(agents.world, *(_of_kind(f"new-{number}", kind) for number, kind in enumerate(waiting)))
    values = {"low": -10, "": 0, "middle": 50, "high": 100}
    kinds = {f"there-{number}": kind for number, (kind, _, _) in enumerate(there)}
    highest = max(values[priority] for priority, _, _ in waiting)

    def check(plan: Plan) -> None:
        for change in plan.changes:
            if change.reason == "Preempted":
                assert isinstance(change.record, Pod)
                assert not is_finished(change.record)
                assert values[kinds[change.record.meta.name][0]] < highest

    agents.settle(30, check)


def labelled(of: Pod, app: str) -> Pod:
    return replace(of, meta=replace(of.meta, labels={"app": app}))


@pytest.mark.parametrize(
    ("wanting", "victims"), [(1, {"web1"}), (2, {"web1", "batch"}), (3, {"web1", "web2", "batch"})]
)
def test_a_budget_counts_those_that_made_room_before_in_the_same_pass(wanting: int, victims: set[str]) -> None:
    """One web pod may go. For a second important pod the batch pod goes, though it is more important than web2."""
    webs = [labelled(pod(f"web{number}", "low", cpu="2"), "web") for number in (1, 2)]
    start = running({"n1": [webs[0]], "n2": [webs[1]], "n3": [labelled(pod("batch", "middle", cpu="2"), "batch")]})
    wants = [pod(f"want{number}", "high", cpu="2") for number in range(wanting)]
    plan = reconcile(put(start, budget("web", {"app": "web"}, minAvailable=1), *wants), moment(100))
    assert set(preempted(plan)) == victims
