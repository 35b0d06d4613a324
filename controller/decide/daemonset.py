"""DaemonSets: one pod on each node that shall have one, rolled from one template to the next. Pure.

In: a DaemonSet, its pods and revisions. Out: changes. Semantics: Kubernetes' daemon controller (daemon_controller.go, update.go), whose
functions the comments name. Pods are bound as they are made; a pod that does not fit its node is not made, and the status says why.

Worked example: five nodes, maxUnavailable 1, a new template. Pass 1 stops the old pod of n1. When its end is heard, the new one is made;
once that is available, n2 is next. A node whose old pod is broken does not wait: its pod is replaced at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from controller.decide.context import Context, Step, status_change
from controller.decide.pods import is_active
from controller.decide.revisions import HASH_LABEL, revise
from controller.decide.schedule.filters import DYNAMIC, first_rejection, node_affinity, node_name, node_selector, taints
from controller.decide.schedule.ranking import Ranking
from controller.decide.schedule.rejection import Rejection
from controller.decide.schedule.usage import Crowd, Room
from controller.decide.schedule.volumes import NOTHING
from controller.decide.shapes import Shape, shape_of
from controller.decide.stored import stored
from controller.model.cluster import Meta, Pod, Ref, Stop
from controller.model.identity import child_uid, pod_name
from controller.model.kinds.sets import DaemonSet as DaemonSetModel
from controller.model.kinds.sets import DaemonSetSpec, RollingUpdateDaemonSet
from controller.model.plan import Change
from controller.model.workloads import DaemonSet, Revision, SetStatus
from nodeagent.protocol import Capacity

_MAY_STAY = (node_name, node_selector, node_affinity)
_MAY_RUN = (*_MAY_STAY, taints)


def step_daemon(item: DaemonSet, pods: Sequence[Pod], revisions: Sequence[Revision], context: Context) -> Step:
    """One step of a DaemonSet that is not being deleted."""
    return _Work(item, spec_of_daemon(item), pods, revisions, context).step()


def spec_of_daemon(item: DaemonSet) -> DaemonSetSpec:
    """The spec with Kubernetes' defaults."""
    return stored(DaemonSetModel, item.source).spec


@dataclass(slots=True)
class _Place:
    """One node and the pods of this DaemonSet there."""

    name: str
    may_run: bool
    may_stay: bool
    answers: bool
    pods: list[Pod] = field(default_factory=list)  # active ones: the present template first, then the oldest
    leaving: list[Pod] = field(default_factory=list)

    @property
    def is_desired(self) -> bool:
        """A silent node counts while it has a pod, one on its way out too: whether it shall have one is asked when it answers."""
        return (self.may_run and (self.answers or bool(self.leaving))) or (self.may_stay and bool(self.pods))


class _Work:
    def __init__(
        self, item: DaemonSet, spec: DaemonSetSpec, pods: Sequence[Pod], revisions: Sequence[Revision], context: Context
    ) -> None:
        self.item = item
        self.spec = spec
        self.context = context
        self.name = item.meta.name
        used = {pod.template_hash for pod in pods}
        self.revised = revise(item, revisions, used, spec.revision_history_limit, context)
        self.hash = self.revised.current.template_hash
        self.shape: Shape = shape_of(item.template, item.meta.namespace)
        self.places = self._places(pods)
        self.made = item.pods_made
        self.changes: list[Change] = []
        self.stopped: set[str] = set()
        self.trouble: list[str] = []
        self._around: Ranking | None = None  # as long as no pod comes: it counts those of all nodes

    def step(self) -> Step:
        for place in self.places.values():
            self._tidy(place)
        surging = self._roll()
        for place in self.places.values():
            if place.is_desired and place.answers and (place.name in surging or not self._is_taken(place)):
                self._create(place)
        status = self._status()
        fresh = replace(self.item, pods_made=self.made, status=status)
        if fresh != self.item:
            self.changes.insert(0, status_change(self.item, fresh, self.context))
        waiting = f"daemonset {self.item.meta.key}: {progress_text(status)}" if status.behind else ""
        return Step((*self.revised.changes, *self.changes), waiting, tuple(self._wake_s()))

    # ---- nodes ----

    def _places(self, pods: Sequence[Pod]) -> dict[str, _Place]:
        world, views = self.context.world, self.context.views
        by_node: dict[str, list[Pod]] = defaultdict(list)
        for pod in pods:
            by_node[pod.node].append(pod)
        places = {}
        for name, node in sorted(world.nodes.items()):
            view = views[name]
            room = Room(node, view, Capacity(), name, 0)
            answers = view.may_push and view.state != "Orphaned"
            place = _Place(
                name,
                first_rejection(_MAY_RUN, self.shape, room) is None and view.state != "Dead",
                first_rejection(_MAY_STAY, self.shape, room) is None and view.state != "Dead",
                answers,
            )
            mine = sorted(by_node.pop(name, ()), key=self._newest_template_first)
            place.pods = [pod for pod in mine if is_active(pod)]
            place.leaving = [pod for pod in mine if not is_active(pod)]
            places[name] = place
        return places

    def _newest_template_first(self, pod: Pod) -> tuple[bool, float, str]:
        return (pod.template_hash != self.hash, pod.meta.created.wall_s, pod.meta.name)

    def _is_taken(self, place: _Place) -> bool:
        """A pod on its way out is waited for: it may hold ports and files that the next one needs."""
        return bool(place.pods or place.leaving)

    def _tidy(self, place: _Place) -> None:
        """Pods where none should be, and more than one where one should be (podsShouldBeOnNode)."""
        for pod in place.leaving:
            if pod.lost is not None and pod.stop is None:
                self._stop(pod, f"node {place.name} is given up")
        if place.pods and not place.may_stay:
            for pod in place.pods:
                self._stop(pod, f"{self.name} does not run on {place.name} any more")
            place.leaving += place.pods
            place.pods = []
        fresh = [pod for pod in place.pods if pod.template_hash == self.hash]
        old = [pod for pod in place.pods if pod.template_hash != self.hash]
        for surplus in (*fresh[1:], *old[1:]):
            self._stop(surplus, f"{place.name} has another pod of {self.name}")
        place.pods = [*fresh[:1], *old[:1]]

    # ---- rolling (rollingUpdate) ----

    def _roll(self) -> set[str]:
        """Stops old pods as far as that is allowed → nodes that get a new pod beside the old one."""
        for place in self.places.values():
            if len(place.pods) == 2 and self._is_available(place.pods[0]):
                self._stop(place.pods[1], f"{self.name} has a newer pod on {place.name}")
                place.leaving.append(place.pods.pop())
        if self.spec.update_strategy.type == "OnDelete":
            return set()
        rolling = self.spec.update_strategy.rolling_update or RollingUpdateDaemonSet()
        desired = sum(place.is_desired for place in self.places.values())
        surge = rolling.surge(desired)
        return self._surge(surge) if surge else self._replace(rolling.unavailable(desired))

    def _replace(self, most: int) -> set[str]:
        candidates: list[_Place] = []
        broken: list[_Place] = []
        unavailable = 0
        for place in self.places.values():
            if not place.is_desired:
                continue
            if not place.pods or not self._is_available(place.pods[0]):
                unavailable += 1
            if place.pods and place.answers and place.pods[0].template_hash != self.hash:
                (candidates if self._is_available(place.pods[0]) else broken).append(place)
        for place in (*broken, *candidates[: max(0, most - unavailable)]):
            self._stop(place.pods[0], f"{self.name} has a new template")
            place.leaving.append(place.pods.pop(0))
        return set()

    def _surge(self, most: int) -> set[str]:
        under_way = 0
        candidates: list[str] = []
        broken: list[str] = []
        for place in self.places.values():
            if len(place.pods) == 2:
                under_way += 1
            elif place.pods and place.answers and place.is_desired and place.pods[0].template_hash != self.hash:
                (candidates if self._is_available(place.pods[0]) else broken).append(place.name)
        return {*broken, *candidates[: max(0, most - under_way)]}

    # ---- pods ----

    def _create(self, place: _Place) -> None:
        # Pods are bound here as they are made, before those that wait for a node: this one would be in the way of the pod that its
        # predecessor has made way for, and have to go again, for ever.
        if any(room.name == place.name for room, _ in self._ahead):
            self.trouble.append(f"{place.name}: room is being made for another pod")
            return
        room = self.context.index.rooms[place.name]
        volumes = self.context.index.volumes
        need = volumes.need_of(self.item.meta.namespace, self.shape.claims) if self.shape.claims else NOTHING
        rejection = (
            first_rejection(DYNAMIC, self.shape, room) or volumes.rejection(need, room.node) or self._kept_away(room)
        )
        if rejection is not None:
            self.trouble.append(f"{place.name}: {rejection.text}")
            return
        verdict = self.context.admission.admit(self.item.template, self.item.meta.namespace, self.item.meta.uid)
        if verdict.why:
            self.trouble.append(f"{place.name}: {verdict.why}")
            return
        taken = self.context.taken[self.item.meta.namespace]
        name = ""
        while not name or name in taken:
            self.made += 1
            name = pod_name(self.name, self.item.meta.uid, self.made)
        taken.add(name)
        template = self.item.template
        metadata = template.get("metadata") or {}
        meta = Meta(
            "Pod",
            self.item.meta.namespace,
            name,
            child_uid(self.item.meta.uid, f"pod/{self.made}"),
            self.context.now,
            labels={**(metadata.get("labels") or {}), HASH_LABEL: self.hash},
            annotations=dict(metadata.get("annotations") or {}),
            owner=Ref("DaemonSet", self.name, self.item.meta.uid),
        )
        because = f"{self.name} wants a pod on {place.name}"
        pod = Pod(meta, self.hash, node=place.name, bound=self.context.now, defaults=verdict.defaults)
        self.context.index.take(room, self.context.index.crowd_of(pod, verdict.shape or self.shape))
        self._around = None
        self.changes += volumes.bind(need, pod, room.node, self.context.now)
        self.changes.append(Change("create", pod, because, "SuccessfulCreate"))
        place.pods.insert(0, pod)

    def _kept_away(self, room: Room) -> Rejection | None:
        """Why pods that are there, or for which room is being made, keep one away, by required affinity of theirs or its own. Spreading has
        no say: in Kubernetes each pod of a DaemonSet has one possible node."""
        if self._minding is None:
            return None
        if self._around is None:
            self._around = self._ranking(self._minding)
        found = self._around.kept_away(room)
        return next((one for one in found if one.kind in ("podAffinity", "podAntiAffinity")), None)

    def _ranking(self, minding: Crowd) -> Ranking:
        """A look at all nodes."""
        index = self.context.index
        for theirs, crowd in self._ahead:
            index.take(theirs, crowd)
        found = Ranking(minding, index)
        for theirs, crowd in self._ahead:
            index.take(theirs, crowd, -1)
        return found

    @cached_property
    def _ahead(self) -> list[tuple[Room, Crowd]]:
        """Pods, at least as important, for which room is being made, each with its node."""
        own = self.context.priorities.of(self.shape.spec)
        return [(room, crowd) for priority, room, crowd in self.context.promised if priority >= own]

    @cached_property
    def _minding(self) -> Crowd | None:
        """What its pods are like, if required affinity is about them."""
        labels = {**((self.item.template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: self.hash}
        owner = Ref("DaemonSet", self.name, self.item.meta.uid)
        meta = Meta("Pod", self.item.meta.namespace, "", "", self.context.now, labels=labels, owner=owner)
        index = self.context.index
        crowd = index.crowd_of(Pod(meta, self.hash, node="any"), self.shape)
        known = (*index.crowds(), *(ahead for _, ahead in self._ahead))
        others = (term for other in known for term in other.terms.apart)
        minds = crowd.terms.near or crowd.terms.apart or any(term.selection.matches(crowd) for term in others)
        return crowd if minds else None

    def _stop(self, pod: Pod, because: str) -> None:
        stopped = replace(pod, stop=Stop(because, self.context.now))
        self.changes.append(Change("stop", stopped, because, "SuccessfulDelete"))
        self.stopped.add(pod.meta.uid)

    def _is_available(self, pod: Pod) -> bool:
        return self.context.is_available(pod, self.spec.min_ready_seconds)

    # ---- status ----

    def _status(self) -> SetStatus:
        desired = [place for place in self.places.values() if place.is_desired]
        first = [place.pods[0] for place in desired if place.pods]
        updated = [pod for pod in first if pod.template_hash == self.hash]
        is_rolled = self.spec.update_strategy.type != "OnDelete"
        behind = sum(
            place.answers
            and not (
                place.pods
                and self._is_available(place.pods[0])
                and (not is_rolled or place.pods[0].template_hash == self.hash)
                and len(place.pods) == 1
            )
            for place in desired
        )
        behind += sum(place.answers and not place.is_desired and bool(place.leaving) for place in self.places.values())
        before = self.item.status
        done = not behind and len(updated) == len(desired)
        return SetStatus(
            observed_generation=self.item.meta.generation,
            desired=len(desired),
            current=len(first),
            updated=len(updated),
            ready=sum(pod.meta.uid in self.context.ages for pod in first),
            available=sum(map(self._is_available, first)),
            misscheduled=sum(bool(place.pods) and not place.may_run for place in self.places.values()),
            behind=behind,
            revision=self.hash if done else before.revision,
            trouble=tuple(self.trouble),
        )

    def _wake_s(self) -> Sequence[float]:
        """Until ready pods have been so for minReadySeconds."""
        least_s = self.spec.min_ready_seconds
        ages: Mapping[str, float] = self.context.ages
        found = (ages.get(pod.meta.uid, least_s) for place in self.places.values() for pod in place.pods)
        return [least_s - age_s for age_s in found if age_s < least_s]


def progress_text(status: SetStatus) -> str:
    """One line: 2 of 3 updated, 1 available."""
    return f"{status.updated} of {status.desired} updated, {status.available} available"
