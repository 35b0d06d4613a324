"""Which nodes a pod may run on. Pure.

Each filter takes a shape and a room and returns why the node is out, or None. Static filters depend on node and template
alone and are asked once per template; the others change with every pod that is placed. What depends on the pods of other nodes
(affinity, spread) is in topology.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from controller.decide.schedule.rejection import Rejection
from controller.decide.schedule.usage import HELD_MAX, Room
from controller.decide.shapes import Shape, tolerated
from controller.model.cluster import Taint
from controller.model.quantity import format_cpu, format_memory

_HOSTNAME = "kubernetes.io/hostname"
_UNSCHEDULABLE = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")

Filter = Callable[[Shape, Room], Rejection | None]


def usable(shape: Shape, room: Room) -> Rejection | None:
    """Only nodes that answer, are sound and are in the inventory get new pods."""
    view = room.view
    if view.may_place or (view.state == "Ready" and room.node.cordoned):  # cordon() says the rest
        return None
    return Rejection(view.state, f"{view.state}: {view.why}" if view.why else view.state)


def node_name(shape: Shape, room: Room) -> Rejection | None:
    wanted = shape.spec.node_name
    return (
        Rejection("nodeName", f"is not {wanted}, which nodeName asks for") if wanted and wanted != room.name else None
    )


def cordon(shape: Shape, room: Room) -> Rejection | None:
    """nodeName passes by the scheduler, as in Kubernetes: neither cordon nor taints stop it. A cordon counts as a taint, which can be
    tolerated."""
    if not room.node.cordoned or shape.spec.node_name or tolerated(shape.spec.tolerations, _UNSCHEDULABLE):
        return None
    return Rejection("cordoned", "cordoned")


def node_selector(shape: Shape, room: Room) -> Rejection | None:
    for key, value in shape.spec.node_selector.items():
        if room.node.labels.get(key) != value:
            return Rejection("nodeSelector", f"lacks the label {key}={value}")
    return None


def node_affinity(shape: Shape, room: Room) -> Rejection | None:
    affinity = shape.spec.affinity.node_affinity if shape.spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    if required is None or required.matches(room.name, room.node.labels):
        return None
    return Rejection("nodeAffinity", "does not match the required node affinity")


def taints(shape: Shape, room: Room) -> Rejection | None:
    for taint in room.node.taints:
        passes_by = bool(shape.spec.node_name) and taint.effect != "NoExecute"
        if taint.effect != "PreferNoSchedule" and not passes_by and not tolerated(shape.spec.tolerations, taint):
            return Rejection("taint", f"has the taint {taint.key}={taint.value}:{taint.effect}, which is not tolerated")
    return None


def low_ports(shape: Shape, room: Room) -> Rejection | None:
    """Of a rootless node: there is no such thing in Kubernetes, whose pods would start and fail."""
    least = room.capacity.ports_from
    low = min((port.port for port in shape.ports), default=least)
    return (
        Rejection("lowPort", f"is rootless: host ports are allowed from {least} on, not {low}") if low < least else None
    )


def pods(shape: Shape, room: Room) -> Rejection | None:
    limit = room.capacity.pods
    if room.pods >= limit:
        return Rejection("pods", f"runs {room.pods} pods of at most {limit}", -room.pods)
    if room.held >= HELD_MAX:
        text = f"has {room.held} pods, those that are over included, of at most {HELD_MAX}"
        return Rejection("pods", text, -room.held)
    return None


def cpu(shape: Shape, room: Room) -> Rejection | None:
    free_m = room.capacity.cpu_m - room.cpu_m
    if not shape.cpu_m or shape.cpu_m <= free_m:
        return None
    return Rejection("cpu", f"cpu: needs {format_cpu(shape.cpu_m)}, free {format_cpu(max(0, free_m))}", free_m)


def memory(shape: Shape, room: Room) -> Rejection | None:
    free = room.capacity.memory_bytes - room.memory_bytes
    if not shape.memory_bytes or shape.memory_bytes <= free:
        return None
    text = f"memory: needs {_mebibytes(shape.memory_bytes)}, free {_mebibytes(max(0, free))}"
    return Rejection("memory", text, free)


def host_ports(shape: Shape, room: Room) -> Rejection | None:
    for port in shape.ports:
        if any(port.conflicts(other) for other in room.ports):
            return Rejection("hostPort", f"host port {port.port}/{port.protocol} is taken")
    return None


def _mebibytes(size_bytes: int) -> str:
    """Exact where that is short; else rounded down to mebibytes, for people."""
    exact = format_memory(size_bytes)
    return exact if len(exact) <= 7 else f"{size_bytes // 2**20}Mi"


STATIC: tuple[Filter, ...] = (usable, node_name, cordon, node_selector, node_affinity, taints, low_ports)
DYNAMIC: tuple[Filter, ...] = (pods, cpu, memory, host_ports)


def first_rejection(filters: Iterable[Filter], shape: Shape, room: Room) -> Rejection | None:
    """Why the first filter that objects does so."""
    for check in filters:
        found = check(shape, room)
        if found is not None:
            return found
    return None


def fits(shape: Shape, room: Room) -> bool:
    """Whether no dynamic filter objects: the same tests, without words, because this is asked for every pod that is placed."""
    capacity = room.capacity
    return (
        room.pods < capacity.pods
        and room.held < HELD_MAX
        and (not shape.cpu_m or room.cpu_m + shape.cpu_m <= capacity.cpu_m)
        and (not shape.memory_bytes or room.memory_bytes + shape.memory_bytes <= capacity.memory_bytes)
        and (not shape.ports or host_ports(shape, room) is None)
    )


def pinned_to(shape: Shape) -> frozenset[str] | None:
    """The only nodes that the template names, by nodeName or matchFields, as DaemonSets do; None when it does not."""
    spec = shape.spec
    if spec.node_name:
        return frozenset({spec.node_name})
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    names: set[str] = set()
    for term in required.node_selector_terms if required else ():
        named = [item.values for item in term.match_fields if item.operator == "In"]
        if not named:
            return None
        names.update(named[0])
    return frozenset(names) if names else None


def names_nodes(shape: Shape) -> bool:
    """Whether the template may treat nodes differently that only their names tell apart."""
    spec = shape.spec
    affinity = spec.affinity.node_affinity if spec.affinity else None
    if affinity is None:
        return bool(spec.node_name) or _HOSTNAME in spec.node_selector
    required = affinity.required_during_scheduling_ignored_during_execution
    terms = [
        *(required.node_selector_terms if required else ()),
        *(item.preference for item in affinity.preferred_during_scheduling_ignored_during_execution),
    ]
    return (
        bool(spec.node_name)
        or _HOSTNAME in spec.node_selector
        or any(term.match_fields or any(item.key == _HOSTNAME for item in term.match_expressions) for term in terms)
    )
