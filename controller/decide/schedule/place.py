"""Pods without a node get one, or are told why not. Pure towards the outside.

In: the world and the views. Out: bindings with the record of the decision, pods that make room for more important ones, and per pod
that fits nowhere the reason of each node.
The most important pods come first, then the oldest. Pods that placing cannot tell apart are placed one after the other by one Ranking.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from controller.decide.schedule.preempt import Protection, Running, preempt
from controller.decide.schedule.priority import Priorities, gated
from controller.decide.schedule.ranking import Choice, Ranking
from controller.decide.schedule.rejection import Rejection
from controller.decide.schedule.scores import WEIGHTS
from controller.decide.schedule.usage import Crowd, Index
from controller.decide.shapes import Shapes
from controller.model.cluster import Moment, Pod, Stop, World
from controller.model.plan import Change, NodeView, Unplaced


@dataclass(frozen=True, slots=True)
class Placed:
    changes: tuple[Change, ...]
    unplaced: tuple[Unplaced, ...]


def place(world: World, views: Mapping[str, NodeView], shapes: Shapes, now: Moment) -> Placed:
    """Binds every pod that waits for a node and fits one."""
    waiting = [pod for pod in world.pods.values() if not pod.node and pod.stop is None]
    placing = _Placing(world, Index(world, views, shapes), shapes, Protection(world, views), now)
    left = placing.first_round(waiting)
    before = 0
    while left and len(placing.bound) > before:  # what was placed last may be what others want to be near to
        before = len(placing.bound)
        left = [(crowd, rest) for crowd, pods in left if (rest := placing.bind(crowd, pods))]
    return Placed(*placing.result(left))


class _Placing:
    def __init__(self, world: World, index: Index, shapes: Shapes, protection: Protection, now: Moment) -> None:
        self.bound: list[Change] = []
        self._world, self._index, self._shapes, self._now = world, index, shapes, now
        self._priorities = Priorities(world)
        self._running = Running(world, index, shapes)
        self._protection = protection
        self._preempted: list[Change] = []
        self._nominated: dict[str, str] = {}  # by uid: the node where room is being made
        self._hopeless: list[tuple[Pod, str]] = []

    def first_round(self, waiting: Sequence[Pod]) -> list[tuple[Crowd, Sequence[Pod]]]:
        """Places what fits, and makes room for what does not but may. What is left."""
        left = []
        for crowd, pods in self._groups(waiting):
            rest = self.bind(crowd, pods)
            if rest:
                self._make_room(self._present(crowd, rest), rest)
                left.append((crowd, rest))
        return left

    def bind(self, crowd: Crowd, pods: Sequence[Pod]) -> Sequence[Pod]:
        """Places pods of one crowd while there is a node for them; the others come back."""
        crowd = self._present(crowd, pods)
        ranking = Ranking(crowd, self._index)
        rest = [pod for pod in pods if pod.meta.uid in self._nominated]  # their room is not free yet
        free = [pod for pod in pods if pod.meta.uid not in self._nominated]
        for position, pod in enumerate(free):
            choice = ranking.best()
            if choice is None:
                return [*rest, *free[position:]]
            ranking.place(choice.room)
            name = choice.room.name
            bound = replace(
                pod, node=name, bound=self._now, unplaced="", nominated="", decision=_record(choice, ranking)
            )
            self.bound += self._index.volumes.bind(crowd.need, pod, choice.room.node, self._now)
            self.bound.append(Change("bind", bound, f"{pod.meta.name} goes to {name}", "Scheduled"))
            if crowd.need.is_single and free[position + 1 :]:  # the others need something else from now on
                return self.bind(crowd, [*free[position + 1 :], *rest])
        return rest

    def _present(self, crowd: Crowd, pods: Sequence[Pod]) -> Crowd:
        """What the pods are like now: another pod may have bound the same claims meanwhile."""
        return self._index.crowd_of(pods[0], crowd.shape) if crowd.need.uids else crowd

    def result(self, left: Sequence[tuple[Crowd, Sequence[Pod]]]) -> tuple[tuple[Change, ...], tuple[Unplaced, ...]]:
        """Only now is it known what is free: told earlier, the next pass would tell otherwise."""
        told: list[Change] = []
        unplaced: list[Unplaced] = []
        for crowd, pods in left:
            ranking = Ranking(self._present(crowd, pods), self._index)
            verdicts = {name: ranking.verdict(room) for name, room in self._index.rooms.items()}
            rejections = {name: found for name, found in verdicts.items() if found is not None}
            summary = summarize(rejections)
            texts = {name: found.text for name, found in rejections.items()}
            for pod in pods:
                told += self._told(pod, summary)
                unplaced.append(Unplaced(pod.meta.uid, summary, texts))
        for pod, why in self._hopeless:
            told += self._told(pod, why)
            unplaced.append(Unplaced(pod.meta.uid, why, {}))
        return (*self.bound, *self._preempted, *told), tuple(unplaced)

    def _groups(self, waiting: Sequence[Pod]) -> list[tuple[Crowd, list[Pod]]]:
        """In the order in which they are served."""
        groups: dict[Crowd, list[Pod]] = defaultdict(list)
        for pod in sorted(waiting, key=lambda pod: (pod.meta.created.wall_s, pod.meta.key)):
            shape = self._shapes.of(pod)
            if shape is None:
                continue  # its owner is gone: it is being stopped
            if why := gated(shape.spec) or self._priorities.problem(shape.spec):
                self._hopeless.append((pod, why))
            else:
                groups[self._index.crowd_of(pod, shape)].append(pod)
        return sorted(groups.items(), key=lambda item: -self._priorities.of(item[0].shape.spec))

    def _make_room(self, crowd: Crowd, pods: Sequence[Pod]) -> None:
        """Stops less important pods, and keeps their room for those that they make way for."""
        if self._running.lowest(self._priorities) >= self._priorities.of(crowd.shape.spec) and not any(
            pod.nominated for pod in pods
        ):
            return
        ranking = Ranking(crowd, self._index)
        promised = {pod.meta.uid for pod in pods if self._is_making_way(pod.nominated, ranking)}
        # What was promised is kept, whatever the others find.
        for pod in sorted(pods, key=lambda pod: pod.meta.uid not in promised):
            node = pod.nominated
            if pod.meta.uid not in promised:
                found = preempt(crowd, ranking, self._index, self._running, self._priorities, self._protection)
                if found is None:
                    return  # the others of this crowd would not find anything either
                node = found.node
                for victim in found.victims:
                    because = f"{victim.meta.name} makes room for {pod.meta.key}, which is more important"
                    stopped = replace(victim, stop=Stop(because, self._now))
                    self._preempted.append(Change("stop", stopped, because, "Preempted", warning=True))
                    self._leaves(victim, stopped)
                self._running.forget(found.victims)
                self._protection.gone(found.victims)
            self._nominated[pod.meta.uid] = node
            self._index.take(self._index.rooms[node], crowd)

    def _leaves(self, before: Pod, after: Pod) -> None:
        """It still takes its room, but counts as the next pass will count it."""
        room, shape = self._index.rooms[before.node], self._shapes.of(before)
        if shape is not None:
            self._index.take(room, self._index.crowd_of(before, shape), -1)
            self._index.take(room, self._index.crowd_of(after, shape))

    def _is_making_way(self, node: str, ranking: Ranking) -> bool:
        """Not where the pod could not go even then: a victim on a silent node may never be known to have stopped. One missed poll is no
        reason yet to stop others elsewhere."""
        room = self._index.rooms.get(node)
        if room is None or (ranking.is_unsuitable(room) and room.view.state != "Unseen"):
            return False
        return any(pod.node == node and pod.stop is not None for pod in self._world.pods.values())

    def _told(self, pod: Pod, summary: str) -> list[Change]:
        nominated = self._nominated.get(pod.meta.uid, "")
        if (pod.unplaced, pod.nominated) == (summary, nominated):
            return []
        told = replace(pod, unplaced=summary, nominated=nominated)
        because = f"{summary}; room is being made on {nominated}" if nominated else summary
        return [Change("update", told, because, "FailedScheduling", warning=True)]


def summarize(rejections: Mapping[str, Rejection]) -> str:
    """`0/3 nodes fit: 2 memory: needs 512Mi, free 300Mi; 1 cordoned`. Of nodes out for the same kind of reason the nearest miss is told."""
    if not rejections:
        return "there are no nodes yet"
    kinds: dict[str, list[Rejection]] = defaultdict(list)
    for rejection in rejections.values():
        kinds[rejection.kind].append(rejection)
    parts = []
    for _, found in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0])):
        nearest = min(found, key=lambda item: (-item.near, item.text))
        parts.append(f"{len(found)} {nearest.text}")
    return f"0/{len(rejections)} nodes fit: {'; '.join(parts)}"


def _record(choice: Choice, ranking: Ranking) -> str:
    """The decision in one line: it is kept with every pod, so that it is short."""
    parts = [
        f"{name} {f'{WEIGHTS[name]}×' if WEIGHTS[name] > 1 else ''}{score}"
        for name, score in choice.scores.items()
        if score
    ]
    text = f"{choice.total} points: {', '.join(parts)}"
    if choice.second:
        text += f"; next best {choice.second} with {choice.second_total}"
    return f"{text}; out: {ranking.out_text}" if ranking.out_text else text
