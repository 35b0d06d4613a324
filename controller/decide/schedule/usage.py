"""The index of a whole pass: how full each node is, and which pods run where, brought forward pod by pod. Not pure: placing adds to it.

In: the world once. Out: a Room per node, and a Crowd for all pods that placing cannot tell apart, with how many of them each node has.
Allocatable is all that the host has: nothing is reserved, as in Kubernetes unless it is told to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from controller.decide.nodes import trusted
from controller.decide.phases import is_finished
from controller.decide.schedule.terms import Terms, terms_of
from controller.decide.schedule.volumes import NOTHING, Need, Volumes
from controller.decide.shapes import HostPort, Shape, Shapes
from controller.model.cluster import BUILT_IN_NAMESPACES, Node, Pod, World
from controller.model.imagename import canonical
from controller.model.plan import NodeView
from nodeagent.protocol import Capacity

HOSTNAME = "kubernetes.io/hostname"
HELD_MAX = 500  # pods with a record on one node, over or not: an agent refuses a set of more than 512, and all its orders with it


@dataclass(slots=True)
class Room:
    """One node: what it has, and what its pods have taken."""

    node: Node
    view: NodeView
    capacity: Capacity
    name: str
    kind: int  # equal for nodes that only their names tell apart: what a template thinks of one holds for all of them
    cpu_m: int = 0
    memory_bytes: int = 0
    scored_cpu_m: int = 0
    scored_memory_bytes: int = 0
    pods: int = 0
    held: int = 0  # those that are over included: the agent is told of them as well
    ports: list[HostPort] = field(default_factory=list)

    def take(self, shape: Shape, count: int = 1) -> None:
        self.cpu_m += shape.cpu_m * count
        self.memory_bytes += shape.memory_bytes * count
        self.scored_cpu_m += shape.scored_cpu_m * count
        self.scored_memory_bytes += shape.scored_memory_bytes * count
        self.pods += count
        self.held += count
        if shape.ports:
            if count > 0:
                self.ports += shape.ports
            else:
                for port in shape.ports:
                    self.ports.remove(port)


@dataclass(slots=True, eq=False)
class Crowd:
    """All pods that placing cannot tell apart: of one owner, namespace, template and labels."""

    shape: Shape
    namespace: str
    labels: Mapping[str, str]
    owner: str  # uid; "": pods of their own
    leaving: bool  # stopping or lost: they take room, but spreading does not count them
    terms: Terms
    need: Need  # of volumes: with different claims they are not alike
    on: dict[str, int] = field(default_factory=dict)  # by name of the node: how many


class Index:
    """Rooms by name in the order of names, and crowds."""

    def __init__(self, world: World, views: Mapping[str, NodeView], shapes: Shapes) -> None:
        self.rooms: dict[str, Room] = {}
        self.volumes = Volumes(world, views, shapes)
        self.images: dict[str, dict[str, int]] = defaultdict(dict)  # canonical name → node → size in bytes
        self._crowds: dict[Hashable, Crowd] = {}
        self._owned: dict[str, list[Crowd]] = defaultdict(list)
        self._domains: dict[str, dict[str, str]] = {}
        self._namespaces = _namespace_labels(world)
        kinds: dict[Hashable, int] = {}
        for name, node in sorted(world.nodes.items()):
            seen = trusted(world, views, name)
            capacity = seen.capacity if seen is not None else Capacity(pods=0)
            kind = kinds.setdefault(_kind(node, views[name], capacity), len(kinds))
            self.rooms[name] = Room(node, views[name], capacity, name, kind)
            for image in seen.images if seen is not None else ():
                for written in image.names:
                    self.images[canonical(written)][name] = image.size_bytes
        # Whose topology domains exist for spreading. A node that left, or is dead for sure, is none for Kubernetes.
        self.counted = [room for room in self.rooms.values() if room.view.state not in ("Orphaned", "Dead")]
        for pod in world.pods.values():
            room = self.rooms.get(pod.node)
            if room is None:
                continue
            shape = shapes.of(pod) if not is_finished(pod) else None
            if shape is None:
                room.held += 1
                continue
            if pod.lost is not None and room.view.state == "Dead":
                room.take(shape)  # it is known to run no more: nobody keeps near it, or apart from it
            else:
                self.take(room, self.crowd_of(pod, shape))

    def crowd_of(self, pod: Pod, shape: Shape) -> Crowd:
        meta = pod.meta
        owner = meta.owner.uid if meta.owner is not None else ""
        leaving = pod.stop is not None or pod.lost is not None
        # Where those go that have a node already is settled.
        need = NOTHING if pod.node else self.volumes.need(pod, shape)
        key = (shape, owner, meta.namespace, leaving, frozenset(meta.labels.items()), need)
        crowd = self._crowds.get(key)
        if crowd is None:
            spread_by = owner if meta.owner is not None and meta.owner.kind in _SPREAD_BY_DEFAULT else ""
            terms = terms_of(shape.spec, meta.labels, meta.namespace, spread_by, self._namespaces)
            crowd = self._crowds[key] = Crowd(shape, meta.namespace, meta.labels, owner, leaving, terms, need)
            self._owned[owner].append(crowd)
        return crowd

    def take(self, room: Room, crowd: Crowd, count: int = 1) -> None:
        """So many more pods of the crowd are on the node; a negative number takes them away again."""
        room.take(crowd.shape, count)
        crowd.on[room.name] = crowd.on.get(room.name, 0) + count

    def crowds(self) -> Iterator[Crowd]:
        """Those that have pods on nodes."""
        return (crowd for crowd in self._crowds.values() if crowd.on)

    def owned(self, owner: str) -> Sequence[Crowd]:
        """The crowds of one owner, by its uid."""
        return self._owned[owner]

    def domains(self, key: str) -> Mapping[str, str]:
        """By name of the node: its value of a topology label. Nodes without the label are not in it."""
        found = self._domains.get(key)
        if found is None:
            found = self._domains[key] = {
                name: room.node.labels[key] for name, room in self.rooms.items() if key in room.node.labels
            }
        return found


# Whose pods Kubernetes spreads without being told to. Pods of Jobs are none of them: they may fill one node.
_SPREAD_BY_DEFAULT = ("ReplicaSet", "StatefulSet")


def _kind(node: Node, view: NodeView, capacity: Capacity) -> Hashable:
    """All that the static filters and the scores of a template look at."""
    labels = tuple(sorted(item for item in node.labels.items() if item[0] != HOSTNAME))
    taints = tuple((taint.key, taint.value, taint.effect) for taint in node.taints)
    return (view.state, view.why, view.may_place, node.cordoned, labels, taints, capacity.ports_from)


def _namespace_labels(world: World) -> dict[str, Mapping[str, str]]:
    """Every namespace with its labels, and the one that Kubernetes gives each."""
    labels: dict[str, Mapping[str, str]] = {name: {} for name in BUILT_IN_NAMESPACES}
    labels |= {item.meta.name: item.meta.labels for item in world.declared.values() if item.meta.kind == "Namespace"}
    return {name: {**own, "kubernetes.io/metadata.name": name} for name, own in labels.items()}
