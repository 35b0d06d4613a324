"""The status of Deployments, and what is still under way. Pure.

In: the world as this pass leaves it, and who is ready. Out: status changes; lines for people who wait; when time alone brings a change.
Semantics: Kubernetes' deployment controller (progress.go, sync.go).
Two things differ: a condition is true or false here, so that Progressing of a paused Deployment is true with the reason DeploymentPaused;
and messages carry numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from controller.decide.deployment import COMPLETE
from controller.decide.replicaset import Tally
from controller.decide.shapes import spec_of
from controller.model.cluster import (
    AVAILABLE,
    PROGRESSING,
    REPLICA_FAILURE,
    Deployment,
    DeploymentStatus,
    Moment,
    ReplicaSet,
    StatusCondition,
    World,
)
from controller.model.kinds.workloads import DeploymentSpec
from controller.model.plan import Change

TIMED_OUT = "ProgressDeadlineExceeded"


@dataclass(frozen=True, slots=True)
class Statuses:
    changes: tuple[Change, ...]
    waiting: tuple[str, ...]
    wake_s: tuple[float, ...]


def judge_status(world: World, tallies: Mapping[str, Tally], failures: Mapping[str, str], now: Moment) -> Statuses:
    """Status of all Deployments.

    Args:
        failures: by uid of a ReplicaSet, why no pods can be made for it.
    """
    sets: dict[str, list[ReplicaSet]] = defaultdict(list)
    for item in world.replica_sets.values():
        if item.meta.owner is not None and item.meta.deleting is None:
            sets[item.meta.owner.uid].append(item)
    changes, waiting, wake_s = [], [], []
    for deployment in sorted(world.deployments.values(), key=lambda item: item.meta.key):
        if deployment.meta.deleting is not None:
            continue
        spec = spec_of(deployment)
        status = _status(deployment, spec, sets[deployment.meta.uid], tallies, failures, now)
        if status != deployment.status:
            changes.append(_change(deployment, status))
        line = _waits_for(deployment, spec, status)
        if line:
            waiting.append(line)
        if not spec.paused and status.progressed is not None and _is_under_deadline(status):
            wake_s.append(max(0.0, spec.progress_deadline_seconds - now.since(status.progressed)) + 1.0)
    return Statuses(tuple(changes), tuple(waiting), tuple(wake_s))


def condition(status: DeploymentStatus, kind: str) -> StatusCondition | None:
    return next((item for item in status.conditions if item.kind == kind), None)


def is_complete(spec: DeploymentSpec, status: DeploymentStatus) -> bool:
    """DeploymentComplete: all wanted pods are of the present template and available, and no other is left."""
    return status.updated == status.replicas == status.available == spec.replicas


def _status(
    deployment: Deployment,
    spec: DeploymentSpec,
    sets: Sequence[ReplicaSet],
    tallies: Mapping[str, Tally],
    failures: Mapping[str, str],
    now: Moment,
) -> DeploymentStatus:
    counts = [(item, tallies.get(item.meta.uid, Tally())) for item in sets]
    fresh = replace(
        deployment.status,
        observed_generation=deployment.meta.generation,
        replicas=sum(count.active for _, count in counts),
        updated=sum(count.active for item, count in counts if item.template_hash == deployment.template_hash),
        ready=sum(count.ready for _, count in counts),
        available=sum(count.available for _, count in counts),
    )
    if _has_progressed(deployment.status, fresh) and not spec.paused:
        fresh = replace(fresh, progressed=now)
    conditions = [_available(spec, fresh, now), _progressing(deployment, spec, fresh, now)]
    failed = next((failures[item.meta.uid] for item in sets if item.meta.uid in failures), "")
    if failed:
        conditions.append(StatusCondition(REPLICA_FAILURE, True, "FailedCreate", failed, now))
    kept = tuple(_unchanged(item, condition(deployment.status, item.kind)) for item in conditions)
    return replace(fresh, conditions=kept)


def _has_progressed(before: DeploymentStatus, after: DeploymentStatus) -> bool:
    """More new pods, fewer old ones, more ready or available (DeploymentProgressing)."""
    fewer_old = after.replicas - after.updated < before.replicas - before.updated
    more = after.updated > before.updated or after.ready > before.ready or after.available > before.available
    return fewer_old or more


def _available(spec: DeploymentSpec, status: DeploymentStatus, now: Moment) -> StatusCondition:
    rolling = spec.strategy.rolling_update
    least = spec.replicas - (rolling.unavailable(spec.replicas) if rolling is not None else 0)
    enough = status.available >= least
    reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    return StatusCondition(AVAILABLE, enough, reason, f"{status.available} available, at least {least} wanted", now)


def _progressing(
    deployment: Deployment, spec: DeploymentSpec, status: DeploymentStatus, now: Moment
) -> StatusCondition:
    before = condition(deployment.status, PROGRESSING)
    done = f"{status.available} of {spec.replicas} pods of this revision are available"
    if spec.paused:
        return StatusCondition(PROGRESSING, True, "DeploymentPaused", "paused", now)
    if is_complete(spec, status):
        return StatusCondition(PROGRESSING, True, COMPLETE, done, now)
    if before is not None and before.reason == COMPLETE and status.replicas == status.updated:
        return before  # the rollout is over: pods that fail later do not reopen it
    elapsed_s = now.since(status.progressed) if status.progressed is not None else 0.0
    if elapsed_s > spec.progress_deadline_seconds:
        because = f"no progress within {spec.progress_deadline_seconds} s: {status.updated} updated, {status.available} available"
        return StatusCondition(PROGRESSING, False, TIMED_OUT, because, now)
    return StatusCondition(PROGRESSING, True, "ReplicaSetUpdated", f"{status.updated} of {spec.replicas} updated", now)


def _unchanged(fresh: StatusCondition, before: StatusCondition | None) -> StatusCondition:
    """`moment` is when `status` last changed."""
    return replace(fresh, moment=before.moment) if before is not None and before.status == fresh.status else fresh


def _has_timed_out(status: DeploymentStatus) -> bool:
    progressing = condition(status, PROGRESSING)
    return progressing is not None and progressing.reason == TIMED_OUT


def _is_under_deadline(status: DeploymentStatus) -> bool:
    progressing = condition(status, PROGRESSING)
    return progressing is not None and progressing.reason not in (COMPLETE, TIMED_OUT)


def _change(deployment: Deployment, status: DeploymentStatus) -> Change:
    """Told aloud: the end of a rollout, its deadline, and that no pods can be made. The rest is bookkeeping."""
    record = replace(deployment, status=status)
    for kind, reasons in ((REPLICA_FAILURE, ("FailedCreate",)), (PROGRESSING, (COMPLETE, TIMED_OUT))):
        before, after = condition(deployment.status, kind), condition(status, kind)
        turned = after is not None and (before is None or before.reason != after.reason)
        if after is not None and turned and after.reason in reasons:
            because = f"{deployment.meta.name}: {after.message}"
            return Change("update", record, because, after.reason, warning=after.reason != COMPLETE)
    return Change("update", record, f"the status of {deployment.meta.name} changed", quiet=True)


def _waits_for(deployment: Deployment, spec: DeploymentSpec, status: DeploymentStatus) -> str:
    if is_complete(spec, status):
        return ""
    if spec.paused and status.ready == status.replicas:
        return ""
    counts = f"{status.updated} of {spec.replicas} updated, {status.available} available, {status.replicas} in all"
    failed = condition(status, REPLICA_FAILURE)
    late = f"; {failed.message}" if failed is not None else ""
    late += "; it exceeded its progress deadline" if _has_timed_out(status) else ""
    return f"deployment {deployment.meta.key}: {counts}{late}"
