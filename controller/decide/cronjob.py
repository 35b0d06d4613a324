"""CronJobs: which Jobs they make when, and which finished ones go. Pure.

In: a CronJob, its Jobs, the time. Out: changes of Jobs and of the CronJob. Semantics: Kubernetes' cronjob_controllerv2.go.

However many times were missed, only the latest is run. A time is run once for ever: the Job is named after it, and `tick_s` moves in the
same transaction. Worked example: `0 * * * *`, made at 9:30, no pass until 12:10. 10:00, 11:00 and 12:00 were missed: one Job for 12:00 is
made and tick_s is 12:00. With startingDeadlineSeconds 300 none is made, and 13:00 is the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from controller.decide.context import Step
from controller.decide.job import COMPLETE, condition
from controller.decide.stored import stored
from controller.model.cluster import Meta, Moment, Ref
from controller.model.cron import Schedule, parse_schedule, shown_time
from controller.model.identity import child_uid, template_hash
from controller.model.kinds.batch import CronJob as CronJobModel
from controller.model.kinds.batch import CronJobSpec
from controller.model.plan import Change
from controller.model.workloads import CronJob, Job

SCHEDULED_KEY = "batch.kubernetes.io/cronjob-scheduled-timestamp"
BY_HAND_KEY = "cronjob.kubernetes.io/instantiate"


def step_cron(cron: CronJob, jobs: Sequence[Job], names: set[tuple[str, str]], now: Moment) -> Step:
    """One step of a CronJob that is not being deleted.

    Args:
        jobs: its own.
        names: (namespace, name) of all Jobs; new ones are added.
    """
    spec = spec_of_cron(cron)
    schedule = parse_schedule(spec.schedule, spec.time_zone or "")
    changes = _history(cron, spec, jobs, now)
    fresh = _with_success(cron, jobs)
    if not spec.suspend:
        tick_s = _due(fresh, spec, schedule, now)
        if tick_s is not None:
            begun, fresh = _begin(fresh, spec, tick_s, jobs, names, now)
            changes += begun
    if fresh != cron:
        changes.append(Change("update", fresh, f"the status of {cron.meta.name} changed", quiet=True))
    next_s = None if spec.suspend else schedule.next(now.wall_s)
    return Step(tuple(changes), wake_s=() if next_s is None else (next_s - now.wall_s,))


def spec_of_cron(cron: CronJob) -> CronJobSpec:
    """The spec with Kubernetes' defaults."""
    return stored(CronJobModel, cron.source).spec


def next_tick_s(cron: CronJob, now: Moment) -> float | None:
    """When it is due next, in seconds since 1970."""
    spec = spec_of_cron(cron)
    return parse_schedule(spec.schedule, spec.time_zone or "").next(now.wall_s)


def by_hand(cron: CronJob, name: str) -> dict[str, Any]:
    """The manifest of one more Job (kubectl's `create job --from`). It moves no time on; else it counts as the others do."""
    template = cron.source["spec"]["jobTemplate"]
    metadata = template.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {}), BY_HAND_KEY: "manual"}
    labels = {"labels": metadata["labels"]} if metadata.get("labels") else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": cron.meta.namespace, **labels, "annotations": annotations},
        "spec": template["spec"],
    }


def owned_by(cron: CronJob, change: Change) -> Change:
    """The change with the record as one of the CronJob's."""
    record = change.record
    assert isinstance(record, Job)
    meta = replace(record.meta, owner=Ref("CronJob", cron.meta.name, cron.meta.uid))
    return replace(change, record=replace(record, meta=meta))


def active_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Those that are not over and not being deleted."""
    return [item for item in jobs if item.status.finished is None and item.meta.deleting is None]


def _due(cron: CronJob, spec: CronJobSpec, schedule: Schedule, now: Moment) -> float | None:
    """The latest time that is neither run nor too late (mostRecentScheduleTime)."""
    after_s = max(cron.status.tick_s, cron.meta.created.wall_s)
    if spec.starting_deadline_seconds is not None:
        after_s = max(after_s, now.wall_s - spec.starting_deadline_seconds)
    return schedule.latest(after_s, now.wall_s)


def _begin(
    cron: CronJob, spec: CronJobSpec, tick_s: float, jobs: Sequence[Job], names: set[tuple[str, str]], now: Moment
) -> tuple[list[Change], CronJob]:
    active = active_jobs(jobs)
    if active and spec.concurrency_policy == "Forbid":
        return [], cron  # not moved on: once the other is over, this time may still be run
    changes = []
    if spec.concurrency_policy == "Replace":
        because = f"{cron.meta.name} begins the next one"
        for item in active:
            gone = replace(item, meta=replace(item.meta, deleting=now))
            changes.append(Change("update", gone, because, "SuccessfulDelete"))
    made = _job(cron, tick_s, now)
    fresh = replace(cron, status=replace(cron.status, tick_s=tick_s))
    if (made.meta.namespace, made.meta.name) in names:
        because = f"{shown_time(tick_s)} is not run: there is another job {made.meta.name}"
        return [*changes, Change("update", fresh, because, "FailedCreate", warning=True)], fresh
    names.add((made.meta.namespace, made.meta.name))
    because = f"{cron.meta.name} was due at {shown_time(tick_s)}"
    return [*changes, Change("create", made, because, "SuccessfulCreate")], fresh


def _job(cron: CronJob, tick_s: float, now: Moment) -> Job:
    template = cron.source["spec"]["jobTemplate"]
    metadata = template.get("metadata") or {}
    name = f"{cron.meta.name}-{int(tick_s) // 60}"
    source = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": cron.meta.namespace},
        "spec": template["spec"],
    }
    meta = Meta(
        "Job",
        cron.meta.namespace,
        name,
        child_uid(cron.meta.uid, f"tick/{int(tick_s)}"),
        now,
        labels=dict(metadata.get("labels") or {}),
        annotations={**(metadata.get("annotations") or {}), SCHEDULED_KEY: shown_time(tick_s)},
        owner=Ref("CronJob", cron.meta.name, cron.meta.uid),
    )
    return Job(meta, source, template_hash(template["spec"]["template"]))


def _history(cron: CronJob, spec: CronJobSpec, jobs: Sequence[Job], now: Moment) -> list[Change]:
    """Finished Jobs beyond the limits go, the oldest first."""
    finished = [item for item in jobs if item.status.finished is not None and item.meta.deleting is None]
    good = [item for item in finished if condition(item.status, COMPLETE) is not None]
    bad = [item for item in finished if condition(item.status, COMPLETE) is None]
    changes = []
    for kept, limit, word in (
        (good, spec.successful_jobs_history_limit, "completed"),
        (bad, spec.failed_jobs_history_limit, "failed"),
    ):
        kept.sort(key=lambda item: (item.meta.created.wall_s, item.meta.name))
        for item in kept[: max(0, len(kept) - limit)]:
            gone = replace(item, meta=replace(item.meta, deleting=now))
            because = f"{cron.meta.name} keeps {limit} {word} jobs"
            changes.append(Change("update", gone, because, "SawCompletedJob", quiet=True))
    return changes


def _with_success(cron: CronJob, jobs: Sequence[Job]) -> CronJob:
    ends = [item.status.finished for item in jobs if condition(item.status, COMPLETE) is not None]
    latest = max((end for end in ends if end is not None), key=lambda end: end.wall_s, default=None)
    before = cron.status.succeeded
    if latest is None or (before is not None and before.wall_s >= latest.wall_s):
        return cron
    return replace(cron, status=replace(cron.status, succeeded=latest))
