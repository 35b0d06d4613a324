"""Why a pod is where it is, or nowhere: what each filter says of each node, the scores, and what would make the pod fit. Pure.

In: the world, the views, a pod. Out: an Explanation. A bound pod is judged as if it were to be placed now; what decided when it was bound
is kept with it, in its record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from controller.decide.phases import is_finished
from controller.decide.schedule.filters import (
    Filter,
    cordon,
    cpu,
    first_rejection,
    host_ports,
    low_ports,
    memory,
    node_affinity,
    node_name,
    node_selector,
    pods,
    taints,
    usable,
)
from controller.decide.schedule.priority import Priorities, gated
from controller.decide.schedule.ranking import Ranking, weighted
from controller.decide.schedule.rejection import Rejection
from controller.decide.schedule.usage import Crowd, Index, Room
from controller.decide.shapes import Shapes, tolerated
from controller.model.cluster import Pod, World
from controller.model.errors import NotFound
from controller.model.plan import NodeView
from controller.model.quantity import format_cpu

_READY: tuple[Filter, ...] = (usable,)
_FILTERS: Mapping[str, tuple[Filter, ...]] = {
    "NodeReady": _READY,
    "NodeName": (node_name,),
    "NodeUnschedulable": (cordon,),
    "NodeAffinity": (node_selector, node_affinity),
    "TaintToleration": (taints,),
    "NodeResourcesFit": (pods, cpu, memory),
    "NodePorts": (low_ports, host_ports),
}
_VOLUMES = "VolumeBinding"
_AROUND = {"topologySpread": "PodTopologySpread"}  # all else that other pods say is InterPodAffinity
_REMEDIES_MAX = 5


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """`objections` by Kubernetes' name of the filter; without any the pod fits, and there are scores."""

    node: str
    objections: Mapping[str, str]
    scores: Mapping[str, int] = field(default_factory=dict)  # by plug-in, 0 to 100
    total: int = 0  # weighted


@dataclass(frozen=True, slots=True)
class Explanation:
    pod: Pod
    verdicts: tuple[NodeVerdict, ...]  # best first, then those that are out by name
    remedies: tuple[str, ...] = ()  # of a pod without a node: what would make it fit, the nearest first


def explain(world: World, views: Mapping[str, NodeView], pod: Pod) -> Explanation:
    """Raises NotFound when nothing says what the pod is: its owner is gone."""
    shapes = Shapes(world)
    shape = shapes.of(pod)
    if shape is None:
        raise NotFound(f"pod {pod.meta.key} is being stopped: what made it is gone")
    index = Index(world, views, shapes)
    crowd = index.crowd_of(pod, shape)
    if pod.node in index.rooms and not is_finished(pod):
        index.take(index.rooms[pod.node], crowd, -1)
    crowd = replace(crowd, need=index.volumes.need(pod, shape))
    ranking = Ranking(crowd, index)
    scores = ranking.scores()
    verdicts = []
    for name, room in index.rooms.items():
        objections = _objections(crowd, ranking, room, index)
        own = scores.get(name, {}) if not objections else {}
        verdicts.append(NodeVerdict(name, objections, own, weighted(own)))
    verdicts.sort(key=lambda item: (bool(item.objections), -item.total, item.node))
    remedies = () if pod.node else _remedies(world, crowd, ranking, index)
    return Explanation(pod, tuple(verdicts), remedies)


def _objections(crowd: Crowd, ranking: Ranking, room: Room, index: Index) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, filters in _FILTERS.items():
        rejection = first_rejection(filters, crowd.shape, room)
        if rejection is not None:
            found[name] = rejection.text
            if filters is _READY:  # what a host has that is not heard is not known
                return found
    volume = index.volumes.rejection(crowd.need, room.node)
    if volume is not None:
        found[_VOLUMES] = volume.text
    for rejection in ranking.kept_away(room):
        found.setdefault(_AROUND.get(rejection.kind, "InterPodAffinity"), rejection.text)
    return found


def _remedies(world: World, crowd: Crowd, ranking: Ranking, index: Index) -> tuple[str, ...]:
    """Of the nodes with the fewest things in the way. A node that is gone from the inventory is not spoken of."""
    if gated(crowd.shape.spec):
        return ("take its schedulingGates out",)
    if why := Priorities(world).problem(crowd.shape.spec):
        return (f"{why}: create it, or take priorityClassName out",)
    if not index.rooms:
        return ("add a host to the inventory",)
    ways: list[tuple[int, int, str, list[str]]] = []
    for name, room in index.rooms.items():
        checks = [check for filters in _FILTERS.values() for check in filters]
        rejections = [found for check in checks if (found := check(crowd.shape, room)) is not None]
        volume = index.volumes.rejection(crowd.need, room.node)
        rejections += [volume] if volume is not None else []
        rejections = rejections[:1] if usable(crowd.shape, room) else [*rejections, *ranking.kept_away(room)]
        if rejections and room.view.state not in ("Orphaned", "Dead"):
            ways.append((len(rejections), -rejections[0].near, name, [_remedy(crowd, room, one) for one in rejections]))
    fewest = min((way[0] for way in ways), default=0)
    texts = [f"on {name}: {' and '.join(parts)}" for count, _, name, parts in sorted(ways) if count == fewest]
    return tuple(texts[:_REMEDIES_MAX])


def _remedy(crowd: Crowd, room: Room, rejection: Rejection) -> str:
    shape = crowd.shape
    match rejection.kind:
        case "cpu":
            return f"{format_cpu(shape.cpu_m + room.cpu_m - room.capacity.cpu_m)} of cpu less asked for, or freed there"
        case "memory":
            missing = shape.memory_bytes + room.memory_bytes - room.capacity.memory_bytes
            return f"{-(-missing // 2**20)}Mi of memory less asked for, or freed there"
        case "pods":
            return "one pod less there"
        case "cordoned":
            return f"sshoal node uncordon {room.name}"
        case "taint":
            wanted = [
                f"{taint.key}={taint.value}:{taint.effect}" if taint.value else f"{taint.key}:{taint.effect}"
                for taint in room.node.taints
                if taint.effect != "PreferNoSchedule" and not tolerated(shape.spec.tolerations, taint)
            ]
            return f"a toleration for {' and '.join(wanted)}"
        case "nodeSelector":
            return f"the node {rejection.text.replace('lacks the label', 'with the label')}"
        case "volumeClaim":
            return f"the claim usable ({rejection.text})"
        case "volumeNode":
            return f"no way there: {rejection.text}"
        case "storageClass":
            return f"sshoal_volumes of the host with that class (it {rejection.text})"
        case "storage":
            return f"less storage asked for, or a larger size declared ({rejection.text})"
        case "lowPort":
            return (
                f"a host port from {room.capacity.ports_from} on, or net.ipv4.ip_unprivileged_port_start lowered there"
            )
        case "hostPort":
            return f"another host port, or the pod away that has it ({rejection.text})"
        case "nodeName":
            return "another nodeName, or none"
        case "nodeAffinity":
            return "labels that match the required node affinity"
        case "podAffinity" | "podAntiAffinity" | "topologySpread":
            return f"other pods elsewhere (it {rejection.text})"
        case _:
            return f"the node Ready (it is {rejection.text})"
