"""Jobs: which pods have done their part, which are still wanted, and when it is over. Pure.

In: the world and who is ready. Out: changes of Jobs and their pods. Semantics: Kubernetes' job controller (job_controller.go).

Each pod is counted once: its `verdict` is set in the transaction that moves the Job's counters. Worked example: completions 3,
parallelism 2, backoffLimit 1. Pass 1 makes pods a and b. a succeeds: a gets its verdict, succeeded 1, and c is made. b fails: failed 1, one
more is wanted after 10 s. If the report of a comes again, or is lost, or a's node is lost, nothing is counted again. A second failure is
more than backoffLimit: c is stopped, and the Job has failed.

Differs from Kubernetes: a pod on a silent node is replaced, but counts as failed only once its node is confirmed dead. If the node is back
before that, the pod counts by what it has done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from controller.decide.context import Context, Step
from controller.decide.phases import is_finished
from controller.decide.pods import is_active
from controller.decide.stored import stored
from controller.model.cluster import Meta, Pod, Ref, StatusCondition, Stop
from controller.model.identity import child_uid, pod_name
from controller.model.indexes import format_indexes, parse_indexes
from controller.model.kinds.batch import Job as JobModel
from controller.model.kinds.batch import JobSpec, PodFailurePolicyRule
from controller.model.plan import Change
from controller.model.text import printable
from controller.model.workloads import INDEX_KEY, Failures, Job, JobStatus
from nodeagent import protocol

COMPLETE, FAILED, SUSPENDED = "Complete", "Failed", "Suspended"  # Kubernetes' conditions of a Job
SUCCESS_MET, FAILURE_TARGET = "SuccessCriteriaMet", "FailureTarget"  # decided, but pods of it still run
SUCCEEDED, FAILED_POD, IGNORED, STOPPED = "Succeeded", "Failed", "Ignored", "Stopped"  # verdicts
FAILURE_COUNT_KEY = "batch.kubernetes.io/job-index-failure-count"

BACKOFF_S, BACKOFF_MAX_S = 10.0, 360.0
_DISRUPTED = "DisruptionTarget"


def step_job(job: Job, pods: Sequence[Pod], context: Context) -> Step:
    """One step of a Job that is not being deleted. `pods`: all that have a record, in any order."""
    return _Work(job, spec_of_job(job.source), sorted(pods, key=_age_order), context).step()


def spec_of_job(source: Mapping[str, Any]) -> JobSpec:
    """The spec with Kubernetes' defaults."""
    return stored(JobModel, {**source, "kind": "Job"}).spec


def condition(status: JobStatus, kind: str) -> StatusCondition | None:
    """A condition that is true."""
    return next((item for item in status.conditions if item.kind == kind and item.status), None)


def back_off_s(failures: int) -> float:
    """How long after the n-th failure in a row the next pod is made: 10 s, 20 s … 360 s."""
    return min(BACKOFF_S * 2.0 ** min(failures - 1, 30), BACKOFF_MAX_S) if failures else 0.0


def index_of(pod: Pod) -> int:
    """Of an Indexed Job's pod; −1 for others."""
    text = pod.meta.annotations.get(INDEX_KEY, "")
    return int(text) if text.isdecimal() else -1


def _age_order(pod: Pod) -> tuple[float, str]:
    return (pod.meta.created.wall_s, pod.meta.name)


class _Work:
    """One Job at work. `status` and `pods` are brought forward; what differs from before becomes the changes."""

    def __init__(self, job: Job, spec: JobSpec, pods: Sequence[Pod], context: Context) -> None:
        self.job = job
        self.spec = spec
        self.status = job.status
        self.pods = {pod.meta.uid: pod for pod in pods}
        self._known = dict(self.pods)
        self.ages = context.ages
        self.dead = context.dead
        self.admission = context.admission
        self.taken = context.taken[job.meta.namespace]
        self.now = context.now
        self.name = job.meta.name
        self.indexed = spec.completion_mode == "Indexed"
        self.completed = parse_indexes(job.status.completed_indexes)
        self.failed = parse_indexes(job.status.failed_indexes)
        self.failures = dict(job.status.failures)
        self.made = job.pods_made
        self.stop_because: dict[str, str] = {}  # by uid
        self.create_because = ""
        self.told: tuple[str, str, bool] | None = None  # reason, because, warning
        self.verdict = ""  # the reason for which a pod failed the Job by its policy
        self.wake_s: list[float] = []

    def step(self) -> Step:
        if self.status.finished is not None:
            return self._after_the_end()
        self._count()
        self._stop_counted()
        ended = self._decided() or self._judge()
        if ended is not None:
            self._end(*ended)
        elif self.spec.suspend:
            self._suspend()
        else:
            self._run()
        self._tally()
        return Step(self._changes(), self._waits(), tuple(self.wake_s))

    # ---- counting ----

    def _count(self) -> None:
        for pod in list(self.pods.values()):
            verdict, disrupted = self._verdict(pod)
            if verdict == SUCCEEDED:
                self._succeeded(pod)
            elif verdict == FAILED_POD:
                verdict = self._failed(pod, disrupted)
            if verdict:
                self.pods[pod.meta.uid] = replace(pod, verdict=verdict)
                if pod.stop is not None:
                    self.wake_s.append(0.0)  # its record may have waited for this

    def _verdict(self, pod: Pod) -> tuple[str, bool]:
        """What a pod that is not counted yet has come to, and whether something from outside ended it."""
        if pod.verdict:
            return "", False
        phase = pod.report.phase if pod.report is not None else ""
        if pod.lost is not None:
            return (FAILED_POD, True) if pod.node in self.dead else ("", False)
        if phase == protocol.SUCCEEDED:
            return SUCCEEDED, False
        if phase == protocol.FAILED:
            return FAILED_POD, False
        if pod.report is not None and phase in (protocol.STOPPING, protocol.STOPPED):
            codes = _exit_codes(pod.report)
            if phase == protocol.STOPPING and codes and pod.node not in self.dead:
                return "", False  # all of it has ended: in a moment the agent tells whether that was before the order
            if phase == protocol.STOPPED and codes and pod.report.reason != protocol.STOPPED:
                return FAILED_POD if any(codes) else SUCCEEDED, False
        if pod.stop is not None or phase == protocol.STOPPED:  # not by this Job, which gives a verdict with its order
            return FAILED_POD, True
        return "", False

    def _succeeded(self, pod: Pod) -> None:
        self.status = replace(self.status, succeeded=self.status.succeeded + 1)
        if self.indexed:
            self.completed.add(index_of(pod))
            self.status = replace(self.status, succeeded=len(self.completed))
        key = self._failure_key(pod)
        if key in self.failures:
            self.failures[key] = replace(self.failures[key], in_row=0)

    def _failed(self, pod: Pod, disrupted: bool) -> str:
        rule = self._rule(pod, disrupted)
        is_ignored = rule is not None and rule.action == "Ignore"
        key = self._failure_key(pod)
        before = self.failures.get(key, Failures(0, 0, self.now))
        # Ignored ones count against no limit, but the next pod waits for its back-off all the same (newBackoffRecord).
        self.failures[key] = Failures(before.count + (not is_ignored), before.in_row + 1, self.now)
        if is_ignored:
            return IGNORED
        self.status = replace(self.status, failed=self.status.failed + 1)
        if rule is not None and rule.action == "FailJob":
            self.verdict = f"pod {pod.meta.name} {_how(pod, disrupted)}, which podFailurePolicy answers by FailJob"
        limit = self.spec.backoff_limit_per_index
        fail_index = rule is not None and rule.action == "FailIndex"
        if self.indexed and limit is not None and (fail_index or self.failures[key].count > limit):
            self.failed.add(index_of(pod))
        return FAILED_POD

    def _failure_key(self, pod: Pod) -> str:
        return str(index_of(pod)) if self.spec.backoff_limit_per_index is not None else ""

    def _rule(self, pod: Pod, disrupted: bool) -> PodFailurePolicyRule | None:
        """The first that matches counts."""
        policy = self.spec.pod_failure_policy
        return next((rule for rule in policy.rules if _matches(rule, pod, disrupted)), None) if policy else None

    def _stop_counted(self) -> None:
        """A pod that was counted never runs again: not with its node come back, nor where the agent has forgotten it."""
        for pod in self.pods.values():
            if pod.verdict and pod.stop is None and pod.lost is None and not is_finished(pod):
                self.stop_because[pod.meta.uid] = f"it was counted as {pod.verdict.lower()} before"

    # ---- the end ----

    def _decided(self) -> tuple[str, str, str] | None:
        """The end that an earlier pass decided on, as (condition, reason, message)."""
        for early, final in ((FAILURE_TARGET, FAILED), (SUCCESS_MET, COMPLETE)):
            found = condition(self.status, early)
            if found is not None:
                return final, found.reason, found.message
        return None

    def _judge(self) -> tuple[str, str, str] | None:
        spec, status = self.spec, self.status
        if self.verdict:
            return FAILED, "PodFailurePolicy", self.verdict
        if status.failed > spec.backoff_limit or self._restarted_too_often():
            because = f"failed pods: {status.failed}, backoffLimit: {spec.backoff_limit}"
            return FAILED, "BackoffLimitExceeded", because
        if (left_s := self._deadline_left_s()) is not None:
            if left_s <= 0:
                because = f"it was active for longer than {spec.active_deadline_seconds} s"
                return FAILED, "DeadlineExceeded", because
            self.wake_s.append(left_s)
        if spec.max_failed_indexes is not None and len(self.failed) > spec.max_failed_indexes:
            because = f"failed indexes: {len(self.failed)}, maxFailedIndexes: {spec.max_failed_indexes}"
            return FAILED, "MaxFailedIndexesExceeded", because
        if self.indexed and self.failed and len(self.failed | self.completed) >= (spec.wanted or 0):
            return FAILED, "FailedIndexes", f"failed indexes: {format_indexes(self.failed)}"
        if (rule := self._success_rule()) >= 0:
            because = f"rule {rule} of successPolicy holds, indexes {format_indexes(self.completed)} have succeeded"
            return COMPLETE, "SuccessPolicy", because
        if self._is_complete():
            return COMPLETE, "CompletionsReached", f"pods that succeeded: {status.succeeded}"
        return None

    def _restarted_too_often(self) -> bool:
        """With OnFailure the restarts of its containers count, as in pastBackoffLimitOnFailure."""
        if self.spec.template.spec.restart_policy != "OnFailure":
            return False
        reports = [pod.report for pod in self._active() if pod.report is not None]
        restarts = sum(container.restarts for report in reports for container in report.containers)
        return restarts > 0 and restarts >= self.spec.backoff_limit

    def _deadline_left_s(self) -> float | None:
        deadline_s, started = self.spec.active_deadline_seconds, self.status.started
        if deadline_s is None or started is None or self.spec.suspend:
            return None
        return deadline_s - self.now.since(started)

    def _success_rule(self) -> int:
        """The first rule of successPolicy that holds; −1: none."""
        for number, rule in enumerate(self.spec.success_policy.rules if self.spec.success_policy else ()):
            wanted = None if rule.succeeded_indexes is None else parse_indexes(rule.succeeded_indexes)
            found = self.completed if wanted is None else self.completed & wanted
            enough = rule.succeeded_count if rule.succeeded_count is not None else len(wanted or ())
            if len(found) >= enough:
                return number
        return -1

    def _is_complete(self) -> bool:
        if self.spec.wanted is None:
            return self.status.succeeded > 0 and not self._active()
        return self.status.succeeded >= self.spec.wanted

    def _end(self, kind: str, reason: str, message: str) -> None:
        """Stops what still runs; the condition is final once that is gone, as in Kubernetes."""
        for pod in self._active():
            self._order_stop(pod, f"job {self.name} is over: {message}")
        left = [pod for pod in self.pods.values() if not is_finished(pod) and pod.lost is None]
        final = not left
        early = FAILURE_TARGET if kind == FAILED else SUCCESS_MET
        if condition(self.status, early) is None:
            self._set(early, True, reason, message)
            self.told = (reason, f"{self.name}: {message}", kind == FAILED) if not final else None
        if final:
            self._set(kind, True, reason, message)
            self.status = replace(self.status, finished=self.now)
            word = "Completed" if kind == COMPLETE else reason
            self.told = (word, f"{self.name}: {message}", kind == FAILED)

    def _after_the_end(self) -> Step:
        """Only its time to live is left; pods that come back with a node are stopped."""
        for pod in self.pods.values():
            if is_active(pod) or (pod.stop is None and pod.lost is None and not is_finished(pod)):
                self._order_stop(pod, f"job {self.name} is over")
        changes = list(self._changes())
        ttl_s, finished = self.spec.ttl_seconds_after_finished, self.status.finished
        if ttl_s is None or finished is None:
            return Step(tuple(changes))
        left_s = ttl_s - self.now.since(finished)
        if left_s > 0:
            return Step(tuple(changes), wake_s=(left_s,))
        gone = replace(self.job, meta=replace(self.job.meta, deleting=self.now))
        changes.append(
            Change("update", gone, f"{self.name} is over since {ttl_s} s (ttlSecondsAfterFinished)", "Deleting")
        )
        return Step(tuple(changes))

    # ---- running ----

    def _suspend(self) -> None:
        for pod in self._active():
            self._order_stop(pod, f"job {self.name} is suspended")
        if condition(self.status, SUSPENDED) is None:
            self.told = ("Suspended", f"job {self.name} is suspended", False)
            self._set(SUSPENDED, True, "JobSuspended", "spec.suspend is true")
        self.status = replace(self.status, started=None)

    def _run(self) -> None:
        if condition(self.status, SUSPENDED) is not None:
            self.told = ("Resumed", f"job {self.name} goes on", False)
            self._set(SUSPENDED, False, "JobResumed", "spec.suspend is false")
        if self.status.started is None:
            self.status = replace(self.status, started=self.now)
            if self.spec.active_deadline_seconds is not None:
                self.wake_s.append(float(self.spec.active_deadline_seconds))
        self._stop_twins()
        active = self._active()
        wanted = self._wanted_at_once(len(active))
        surplus = len(active) - wanted
        if surplus > 0:
            for pod in sorted(active, key=self._stop_rank)[:surplus]:
                self._order_stop(pod, f"{self.name} wants {wanted} pods at once, has {len(active)}")
        elif surplus < 0:
            room = wanted - len(active) - (len(self._on_their_way_out()) if self._waits_for_the_end() else 0)
            self._create(max(0, room), f"{self.name} wants {wanted} pods at once, has {len(active)}")

    def _wanted_at_once(self, active: int) -> int:
        wanted = self.spec.wanted
        if wanted is None:
            return active if self.status.succeeded > 0 and active <= self.spec.at_once else self.spec.at_once
        left = wanted - self.status.succeeded - (len(self.failed - self.completed) if self.indexed else 0)
        return max(0, min(left, self.spec.at_once))

    def _stop_twins(self) -> None:
        """One pod per index: of two, which happens when a node returns, the older one has done more."""
        seen: set[int] = set()
        for pod in self._active() if self.indexed else ():
            index = index_of(pod)
            if index in seen or index in self.completed or index in self.failed:
                self._order_stop(pod, f"index {index} has another pod or is done")
            seen.add(index)

    def _stop_rank(self, pod: Pod) -> tuple[bool, bool, bool, float]:
        """Those that have done least go first."""
        running = pod.report is not None and pod.report.phase == protocol.RUNNING_PHASE
        return (bool(pod.node), running, pod.meta.uid in self.ages, -pod.meta.created.wall_s)

    def _waits_for_the_end(self) -> bool:
        return self.spec.pod_replacement_policy == "Failed"

    def _on_their_way_out(self) -> list[Pod]:
        """Stopping, or lost with a node that may still run them."""
        return [
            pod
            for pod in self.pods.values()
            if not is_finished(pod) and not is_active(pod) and not (pod.lost is not None and pod.node in self.dead)
        ]

    def _create(self, count: int, because: str) -> None:
        for index in self._free_indexes(count) if self.indexed else [-1] * count:
            key = str(index) if self.spec.backoff_limit_per_index is not None else ""
            failures = self.failures.get(key)
            if failures is not None:
                left_s = back_off_s(failures.in_row) - self.now.since(failures.latest)
                if left_s > 0:
                    self.wake_s.append(left_s)
                    continue
            self._make(index, failures, because)

    def _free_indexes(self, count: int) -> list[int]:
        """The lowest that have no pod and are not done. A back-off of one index does not hold up others."""
        busy = {index_of(pod) for pod in self._active()}
        if self._waits_for_the_end():
            busy |= {index_of(pod) for pod in self._on_their_way_out()}
        free: list[int] = []
        for index in range(self.spec.wanted or 0):
            if len(free) >= count:
                break
            if index not in busy and index not in self.completed and index not in self.failed:
                free.append(index)
        return free

    def _make(self, index: int, failures: Failures | None, because: str) -> None:
        job = self.job
        metadata = job.template.get("metadata") or {}
        labels = {**(metadata.get("labels") or {}), **job_labels(job)}
        annotations = dict(metadata.get("annotations") or {})
        base = job.meta.name if index < 0 else f"{job.meta.name}-{index}"
        if index >= 0:
            labels[INDEX_KEY] = annotations[INDEX_KEY] = str(index)
            if self.spec.backoff_limit_per_index is not None:
                annotations[FAILURE_COUNT_KEY] = str(failures.count if failures else 0)
        verdict = self.admission.admit(job.template, job.meta.namespace, job.meta.uid)
        if verdict.why:
            return
        name = ""
        while not name or name in self.taken:
            self.made += 1
            name = pod_name(base, job.meta.uid, self.made)
        self.taken.add(name)
        uid = child_uid(job.meta.uid, f"pod/{self.made}")
        owner = Ref("Job", job.meta.name, job.meta.uid)
        meta = Meta("Pod", job.meta.namespace, name, uid, self.now, labels=labels, annotations=annotations, owner=owner)
        hostname = base[:63].rstrip("-.") if index >= 0 else ""
        self.pods[uid] = Pod(meta, job.template_hash, hostname=hostname, defaults=verdict.defaults)
        self.create_because = because

    # ---- what came of it ----

    def _active(self) -> list[Pod]:
        return [
            pod for uid, pod in self.pods.items() if is_active(pod) and not pod.verdict and uid not in self.stop_because
        ]

    def _order_stop(self, pod: Pod, because: str) -> None:
        self.pods[pod.meta.uid] = replace(pod, verdict=pod.verdict or STOPPED)
        self.stop_because[pod.meta.uid] = because

    def _set(self, kind: str, status: bool, reason: str, message: str) -> None:
        fresh = StatusCondition(kind, status, reason, message, self.now)
        self.status = replace(
            self.status, conditions=(*(item for item in self.status.conditions if item.kind != kind), fresh)
        )

    def _tally(self) -> None:
        active = self._active()
        refused = self.admission.refused.get(self.job.meta.uid, "")
        if refused and refused != self.job.status.refused and self.told is None:
            self.told = ("FailedCreate", f"{self.name}: {refused}", True)
        self.status = replace(
            self.status,
            refused=refused,
            active=len(active),
            ready=sum(pod.meta.uid in self.ages for pod in active),
            terminating=sum(
                (pod.stop is not None or uid in self.stop_because) and not is_finished(pod)
                for uid, pod in self.pods.items()
            ),
            completed_indexes=format_indexes(self.completed),
            failed_indexes=format_indexes(self.failed),
            failures=self.failures,
        )

    def _changes(self) -> tuple[Change, ...]:
        before = self._known
        changes: list[Change] = []
        made = [pod for uid, pod in self.pods.items() if uid not in before]
        after = replace(self.job, pods_made=self.made, status=self.status)
        if after != self.job:
            reason, because, warning = self.told or ("", f"the status of {self.name} changed", False)
            changes.append(Change("update", after, because, reason, warning=warning, quiet=self.told is None))
        for uid, pod in self.pods.items():
            if uid in self.stop_because:
                because = self.stop_because[uid]
                stopped = replace(pod, stop=Stop(because, self.now))
                changes.append(Change("stop", stopped, because, "SuccessfulDelete"))
            elif uid in before and pod != before[uid]:
                because = f"{self.name} counts it as {pod.verdict.lower()}"
                changes.append(Change("update", pod, because, quiet=True))
        changes += [Change("create", pod, self.create_because, "SuccessfulCreate") for pod in made]
        return tuple(changes)

    def _waits(self) -> str:
        """Waited for are pods that are to begin or to end, not what they do: that may take hours."""
        if self.status.refused:
            return f"job {self.job.meta.key}: no (more) pods can be made: {self.status.refused}"
        begun = all(pod.report is not None and pod.report.phase != protocol.PENDING for pod in self._active())
        if begun and not self.status.terminating:
            return ""
        return f"job {self.job.meta.key}: {progress_text(self.spec, self.status)}"


def progress_text(spec: JobSpec, status: JobStatus) -> str:
    """One line: 2 of 3 completions, 1 active, 0 failed."""
    wanted = "a work queue" if spec.wanted is None else f"{status.succeeded} of {spec.wanted} completions"
    return f"{wanted}, {status.active} active, {status.failed} failed"


def job_labels(job: Job) -> dict[str, str]:
    """What Kubernetes puts on the pods of a Job."""
    return {
        "batch.kubernetes.io/controller-uid": job.meta.uid,
        "batch.kubernetes.io/job-name": job.meta.name,
        "controller-uid": job.meta.uid,
        "job-name": job.meta.name,
    }


def _matches(rule: PodFailurePolicyRule, pod: Pod, disrupted: bool) -> bool:
    # The one condition that a pod of ours has is true: another status is matched by a condition that is there, never by one that is not.
    if disrupted and any(item.type == _DISRUPTED and item.status == "True" for item in rule.on_pod_conditions):
        return True
    if rule.on_exit_codes is None or pod.report is None or disrupted:
        return False
    codes = rule.on_exit_codes
    for container in pod.report.containers:
        named = codes.container_name is None or codes.container_name == container.name
        code = container.exit_code
        if named and container.state == "terminated" and code and (code in codes.values) == (codes.operator == "In"):
            return True
    return False


def _exit_codes(report: protocol.PodReport) -> list[int]:
    """Of its containers, those of the init phase aside; none while one of them has not ended."""
    mains = [container for container in report.containers if not container.init]
    codes = [item.exit_code for item in mains if item.state == "terminated" and item.exit_code is not None]
    return codes if len(codes) == len(mains) else []


def _how(pod: Pod, disrupted: bool) -> str:
    if disrupted or pod.report is None:
        return "was ended from outside"
    codes: Iterable[str] = (
        f"{printable(container.name, 63)} with exit code {container.exit_code}"
        for container in pod.report.containers
        if container.state == "terminated" and container.exit_code
    )
    return f"failed ({', '.join(codes) or printable(pod.report.reason, 60)})"
