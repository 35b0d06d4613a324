"""Nodes that are being emptied: which pods leave now, which wait for a budget, and when it is done. Pure; loaded when a node is drained.

In: the world with the intent on its nodes, and who is ready. Out: stops, marks, the end of the intent.
Semantics: kubectl drain with the eviction API. Added: where a budget lets no pod of a ReplicaSet go, its replacement is made first,
elsewhere, and the pod goes when that is ready (Kubernetes waits for somebody to raise the number of replicas).

Worked example: web has 3 replicas, minAvailable 3, two of them on n3. Pass 1: n3 is drained, no pod may go, both are marked; the ReplicaSet
wants 3 + 2. Pass 2 makes two more, elsewhere, since n3 is cordoned. When they are ready, 5 are healthy: both go, and 3 are left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from controller.decide.budgets import Budgets
from controller.decide.owners import template_of
from controller.decide.phases import is_finished
from controller.decide.pods import is_active
from controller.model.cluster import Drain, Moment, Node, Pod, Stop, World
from controller.model.errors import UsageError
from controller.model.plan import Change, NodeView
from controller.model.selectors import parse_selector

_NAMES_MAX = 5


@dataclass(frozen=True, slots=True)
class Draining:
    changes: tuple[Change, ...]
    waiting: tuple[str, ...]

    @property
    def wake_s(self) -> tuple[float, ...]:
        """At once when pods were stopped or marked: their replacements are made by the next pass."""
        return (0.0,) if any(isinstance(change.record, Pod) for change in self.changes) else ()


def order_drain(
    world: World, node: Node, drain: Drain, *, ignore_daemon_sets: bool
) -> tuple[tuple[Change, ...], tuple[Pod, ...]]:
    """The intent to empty a node, and the pods that will leave it.

    Raises: UsageError when pods are there that may not go without more being said; then nothing changes.
    """
    matches = parse_selector(drain.selector)
    pods = [pod for pod in _on(world, node) if is_active(pod) and matches(pod.meta.labels)]
    daemons = [pod for pod in pods if _is_daemon(pod)]
    problems = []
    if daemons and not ignore_daemon_sets:
        problems.append(
            (daemons, "belong to a DaemonSet, which would start them again", "--ignore-daemonsets leaves them")
        )
    others = [pod for pod in pods if not _is_daemon(pod)]
    alone = [pod for pod in others if pod.meta.owner is None]
    if alone and not drain.force:
        problems.append((alone, "have no owner that would replace them", "--force ends them for good"))
    local = [pod for pod in others if _has_empty_dir(world, pod)]
    if local and not drain.empty_dirs:
        problems.append(
            (local, "keep data in emptyDir volumes, which go with them", "--delete-emptydir-data accepts that")
        )
    if problems:
        lines = [f"{_named(found)} {why}" for found, why, _ in problems]
        raise UsageError(
            f"node {node.meta.name} is not drained: {'; '.join(lines)}",
            hint="; ".join(hint for _, _, hint in problems),
        )
    because = f"node {node.meta.name} is drained"
    drained = replace(node, cordoned=True, drain=drain)
    return (Change("update", drained, because, "NodeDraining"),), tuple(others)


def step_drains(world: World, views: Mapping[str, NodeView], ready: Collection[str], now: Moment) -> Draining:
    """One step of all drains; marks that nothing asks for any more are taken off."""
    draining = [node for _, node in sorted(world.nodes.items()) if node.drain is not None]
    changes = list(_unmarked(world, {node.meta.name for node in draining}))
    waiting: list[str] = []
    budgets = Budgets(world, ready)
    for node in draining:
        step = _step(world, node, views[node.meta.name], budgets, now)
        changes += step.changes
        waiting += step.waiting
    return Draining(tuple(changes), tuple(waiting))


def leaving(world: World, node: Node) -> list[tuple[Pod, str]]:
    """Pods that a drain still waits for, and in a few words why: for people."""
    drain = node.drain
    if drain is None:
        return []
    return [(pod, _why_there(pod)) for pod in _bound_to_go(world, node, drain)]


def _why_there(pod: Pod) -> str:
    if pod.stop is not None:
        return pod.stop.because
    return "may still run there" if pod.lost is not None else "waits for its disruption budget"


def _step(world: World, node: Node, view: NodeView, budgets: Budgets, now: Moment) -> Draining:
    name, drain = node.meta.name, node.drain
    assert drain is not None
    pods = _bound_to_go(world, node, drain)
    if not pods:
        done = replace(node, drain=None)
        return Draining(
            (Change("update", done, f"node {name} is drained: nothing is left to leave", "NodeDrained"),), ()
        )
    if not view.may_push and view.state != "Dead":  # where nothing runs, nobody has to be asked
        return Draining((), (f"node {name}: is drained when it answers again: {view.why or view.state}",))
    changes: list[Change] = []
    waiting: list[str] = []
    for pod in pods:
        if pod.stop is not None:
            waiting.append(f"pod {pod.meta.key}: leaves {name}")
            continue
        refusal = budgets.refusal(pod)
        if not refusal:
            because = f"{name} is drained"
            stopped = replace(pod, stop=Stop(because, now, drain.grace_s), handover=False)
            changes.append(Change("stop", stopped, because, "Evicted"))
            waiting.append(f"pod {pod.meta.key}: leaves {name}")
            continue
        waiting.append(f"pod {pod.meta.key}: stays on {name} for now: {refusal}")
        owner = pod.meta.owner
        if not pod.handover and owner is not None and owner.uid in world.replica_sets and budgets.waits_for_room(pod):
            because = f"{refusal}; its replacement is started first"
            changes.append(Change("update", replace(pod, handover=True), because, "EvictionBlocked"))
    return Draining(tuple(changes), tuple(waiting))


def _bound_to_go(world: World, node: Node, drain: Drain) -> list[Pod]:
    """What a drain is about: also those that are stopping already, and those that were replaced on a silent node, which come back with it.

    Finished pods run no more and stay for their logs.
    """
    matches = parse_selector(drain.selector)
    return [
        pod
        for pod in _on(world, node)
        if (is_active(pod) or pod.stop is not None or _may_come_back(pod, node))
        and not _is_daemon(pod)
        and matches(pod.meta.labels)
        and (drain.force or pod.meta.owner is not None)
        and (drain.empty_dirs or not _has_empty_dir(world, pod))
    ]


def _may_come_back(pod: Pod, node: Node) -> bool:
    return pod.lost is not None and not is_finished(pod) and not node.confirmed_dead


def _unmarked(world: World, draining: Collection[str]) -> Iterator[Change]:
    for pod in sorted(world.pods.values(), key=lambda pod: pod.meta.key):
        if pod.handover and pod.node not in draining:
            because = f"{pod.node} is not drained any more"
            yield Change("update", replace(pod, handover=False), because, quiet=True)


def _on(world: World, node: Node) -> list[Pod]:
    found = (pod for pod in world.pods.values() if pod.node == node.meta.name)
    return sorted(found, key=lambda pod: pod.meta.key)


def _is_daemon(pod: Pod) -> bool:
    return pod.meta.owner is not None and pod.meta.owner.kind == "DaemonSet"


def _has_empty_dir(world: World, pod: Pod) -> bool:
    template = template_of(world, pod) or {}
    return any("emptyDir" in volume for volume in (template.get("spec") or {}).get("volumes") or ())


def _named(pods: Sequence[Pod]) -> str:
    names = ", ".join(pod.meta.key for pod in pods[:_NAMES_MAX])
    return f"{names} and {len(pods) - _NAMES_MAX} more" if len(pods) > _NAMES_MAX else names
