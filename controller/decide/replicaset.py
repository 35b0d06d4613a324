"""ReplicaSets: how many pods there are, how many there shall be, and which go first. Pure.

In: the world and who is ready. Out: pods to create and to stop.
Order of stopping: Kubernetes' ReplicaSet controller (ActivePodsWithRanks), with two additions that are explained at `stop_rank`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from controller.decide.admission.gate import Admission
from controller.decide.pods import is_active
from controller.decide.shapes import Shapes, forbidden_path
from controller.model.cluster import Meta, Moment, Pod, Ref, ReplicaSet, Stop, World
from controller.model.identity import child_uid, pod_name
from controller.model.plan import Change
from nodeagent import protocol

HASH_LABEL = "pod-template-hash"

_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_COST = re.compile(r"-[0-9]{1,10}|0|[1-9][0-9]{0,9}")


@dataclass(frozen=True, slots=True)
class Tally:
    """Pods of one ReplicaSet. `active` ones are neither stopping nor lost nor finished."""

    active: int = 0
    ready: int = 0
    available: int = 0
    records: int = 0  # all that are left, wherever they are


def tallies(world: World, ages: Mapping[str, float]) -> dict[str, Tally]:
    """By uid of the ReplicaSet. Available: ready for at least minReadySeconds."""
    owned = world.owned
    return {uid: tally(item, owned.get(uid, ()), ages) for uid, item in world.replica_sets.items()}


def tally(replica_set: ReplicaSet, pods: Sequence[Pod], ages: Mapping[str, float]) -> Tally:
    active = [pod for pod in pods if is_active(pod)]
    ready = [ages[pod.meta.uid] for pod in active if pod.meta.uid in ages]
    available = sum(age >= replica_set.min_ready_s for age in ready)
    return Tally(len(active), len(ready), available, len(pods))


def failures(world: World, shapes: Shapes) -> dict[str, str]:
    """By uid: ReplicaSets for which no pods may be made, and why."""
    allowed = world.cluster.settings.host_paths
    found = {}
    for uid, item in world.replica_sets.items():
        shape = shapes.of_owner(uid, item.meta.namespace) if item.replicas else None
        path = forbidden_path(shape, allowed) if shape is not None else ""
        if path:
            found[uid] = f"hostPath {path} is not in the allow-list of this context ({', '.join(allowed) or 'empty'})"
    return found


def replicate(
    world: World,
    ages: Mapping[str, float],
    restored: Mapping[str, Moment],
    failures: Mapping[str, str],
    admission: Admission,
    now: Moment,
) -> tuple[Change, ...]:
    """Creates missing pods and stops surplus ones.

    Args:
        failures: by uid, ReplicaSets for which no pods may be made.
        admission: asked for each pod; what it refuses is not made.
        restored: by uid, pods that came back with their node in this pass, and since when they had been lost.
    """
    owned = world.owned
    taken: dict[str, set[str]] = defaultdict(set)
    for pod in world.pods.values():
        taken[pod.meta.namespace].add(pod.meta.name)
    families: dict[str, list[ReplicaSet]] = defaultdict(list)
    for item in world.replica_sets.values():
        families[_family(item)].append(item)
    changes: list[Change] = []
    for item in sorted(world.replica_sets.values(), key=lambda item: (item.meta.key, item.meta.uid)):
        pods = owned.get(item.meta.uid, [])
        active = [pod for pod in pods if is_active(pod)]
        # Pods whose node waits for their replacements count twice until they go.
        wanted = item.replicas + sum(pod.handover for pod in active)
        missing = 0 if item.meta.deleting else wanted - len(active)
        if item.meta.deleting:
            because = f"{item.meta.name} is being deleted"
            changes += [_stop(pod, because, now) for pod in _by_name(pods) if pod.stop is None]
        elif missing > 0 and item.meta.uid not in failures:
            changes += _create(item, wanted, len(active), taken[item.meta.namespace], admission, now)
        elif missing < 0:
            because = f"{item.meta.name} wants {wanted} replicas, has {len(active)}"
            related = [pod for one in families[_family(item)] for pod in owned.get(one.meta.uid, ()) if is_active(pod)]
            surplus = stop_order(item, active, ages, restored, related)[:-missing]
            changes += [_stop(pod, because, now) for pod in surplus]
        if item.meta.owner is None and not item.meta.deleting:
            why = admission.refused.get(item.meta.uid) or failures.get(item.meta.uid, "")
            changes += _told(item, changes, why if missing > 0 else "")
    changes += _orphans(world, now)
    return tuple(changes)


def stop_order(
    replica_set: ReplicaSet,
    active: Iterable[Pod],
    ages: Mapping[str, float],
    restored: Mapping[str, Moment],
    related: Sequence[Pod] = (),
) -> list[Pod]:
    """Pods in the order in which they would be stopped.

    Kubernetes' order: without a node; Pending; not ready; lower deletion cost; more of its kind on the same node; ready for a shorter
    time; more restarts; newer. Added: ready but not available before available, so that a scale-down never takes an available pod while
    another would do; and replacements made while a node was silent before all that were there first (DESIGN §4: what is healthy stays).

    Args:
        related: those of all ReplicaSets of the same Deployment, if there is one: they are of its kind, and what a rollout leaves
            stays spread.
    """
    pods = list(active)
    on_node = Counter(pod.node for pod in related or pods)
    lost_since = min((restored[pod.meta.uid].wall_s for pod in pods if pod.meta.uid in restored), default=None)

    def stop_rank(pod: Pod) -> tuple[object, ...]:
        age = ages.get(pod.meta.uid)
        running = pod.report is not None and pod.report.phase == protocol.RUNNING_PHASE
        stands_in = lost_since is not None and pod.meta.created.wall_s >= lost_since and pod.meta.uid not in restored
        restarts = sum(container.restarts for container in pod.report.containers) if pod.report else 0
        return (
            bool(pod.node),
            running,
            age is not None,
            age is not None and age >= replica_set.min_ready_s,
            not stands_in,
            _deletion_cost(pod),
            -on_node[pod.node],
            age or 0.0,
            -restarts,
            -pod.meta.created.wall_s,
            pod.meta.name,
        )

    return sorted(pods, key=stop_rank)


def _family(item: ReplicaSet) -> str:
    """What all ReplicaSets of a Deployment share (getReplicaSetsWithSameController)."""
    return item.meta.owner.uid if item.meta.owner is not None else item.meta.uid


def _deletion_cost(pod: Pod) -> int:
    """What is no number of 32 bits, or is written with a plus sign or leading zeros, counts as 0 (GetDeletionCostFromPodAnnotations)."""
    text = pod.meta.annotations.get(_DELETION_COST, "")
    cost = int(text) if _COST.fullmatch(text) else 0
    return cost if -(2**31) <= cost < 2**31 else 0


def _create(
    item: ReplicaSet, wanted: int, have: int, taken: set[str], admission: Admission, now: Moment
) -> list[Change]:
    more = f" and {wanted - item.replicas} more while a node is drained" if wanted > item.replicas else ""
    because = f"{item.meta.name} wants {item.replicas} replicas{more}, has {have}"
    metadata = item.template.get("metadata") or {}
    labels = dict(metadata.get("labels") or {})
    if item.meta.owner is not None:
        labels[HASH_LABEL] = item.template_hash
    annotations = dict(metadata.get("annotations") or {})
    owner = Ref("ReplicaSet", item.meta.name, item.meta.uid)
    counter = item.pods_made
    changes = []
    for _ in range(wanted - have):
        verdict = admission.admit(item.template, item.meta.namespace, item.meta.uid)
        if verdict.why:
            break
        counter, name = _next_name(item, counter, taken)
        uid = child_uid(item.meta.uid, f"pod/{counter}")
        meta = Meta("Pod", item.meta.namespace, name, uid, now, labels=labels, annotations=annotations, owner=owner)
        pod = Pod(meta, item.template_hash, defaults=verdict.defaults)
        changes.append(Change("create", pod, because, "SuccessfulCreate"))
    return changes and [Change("update", replace(item, pods_made=counter), because, quiet=True), *changes]


def _told(item: ReplicaSet, changes: Sequence[Change], why: str) -> list[Change]:
    """Why a ReplicaSet of its own is refused pods, told when that changes."""
    if why == item.refused:
        return []
    latest = next((change.record for change in reversed(changes) if change.record.meta.uid == item.meta.uid), item)
    assert isinstance(latest, ReplicaSet)
    because = f"{item.meta.name}: {why or 'pods can be made again'}"
    return [Change("update", replace(latest, refused=why), because, "FailedCreate", warning=True, quiet=not why)]


def _next_name(item: ReplicaSet, counter: int, taken: set[str]) -> tuple[int, str]:
    """The counter of the next pod and its name. Five letters do collide among thousands: such a number is left out."""
    while True:
        counter += 1
        name = pod_name(item.meta.name, item.meta.uid, counter)
        if name not in taken:
            taken.add(name)
            return counter, name


def _stop(pod: Pod, because: str, now: Moment) -> Change:
    return Change("stop", replace(pod, stop=Stop(because, now)), because, "SuccessfulDelete")


def _orphans(world: World, now: Moment) -> list[Change]:
    """Pods whose owner is gone."""
    orphans = [
        pod
        for pod in world.pods.values()
        if pod.meta.owner is not None
        and pod.stop is None
        and pod.meta.owner.uid not in world.replica_sets
        and pod.meta.owner.uid not in world.workloads
    ]
    return [
        _stop(pod, f"{pod.meta.owner.kind} {pod.meta.owner.name} is gone" if pod.meta.owner else "", now)
        for pod in _by_name(orphans)
    ]


def _by_name(pods: Iterable[Pod]) -> list[Pod]:
    return sorted(pods, key=lambda pod: (pod.meta.key, pod.meta.uid))
