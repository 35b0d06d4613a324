"""Which pods leave their node without having been asked to: silent nodes that are given up, and NoExecute taints. Pure.

In: the world, the views, the brake. Out: changes, and when time alone would bring the next.
Pods of a silent node are only marked lost: they may well be running, and stay if the node is back in time (DESIGN §4).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from controller.decide.nodes import POLLS_UNKNOWN
from controller.decide.pods import is_active
from controller.decide.shapes import Shapes, matching_seconds
from controller.model.cluster import Moment, Node, Pod, Stop, World
from controller.model.plan import Change, NodeView

GIVE_UP_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Evictions:
    changes: tuple[Change, ...]
    wake_s: tuple[float, ...]  # seconds until further ones are due


def evict(world: World, views: Mapping[str, NodeView], brake: str, shapes: Shapes, now: Moment) -> Evictions:
    """Marks pods of silent nodes as lost, and stops those that do not tolerate a NoExecute taint."""
    by_node: dict[str, list[Pod]] = defaultdict(list)
    for pod in world.pods.values():
        if pod.node in world.nodes and is_active(pod):
            by_node[pod.node].append(pod)
    changes: list[Change] = []
    wake_s: list[float] = []
    budget = _Budget(world, now)
    for node in sorted(world.nodes.values(), key=_longest_missing_first):
        pods = sorted(by_node[node.meta.name], key=lambda pod: pod.meta.name)
        view = views[node.meta.name]
        if view.state == "Dead":
            because = f"node {node.meta.name} is {view.why}"
            changes += [_lost(pod, because, now) for pod in _shared(pods)]
            changes += [Change("remove", pod, because, "NodeDead", warning=True) for pod in pods if _is_exclusive(pod)]
        elif view.may_push:
            found, times = _tainted(node, pods, shapes, now)
            changes += found
            wake_s += times
        elif node.missing is not None and node.missing.polls >= POLLS_UNKNOWN and not brake:
            found, times = _give_up(node, _shared(pods), shapes, budget, now)
            changes += found
            wake_s += times
    return Evictions(tuple(changes), tuple(wake_s))


def _longest_missing_first(node: Node) -> tuple[float, str]:
    return (node.missing.since.wall_s if node.missing else 0.0, node.meta.name)


def _shared(pods: list[Pod]) -> list[Pod]:
    """Those that something replaces. A Pod of its own stays where it is, lost or not."""
    return [pod for pod in pods if pod.meta.owner is not None and not _is_exclusive(pod)]


def _is_exclusive(pod: Pod) -> bool:
    """Whether it may never run twice: its record is the claim to its name, which only the certain end of it sets free."""
    return pod.meta.owner is not None and pod.meta.owner.kind == "StatefulSet"


class _Budget:
    """How many nodes may still be given up: max(1, a tenth of them) in any minute."""

    def __init__(self, world: World, now: Moment) -> None:
        nodes = world.nodes.values()
        given_up = [node.given_up for node in nodes if node.given_up is not None]
        ages = [now.since(moment) for moment in given_up if not now.seems_before(moment)]
        recent = [age for age in ages if age < GIVE_UP_WINDOW_S]
        self.left = max(1, int(world.cluster.settings.give_up_fraction * len(nodes))) - len(recent)
        self.wait_s = GIVE_UP_WINDOW_S - max(recent, default=0.0)


def _give_up(
    node: Node, pods: list[Pod], shapes: Shapes, budget: _Budget, now: Moment
) -> tuple[list[Change], list[float]]:
    assert node.missing is not None
    elapsed_s = now.since(node.missing.counted or node.missing.since)
    due, wake_s = [], []
    for pod in pods:
        shape = shapes.of(pod)
        tolerated_s = shape.unreachable_s if shape is not None else None
        if tolerated_s is None:
            continue
        if elapsed_s >= tolerated_s:
            due.append((pod, tolerated_s))
        else:
            wake_s.append(tolerated_s - elapsed_s)
    if not due:
        return [], wake_s
    changes = []
    silent = f"{node.meta.name} has been silent for {now.since(node.missing.since):.0f} s"
    if node.given_up is None:
        if budget.left <= 0:
            return [], [*wake_s, budget.wait_s]
        budget.left -= 1
        because = f"{silent}: its pods are replaced"
        changes.append(Change("update", replace(node, given_up=now), because, "NodeGivenUp", warning=True))
    for pod, tolerated_s in due:
        because = f"{silent}, {tolerated_s:.0f} s are tolerated"
        changes.append(_lost(pod, because, now))
    return changes, wake_s


def _lost(pod: Pod, because: str, now: Moment) -> Change:
    return Change("evict", replace(pod, lost=now), because, "TaintManagerEviction", warning=True)


def _tainted(node: Node, pods: list[Pod], shapes: Shapes, now: Moment) -> tuple[list[Change], list[float]]:
    taints = [taint for taint in node.taints if taint.effect == "NoExecute"]
    changes, wake_s = [], []
    for pod in pods if taints else ():
        shape = shapes.of(pod)
        for taint in taints:
            if shape is None:
                break
            tolerated_s = matching_seconds(shape.spec.tolerations, taint.key, taint.value, taint.effect)
            if tolerated_s is None:
                continue
            # A pod that came after the taint, because it tolerates it for a while, has its whole time.
            since_s = min((now.since(at) for at in (taint.added, pod.bound) if at is not None), default=tolerated_s)
            left_s = tolerated_s - since_s
            if left_s > 0:
                wake_s.append(left_s)
                continue
            because = (
                f"{node.meta.name} has the taint {taint.key}:{taint.effect}, which {pod.meta.name} does not tolerate"
            )
            changes.append(
                Change("stop", replace(pod, stop=Stop(because, now)), because, "TaintManagerEviction", warning=True)
            )
            break
    return changes, wake_s
