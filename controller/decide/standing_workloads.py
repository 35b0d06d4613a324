"""How far Jobs and the like are, for `apply`, `wait` and `rollout status`. Pure; loaded when such an object is asked about."""

from __future__ import annotations

from controller.decide import job as jobs
from controller.decide.cronjob import spec_of_cron
from controller.decide.standing import Progress, is_ready, pods_of, troubles
from controller.model.cluster import Pod, World
from controller.model.errors import UsageError
from controller.model.workloads import CronJob, DaemonSet, Job, Revision, StatefulSet, Workload


def progress(world: World, record: Workload | Revision) -> Progress:
    """Whether what was declared is under way: a Job's pods run, or it is over, however it ended: a Job that fails at once
    is carried out like one that fails later, when nobody waits any more. `wait --for=condition=complete` asks for its end.
    """
    if isinstance(record, Revision):
        return Progress(True, f"revision {record.meta.name} is there")
    if record.meta.deleting is not None:
        return Progress(False, f"{record.meta.kind.lower()} {record.meta.name} is being deleted")
    if isinstance(record, CronJob):
        word = "suspended" if spec_of_cron(record).suspend else f"runs at {spec_of_cron(record).schedule}"
        return Progress(True, f"cronjob {record.meta.name} {word}")
    if isinstance(record, Job):
        return _job(world, record)
    return _set(world, record)


def has_condition(record: Workload | Revision, kind: str) -> Progress:
    """Whether a condition of an object is true, as `kubectl wait --for=condition=…` asks.

    A Job that has ended the other way is trouble: the condition will not come.
    """
    name = f"{record.meta.kind.lower()} {record.meta.name}"
    if not isinstance(record, Job):
        raise UsageError(f"a {record.meta.kind} has no condition {kind}", hint="--for ready, available or delete")
    found = {item.kind.lower(): item for item in record.status.conditions if item.status}
    if kind in found:
        return Progress(True, f"{name}: {found[kind].kind} ({found[kind].message})")
    ended = [item for item in found.values() if item.kind in (jobs.COMPLETE, jobs.FAILED)]
    trouble = tuple(f"{item.kind}: {item.message}" for item in ended)
    counts = jobs.progress_text(jobs.spec_of_job(record.source), record.status)
    return Progress(False, f"{name}: not {kind} yet, {counts}", trouble)


def _job(world: World, record: Job) -> Progress:
    name, status = f"job {record.meta.name}", record.status
    spec = jobs.spec_of_job(record.source)
    failed = jobs.condition(status, jobs.FAILED)
    if failed is not None:
        return Progress(True, f"{name} has failed: {failed.reason}: {failed.message}")
    if jobs.condition(status, jobs.COMPLETE) is not None:
        return Progress(True, f"{name} is complete: {jobs.progress_text(spec, status)}")
    if spec.suspend:
        return Progress(True, f"{name} is suspended")
    pods = pods_of(world, record)
    started = [pod for pod in pods if _has_begun(pod)]
    text = f"{name}: {jobs.progress_text(spec, status)}"
    trouble = (*((f"FailedCreate: {status.refused}",) if status.refused else ()), *troubles(world, pods))
    return Progress(bool(pods) and len(started) == len(pods) and not status.refused, text, trouble)


def _set(world: World, record: DaemonSet | StatefulSet) -> Progress:
    status = record.status
    name = f"{record.meta.kind.lower()} {record.meta.name}"
    if status.observed_generation < record.meta.generation:
        return Progress(False, f"{name}: waiting for the change to be seen")
    done = not status.behind
    counts = f"{status.updated} of {status.desired} updated, {status.available} available"
    return Progress(
        done, f"{name}: {counts}", () if done else (*status.trouble, *troubles(world, pods_of(world, record)))
    )


def _has_begun(pod: Pod) -> bool:
    return is_ready(pod) or (pod.report is not None and pod.report.phase not in ("", "Pending"))
