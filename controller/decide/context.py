"""What a pass knows, for the steps of all kinds of workload. Made once per pass; the index of room is made when it is first asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from controller.decide.admission.gate import Admission
from controller.decide.schedule.priority import Priorities
from controller.decide.schedule.usage import Crowd, Index, Room
from controller.decide.shapes import Shapes
from controller.model.cluster import Moment, Pod, VolumeClaim, World
from controller.model.plan import Change, NodeView

if TYPE_CHECKING:
    from controller.model.workloads import DaemonSet, StatefulSet


@dataclass(frozen=True, slots=True)
class Step:
    """What one pass does for one object, and when time alone brings more."""

    changes: tuple[Change, ...] = ()
    waiting: str = ""
    wake_s: tuple[float, ...] = ()


@dataclass
class Context:
    world: World
    views: Mapping[str, NodeView]
    ages: Mapping[str, float]  # by uid: for how long pods have been ready
    admission: Admission  # asked for each pod that is made
    now: Moment
    taken: dict[str, set[str]] = field(default_factory=dict)  # names of pods by namespace; new ones are added

    def __post_init__(self) -> None:
        self.taken = defaultdict(set)
        for pod in self.world.pods.values():
            self.taken[pod.meta.namespace].add(pod.meta.name)
        self.dead = frozenset(name for name, view in self.views.items() if view.state == "Dead")

    @cached_property
    def shapes(self) -> Shapes:
        return Shapes(self.world)

    @cached_property
    def claims(self) -> Mapping[tuple[str, str], VolumeClaim]:
        """By namespace and name."""
        return {(claim.meta.namespace, claim.meta.name): claim for claim in self.world.claims.values()}

    @cached_property
    def index(self) -> Index:
        """How full each node is; pods that are bound in this pass are added by who binds them."""
        return Index(self.world, self.views, self.shapes)

    @cached_property
    def priorities(self) -> Priorities:
        return Priorities(self.world)

    @cached_property
    def promised(self) -> list[tuple[int, Room, Crowd]]:
        """Pods for which room is being made: how important each is, where it is to go, and what it is like."""
        found = []
        for pod in self.world.pods.values():
            room = self.index.rooms.get(pod.nominated) if not pod.node and pod.stop is None else None
            shape = self.shapes.of(pod) if room is not None else None
            if room is not None and shape is not None:
                found.append((self.priorities.of(shape.spec), room, self.index.crowd_of(pod, shape)))
        return found

    def is_available(self, pod: Pod, min_ready_s: int) -> bool:
        age_s = self.ages.get(pod.meta.uid)
        return age_s is not None and age_s >= min_ready_s

    def answers(self, node: str) -> bool:
        """Whether orders reach a node."""
        view = self.views.get(node)
        return view is not None and view.may_push


def status_change(before: DaemonSet | StatefulSet, after: DaemonSet | StatefulSet, context: Context) -> Change:
    """The change that records a set's status. That it is refused pods is told aloud once; the rest is bookkeeping."""
    why = context.admission.refused.get(after.meta.uid)
    if why and after.status.trouble != before.status.trouble:
        return Change("update", after, f"{after.meta.name}: {why}", "FailedCreate", warning=True)
    return Change("update", after, f"the status of {after.meta.name} changed", quiet=True)
