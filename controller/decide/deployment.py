"""Deployments: which ReplicaSets there shall be and how large. Pure.

In: the world and how many pods of each ReplicaSet are available. Out: changes of ReplicaSets; then, in status.py, the status.
Semantics: Kubernetes' deployment controller (sync.go, rolling.go, recreate.go), whose functions the comments name.
Not copied: adoption of ReplicaSets by selector; a Deployment owns what it made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from controller.decide.replicaset import HASH_LABEL, Tally
from controller.decide.shapes import spec_of
from controller.model.cluster import Deployment, Meta, Moment, Pod, Ref, ReplicaSet, World
from controller.model.identity import child_uid
from controller.model.kinds.workloads import DeploymentSpec, RollingUpdateDeployment
from controller.model.plan import Change

CHANGE_CAUSE = "kubernetes.io/change-cause"
COMPLETE = "NewReplicaSetAvailable"  # reason of the condition Progressing: the rollout is over


def roll(world: World, tallies: Mapping[str, Tally], now: Moment) -> tuple[Change, ...]:
    """One step of every rollout: ReplicaSets to create, to resize and to forget."""
    sets: dict[str, list[ReplicaSet]] = defaultdict(list)
    for item in world.replica_sets.values():
        if item.meta.owner is not None and item.meta.deleting is None:
            sets[item.meta.owner.uid].append(item)
    owned = world.owned
    changes: list[Change] = []
    for deployment in sorted(world.deployments.values(), key=lambda item: item.meta.key):
        if deployment.meta.deleting is None:
            mine = sorted(sets[deployment.meta.uid], key=lambda item: (item.revision, item.meta.name))
            changes += _roll_one(world, _Rollout(deployment, spec_of(deployment), mine, tallies), owned, now)
    return tuple(changes)


class _Rollout:
    """One deployment at work: its ReplicaSets (oldest revision first) and the sizes that they shall get."""

    def __init__(
        self, deployment: Deployment, spec: DeploymentSpec, sets: Sequence[ReplicaSet], tallies: Mapping[str, Tally]
    ) -> None:
        self.deployment = deployment
        self.spec = spec
        self.rolling = spec.strategy.rolling_update or RollingUpdateDeployment(max_surge=0, max_unavailable=0)
        self.new = next((item for item in sets if item.template_hash == deployment.template_hash), None)
        self.old = [item for item in sets if item is not self.new]
        self.sizes = {item.meta.uid: item.replicas for item in sets}
        # Pods that are ready but surplus are on their way out: they must not count as available.
        self.available = {
            item.meta.uid: min(tallies.get(item.meta.uid, Tally()).available, item.replicas) for item in sets
        }

    @property
    def wanted(self) -> int:
        return self.spec.replicas

    @property
    def surge(self) -> int:
        """Only rolling updates go above the wanted number (MaxSurge)."""
        return self.rolling.surge(self.wanted) if self.spec.strategy.type == "RollingUpdate" else 0

    @property
    def sets(self) -> list[ReplicaSet]:
        return [*self.old, self.new] if self.new is not None else list(self.old)

    def size(self, item: ReplicaSet) -> int:
        return self.sizes[item.meta.uid]

    def total(self) -> int:
        return sum(self.sizes.values())

    def add_new(self, item: ReplicaSet) -> None:
        self.new = item
        self.sizes[item.meta.uid] = item.replicas
        self.available[item.meta.uid] = 0


def _roll_one(world: World, rollout: _Rollout, owned: Mapping[str, Sequence[Pod]], now: Moment) -> list[Change]:
    before = {item.meta.uid: item for item in rollout.sets}
    if _is_scaled(rollout):
        _scale(rollout, owned)
    if not rollout.spec.paused:
        if rollout.spec.strategy.type == "Recreate":
            _recreate(world, rollout, owned, now)
        else:
            _roll_step(world, rollout, now)
    changes = [change for item in rollout.sets if (change := _resized(rollout, item, before.get(item.meta.uid)))]
    moved = [change.because for change in changes if not change.quiet]
    changes = [replace(change, quiet=change.verb != "create") for change in changes]
    record = _with_progress(rollout, bool(moved), _is_new_rollout(rollout, before), now)
    if moved:  # told of the Deployment, where people look for it
        changes += [Change("scale", record, because, "ScalingReplicaSet") for because in moved]
    elif record != rollout.deployment:
        changes.append(Change("update", record, "the rollout moved", quiet=True))
    return [*changes, *_forget_revisions(rollout, before, owned)]


# ---- scaling (sync.go) -------------------------------------------------------------------------------------------------


def _is_scaled(rollout: _Rollout) -> bool:
    """Whether the wanted number changed since the ReplicaSets were last sized (isScalingEvent).

    From nothing, a rollout does the sizing; but there is none while it is paused.
    """
    active = [item for item in rollout.sets if item.replicas > 0]
    return any(item.desired != rollout.wanted for item in active) or (rollout.spec.paused and not active)


def _scale(rollout: _Rollout, owned: Mapping[str, Sequence[Pod]]) -> None:
    """Resizes without rolling: one ReplicaSet takes it all, several in the middle of a rollout share it in proportion (scale)."""
    active = [item for item in rollout.sets if item.replicas > 0]
    if len(active) <= 1:
        target = active[0] if active else rollout.new or (rollout.old[-1] if rollout.old else None)
        if target is not None and (active or not _is_held_up(rollout, target, owned)):
            rollout.sizes[target.meta.uid] = rollout.wanted
        return
    if rollout.new is not None and _is_saturated(rollout, rollout.new):
        for item in rollout.old:
            rollout.sizes[item.meta.uid] = 0
        return
    if rollout.spec.strategy.type == "RollingUpdate":
        rollout.sizes |= _keeping_available(rollout, proportional(rollout, active))


def _is_saturated(rollout: _Rollout, item: ReplicaSet) -> bool:
    full = item.replicas == item.desired == rollout.wanted
    return full and rollout.available[item.meta.uid] == rollout.wanted


def proportional(rollout: _Rollout, active: Sequence[ReplicaSet]) -> dict[str, int]:
    """Shares of a changed total, larger ReplicaSets first; what rounding leaves over goes to the first.

    Worked example: 10 wanted with surge 3, sizes 5 old and 8 new. Scaled to 15, surge 4: 19 are allowed, 6 more than the 13 there are.
    The 8 grow to 8·19/13 ≈ 12 (+4), the 5 to 5·19/13 ≈ 7 (+2).
    """
    allowed = rollout.wanted + rollout.surge if rollout.wanted > 0 else 0
    to_add = allowed - rollout.total()
    # Newer first when growing, older first when shrinking: `active` is ordered by revision.
    ordered = sorted(reversed(active) if to_add > 0 else active, key=lambda item: -item.replicas)
    shares: dict[str, int] = {}
    added = 0
    for item in ordered:
        share = 0
        if to_add != 0 and to_add != added:
            share = _fraction(rollout, item, allowed)
            share = min(share, to_add - added) if to_add > 0 else max(share, to_add - added)
        shares[item.meta.uid] = item.replicas + share
        added += share
    if ordered and to_add != added:
        first = ordered[0].meta.uid
        shares[first] = max(0, shares[first] + to_add - added)
    return shares


def _keeping_available(rollout: _Rollout, shares: Mapping[str, int]) -> dict[str, int]:
    """The same total, but no available pod goes for the sake of proportion while fewer would be left than are promised.

    Kubernetes has no such care: a scale-down in the middle of a rollout to a bad image takes its share of the pods that still serve.
    Worked example: 5 wanted, 1 may be missing; shares 2 old and 4 new, of which 3 and 0 are available: becomes 3 old and 3 new.
    """
    kept = dict(shares)
    available = {uid: rollout.available[uid] for uid in kept}
    least = min(rollout.wanted - rollout.rolling.unavailable(rollout.wanted), sum(available.values()))
    lacking = least - sum(min(available[uid], share) for uid, share in kept.items())
    for uid in [uid for uid in kept if available[uid] > kept[uid]]:
        for other in [other for other in kept if kept[other] > available[other]]:
            moved = max(0, min(lacking, available[uid] - kept[uid], kept[other] - available[other]))
            kept[uid] += moved
            kept[other] -= moved
            lacking -= moved
    return kept


def _fraction(rollout: _Rollout, item: ReplicaSet, allowed: int) -> int:
    if rollout.wanted == 0:
        return -item.replicas
    before = item.desired + rollout.rolling.surge(item.desired) or rollout.total()
    # Rounded to the nearest, halves up, in whole numbers.
    return (2 * item.replicas * allowed + before) // (2 * before) - item.replicas


# ---- rolling update (rolling.go) -----------------------------------------------------------------------------------------


def _roll_step(world: World, rollout: _Rollout, now: Moment) -> None:
    """Up as far as the surge allows, then down as far as availability allows.

    10 wanted, surge 3, unavailable 2, all 10 old ones available: up to 13 may be there, 8 must stay available. Step 1 makes 3 new ones
    and stops 2 old ones, step 2 makes 2 more in the room that those left. Once the first 3 are available, 11 are, and 3 old ones go; and
    so on: 8+3, 8+5, 5+5, 3+8, 3+10, 0+10.
    """
    if rollout.new is None:
        rollout.add_new(_create(world, rollout, now))
    assert rollout.new is not None
    new = rollout.new.meta.uid
    if rollout.sizes[new] > rollout.wanted:
        rollout.sizes[new] = rollout.wanted
    else:
        room = max(0, rollout.wanted + rollout.surge - rollout.total())
        rollout.sizes[new] += min(room, rollout.wanted - rollout.sizes[new])
    if any(rollout.size(item) for item in rollout.old):
        _shrink_old(rollout, rollout.new)


def _shrink_old(rollout: _Rollout, new: ReplicaSet) -> None:
    """Broken old pods first, since they serve nobody; then as many as availability can spare (reconcileOldReplicaSets)."""
    least = rollout.wanted - rollout.rolling.unavailable(rollout.wanted)
    available = {uid: min(count, rollout.sizes[uid]) for uid, count in rollout.available.items()}
    new_unavailable = rollout.size(new) - available[new.meta.uid]
    spare = rollout.total() - least - new_unavailable
    for item in rollout.old:
        broken = min(max(0, spare), rollout.size(item) - available[item.meta.uid])
        rollout.sizes[item.meta.uid] -= broken
        spare -= broken
    surplus = sum(available.values()) - least
    for item in rollout.old:
        fewer = min(max(0, surplus), rollout.size(item))
        rollout.sizes[item.meta.uid] -= fewer
        surplus -= fewer


# ---- recreate (recreate.go) ----------------------------------------------------------------------------------------------


def _recreate(world: World, rollout: _Rollout, owned: Mapping[str, Sequence[Pod]], now: Moment) -> None:
    """All old pods are known to be gone before the first new one comes. Lost ones are not known to be gone."""
    for item in rollout.old:
        rollout.sizes[item.meta.uid] = 0
    if _is_held_up(rollout, rollout.new, owned):
        return
    if rollout.new is None:
        rollout.add_new(_create(world, rollout, now))
    assert rollout.new is not None
    rollout.sizes[rollout.new.meta.uid] = rollout.wanted


def _is_held_up(rollout: _Rollout, target: ReplicaSet | None, owned: Mapping[str, Sequence[Pod]]) -> bool:
    """Whether pods of other templates are left, beside which `target` may have none. Asked of a rollout that is paused half-way, too;
    there Kubernetes starts the new ones at once."""
    others = (item for item in rollout.sets if item is not target)
    return rollout.spec.strategy.type == "Recreate" and any(owned.get(item.meta.uid) for item in others)


# ---- records ---------------------------------------------------------------------------------------------------------------


def _create(world: World, rollout: _Rollout, now: Moment) -> ReplicaSet:
    deployment = rollout.deployment
    revision = 1 + max((item.revision for item in rollout.old), default=0)
    # Revision and store counter are in the uid: a template that comes back after its ReplicaSet is gone must not give old uids to new pods.
    uid = child_uid(deployment.meta.uid, f"{deployment.template_hash}/{revision}/{world.counter}")
    spec = deployment.source["spec"]
    template = spec["template"]
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: deployment.template_hash}
    selector = spec.get("selector") or {}
    selector = {
        **selector,
        "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: deployment.template_hash},
    }
    owner = Ref("Deployment", deployment.meta.name, deployment.meta.uid)
    name = _free_name(world, deployment)
    return ReplicaSet(
        Meta("ReplicaSet", deployment.meta.namespace, name, uid, now, labels=labels, owner=owner),
        template,
        deployment.template_hash,
        0,
        selector,
        revision=revision,
    )


def _free_name(world: World, deployment: Deployment) -> str:
    """`web-6d4cf56db6`; longer when a ReplicaSet of that name is left over from a deleted Deployment."""
    name = f"{deployment.meta.name}-{deployment.template_hash}"
    key = (deployment.meta.namespace, name)
    taken = any((item.meta.namespace, item.meta.name) == key for item in world.replica_sets.values())
    return f"{name}-{deployment.meta.uid[:5]}" if taken else name


def _resized(rollout: _Rollout, item: ReplicaSet, before: ReplicaSet | None) -> Change | None:
    """The change that gives a ReplicaSet its new size, if any; a ReplicaSet that was just made is created by it."""
    deployment, size = rollout.deployment, rollout.size(item)
    is_new = item is rollout.new
    fresh = replace(item, replicas=size, desired=rollout.wanted if size or is_new else item.desired)
    if is_new:
        fresh = replace(fresh, min_ready_s=rollout.spec.min_ready_seconds)
    if is_new and not rollout.spec.paused:
        newest = max((old.revision for old in rollout.old), default=0)
        revision = item.revision if item.revision > newest else newest + 1
        cause = deployment.meta.annotations.get(CHANGE_CAUSE, "")
        fresh = replace(fresh, revision=revision, change_cause=cause)
    if fresh == before:
        return None
    name = deployment.meta.name
    if before is None:
        because = (
            f"{name} wants {rollout.wanted} replicas: revision {fresh.revision} ({fresh.meta.name}) begins with {size}"
        )
        return Change("create", fresh, because)
    if size == before.replicas:
        return Change("update", fresh, f"{name} changed", quiet=True)
    direction = "up" if size > before.replicas else "down"
    step = f"goes {direction} from {before.replicas} to {size}"
    because = f"{name} wants {rollout.wanted} replicas: revision {fresh.revision} ({item.meta.name}) {step}"
    return Change("scale", fresh, because)


def _is_new_rollout(rollout: _Rollout, before: Mapping[str, ReplicaSet]) -> bool:
    """Whether a revision has just become the present one, or (Recreate) waits for the old pods' end to do so."""
    if rollout.spec.paused:
        return False
    newest = max((item.revision for item in rollout.old), default=0)
    return rollout.new is None or rollout.new.meta.uid not in before or rollout.new.revision <= newest


def _with_progress(rollout: _Rollout, moved: bool, is_new: bool, now: Moment) -> Deployment:
    """The clock of progressDeadlineSeconds: set back by each step, stopped while paused. A new rollout is no longer complete."""
    deployment = rollout.deployment
    progressed = deployment.status.progressed
    if rollout.spec.paused:
        progressed = None
    elif moved or progressed is None:
        progressed = now
    conditions = deployment.status.conditions
    if is_new:
        conditions = tuple(
            replace(item, reason="NewReplicaSetCreated") if item.reason == COMPLETE else item for item in conditions
        )
    return replace(deployment, status=replace(deployment.status, progressed=progressed, conditions=conditions))


def _forget_revisions(
    rollout: _Rollout, before: Mapping[str, ReplicaSet], owned: Mapping[str, Sequence[Pod]]
) -> list[Change]:
    """Removes empty ReplicaSets beyond revisionHistoryLimit, once the rollout is complete (cleanupDeployment)."""
    new = rollout.new
    if new is None or rollout.spec.paused or rollout.available[new.meta.uid] != rollout.wanted:
        return []
    if any(rollout.size(item) for item in rollout.old) or rollout.size(new) != rollout.wanted:
        return []
    empty = [item for item in rollout.old if item.replicas == 0 and not owned.get(item.meta.uid)]
    surplus = len(empty) - rollout.spec.revision_history_limit
    because = f"{rollout.deployment.meta.name} keeps {rollout.spec.revision_history_limit} old revisions"
    return [
        Change("remove", before[item.meta.uid], because, "RevisionForgotten", quiet=True)
        for item in empty[: max(0, surplus)]
    ]
