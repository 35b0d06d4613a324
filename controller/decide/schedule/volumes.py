"""Which volume claims a pod needs, where they are, and who uses them. Not pure: binding adds to it, as placing does to the index.

In: the world once. Out: a Need per pod; why a node is out for it; the bindings of claims that come with a pod's.
Semantics: Kubernetes' WaitForFirstConsumer with volumes of one node: a claim is bound to the node of its first pod and stays there, so
that all pods that use it go there; ReadWriteOncePod lets one pod at a time have it. With equal needs pods are one crowd.

Worked example: two replicas share an unbound claim. The first goes to the best node of all, the claim with it; the second needs that node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from controller.decide.phases import is_finished
from controller.decide.schedule.rejection import Rejection
from controller.decide.shapes import Shape, Shapes, claims_of
from controller.decide.stored import stored
from controller.model import quantity
from controller.model.cluster import Moment, Node, Pod, Storage, VolumeClaim, World
from controller.model.identity import volume_name
from controller.model.plan import Change, NodeView
from nodeagent.protocol import VOLUME_MISSING

if TYPE_CHECKING:
    from controller.model.kinds.storage import PersistentVolumeClaimSpec

DEFAULT_CLASS = "podman"  # that every node has: volumes of its Podman
_SINGLE = "ReadWriteOncePod"


@dataclass(frozen=True, slots=True)
class Ask:
    """A claim that is not bound yet."""

    uid: str
    name: str
    storage_class: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Need:
    """What the claims of a pod, and its being sticky, ask of a node. Compared by value: it is part of what makes a crowd."""

    uids: tuple[str, ...] = ()
    pins: tuple[tuple[str, str], ...] = ()  # (node, why it must be that one)
    asks: tuple[Ask, ...] = ()
    blocked: str = ""  # why no node will do
    is_single: bool = False  # placing one pod changes what the next one needs

    @property
    def nodes(self) -> frozenset[str] | None:
        """The only nodes that will do; None: any may."""
        if not self.pins:
            return None
        found = {node for node, _ in self.pins}
        return frozenset(found) if len(found) == 1 else frozenset()


NOTHING = Need()


class Volumes:
    """The claims of a world, and what this pass has bound so far."""

    def __init__(self, world: World, views: Mapping[str, NodeView], shapes: Shapes) -> None:
        self._world, self._views, self._shapes = world, views, shapes
        self._claims = {(one.meta.namespace, one.meta.name): one for one in world.claims.values()}
        self._users: dict[str, list[Pod]] | None = None

    def need(self, pod: Pod, shape: Shape) -> Need:
        """Of one pod. The same pod with the same claims has an equal one."""
        if not shape.claims and not pod.home:
            return NOTHING
        return self.need_of(pod.meta.namespace, claims_of(pod, shape), pod)

    def need_of(self, namespace: str, names: Sequence[str], pod: Pod | None = None) -> Need:
        """Of a pod that uses the claims of these names; one that does not exist yet is None."""
        uids, pins, asks, blocked, is_single = [], [], [], "", False
        for name in names:
            claim = self._claims.get((namespace, name))
            if claim is None:
                blocked = blocked or f"volume claim {name} not found"
                continue
            uids.append(claim.meta.uid)
            spec = spec_of_claim(claim)
            blocked = blocked or why_unusable(claim, spec) or self._taken(claim, spec, pod)
            is_single = is_single or _SINGLE in spec.access_modes or not claim.node
            if claim.node:
                pins.append((claim.node, f"volume claim {name} lives on {claim.node}"))
            else:
                asks.append(Ask(claim.meta.uid, name, class_of(claim), size_of(claim)))
        if pod is not None and pod.home and self._is_home(pod.home):
            pins.append((pod.home, f"{pod.meta.name} is sticky: its node is {pod.home}"))
        return Need(tuple(uids), tuple(pins), tuple(asks), blocked, is_single)

    def rejection(self, need: Need, node: Node) -> Rejection | None:
        """Why a node can't give what is needed."""
        if need.blocked:
            return Rejection("volumeClaim", need.blocked)
        for name, why in need.pins:
            if name != node.meta.name:
                return Rejection("volumeNode", why)
        wanted: dict[str, int] = defaultdict(int)
        for ask in need.asks:
            wanted[ask.storage_class] += ask.size_bytes
        for storage_class, size_bytes in wanted.items():
            place = storage_at(node, storage_class)
            if place is None:
                return Rejection("storageClass", f"has no storage class {storage_class} (sshoal_volumes of the host)")
            free_bytes = place.size_bytes - self._asked[node.meta.name, storage_class]
            if place.size_bytes and size_bytes > free_bytes:
                sizes = f"needs {_size_text(size_bytes)}, free {_size_text(max(0, free_bytes))}"
                return Rejection("storage", f"storage class {storage_class}: {sizes}", free_bytes)
        return None

    def bind(self, need: Need, pod: Pod, node: Node, now: Moment) -> list[Change]:
        """The claims that are bound with a pod. It uses all that it needs from now on."""
        for uid in need.uids:
            self.users(uid).append(replace(pod, node=node.meta.name))
        changes = []
        for ask in need.asks:
            claim = self._world.claims[ask.uid]
            place = storage_at(node, ask.storage_class) or Storage()
            number = claim.volumes_made + 1
            bound = replace(
                claim,
                node=node.meta.name,
                bound=now,
                volume=volume_name(self._world.cluster.id, claim.meta.uid, number),
                directory=place.path,
                volumes_made=number,
            )
            self._asked[node.meta.name, ask.storage_class] += ask.size_bytes
            self._claims[claim.meta.namespace, claim.meta.name] = bound
            because = f"{claim.meta.name} is bound to {node.meta.name}, where its first pod {pod.meta.name} goes"
            changes.append(Change("bind", bound, because, "WaitForFirstConsumer"))
        return changes

    def users(self, uid: str) -> list[Pod]:
        """Pods with this claim that are on a node and have not ended, as Kubernetes' protection of claims counts them. On a node that is
        dead for sure nothing runs."""
        if self._users is None:
            self._users = defaultdict(list)
            for pod in sorted(self._world.pods.values(), key=lambda pod: pod.meta.key):
                view = self._views.get(pod.node)
                runs = view is not None and view.state != "Dead" and not is_finished(pod)
                shape = self._shapes.of(pod) if runs else None
                if shape is None or not shape.claims:
                    continue
                for name in claims_of(pod, shape):
                    claim = self._claims.get((pod.meta.namespace, name))
                    if claim is not None:
                        self._users[claim.meta.uid].append(pod)
        return self._users[uid]

    @cached_property
    def _asked(self) -> dict[tuple[str, str], int]:
        """Bytes by node and class."""
        asked: dict[tuple[str, str], int] = defaultdict(int)
        for claim in self._claims.values():
            if claim.node:
                asked[claim.node, class_of(claim)] += size_of(claim)
        return asked

    def _taken(self, claim: VolumeClaim, spec: PersistentVolumeClaimSpec, pod: Pod | None) -> str:
        if _SINGLE not in spec.access_modes:
            return ""
        others = [one for one in self.users(claim.meta.uid) if pod is None or one.meta.uid != pod.meta.uid]
        if not others:
            return ""
        return f"volume claim {claim.meta.name} is {_SINGLE}, and pod {others[0].meta.name} has it"

    def _is_home(self, name: str) -> bool:
        """A home that is gone for good is none."""
        view = self._views.get(name)
        return name in self._world.nodes and view is not None and view.state != "Dead"


# ---- claims by themselves -----------------------------------------------------------------------------------------------


def spec_of_claim(claim: VolumeClaim) -> PersistentVolumeClaimSpec:
    """The spec with Kubernetes' defaults."""
    from controller.model.kinds.storage import PersistentVolumeClaim

    return stored(PersistentVolumeClaim, claim.source).spec


def class_of(claim: VolumeClaim) -> str:
    name = spec_of_claim(claim).storage_class_name
    return DEFAULT_CLASS if name is None else name


def size_of(claim: VolumeClaim) -> int:
    """What it asks for, in bytes. Nothing holds its pods to that."""
    return quantity.memory_bytes(spec_of_claim(claim).resources.requests.get("storage", "0"))


def storage_at(node: Node, storage_class: str) -> Storage | None:
    """Where a node keeps volumes of a class; None when it keeps none."""
    return node.storage.get(storage_class) or (Storage() if storage_class == DEFAULT_CLASS else None)


def why_unusable(claim: VolumeClaim, spec: PersistentVolumeClaimSpec) -> str:
    """Why no pod can have it; "" when one can."""
    name = claim.meta.name
    if claim.meta.deleting is not None:
        return f"volume claim {name} is being deleted"
    if claim.report is not None and claim.report.state == VOLUME_MISSING:
        return f"volume claim {name} is lost: its volume is missing on {claim.node}"
    if claim.node:
        return ""
    if spec.volume_name:
        return f"volume claim {name} asks for the volume {spec.volume_name}: sshoal makes volumes itself, leave volumeName out"
    if spec.storage_class_name == "":
        return f'volume claim {name} has storageClassName "", which asks for a volume made by hand: leave the field out'
    return ""


def _size_text(size_bytes: int) -> str:
    exact = quantity.format_memory(size_bytes)
    return exact if len(exact) <= 7 else f"{size_bytes // 2**20}Mi"
