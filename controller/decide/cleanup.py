"""Objects that were ordered to go: the order is handed down first, and records go once nothing depends on them. Pure.

Pods on silent nodes do not hold up their Deployment or namespace: such pods keep their own records, with the order to stop, until their
node is back or confirmed dead; so does the ReplicaSet that says what they are, or the revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from controller.model.cluster import Declared, Moment, Pod, Record, Stop, World
from controller.model.plan import Change, NodeView

_R = TypeVar("_R", bound=Record)


def hand_down(world: World, now: Moment) -> tuple[Change, ...]:
    """Marks what belongs to an object that is being deleted: a namespace's content, a Deployment's ReplicaSets, pods of their own."""
    spaces = {item.meta.name for item in ending_namespaces(world)}
    changes: list[Change] = []
    for deployment in _ordered(world.deployments.values()):
        if deployment.meta.deleting is None and deployment.meta.namespace in spaces:
            changes.append(_mark(deployment, f"namespace {deployment.meta.namespace} is being deleted", now))
    staying = {
        uid
        for uid, item in world.deployments.items()
        if item.meta.deleting is None and item.meta.namespace not in spaces
    }
    for item in _ordered(world.replica_sets.values()):
        owner = item.meta.owner
        if item.meta.deleting is not None:
            continue
        if owner is not None and owner.uid not in staying:
            changes.append(_mark(item, f"deployment {owner.name} is being deleted", now))
        elif item.meta.namespace in spaces:
            changes.append(_mark(item, f"namespace {item.meta.namespace} is being deleted", now))
    for pod in _ordered(world.pods.values()):
        if pod.stop is None and pod.meta.owner is None and (pod.meta.deleting or pod.meta.namespace in spaces):
            word = f"namespace {pod.meta.namespace}" if pod.meta.namespace in spaces else f"pod {pod.meta.name}"
            because = f"{word} is being deleted"
            changes.append(Change("stop", replace(pod, stop=Stop(because, now)), because, "Killing"))
    return tuple(changes)


def collect(world: World, views: Mapping[str, NodeView]) -> tuple[Change, ...]:
    """Removes records of deleted objects of which nothing is left that could still be asked to stop."""
    owned = world.owned
    changes: list[Change] = []
    held_sets: dict[str, bool] = {}  # by uid of the Deployment: whether pods of it are still to be stopped
    for item in _ordered(world.replica_sets.values()):
        pods = owned.get(item.meta.uid, [])
        if item.meta.deleting is not None and not pods:
            changes.append(Change("remove", item, "all its pods are gone", "Deleted", quiet=True))
        if item.meta.owner is not None:
            held = any(can_be_asked(pod, views) for pod in pods)
            held_sets[item.meta.owner.uid] = held_sets.get(item.meta.owner.uid, False) or held
    for deployment in _ordered(world.deployments.values()):
        if deployment.meta.deleting is not None and not held_sets.get(deployment.meta.uid, False):
            changes.append(Change("remove", deployment, "all its pods are stopped or lost", "Deleted"))
    gone = {change.record.meta.uid for change in changes}
    for space in ending_namespaces(world):
        changes += _collect_namespace(world, space, views, gone)
    return tuple(changes)


def _collect_namespace(world: World, space: Declared, views: Mapping[str, NodeView], gone: set[str]) -> list[Change]:
    name = space.meta.name
    if any(pod.meta.namespace == name and can_be_asked(pod, views) for pod in world.pods.values()):
        return []
    if any(claim.meta.namespace == name for claim in world.claims.values()):
        return []  # the data of its claims goes first
    others = (item for item in world.workloads.values() if item.meta.kind != "ControllerRevision")
    owners: tuple[Record, ...] = (*world.deployments.values(), *others)
    if any(item.meta.namespace == name and item.meta.uid not in gone for item in owners):
        return []
    because = f"namespace {name} is deleted"
    held: tuple[Record, ...] = (*world.declared.values(), *world.policies.values())
    content = [item for item in _ordered(held) if item.meta.namespace == name]
    return [Change("remove", item, because, "Deleted") for item in (*content, space)]


def can_be_asked(pod: Pod, views: Mapping[str, NodeView]) -> bool:
    """Whether waiting for this pod's end makes sense: it has no node yet, or one that is not silent. A first missed poll is awaited."""
    view = views.get(pod.node)
    return pod.lost is None and (view is None or view.state not in ("Unknown", "Dead"))


def ending_namespaces(world: World) -> list[Declared]:
    spaces = [item for item in world.declared.values() if item.meta.kind == "Namespace" and item.meta.deleting]
    return sorted(spaces, key=lambda item: item.meta.name)


def _mark(record: Record, because: str, now: Moment) -> Change:
    return Change("update", replace(record, meta=replace(record.meta, deleting=now)), because, "Deleting", quiet=True)


def _ordered(records: Iterable[_R]) -> list[_R]:
    return sorted(records, key=lambda record: (record.meta.key, record.meta.uid))
