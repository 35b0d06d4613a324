"""Which node is best for the next pod of one crowd. Not pure: each placing moves one node, and whoever shares a domain with it.

In: a crowd and the index. Out: the best room, again and again; per node the verdict and the scores.
All nodes are scored for every pod, exactly, without being looked at: nodes whose domains have equal counts are worth the same but for
what they have free, so they lie in one bucket, a heap by their own score. A pod compares the buckets' tops: a few, not thousands.

Worked example: 1,000 nodes in 3 zones, pods of one Deployment. There are 3 buckets (zone, no pod on the host). The first pod goes to the
top of one of them; that host moves to a fourth (same zone, one pod on the host), and the second pod compares four tops.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import repeat

from controller.decide.schedule.filters import (
    DYNAMIC,
    STATIC,
    cordon,
    first_rejection,
    fits,
    names_nodes,
    node_affinity,
    node_selector,
    pinned_to,
    taints,
)
from controller.decide.schedule.rejection import Rejection
from controller.decide.schedule.scores import (
    WEIGHTS,
    Scale,
    balanced_allocation,
    image_locality,
    intolerable,
    least_allocated,
    node_liking,
)
from controller.decide.schedule.terms import Spread
from controller.decide.schedule.topology import Axis, Counts, Worth, axes_of
from controller.decide.schedule.usage import Crowd, Index, Room
from controller.decide.schedule.volumes import NOTHING
from controller.decide.shapes import Shape
from controller.model.imagename import canonical

# So many domains are told apart by name; where there are more, few nodes share one, and those move with its counts.
_FEW_DOMAINS = 12

Cell = str | Counts | None


@dataclass(frozen=True, slots=True)
class _Ground:
    """What a template thinks of a node, whatever else runs anywhere."""

    rejection: Rejection | None
    taints: int
    liking: int
    meets_affinity: bool
    meets_taints: bool


@dataclass(slots=True, eq=False)
class _Bucket:
    """Nodes that are worth the same but for their own score. Entries of nodes that have moved on are dropped when they come up."""

    taints: int
    liking: int
    cells: tuple[Cell, ...]
    heap: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Choice:
    """The best room, and what it was compared with."""

    room: Room
    total: int
    scores: dict[str, int]  # by plug-in, 0 to 100
    second: str = ""  # name of the next best node; "" when there was none
    second_total: int = 0


class Ranking:
    """Of one crowd, in one pass."""

    def __init__(self, crowd: Crowd, index: Index, lasting: bool = False) -> None:
        """`lasting`: required affinity wants pods that stay, not such as are on their way out."""
        self._crowd, self._index, self._shape = crowd, index, crowd.shape
        self._grounds: dict[int | str, _Ground] = {}
        self._by_name = names_nodes(crowd.shape) or crowd.need is not NOTHING
        self._images = _image_scores(crowd, index)
        self._own: dict[str, int] = {}  # by name of a node that fits: its own score
        self._bucket_of: dict[str, _Bucket] = {}
        self._buckets: dict[Hashable, _Bucket] = {}
        self._members: dict[str, dict[str, list[str]]] = {}  # by key of a topology with many domains: who is in each
        self.out: Counter[str] = Counter()  # why nodes are out, at the beginning
        fitting = self._fitting()
        self.out_text = ", ".join(f"{count} {kind}" for kind, count in sorted(self.out.items()))
        # nodeName passes by the scheduler, and with it what pods say of each other: only the node itself can refuse.
        around = not crowd.shape.spec.node_name
        names = [room.name for room in fitting]
        self._axes = axes_of(crowd, index, self._included, names, lasting) if around else []
        self._spreads = any(tally.role == "soft" for axis in self._axes for tally in axis.tallies)
        self._fill(fitting)

    def best(self) -> Choice | None:
        """The best room for one more pod; None when there is none. Ties go to the name that sorts first."""
        scale = Scale()
        open_: list[tuple[_Bucket, int, int | None]] = []
        for key, bucket in list(self._buckets.items()):
            if not self._clean(bucket):
                del self._buckets[key]
                continue
            found = self._shared(bucket.cells)
            if found is not None:
                pods, spread = found
                scale.add(bucket.taints, bucket.liking, pods, spread)
                open_.append((bucket, pods, spread))
        best: tuple[int, str] | None = None
        chosen: tuple[_Bucket, int, int | None] | None = None
        second: tuple[int, str] | None = None
        for entry in open_:
            bucket, pods, spread = entry
            top, name = bucket.heap[0]
            rank = (top - scale.total(bucket.taints, bucket.liking, pods, spread), name)
            if best is None or rank < best:
                second, best, chosen = best, rank, entry
            elif second is None or rank < second:
                second = rank
        if best is None or chosen is None:
            return None
        bucket, pods, spread = chosen
        room = self._index.rooms[best[1]]
        following = self._second_in(bucket)
        if following is not None:
            rank = (following[0] - bucket.heap[0][0] + best[0], following[1])
            second = rank if second is None or rank < second else second
        scores = self._scores(room, scale, bucket.taints, bucket.liking, pods, spread)
        return Choice(room, -best[0], scores, second[1] if second else "", -second[0] if second else 0)

    def place(self, room: Room) -> None:
        """One more pod of the crowd is on the node; it is counted in the index as well."""
        self._index.take(room, self._crowd)
        for axis in self._axes:
            domain = axis.domain_of.get(room.name)
            if domain is not None and axis.place(domain, room.name) and axis.key in self._members:
                for name in self._members[axis.key].get(domain, ()):
                    if name != room.name and name in self._own:
                        self._put(self._index.rooms[name])
        if any(tally.is_first for axis in self._axes for tally in axis.tallies):
            for axis in self._axes:
                axis.not_the_first()
        if fits(self._shape, room):
            self._own[room.name] = self._own_score(room)
            self._put(room)
        else:
            del self._own[room.name]
            del self._bucket_of[room.name]

    def verdict(self, room: Room) -> Rejection | None:
        """Why the node is out; None when it is not."""
        found = self._ground(room).rejection or first_rejection(DYNAMIC, self._shape, room)
        return found if found is not None else next(iter(self.kept_away(room)), None)

    def kept_away(self, room: Room) -> list[Rejection]:
        """Why the pods of this and of other nodes keep the crowd from the node."""
        worths = (axis.worth(self._counts(axis, room.name)) for axis in self._axes)
        return [worth.rejection for worth in worths if worth.rejection is not None]

    def is_unsuitable(self, room: Room) -> bool:
        """Whether the node is out whatever runs there."""
        return self._ground(room).rejection is not None

    @property
    def looks_around(self) -> bool:
        """Whether pods of other nodes can keep the crowd from a node."""
        return any(tally.role in ("near", "apart", "hard") for axis in self._axes for tally in axis.tallies)

    def scores(self) -> dict[str, dict[str, int]]:
        """By name of each node that is not out: its score by plug-in."""
        raw: dict[str, tuple[int, int, int, int | None]] = {}
        scale = Scale()
        for name in self._own:
            ground = self._ground(self._index.rooms[name])
            found = self._shared(tuple(self._cell(axis, name) for axis in self._axes))
            if found is not None:
                raw[name] = (ground.taints, ground.liking, *found)
                scale.add(*raw[name])
        return {name: self._scores(self._index.rooms[name], scale, *values) for name, values in sorted(raw.items())}

    # ---- nodes by themselves ----

    def _ground(self, room: Room) -> _Ground:
        key = room.name if self._by_name else room.kind
        found = self._grounds.get(key)
        if found is None:
            shape = self._shape
            found = self._grounds[key] = _Ground(
                first_rejection(STATIC, shape, room) or self._no_volume(room),
                intolerable(shape, room),
                node_liking(shape, room),
                node_selector(shape, room) is None and node_affinity(shape, room) is None,
                _meets_taints(shape, room),
            )
        return found

    def _no_volume(self, room: Room) -> Rejection | None:
        need = self._crowd.need
        return None if need is NOTHING else self._index.volumes.rejection(need, room.node)

    def _included(self, spread: Spread) -> Callable[[Room], bool] | None:
        """By which test a spread constraint lets nodes count; None where it lets all."""
        affinity = spread.honors_affinity and _chooses_nodes(self._shape)
        if not affinity and not spread.honors_taints:
            return None

        def included(room: Room) -> bool:
            ground = self._ground(room)
            return (ground.meets_affinity or not affinity) and (ground.meets_taints or not spread.honors_taints)

        return included

    def _fitting(self) -> list[Room]:
        pinned = pinned_to(self._shape)
        if pinned is None:
            pinned = self._crowd.need.nodes
        rooms = self._index.rooms
        if pinned is None:
            possible = list(rooms.values())
        else:
            possible = [rooms[name] for name in sorted(pinned & rooms.keys())]
            if len(possible) < len(rooms):
                self.out["not named"] = len(rooms) - len(possible)
        found = []
        for room in possible:
            ground = self._ground(room)
            if ground.rejection is not None:
                self.out[ground.rejection.kind] += 1
            elif fits(self._shape, room):
                found.append(room)
            else:
                self.out["full"] += 1
        return found

    def _own_score(self, room: Room) -> int:
        """The scores that depend on this node alone, each of weight 1."""
        shape = self._shape
        return least_allocated(shape, room) + balanced_allocation(shape, room) + self._images.get(room.name, 0)

    # ---- buckets ----

    def _fill(self, fitting: list[Room]) -> None:
        """Every node into its bucket. Done for each crowd over all nodes: this is where the time of small crowds goes."""
        columns = [self._column(axis, fitting) for axis in self._axes]
        rows: Iterable[tuple[Cell, ...]] = zip(*columns, strict=True) if columns else repeat(())
        for room, cells in zip(fitting, rows):  # noqa: B905  (repeat() has no end)
            own = self._own[room.name] = self._own_score(room)
            self._enter(room, cells).heap.append((-own, room.name))
        for bucket in self._buckets.values():
            heapq.heapify(bucket.heap)

    def _column(self, axis: Axis, fitting: list[Room]) -> list[Cell]:
        """The cell of each node on one axis."""
        found = axis.domain_of.get
        domains: list[str | None] = [found(room.name) for room in fitting]
        if len(set(domains)) <= _FEW_DOMAINS:
            return list(domains)
        members = self._members[axis.key] = {}
        if len(set(domains)) < len(domains):
            for room, domain in zip(fitting, domains, strict=True):
                if domain is not None:
                    members.setdefault(domain, []).append(room.name)
        at = axis.counts_at
        return [at(domain) if domain is not None else None for domain in domains]

    def _put(self, room: Room) -> None:
        """Into the bucket where the node belongs now."""
        cells = tuple([self._cell(axis, room.name) for axis in self._axes])
        heapq.heappush(self._enter(room, cells).heap, (-self._own[room.name], room.name))

    def _enter(self, room: Room, cells: tuple[Cell, ...]) -> _Bucket:
        ground = self._ground(room)
        key = (ground.taints, ground.liking, cells)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(ground.taints, ground.liking, cells)
        self._bucket_of[room.name] = bucket
        return bucket

    def _cell(self, axis: Axis, name: str) -> Cell:
        """What tells a node's domain apart from others: its name where there are few, else its counts."""
        domain = axis.domain_of.get(name)
        return axis.counts_at(domain) if domain is not None and axis.key in self._members else domain

    def _counts(self, axis: Axis, name: str) -> Counts | None:
        domain = axis.domain_of.get(name)
        return axis.counts_at(domain) if domain is not None else None

    def _clean(self, bucket: _Bucket) -> bool:
        """Drops outdated entries from the top. Whether any node is left."""
        heap, own, bucket_of = bucket.heap, self._own, self._bucket_of
        while heap:
            top, name = heap[0]
            if bucket_of.get(name) is bucket and own[name] == -top:
                return True
            heapq.heappop(heap)
        return False

    def _second_in(self, bucket: _Bucket) -> tuple[int, str] | None:
        """The best entry below the top, as far as the heap's first children show it."""
        valid = [
            entry
            for entry in bucket.heap[1:3]
            if entry[1] != bucket.heap[0][1]
            and self._bucket_of.get(entry[1]) is bucket
            and self._own[entry[1]] == -entry[0]
        ]
        return min(valid, default=None)

    def _shared(self, cells: tuple[Cell, ...]) -> tuple[int, int | None] | None:
        """(liking by pods, spread), raw; None when the nodes are out."""
        pods = 0
        spread: float | None = 0.0 if self._spreads else None
        for axis, cell in zip(self._axes, cells, strict=True):
            worth: Worth = axis.worth(axis.counts_at(cell) if isinstance(cell, str) else cell)
            if worth.rejection is not None:
                return None
            pods += worth.liking
            spread = None if spread is None or worth.spread is None else spread + worth.spread
        return pods, None if spread is None else int(spread + 0.5)

    def _scores(
        self, room: Room, scale: Scale, taints: int, liking: int, pods: int, spread: int | None
    ) -> dict[str, int]:
        shape = self._shape
        return {
            "TaintToleration": scale.taints(taints),
            "NodeAffinity": scale.node(liking),
            "PodTopologySpread": scale.spread(spread),
            "InterPodAffinity": scale.pods(pods),
            "NodeResourcesFit": least_allocated(shape, room),
            "NodeResourcesBalancedAllocation": balanced_allocation(shape, room),
            "ImageLocality": self._images.get(room.name, 0),
        }


def _chooses_nodes(shape: Shape) -> bool:
    affinity = shape.spec.affinity.node_affinity if shape.spec.affinity else None
    required = affinity is not None and affinity.required_during_scheduling_ignored_during_execution is not None
    return required or bool(shape.spec.node_selector)


def _meets_taints(shape: Shape, room: Room) -> bool:
    """In Kubernetes a node that is cordoned, not ready or given up as silent has a taint that says so."""
    if room.view.state not in ("Ready", "Unseen") or cordon(shape, room) is not None:
        return False
    return taints(shape, room) is None


def weighted(scores: dict[str, int]) -> int:
    """The sum that decides."""
    return sum(WEIGHTS[name] * score for name, score in scores.items())


def _image_scores(crowd: Crowd, index: Index) -> dict[str, int]:
    """ImageLocality by name of each node that has one of the images."""
    containers = (*crowd.shape.spec.init_containers, *crowd.shape.spec.containers)
    sizes: Counter[str] = Counter()
    for container in containers:
        held = index.images.get(canonical(container.image), {})
        share = len(held) / len(index.rooms) if index.rooms else 0.0
        for name, size_bytes in held.items():
            sizes[name] += int(size_bytes * share)
    return {name: image_locality(size, len(containers)) for name, size in sizes.items()}
