"""How well a pod fits a node, 0 to 100 for each plug-in. Pure.

Formulas, rounding and weights are those of Kubernetes' scheduler. Some scores look at the node alone; the others are raw sums that are
scaled by the best and worst of all nodes that fit, so they are kept raw until all are known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from controller.decide.schedule.usage import Room
from controller.decide.shapes import Shape, tolerated

WEIGHTS: Mapping[str, int] = {
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "PodTopologySpread": 2,
    "InterPodAffinity": 2,
    "NodeResourcesFit": 1,
    "NodeResourcesBalancedAllocation": 1,
    "ImageLocality": 1,
}
HARD_AFFINITY_WEIGHT = 1  # what a required podAffinity of a running pod counts as a preference for those it names

_IMAGE_MIN_BYTES, _IMAGE_MAX_BYTES = 23 * 2**20, 1000 * 2**20


# ---- of one node ------------------------------------------------------------------------------------------------------


def least_allocated(shape: Shape, room: Room) -> int:
    """NodeResourcesFit: the mean free share of cpu and memory with this pod on the node.

    4000m with 1000m taken and 500m asked for: 62; memory 8Gi, 2Gi and 1Gi: 62; the mean is 62.
    """
    total = parts = 0
    capacity = room.capacity.cpu_m
    if capacity > 0:
        parts += 1
        free = capacity - room.scored_cpu_m - shape.scored_cpu_m
        if free > 0:
            total += free * 100 // capacity
    capacity = room.capacity.memory_bytes
    if capacity > 0:
        parts += 1
        free = capacity - room.scored_memory_bytes - shape.scored_memory_bytes
        if free > 0:
            total += free * 100 // capacity
    return total // parts if parts else 0


def balanced_allocation(shape: Shape, room: Room) -> int:
    """NodeResourcesBalancedAllocation: how alike the used shares of cpu and memory are. Says nothing of pods that ask for neither."""
    if not shape.cpu_m and not shape.memory_bytes:
        return 0
    cpu_m, memory_bytes = room.capacity.cpu_m, room.capacity.memory_bytes
    if not cpu_m or not memory_bytes:
        return 100
    cpu = min(1.0, (room.cpu_m + shape.cpu_m) / cpu_m)
    memory = min(1.0, (room.memory_bytes + shape.memory_bytes) / memory_bytes)
    return int((1 - abs((cpu - memory) / 2)) * 100)


def image_locality(sizes_bytes: int, containers: int) -> int:
    """ImageLocality, of the sizes of those images that the node has, each scaled by the share of nodes that have it."""
    most = _IMAGE_MAX_BYTES * containers
    bounded = min(max(sizes_bytes, _IMAGE_MIN_BYTES), most)
    return 100 * (bounded - _IMAGE_MIN_BYTES) // (most - _IMAGE_MIN_BYTES)


def intolerable(shape: Shape, room: Room) -> int:
    """TaintToleration, raw: PreferNoSchedule taints that are not tolerated."""
    return sum(
        taint.effect == "PreferNoSchedule" and not tolerated(shape.spec.tolerations, taint)
        for taint in room.node.taints
    )


def node_liking(shape: Shape, room: Room) -> int:
    """NodeAffinity, raw: the weights of the preferred terms that match. An empty preference matches nothing."""
    affinity = shape.spec.affinity.node_affinity if shape.spec.affinity else None
    if affinity is None:
        return 0
    return sum(
        term.weight
        for term in affinity.preferred_during_scheduling_ignored_during_execution
        if term.preference.matches(room.name, room.node.labels)
    )


def spread_weight(domains: int) -> float:
    """So that few domains (zones) are not outweighed by many (hosts)."""
    return math.log(domains + 2)


# ---- scaled over all nodes that fit -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Scale:
    """The extremes of the raw sums of all nodes that fit. `spread` of a node is None where it lacks a label that its constraints name."""

    taints_max: int = 0
    node_max: int = 0
    pods_min: int = 0
    pods_max: int = 0
    spread_min: int | None = None
    spread_max: int = 0
    first: bool = True

    def add(self, taints: int, node: int, pods: int, spread: int | None) -> None:
        if self.first:
            self.pods_min = self.pods_max = pods
            self.first = False
        if taints > self.taints_max:
            self.taints_max = taints
        if node > self.node_max:
            self.node_max = node
        if pods < self.pods_min:
            self.pods_min = pods
        elif pods > self.pods_max:
            self.pods_max = pods
        if spread is not None:
            if self.spread_min is None or spread < self.spread_min:
                self.spread_min = spread
            if spread > self.spread_max:
                self.spread_max = spread

    def taints(self, raw: int) -> int:
        return 100 - 100 * raw // self.taints_max if self.taints_max else 100

    def node(self, raw: int) -> int:
        return 100 * raw // self.node_max if self.node_max else 0

    def pods(self, raw: int) -> int:
        width = self.pods_max - self.pods_min
        return int(100.0 * ((raw - self.pods_min) / width)) if width else 0

    def spread(self, raw: int | None) -> int:
        if raw is None or self.spread_min is None:
            return 0
        return 100 * (self.spread_max + self.spread_min - raw) // self.spread_max if self.spread_max else 100

    def total(self, taints: int, node: int, pods: int, spread: int | None) -> int:
        """The weighted sum of the four."""
        return 3 * self.taints(taints) + 2 * self.node(node) + 2 * self.pods(pods) + 2 * self.spread(spread)
