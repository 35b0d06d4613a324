"""Jobs and the like in tables, as objects and in `describe`. Pure; loaded when such a kind is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.cli.objects import stored_condition, timestamp, with_labels
from controller.cli.output import age
from controller.cli.scene import Scene
from controller.cli.tables import Columns, Row, images_of, selector_text
from controller.decide.cronjob import active_jobs, next_tick_s, spec_of_cron
from controller.decide.daemonset import spec_of_daemon
from controller.decide.job import COMPLETE, FAILED, SUSPENDED, condition, job_labels, progress_text, spec_of_job
from controller.decide.revisions import revisions_of_set
from controller.decide.statefulset import spec_of_stateful
from controller.model.cluster import Moment
from controller.model.workloads import CronJob, DaemonSet, Job, Revision, StatefulSet, Workload


def object_of(scene: Scene, record: Workload | Revision) -> dict[str, Any]:
    """spec and status with Kubernetes' names."""
    if isinstance(record, CronJob):
        return {"spec": dict(record.source["spec"]), "status": _cron_status(scene, record)}
    if isinstance(record, Job):
        return {"spec": _job_spec(record), "status": _job_status(record)}
    if isinstance(record, Revision):
        return {"revision": record.number, "data": {"spec": {"template": dict(record.written)}}}
    return {"spec": dict(record.source["spec"]), "status": _set_status(record)}


def details_of(scene: Scene, record: Workload) -> Details:
    """What `describe` says beside the head and the conditions: (name, text)."""
    if isinstance(record, CronJob):
        return _cron_details(scene, record)
    return _job_details(scene, record) if isinstance(record, Job) else _set_details(scene, record)


Details = list[tuple[str, str]]


# ---- jobs ----


def _job_row(scene: Scene, record: Job) -> Row:
    spec, status = spec_of_job(record.source), record.status
    wanted = 1 if spec.wanted is None else spec.wanted  # without a number the first success ends it
    queue = f" of {spec.at_once}" if spec.wanted is None and spec.at_once > 1 else ""
    took = age(_took_s(scene, record)) if status.started is not None else ""
    created = age(scene.age_s(record.meta.created))
    return [record.meta.name, job_word(record), f"{status.succeeded}/{wanted}{queue}", took, created]


def _job_wide(scene: Scene, record: Job) -> Row:
    selector = {"matchLabels": {key: text for key, text in job_labels(record).items() if key.endswith("io/job-name")}}
    return [*images_of(record.template), selector_text(selector)]


def job_word(record: Job) -> str:
    """Complete, Failed, Suspended, Terminating or Running, as in kubectl's STATUS column."""
    if record.meta.deleting is not None:
        return "Terminating"
    found = (kind for kind in (COMPLETE, FAILED, SUSPENDED) if condition(record.status, kind) is not None)
    return next(found, "Running")


def _took_s(scene: Scene, record: Job) -> float:
    started, finished = record.status.started, record.status.finished
    if started is None:
        return 0.0
    return finished.since(started) if finished is not None else scene.now.since(started)


def _job_spec(record: Job) -> dict[str, Any]:
    labels = {"batch.kubernetes.io/controller-uid": record.meta.uid}
    spec = record.source["spec"]
    template = with_labels(spec["template"], job_labels(record))
    return {**spec, "selector": {"matchLabels": labels}, "template": template}


def _job_status(record: Job) -> dict[str, Any]:
    status = record.status
    counts = {
        "active": status.active,
        "ready": status.ready,
        "terminating": status.terminating,
        "succeeded": status.succeeded,
        "failed": status.failed,
    }
    shown: dict[str, Any] = {key: count for key, count in counts.items() if count}
    shown |= _times(("startTime", status.started))
    if condition(status, COMPLETE) is not None:
        shown |= _times(("completionTime", status.finished))
    shown |= {"completedIndexes": status.completed_indexes} if status.completed_indexes else {}
    shown |= {"failedIndexes": status.failed_indexes} if status.failed_indexes else {}
    shown["conditions"] = [stored_condition(item) for item in status.conditions]
    return shown


def _job_details(scene: Scene, record: Job) -> Details:
    spec, status = spec_of_job(record.source), record.status
    wanted = "any success ends it" if spec.wanted is None else str(spec.wanted)
    lines = [
        ("Status", job_word(record)),
        ("Progress", progress_text(spec, status)),
        ("Completions", f"{wanted} ({spec.completion_mode}), at most {spec.at_once} pods at once"),
        ("Backoff limit", _backoff(record)),
    ]
    if status.started is not None:
        lines.append(("Started", f"{timestamp(status.started.wall_s)}, took {age(_took_s(scene, record))}"))
    if spec.active_deadline_seconds is not None:
        lines.append(("Deadline", f"{spec.active_deadline_seconds}s after the start"))
    if spec.ttl_seconds_after_finished is not None:
        lines.append(("Time to live", f"{spec.ttl_seconds_after_finished}s after the end"))
    for title, indexes in (("Completed", status.completed_indexes), ("Failed", status.failed_indexes)):
        if indexes:
            lines.append((f"{title} indexes", indexes))
    return lines


def _backoff(record: Job) -> str:
    spec = spec_of_job(record.source)
    if spec.backoff_limit_per_index is None:
        return str(spec.backoff_limit)
    return f"{spec.backoff_limit_per_index} for each index"


# ---- cron jobs ----


def _cron_row(scene: Scene, record: CronJob) -> Row:
    spec = spec_of_cron(record)
    active = len(active_jobs(_jobs(scene, record)))
    last = age(scene.now.wall_s - record.status.tick_s) if record.status.tick_s else "<none>"
    zone = spec.time_zone or "<none>"
    created = age(scene.age_s(record.meta.created))
    return [record.meta.name, spec.schedule, zone, str(spec.suspend), str(active), last, created]


def _cron_wide(scene: Scene, record: CronJob) -> Row:
    return [*images_of(record.template), "<none>"]


def _jobs(scene: Scene, record: CronJob) -> list[Job]:
    workloads = scene.world.workloads.values()
    mine = [item for item in workloads if item.meta.owner is not None and item.meta.owner.uid == record.meta.uid]
    return [item for item in mine if isinstance(item, Job)]


def _cron_status(scene: Scene, record: CronJob) -> dict[str, Any]:
    status: dict[str, Any] = {"lastScheduleTime": timestamp(record.status.tick_s)} if record.status.tick_s else {}
    if active := active_jobs(_jobs(scene, record)):
        status["active"] = [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": job.meta.name,
                "namespace": job.meta.namespace,
                "uid": job.meta.uid,
            }
            for job in sorted(active, key=lambda job: job.meta.name)
        ]
    return status | _times(("lastSuccessfulTime", record.status.succeeded))


def _cron_details(scene: Scene, record: CronJob) -> Details:
    spec, status = spec_of_cron(record), record.status
    next_s = None if spec.suspend else next_tick_s(record, scene.now)
    jobs = sorted(_jobs(scene, record), key=lambda item: item.meta.name)
    lines = [
        ("Schedule", f"{spec.schedule} ({spec.time_zone or 'UTC'})"),
        ("Next run", timestamp(next_s) if next_s is not None else "never" if not spec.suspend else "none: suspended"),
        ("Last run", timestamp(status.tick_s) if status.tick_s else "<none>"),
        ("Last success", timestamp(status.succeeded.wall_s) if status.succeeded is not None else "<none>"),
        ("Concurrency", spec.concurrency_policy),
        ("History", f"{spec.successful_jobs_history_limit} completed, {spec.failed_jobs_history_limit} failed"),
    ]
    if spec.starting_deadline_seconds is not None:
        lines.append(("Late by", f"at most {spec.starting_deadline_seconds}s"))
    return [*lines, *(("Job", f"{item.meta.name} {job_word(item)}") for item in jobs)]


# ---- daemon sets and stateful sets ----


def _daemon_row(scene: Scene, record: DaemonSet) -> Row:
    status = record.status
    selector = (record.source["spec"]["template"]["spec"].get("nodeSelector")) or {}
    words = ",".join(f"{key}={text}" for key, text in selector.items()) or "<none>"
    counts = (status.desired, status.current, status.ready, status.updated, status.available)
    return [record.meta.name, *map(str, counts), words, age(scene.age_s(record.meta.created))]


def _stateful_row(scene: Scene, record: StatefulSet) -> Row:
    ready = f"{record.status.ready}/{replicas_of(record)}"
    return [record.meta.name, ready, age(scene.age_s(record.meta.created))]


def _set_wide(scene: Scene, record: DaemonSet | StatefulSet) -> Row:
    return [*images_of(record.template), selector_text(record.source["spec"].get("selector") or {})]


def replicas_of(record: StatefulSet) -> int:
    """spec.replicas; 1 when the manifest leaves it open."""
    replicas = record.source["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def _set_status(record: DaemonSet | StatefulSet) -> dict[str, Any]:
    status = record.status
    if isinstance(record, DaemonSet):
        counts = {
            "desiredNumberScheduled": status.desired,
            "currentNumberScheduled": status.current,
            "updatedNumberScheduled": status.updated,
            "numberReady": status.ready,
            "numberAvailable": status.available,
            "numberUnavailable": status.desired - status.available,
            "numberMisscheduled": status.misscheduled,
        }
        needed = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "numberMisscheduled")
        return {
            "observedGeneration": status.observed_generation,
            **{key: count for key, count in counts.items() if count or key in needed},
        }
    shown: dict[str, Any] = {
        "observedGeneration": status.observed_generation,
        "replicas": status.current,
        "readyReplicas": status.ready,
        "availableReplicas": status.available,
        "updatedReplicas": status.updated,
        "currentReplicas": status.current - status.updated
        if status.revision != record.template_hash
        else status.updated,
    }
    revisions = {"currentRevision": status.revision, "updateRevision": record.template_hash}
    return shown | {key: f"{record.meta.name}-{digest}" for key, digest in revisions.items() if digest}


def _set_details(scene: Scene, record: DaemonSet | StatefulSet) -> Details:
    spec, status = record.source["spec"], record.status
    lines = [
        ("Selector", selector_text(spec.get("selector") or {})),
        ("Desired", f"{status.desired} {'nodes' if isinstance(record, DaemonSet) else 'replicas'}"),
        (
            "Pods",
            f"{status.current} there, {status.updated} updated, {status.ready} ready, {status.available} available",
        ),
        ("Update", _strategy_text(record)),
    ]
    if isinstance(record, StatefulSet):
        lines.append(("Order", str(spec.get("podManagementPolicy") or "OrderedReady")))
        lines += _lasting(scene, record)
    if status.misscheduled:
        lines.append(("Misscheduled", str(status.misscheduled)))
    for one in sorted(revisions_of_set(scene.world, record), key=lambda one: -one.number):
        current = " (current)" if one.template_hash == record.template_hash else ""
        images = ",".join(str(item.get("image")) for item in one.written["spec"].get("containers") or ())
        lines.append((f"Revision {one.number}", f"{one.meta.name}{current} {images} {one.change_cause}".rstrip()))
    return lines


def _lasting(scene: Scene, record: StatefulSet) -> Details:
    """What outlives its pods: claims, and where sticky pods are at home."""
    homes = [(f"Home of {name}", f"{home.node} {home.address}".rstrip()) for name, home in sorted(record.homes.items())]
    if not record.claims:
        return homes
    from controller.cli.claim_views import claims_of_set

    return [*claims_of_set(scene, record), *homes]


def _strategy_text(record: DaemonSet | StatefulSet) -> str:
    if isinstance(record, DaemonSet):
        daemon = spec_of_daemon(record).update_strategy
        rolling = daemon.rolling_update
        return (
            "OnDelete"
            if rolling is None
            else f"RollingUpdate, maxUnavailable {rolling.max_unavailable}, maxSurge {rolling.max_surge}"
        )
    stateful = spec_of_stateful(record).update_strategy.rolling_update
    return "OnDelete" if stateful is None else f"RollingUpdate, partition {stateful.partition}"


def _times(*named: tuple[str, Moment | None]) -> dict[str, str]:
    return {name: timestamp(moment.wall_s) for name, moment in named if moment is not None}


_WIDE = ("CONTAINERS", "IMAGES", "SELECTOR")
COLUMNS: Mapping[str, Columns] = {
    "DaemonSet": Columns(
        ("NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE SELECTOR", "AGE"),
        _daemon_row,
        _WIDE,
        _set_wide,
    ),
    "StatefulSet": Columns(("NAME", "READY", "AGE"), _stateful_row, _WIDE, _set_wide),
    "CronJob": Columns(
        ("NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST SCHEDULE", "AGE"),
        _cron_row,
        _WIDE,
        _cron_wide,
    ),
    "Job": Columns(("NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"), _job_row, _WIDE, _job_wide),
}
