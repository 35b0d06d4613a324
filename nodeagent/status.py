"""A pod's phase, conditions and container states as the controller and a user see them. Pure.

Nothing in a report changes while nothing happens: no ages, no countdowns. Phases are Kubernetes' (kubelet's
getPhase).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional

from nodeagent.protocol import (
    FAILED,
    PENDING,
    RUNNING,
    RUNNING_PHASE,
    STOPPED,
    STOPPING,
    SUCCEEDED,
    TERMINATED,
    WAITING,
    Container,
    ContainerReport,
    Pod,
    PodReport,
)
from nodeagent.records import ContainerRecord, Ended, PodRecord, cut
from nodeagent.restarts import due_s
from nodeagent.spec import CONFIG_ERROR


def report(pod: Optional[Pod], leaving: bool, record: PodRecord, view: Any) -> tuple[PodRecord, PodReport]:
    """The pod's report, and the record with the time since when it is ready.

    Args:
        leaving: the pod is not in the wanted set.
        view: decide.View.
    """
    containers = _container_reports(pod, record, view)
    phase = _phase(pod, leaving, record)
    ready = phase == RUNNING_PHASE and _is_ready(pod, record)
    if ready != bool(record.ready_since_s):
        record = replace(record, ready_since_s=view.now_s if ready else 0.0)
    reason, message = _why(pod, record, view, phase)
    return record, PodReport(
        uid=record.uid,
        namespace=record.namespace,
        name=record.name,
        hash=record.hash,
        phase=phase,
        ready=ready,
        ready_since_s=record.ready_since_s,
        ip=record.ip,
        reason=reason,
        message=cut(message),
        started_wall_s=record.started_wall_s,
        containers=containers,
    )


def policy(pod: Pod, container: Container, is_init: bool) -> str:
    """The restart policy of one container: sidecars always, init containers on failure unless the pod's is Never."""
    if container.sidecar:
        return "Always"
    if is_init:
        return "Never" if pod.restart == "Never" else "OnFailure"
    return pod.restart


def restarts(restart_policy: str, ended: Ended) -> bool:
    """An unknown exit code counts as a failure."""
    return restart_policy == "Always" or (restart_policy == "OnFailure" and ended.code != 0)


def is_started(container: Container, mine: ContainerRecord) -> bool:
    """It runs, its startup probe has passed and its postStart hook is done."""
    return mine.alive and (mine.started or container.startup is None) and (mine.hooked or container.post_start is None)


def is_ready(container: Container, mine: ContainerRecord) -> bool:
    return is_started(container, mine) and (mine.ready or container.readiness is None) and not mine.kill


def _is_ready(pod: Optional[Pod], record: PodRecord) -> bool:
    if record.sandbox_process is None:
        return False
    if pod is None:  # what it should be is not known: what runs, and was ready, is
        running = [mine for mine in record.containers if mine.alive]
        return bool(running) and all(mine.ready for mine in running)
    counted = [c for c in pod.init_containers if c.sidecar] + list(pod.containers)
    return all(is_ready(container, record.container(container.name)) for container in counted)


def _phase(pod: Optional[Pod], leaving: bool, record: PodRecord) -> str:
    if leaving:
        return STOPPING
    if pod is not None and pod.stop:
        return STOPPED if record.verdict and not record.sandbox_id else STOPPING
    if record.verdict:
        return record.verdict
    alive = any(mine.alive for mine in record.containers)
    if pod is None:
        return RUNNING_PHASE if alive else PENDING
    for container in pod.init_containers:
        mine = record.container(container.name)
        done = mine.ended is not None and mine.ended.code == 0 and mine.sandbox == record.sandbox_count
        if not (is_started(container, mine) if container.sidecar else done) and not _mains_began(pod, record):
            return PENDING
    mains = [record.container(container.name) for container in pod.containers]
    if any(mine.attempt < 0 for mine in mains):
        return PENDING
    return RUNNING_PHASE


def _mains_began(pod: Pod, record: PodRecord) -> bool:
    return any(record.container(container.name).attempt >= 0 for container in pod.containers)


def _why(pod: Optional[Pod], record: PodRecord, view: Any, phase: str) -> tuple[str, str]:
    if record.verdict:
        return record.reason, record.message
    if phase in (STOPPING, STOPPED, SUCCEEDED, FAILED):
        stuck = next((t for slot, t in sorted(view.trouble.items()) if t.reason in ("FailedKillPod",)), None)
        return (stuck.reason, stuck.message) if stuck else ("", "")
    if record.sandbox_process is None:
        if view.hold is not None:
            return str(view.hold[0]), str(view.hold[1])
        trouble = view.trouble.get("")
        if trouble is not None and not trouble.at_once:  # else what was in the way may have come: it is tried again now
            return trouble.reason, trouble.message
    return "", ""


def _container_reports(pod: Optional[Pod], record: PodRecord, view: Any) -> tuple[ContainerReport, ...]:
    if pod is None:
        return tuple(_container_report(None, False, None, mine, record, view) for mine in record.containers)
    reports = [
        _container_report(pod, is_init, container, record.container(container.name), record, view)
        for is_init, group in ((True, pod.init_containers), (False, pod.containers))
        for container in group
    ]
    return tuple(reports)


def _container_report(
    pod: Optional[Pod],
    is_init: bool,
    container: Optional[Container],
    mine: ContainerRecord,
    record: PodRecord,
    view: Any,
) -> ContainerReport:
    blank = ContainerReport(
        name=mine.name,
        state=WAITING,
        image=container.image if container is not None else "",
        image_id=mine.image_id,
        init=is_init,
        restarts=max(0, mine.attempt),
    )
    trouble = view.trouble.get(mine.name)
    if mine.alive:
        running = replace(
            blank,
            state=RUNNING,
            started_wall_s=mine.started_wall_s,
            started=mine.started if container is None else is_started(container, mine),
            ready=mine.ready if container is None else is_ready(container, mine),
            **_last(mine.last),
        )
        if trouble is not None:
            return replace(running, reason=trouble.reason, message=cut(trouble.message))
        return running
    trouble = trouble or _refused(record, view)
    if mine.ended is None:
        return replace(blank, **_waiting(pod, is_init, record, trouble))
    if pod is None or container is None or record.verdict or pod.stop:
        return _terminated(blank, mine)
    again = restarts(policy(pod, container, is_init), mine.ended) and (
        mine.ended.known or policy(pod, container, is_init) == "Always"
    )
    if again and trouble is not None:
        return replace(blank, reason=trouble.reason, message=cut(trouble.message), **_last(mine.ended))
    if again and view.now_s < due_s(mine.backoff, mine.ended.ended_s):
        message = f"back-off {mine.backoff.delay_s:g} s before restarting failed container {mine.name}"
        return replace(blank, reason="CrashLoopBackOff", message=message, **_last(mine.ended))
    return _terminated(blank, mine)


def _refused(record: PodRecord, view: Any) -> Any:
    """What the host refuses to a pod without a sandbox keeps each of its containers from being made."""
    trouble = view.trouble.get("") if record.sandbox_process is None else None
    return trouble if trouble is not None and trouble.reason == CONFIG_ERROR else None


def _terminated(blank: ContainerReport, mine: ContainerRecord) -> ContainerReport:
    ended = mine.ended
    if ended is None:
        return blank
    if not ended.known:  # as the kubelet: it runs, and is not ready, until the engine has told how it ended
        return replace(blank, state=RUNNING, started_wall_s=ended.started_wall_s, **_last(mine.last))
    return replace(
        blank,
        state=TERMINATED,
        reason=ended.reason,
        message=ended.message,
        exit_code=ended.code,
        started_wall_s=ended.started_wall_s,
        finished_wall_s=ended.ended_wall_s,
        **_last(mine.last),
    )


def _waiting(pod: Optional[Pod], is_init: bool, record: PodRecord, trouble: Any) -> Mapping[str, Any]:
    if trouble is not None:
        return {"reason": trouble.reason, "message": cut(trouble.message)}
    if pod is not None and pod.init_containers and not is_init:
        return {"reason": "PodInitializing"}
    return {"reason": "ContainerCreating"}


def _last(ended: Optional[Ended]) -> dict[str, Any]:
    if ended is None:
        return {}
    return {
        "last_reason": ended.reason,
        "last_exit_code": ended.code,
        "last_finished_wall_s": ended.ended_wall_s,
    }
