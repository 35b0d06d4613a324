"""Which pods would better run elsewhere now, for example after a host came back. Pure: proposals only, nothing is moved here.

In: the world, the views, how many moves. Out: moves in rounds; the moves of one round together stop no more pods of an owner than its
rollout may, and none that disruption budgets keep. A pod is thought away from the node where its owner has most pods, and placed anew; when
that is worth so much more that it is no accident of rounding, it is a move, and the next one is judged with it done. Pods stay on nodes
that take no new ones.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from controller.decide.pods import is_active
from controller.decide.schedule.preempt import Protection
from controller.decide.schedule.ranking import Ranking, weighted
from controller.decide.schedule.usage import Crowd, Index
from controller.decide.shapes import Shapes, spec_of
from controller.model.cluster import Pod, World
from controller.model.plan import NodeView

GAIN_MIN = 20  # points, of 1100 at most


@dataclass(frozen=True, slots=True)
class Move:
    pod: Pod
    source: str
    target: str
    gain: int  # points
    round: int  # from 1


def rebalance(world: World, views: Mapping[str, NodeView], moves_max: int) -> tuple[Move, ...]:
    """At most so many moves, the most worthwhile of each owner first."""
    shapes = Shapes(world)
    index = Index(world, views, shapes)
    running = _running(world, index, shapes)
    protection = Protection(world, views)
    moves: list[Move] = []
    rounds: dict[int, list[Pod]] = defaultdict(list)
    for crowd, pods in running.items():
        at_once = _at_once(world, crowd.owner)
        while len(moves) < moves_max:
            found = _best_move(protection, index, crowd, pods)
            if found is None:
                break
            pod, target, gain = found
            index.take(index.rooms[pod.node], crowd, -1)
            index.take(index.rooms[target], crowd)
            pods.remove(pod)
            number = 1
            while not _has_place(
                rounds[number], pod, at_once, protection
            ):  # there is one: budgets let the pod go alone
                number += 1
            rounds[number].append(pod)
            moves.append(Move(pod, pod.node, target, gain, number))
    return tuple(sorted(moves, key=lambda move: (move.round, move.pod.meta.key)))


def _running(world: World, index: Index, shapes: Shapes) -> dict[Crowd, list[Pod]]:
    """Pods that something replaces, on nodes that are open: what runs on a cordoned one was left there."""
    found: dict[Crowd, list[Pod]] = {}
    for pod in sorted(world.pods.values(), key=lambda pod: pod.meta.key):
        owner = pod.meta.owner
        if owner is None or owner.uid not in world.replica_sets or not is_active(pod):
            continue
        room = index.rooms.get(pod.node)
        shape = shapes.of(pod)
        # What has a volume stays with it.
        if room is not None and shape is not None and room.view.may_place and not shape.claims:
            found.setdefault(index.crowd_of(pod, shape), []).append(pod)
    return found


def _best_move(protection: Protection, index: Index, crowd: Crowd, pods: list[Pod]) -> tuple[Pod, str, int] | None:
    """The pod of the crowd's fullest node, where it would rather be, and what that is worth."""
    if not pods:
        return None
    many = Counter(pod.node for pod in pods)
    source = min(many, key=lambda name: (-many[name], -index.rooms[name].scored_cpu_m, name))
    pod = next(pod for pod in pods if pod.node == source)
    if protection.over_budget([pod]):
        return None
    room = index.rooms[source]
    index.take(room, crowd, -1)
    ranking = Ranking(crowd, index)
    choice, scores = ranking.best(), ranking.scores()
    index.take(room, crowd)
    if choice is None or choice.room is room:
        return None
    gain = choice.total - weighted(scores.get(source, {}))
    return (pod, choice.room.name, gain) if gain >= GAIN_MIN else None


def _has_place(others: list[Pod], pod: Pod, at_once: int, protection: Protection) -> bool:
    """Whether a pod may be stopped together with the others of a round."""
    siblings = sum(other.meta.owner == pod.meta.owner for other in others)
    return siblings < at_once and pod.meta.uid not in protection.over_budget([*others, pod])


def _at_once(world: World, owner: str) -> int:
    """How many pods of a ReplicaSet may be missing at a time: its Deployment's maxUnavailable, else one."""
    replica_set = world.replica_sets[owner]
    deployment = world.deployments.get(replica_set.meta.owner.uid) if replica_set.meta.owner else None
    rolling = spec_of(deployment).strategy.rolling_update if deployment is not None else None
    return max(1, rolling.unavailable(replica_set.replicas)) if rolling is not None else 1
