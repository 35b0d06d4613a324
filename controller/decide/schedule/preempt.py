"""Which pods of lower priority go, so that one of higher priority fits. Pure towards the outside: the index is as before in the end.

In: a pod that fits nowhere, the index, who runs where. Out: a node and its victims, or None.
Semantics: Kubernetes' DefaultPreemption. On each node all pods of lower priority are thought away; when the pod then fits, they are
let back in, the most important first, while it still does. Of the nodes that is the one which hurts least.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from controller.decide.pods import is_active, ready_ages
from controller.decide.schedule.filters import fits
from controller.decide.schedule.priority import Priorities
from controller.decide.schedule.ranking import Ranking
from controller.decide.schedule.usage import Crowd, Index, Room
from controller.decide.shapes import Shapes
from controller.model.cluster import Pod, World
from controller.model.plan import NodeView

if TYPE_CHECKING:
    from controller.decide.budgets import Budgets

_CANDIDATES = 100  # nodes that are tried in full where other nodes' pods have a say: each costs a count of all


@dataclass(frozen=True, slots=True)
class Preemption:
    node: str
    victims: tuple[Pod, ...]


def preempt(
    crowd: Crowd, ranking: Ranking, index: Index, running: Running, priorities: Priorities, protection: Protection
) -> Preemption | None:
    """Where one pod of the crowd could go, and who would have to leave."""
    priority = priorities.of(crowd.shape.spec)
    if not priorities.may_preempt(crowd.shape.spec) or running.lowest(priorities) >= priority:
        return None
    best: tuple[tuple[object, ...], Preemption] | None = None
    tried = 0
    for room in index.rooms.values():
        if ranking.is_unsuitable(room):
            continue
        lower = [item for item in running.on(room.name) if item.priority < priority]
        if not lower:
            continue
        tried += ranking.looks_around
        if tried > _CANDIDATES and best is not None:
            break
        found = _victims(crowd, room, lower, index, protection, ranking.looks_around)
        if found is not None:
            victims, violations = found
            rank = (*_cost(victims, violations), room.name)
            if best is None or rank < best[0]:
                best = rank, Preemption(room.name, tuple(item.pod for item in victims))
    return best[1] if best else None


class Protection:
    """Which pods disruption budgets protect; the budgets are looked at when somebody asks."""

    def __init__(self, world: World, views: Mapping[str, NodeView]) -> None:
        self._world, self._views = world, views

    def over_budget(self, pods: Sequence[Pod]) -> frozenset[str]:
        """Uids of those pods that no disruption budget lets go, the first ones going first."""
        return self._budgets.violated_by(pods) if self._budgets is not None else frozenset()

    def gone(self, pods: Sequence[Pod]) -> None:
        """They are being stopped: the budgets over them let fewer others go."""
        if self._budgets is not None:
            self._budgets.gone(pods)

    @cached_property
    def _budgets(self) -> Budgets | None:
        if not self._world.policies:
            return None
        from controller.decide.budgets import Budgets

        return Budgets(self._world, ready_ages(self._world, self._views))


@dataclass(frozen=True, slots=True)
class Occupant:
    pod: Pod
    crowd: Crowd
    priority: int

    @property
    def since_s(self) -> float:
        return (self.pod.bound or self.pod.meta.created).wall_s


class Running:
    """Pods that run on nodes and are not on their way out, by node; looked up when the first pod wants to preempt.

    What has ended is none of them: it takes no room in the index, so that none is won by its going.
    """

    def __init__(self, world: World, index: Index, shapes: Shapes) -> None:
        self._world, self._index, self._shapes = world, index, shapes
        self._on: dict[str, list[Occupant]] | None = None
        self._lowest = 0

    def on(self, node: str) -> Sequence[Occupant]:
        return (self._on or {}).get(node, ())

    def lowest(self, priorities: Priorities) -> int:
        """The lowest priority of all."""
        if self._on is None:
            self._on = {}
            for pod in sorted(self._world.pods.values(), key=lambda pod: pod.meta.key):
                shape = self._shapes.of(pod) if pod.node and is_active(pod) else None
                if shape is not None:
                    occupant = Occupant(pod, self._index.crowd_of(pod, shape), priorities.of(shape.spec))
                    self._on.setdefault(pod.node, []).append(occupant)
            self._lowest = min((item.priority for items in self._on.values() for item in items), default=2**31)
        return self._lowest

    def forget(self, pods: Iterable[Pod]) -> None:
        """They are being stopped from now on."""
        gone = {pod.meta.uid for pod in pods}
        for items in (self._on or {}).values():
            items[:] = [item for item in items if item.pod.meta.uid not in gone]


def _victims(
    crowd: Crowd, room: Room, lower: Sequence[Occupant], index: Index, protection: Protection, looks_around: bool
) -> tuple[list[Occupant], int] | None:
    """The fewest that must go, least important last let in; and how many of them no budget lets go."""

    def fitting() -> bool:
        if not fits(crowd.shape, room):
            return False
        # Pods that two of the crowd want to be near to must not go for both of them, or neither could come, again and again.
        return not looks_around or Ranking(crowd, index, lasting=True).verdict(room) is None

    for item in lower:
        index.take(room, item.crowd, -1)
    back: list[Occupant] = []
    victims: list[Occupant] = []
    if fitting():
        first = sorted(lower, key=lambda item: (-item.priority, item.since_s, item.pod.meta.key))
        protected = protection.over_budget([item.pod for item in first])
        order = sorted(
            lower,
            key=lambda item: (item.pod.meta.uid not in protected, -item.priority, item.since_s, item.pod.meta.key),
        )
        for item in order:
            index.take(room, item.crowd)
            if fitting():
                back.append(item)
            else:
                index.take(room, item.crowd, -1)
                victims.append(item)
        result = (victims, sum(item.pod.meta.uid in protected for item in victims)) if victims else None
    else:
        result = None
    for item in lower:
        if item not in back:
            index.take(room, item.crowd)
    return result


def _cost(victims: Sequence[Occupant], violations: int) -> tuple[object, ...]:
    """Kubernetes' order: budgets broken, the highest priority that goes, all priorities together, how many, and then who ran shortest."""
    highest = max(item.priority for item in victims)
    oldest_s = min(item.since_s for item in victims if item.priority == highest)
    return (violations, highest, sum(item.priority + 2**31 for item in victims), len(victims), -oldest_s)
