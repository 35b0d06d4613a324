"""Every pod goes where a plain reading of Kubernetes' scheduler, pod by pod over all nodes, would put it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from controller.decide.nodes import judge
from controller.decide.schedule.place import place
from controller.decide.shapes import Shapes
from controller.model.cluster import Pod, Ref, ReplicaSet, World
from controller.model.plan import changed
from tests.builders import meta, moment, node, seen, taint, world
from tests.scheduler_oracle import HOSTNAME, ZONE, Host, Thing, choose, otherwise_possible

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
MIB = 2**20

keys = st.sampled_from([HOSTNAME, ZONE, "rack"])
apps = st.sampled_from(["a", "b"])


@st.composite
def hosts(draw: st.DrawFn, number: int) -> Host:
    labels = {HOSTNAME: f"n{number:02}"}
    for key, values in ((ZONE, ["z1", "z2", "z3", ""]), ("rack", ["r1", "r2", "", ""]), ("disk", ["ssd", "hdd", ""])):
        value = draw(st.sampled_from(values))
        if value:
            labels[key] = value
    taints = draw(
        st.lists(
            st.sampled_from(
                [("gpu", "", "NoSchedule"), ("slow", "", "PreferNoSchedule"), ("old", "", "PreferNoSchedule")]
            ),
            unique=True,
            max_size=1,
        )
    )
    return Host(
        f"n{number:02}", draw(st.sampled_from([1000, 4000])), draw(st.sampled_from([512, 4096])) * MIB, labels, taints
    )


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """One thing or two that a spec may say; all together would leave no node."""
    spec: dict[str, Any] = {}
    for choice in draw(st.lists(st.integers(0, 7), max_size=2, unique=True)):
        term = {"topologyKey": draw(keys), "labelSelector": {"matchLabels": {"app": draw(apps)}}}
        weighted = [{"weight": draw(st.sampled_from([1, 50, 100])), "podAffinityTerm": term}]
        ssd = {
            "matchExpressions": [{"key": "disk", "operator": "In", "values": [draw(st.sampled_from(["ssd", "hdd"]))]}]
        }
        affinity = spec.setdefault("affinity", {})
        if choice == 0:
            affinity["podAffinity"] = {REQUIRED: [term]}
        elif choice == 1:
            affinity["podAntiAffinity"] = {REQUIRED: [term]}
        elif choice == 2:
            affinity["podAffinity"] = {PREFERRED: weighted}
        elif choice == 3:
            affinity["podAntiAffinity"] = {PREFERRED: weighted}
        elif choice == 4:
            affinity["nodeAffinity"] = {REQUIRED: {"nodeSelectorTerms": [ssd]}}
        elif choice == 5:
            affinity["nodeAffinity"] = {PREFERRED: [{"weight": draw(st.integers(1, 100)), "preference": ssd}]}
        elif choice == 6:
            spec["tolerations"] = [{"key": draw(st.sampled_from(["gpu", "slow"])), "operator": "Exists"}]
        else:
            when = st.sampled_from(["DoNotSchedule", "ScheduleAnyway"])
            found = [(draw(keys), draw(when)) for _ in range(draw(st.integers(1, 2)))]
            spec["topologySpreadConstraints"] = [
                {
                    "maxSkew": draw(st.integers(1, 2)),
                    "topologyKey": key,
                    "whenUnsatisfiable": hard,
                    "labelSelector": {"matchLabels": {"app": draw(apps)}},
                    "nodeTaintsPolicy": draw(st.sampled_from(["Honor", "Ignore"])),
                    "nodeAffinityPolicy": draw(st.sampled_from(["Honor", "Ignore"])),
                    **({"minDomains": draw(st.integers(1, 4))} if hard == "DoNotSchedule" else {}),
                }
                for key, hard in dict.fromkeys(found)
            ]
    if not spec.get("affinity"):
        spec.pop("affinity", None)
    return spec


@st.composite
def owners(draw: st.DrawFn) -> tuple[Thing, int]:
    """A pod like all of one ReplicaSet, and how many of them there are."""
    cpu_m, memory = draw(st.sampled_from([(0, 0), (100, 0), (250, 64), (500, 128)]))
    return Thing({"app": draw(apps)}, draw(specs()), cpu_m, memory * MIB), draw(st.integers(1, 6))


def _without_rack() -> tuple[tuple[Host, ...], list[tuple[Thing, int]]]:
    """Preferred, but not counted by either of two soft constraints, since it lacks the label of one."""
    labels = {"n00": {"disk": "ssd"}, "n01": {"rack": "r1"}, "n02": {"rack": "r1", ZONE: "z2"}}
    found = tuple(Host(name, 10000, 4096 * MIB, {HOSTNAME: name, ZONE: "z1", **own}) for name, own in labels.items())
    soft = {"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "a"}}}
    ssd = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    spec = {
        "topologySpreadConstraints": [{**soft, "topologyKey": key} for key in (ZONE, "rack")],
        "affinity": {"nodeAffinity": {PREFERRED: [{"weight": 100, "preference": ssd}]}},
    }
    return found, [(Thing({"app": "a"}, spec, 500, 64 * MIB), 6)]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(1, 7).flatmap(lambda n: st.tuples(*(hosts(i) for i in range(n)))),
    st.lists(owners(), min_size=1, max_size=4),
)
@example(*_without_rack())
def test_every_pod_goes_where_kubernetes_would_put_it(found: tuple[Host, ...], sets: list[tuple[Thing, int]]) -> None:
    pods: list[Thing] = []
    named: dict[str, Thing] = {}
    start = _world(found, [])
    for number, (like, count) in enumerate(sets):  # one owner after the other, as they were made
        owner, waiting = _replicas(number, like, count)
        start = replace(
            start,
            replica_sets={**start.replica_sets, owner.meta.uid: owner},
            pods={**start.pods, **{pod.meta.uid: pod for pod in waiting}},
        )
        for pod in sorted(waiting, key=lambda pod: pod.meta.key):
            thing = replace(like, owner=owner.meta.uid)
            named[pod.meta.uid] = thing
            pods.append(thing)
    placed = _placed(start)
    again = place(placed, judge(placed, moment()).views, Shapes(placed), moment(200))
    assert [change.subject for change in again.changes] == []
    for thing in pods:  # those that stayed behind are tried again, once others are there
        thing.node = ""
    order = [named[uid] for uid in named]
    progress = True
    while progress:
        progress = False
        for owner_uid in dict.fromkeys(thing.owner for thing in order):
            group = [thing for thing in order if thing.owner == owner_uid and not thing.node]
            weigh_by = otherwise_possible(group[0], found, pods) if group else []
            for thing in group:
                thing.node = choose(thing, found, pods, weigh_by)
                if not thing.node:
                    break
                progress = True
    assert {uid: placed.pods[uid].node for uid in named} == {uid: thing.node for uid, thing in named.items()}


def _world(found: tuple[Host, ...], things: list[Any]) -> World:
    nodes = [
        node(
            host.name,
            number,
            labels=host.labels,
            taints=tuple(taint(key, effect, value) for key, value, effect in host.taints),
        )
        for number, host in enumerate(found)
    ]
    told = {host.name: seen(host.name, cpu_m=host.cpu_m, memory_bytes=host.memory_bytes) for host in found}
    return world(*nodes, *things, sightings=told)


def _replicas(number: int, like: Thing, count: int) -> tuple[ReplicaSet, list[Pod]]:
    requests: dict[str, str] = defaultdict(str)
    if like.cpu_m:
        requests["cpu"] = f"{like.cpu_m}m"
    if like.memory_bytes:
        requests["memory"] = str(like.memory_bytes)
    container = {"name": "c", "image": "i:1", "resources": {"requests": dict(requests)}}
    template = {"metadata": {"labels": like.labels}, "spec": {"containers": [container], **like.spec}}
    owner = ReplicaSet(meta("ReplicaSet", f"rs{number}"), template, f"hash{number}", count)
    ref = Ref("ReplicaSet", owner.meta.name, owner.meta.uid)
    pods = [
        Pod(
            meta("Pod", f"rs{number}-{index}", owner=ref, labels=like.labels, created=moment(number)),
            owner.template_hash,
        )
        for index in range(count)
    ]
    return owner, pods


def _placed(start: World) -> World:
    placed = place(start, judge(start, moment()).views, Shapes(start), moment(100))
    return changed(start, placed.changes)
