"""What deciding costs, on one core and with no host: pods placed in a second, and a converged pass over a large cluster.

Processor time is measured, since all of it is one thread that waits for nothing, and the machine may be busy with other things.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.figures import Figure
from controller.act.store import Store
from controller.cli.start import GC_THRESHOLD
from controller.decide.nodes import judge
from controller.decide.reconcile import reconcile
from controller.decide.schedule.place import place
from controller.decide.shapes import Shapes
from controller.model.cluster import (
    Cluster,
    HostEntry,
    Meta,
    Moment,
    Node,
    Pod,
    Ref,
    ReplicaSet,
    Seen,
    Settings,
    Taint,
    World,
)
from controller.model.identity import child_uid, pod_name, template_hash
from controller.model.plan import Change, changed
from nodeagent.protocol import Capacity, ContainerReport, Cursor, Epoch, Owner, PodReport

CLUSTER = "00000000-0000-4000-8000-000000000001"
NOW = Moment(1_700_000_000.0, "boot", 1000.0)
ZONE = "topology.kubernetes.io/zone"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
PER_OWNER = 100


def measure() -> list[Figure]:
    gc.set_threshold(GC_THRESHOLD)  # as every command does
    placed_s = min(_placing_s(1_000, 10_000) for _ in range(3))
    cold_s, pass_s = _converged_s(300, 15_000)
    _, large_s = _converged_s(5_000, 150_000)
    return [
        # The aim is 10,000 pods in a second; a figure shall be small, so it is told as the time for them.
        Figure("10,000 pods on 1,000 nodes, a third with spread, affinity, taints", placed_s, "s", aim=1.0),
        Figure("converged pass with store load, 300 nodes × 15,000 pods", cold_s, "s", aim=2.0),
        Figure("… the pass alone", pass_s, "s"),
        Figure("converged pass without load, 5,000 nodes × 150,000 pods", large_s, "s"),
    ]


def _placing_s(nodes: int, pods: int) -> float:
    world = _cluster(nodes, pods)
    views = judge(world, NOW).views
    shapes = Shapes(world)
    for pod in world.pods.values():  # templates are parsed once in a process, not once in a pass
        shapes.of(pod)
    gc.collect()
    began = time.process_time()
    placed = place(world, views, shapes, NOW)
    took_s = time.process_time() - began
    bound = sum(change.verb == "bind" for change in placed.changes)
    if bound != pods:
        raise RuntimeError(f"{bound} of {pods} pods were placed")
    return took_s


def _converged_s(nodes: int, pods: int) -> tuple[float, float]:
    """(store load and pass, the pass alone) in a process that has seen none of it."""
    world = _running(_cluster(nodes, pods))
    for _ in range(3):
        plan = reconcile(world, NOW)
        if plan.is_empty:
            break
        world = replace(changed(world, plan.changes), counter=world.counter + 1)
    with tempfile.TemporaryDirectory(prefix="sshoal-bench-") as directory:
        path = Path(directory) / "store.db"
        store = Store(path, create=True)
        records = [*world.replica_sets.values(), *world.nodes.values(), *world.pods.values()]
        store.commit([Change("create", record, "") for record in records])
        store.close()
        gc.collect()
        began = time.process_time()
        store = Store(path)
        loaded = store.load()
        middle = time.process_time()
        read = replace(world, replica_sets=loaded.replica_sets, nodes=loaded.nodes, pods=loaded.pods)
        plan = reconcile(read, NOW)
        ended = time.process_time()
        store.close()
    if not plan.is_empty:
        raise RuntimeError(f"not converged: {[change.because for change in plan.changes[:3]]}")
    return ended - began, ended - middle


def _cluster(nodes: int, pods: int) -> World:
    """Four zones, every 20th node tainted; pods of ReplicaSets of 100, which wait for a node."""
    names = [f"n{number:05}" for number in range(nodes)]
    hosts, records, told = {}, {}, {}
    for number, name in enumerate(names):
        labels = {ZONE: f"z{number % 4}", "disk": "ssd" if number % 2 else "hdd"}
        taints = (Taint("dedicated", "", "NoSchedule"),) if number % 20 == 0 else ()
        hosts[name] = HostEntry(name, f"{name}.example", labels, taints)
        facts = {"kubernetes.io/arch": "amd64", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
        subnet = f"10.{number // 256}.{number % 256}.0/24"
        meta = Meta("Node", "", name, child_uid(CLUSTER, name), NOW)
        records[name] = Node(
            meta,
            f"{name}.example",
            subnet,
            agent=f"agent-{name}",
            labels={**facts, **labels},
            taints=tuple(replace(taint, added=NOW) for taint in taints),
        )
        told[name] = _seen(name, ())
    sets, waiting = {}, {}
    for number in range(pods // PER_OWNER):
        owner = _owner(number)
        sets[owner.meta.uid] = owner
        waiting.update({pod.meta.uid: pod for pod in _pods(owner)})
    return World(Cluster(CLUSTER, Settings()), hosts, records, told, replica_sets=sets, pods=waiting)


def _owner(number: int) -> ReplicaSet:
    name = f"app{number}"
    labels = {"app": name}
    selector = {"labelSelector": {"matchLabels": labels}}
    spec: dict[str, Any] = {
        "containers": [
            {"name": "main", "image": f"{name}:1", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}
        ]
    }
    if number % 3 == 0:
        ssd = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
        apart = {"weight": 100, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", **selector}}
        spec["affinity"] = {
            "nodeAffinity": {PREFERRED: [{"weight": 10, "preference": ssd}]},
            "podAntiAffinity": {PREFERRED: [apart]},
        }
        spec["tolerations"] = [{"key": "dedicated", "operator": "Exists"}]
        spec["topologySpreadConstraints"] = [
            {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", **selector}
        ]
    template = {"metadata": {"labels": labels}, "spec": spec}
    created = replace(NOW, wall_s=NOW.wall_s - 10_000 + number)
    meta = Meta("ReplicaSet", "default", name, child_uid(CLUSTER, name), created)
    return ReplicaSet(
        meta,
        template,
        template_hash(template),
        PER_OWNER,
        {"matchLabels": labels},
        pods_made=PER_OWNER,
        observed_generation=1,
    )


def _pods(owner: ReplicaSet) -> Iterable[Pod]:
    ref = Ref("ReplicaSet", owner.meta.name, owner.meta.uid)
    for counter in range(1, PER_OWNER + 1):
        name = f"{pod_name(owner.meta.name, owner.meta.uid, counter)}-{counter}"
        uid = child_uid(owner.meta.uid, f"pod/{counter}")
        labels = owner.template["metadata"]["labels"]
        meta = Meta("Pod", "default", name, uid, owner.meta.created, labels=labels, owner=ref)
        yield Pod(meta, owner.template_hash)


def _running(world: World) -> World:
    """All pods placed, running and ready, as their agents say."""
    views = judge(world, NOW).views
    world = changed(world, place(world, views, Shapes(world), NOW).changes)
    pods = {
        uid: replace(
            pod,
            report=PodReport(
                uid,
                "default",
                pod.meta.name,
                pod.template_hash,
                "Running",
                True,
                1.0,
                containers=(ContainerReport("main", state="running", ready=True, started=True, image_id="sha256:0"),),
            ),
        )
        for uid, pod in world.pods.items()
    }
    by_node: dict[str, list[PodReport]] = {name: [] for name in world.nodes}
    for pod in pods.values():
        if pod.report is not None:
            by_node[pod.node].append(pod.report)
    return replace(world, pods=pods, sightings={name: _seen(name, told) for name, told in by_node.items()})


def _seen(name: str, pods: Iterable[PodReport]) -> Seen:
    return Seen(
        agent=f"agent-{name}",
        instance="i",
        boot_id="b",
        boottime_s=5000.0,
        wall_s=NOW.wall_s,
        version="v",
        cursor=Cursor("i", 1),
        owner=Owner(CLUSTER, Epoch(1, "e"), 1),
        pods={report.uid: report for report in pods},
        capacity=Capacity(cpu_m=16_000, memory_bytes=64 * 2**30, arch="x86_64", pods=110),
    )
