"""Job and CronJob with Kubernetes' defaults (batch/v1). Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from controller.model.kinds.meta import Bool, Count, Model, Object, ObjectMeta, Replicas, Seconds, TemplateMeta
from controller.model.kinds.pod import PodTemplateSpec

NO_LIMIT = 2**31 - 1


class PodFailurePolicyOnExitCodes(Model):
    operator: Literal["In", "NotIn"]
    values: tuple[Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)], ...]
    container_name: str | None = None  # None: any container


class PodFailurePolicyOnPodCondition(Model):
    type: str
    status: Literal["True", "False", "Unknown"] = "True"


class PodFailurePolicyRule(Model):
    action: Literal["FailJob", "FailIndex", "Ignore", "Count"]
    on_exit_codes: PodFailurePolicyOnExitCodes | None = None
    on_pod_conditions: tuple[PodFailurePolicyOnPodCondition, ...] = ()


class PodFailurePolicy(Model):
    rules: tuple[PodFailurePolicyRule, ...]


class SuccessPolicyRule(Model):
    succeeded_indexes: str | None = None  # such as "0,2-4"
    succeeded_count: Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)] | None = None


class SuccessPolicy(Model):
    rules: tuple[SuccessPolicyRule, ...]


def _backoff_limit_of(fields: dict[str, Any]) -> int:
    return 6 if fields.get("backoff_limit_per_index") is None else NO_LIMIT


def _replacement_of(fields: dict[str, Any]) -> Literal["TerminatingOrFailed", "Failed"]:
    return "TerminatingOrFailed" if fields.get("pod_failure_policy") is None else "Failed"


class JobSpec(Model):
    template: PodTemplateSpec
    parallelism: Replicas | None = None
    completions: Count | None = None
    completion_mode: Literal["NonIndexed", "Indexed"] = "NonIndexed"
    backoff_limit_per_index: Count | None = None
    backoff_limit: Count = Field(default_factory=_backoff_limit_of)
    max_failed_indexes: Count | None = None
    active_deadline_seconds: Seconds | None = None
    ttl_seconds_after_finished: Seconds | None = None  # None: kept for ever
    suspend: Bool = False
    pod_failure_policy: PodFailurePolicy | None = None
    success_policy: SuccessPolicy | None = None
    pod_replacement_policy: Literal["TerminatingOrFailed", "Failed"] = Field(default_factory=_replacement_of)

    @property
    def at_once(self) -> int:
        """Pods that may run at the same time."""
        return 1 if self.parallelism is None else self.parallelism

    @property
    def wanted(self) -> int | None:
        """Successes that complete it; None: a work queue, where any success is the last one.

        1 where neither number is given, as in Kubernetes.
        """
        return 1 if self.completions is None and self.parallelism is None else self.completions


class Job(Object):
    api_version: Literal["batch/v1"] = "batch/v1"
    kind: Literal["Job"] = "Job"
    metadata: ObjectMeta
    spec: JobSpec


class JobTemplateSpec(Model):
    metadata: TemplateMeta = TemplateMeta()
    spec: JobSpec


class CronJobSpec(Model):
    schedule: str
    job_template: JobTemplateSpec
    time_zone: str | None = None  # None: UTC
    starting_deadline_seconds: Seconds | None = None  # None: however late
    concurrency_policy: Literal["Allow", "Forbid", "Replace"] = "Allow"
    suspend: Bool = False
    successful_jobs_history_limit: Count = 3
    failed_jobs_history_limit: Count = 1


class CronJob(Object):
    api_version: Literal["batch/v1"] = "batch/v1"
    kind: Literal["CronJob"] = "CronJob"
    metadata: ObjectMeta
    spec: CronJobSpec
