"""What the fields of Jobs and CronJobs must agree on, as the API server checks it. Pure.

Semantics: Kubernetes' own validation of batch/v1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from controller.model.cron import MACROS, find_zone, parse_schedule
from controller.model.indexes import parse_indexes
from controller.model.kinds.batch import CronJob, CronJobSpec, Job, JobSpec, PodFailurePolicyRule
from controller.model.kinds.meta import check_dns_label, check_label_key
from controller.model.kinds.pod import PodSpec

Path = tuple[str | int, ...]
Problem = tuple[Path, str]
CheckPodSpec = Callable[[PodSpec, Path], Iterator[Problem]]

_INDEXES_MAX = 100_000
_INDEXES = re.compile(r"[0-9]{1,6}(?:-[0-9]{1,6})?(?:,[0-9]{1,6}(?:-[0-9]{1,6})?)*")
_SUCCESS_RULES_MAX = 20
_FAILURE_RULES_MAX = 20
_EXIT_CODES_MAX = 255
_CONDITIONS_MAX = 20
_NAME_MAX = 63  # its pods carry the name in a label
_CRON_NAME_MAX = 52  # its Jobs have eleven characters more


def batch_problems(thing: Job | CronJob, check_pod_spec: CheckPodSpec) -> Iterator[Problem]:
    """Every problem of a Job or CronJob."""
    name_max = _CRON_NAME_MAX if isinstance(thing, CronJob) else _NAME_MAX
    if len(thing.metadata.name) > name_max:
        yield ("metadata", "name"), f"must be at most {name_max} characters: its pods carry it in a label"
    if isinstance(thing, CronJob):
        yield from _cron_job(thing.spec)
        yield from job_problems(thing.spec.job_template.spec, ("spec", "jobTemplate", "spec"), check_pod_spec)
        return
    if thing.spec.completion_mode == "Indexed" and thing.spec.completions:
        yield from _host_names(thing.metadata.name, thing.spec.completions - 1)
    yield from job_problems(thing.spec, ("spec",), check_pod_spec)


def _host_names(name: str, last: int) -> Iterator[Problem]:
    try:
        check_dns_label(f"{name}-{last}")
    except ValueError:
        yield ("metadata", "name"), f"its pods have host names: {name}-{last} must be a DNS label"


def job_problems(spec: JobSpec, at: Path, check_pod_spec: CheckPodSpec) -> Iterator[Problem]:
    """Every problem of a Job's spec, which lies at the path `at`."""
    template: Path = (*at, "template", "spec")
    policy = spec.template.spec.restart_policy
    if policy == "Always":
        yield (*template, "restartPolicy"), "must be Never or OnFailure here: a Job's pods end"
    indexed = spec.completion_mode == "Indexed"
    if indexed and spec.completions is None:
        yield (*at, "completions"), "is required when completionMode is Indexed"
    if indexed and (spec.completions or 0) > _INDEXES_MAX:
        yield (*at, "completions"), f"must be at most {_INDEXES_MAX} when completionMode is Indexed"
    if spec.backoff_limit_per_index is not None:
        if not indexed:
            yield (*at, "backoffLimitPerIndex"), "may only be set when completionMode is Indexed"
        if policy != "Never":
            yield (*at, "backoffLimitPerIndex"), "may only be set when the template's restartPolicy is Never"
    if spec.max_failed_indexes is not None:
        if spec.backoff_limit_per_index is None:
            yield (*at, "maxFailedIndexes"), "may only be set together with backoffLimitPerIndex"
        if spec.completions is not None and spec.max_failed_indexes > spec.completions:
            yield (*at, "maxFailedIndexes"), f"must be at most completions ({spec.completions})"
    if spec.pod_failure_policy is not None:
        yield from _failure_policy(spec, at)
    if spec.success_policy is not None:
        yield from _success_policy(spec, (*at, "successPolicy"))
    yield from check_pod_spec(spec.template.spec, template)


def _success_policy(spec: JobSpec, at: Path) -> Iterator[Problem]:
    assert spec.success_policy is not None
    rules = spec.success_policy.rules
    if spec.completion_mode != "Indexed":
        yield at, "may only be set when completionMode is Indexed"
    if not 1 <= len(rules) <= _SUCCESS_RULES_MAX:
        yield (*at, "rules"), f"must be 1 to {_SUCCESS_RULES_MAX} rules"
    for index, rule in enumerate(rules):
        here: Path = (*at, "rules", index)
        if rule.succeeded_indexes is None and rule.succeeded_count is None:
            yield here, "needs one of succeededIndexes and succeededCount"
        listed = spec.completions or 0
        if rule.succeeded_indexes is not None:
            numbers = [int(number) for number in re.findall("[0-9]+", rule.succeeded_indexes)]
            rising = all(one < later for one, later in pairwise(numbers))
            if not _INDEXES.fullmatch(rule.succeeded_indexes) or not rising:
                yield (*here, "succeededIndexes"), "must be indexes in rising order such as 0,2-4"
                continue
            if numbers[-1] >= listed:
                yield (*here, "succeededIndexes"), f"must lie below completions ({listed})"
                continue
            indexes = parse_indexes(rule.succeeded_indexes)
            listed = len(indexes)
        if (rule.succeeded_count or 0) > listed:
            yield (*here, "succeededCount"), f"must be at most {listed}: there are no more indexes"


def _cron_job(spec: CronJobSpec) -> Iterator[Problem]:
    try:
        if spec.schedule.strip().startswith("@") and spec.schedule not in MACROS:
            raise ValueError(f"must have five fields (minute hour day month weekday) or be one of {', '.join(MACROS)}")
        parse_schedule(spec.schedule)
    except ValueError as error:
        yield ("spec", "schedule"), str(error)
    if spec.time_zone is None:
        return
    try:
        if not spec.time_zone or spec.time_zone.lower() == "local":
            raise ValueError("must be the name of a time zone such as Europe/Berlin")
        find_zone(spec.time_zone)
    except ValueError as error:
        yield ("spec", "timeZone"), str(error)


def _failure_policy(spec: JobSpec, at: Path) -> Iterator[Problem]:
    assert spec.pod_failure_policy is not None
    here: Path = (*at, "podFailurePolicy")
    if spec.template.spec.restart_policy != "Never":
        yield here, "may only be set when the template's restartPolicy is Never"
    if spec.pod_replacement_policy != "Failed":
        yield (*at, "podReplacementPolicy"), "must be Failed when podFailurePolicy is set"
    pod = spec.template.spec
    containers = {container.name for container in (*pod.containers, *pod.init_containers)}
    if len(spec.pod_failure_policy.rules) > _FAILURE_RULES_MAX:
        yield (*here, "rules"), f"must be at most {_FAILURE_RULES_MAX} rules"
    for index, rule in enumerate(spec.pod_failure_policy.rules):
        yield from _rule(rule, (*here, "rules", index), containers)
        if rule.action == "FailIndex" and spec.backoff_limit_per_index is None:
            yield (*here, "rules", index, "action"), "FailIndex needs backoffLimitPerIndex"


def _rule(rule: PodFailurePolicyRule, at: Path, containers: set[str]) -> Iterator[Problem]:
    codes = rule.on_exit_codes
    if (codes is None) == (not rule.on_pod_conditions):
        yield at, "needs one of onExitCodes and onPodConditions"
    if len(rule.on_pod_conditions) > _CONDITIONS_MAX:
        yield (*at, "onPodConditions"), f"must be at most {_CONDITIONS_MAX} conditions"
    for index, condition in enumerate(rule.on_pod_conditions):
        try:
            check_label_key(condition.type)
        except ValueError as error:
            yield (*at, "onPodConditions", index, "type"), str(error)
    if codes is None:
        return
    if not codes.values:
        yield (*at, "onExitCodes", "values"), "must not be empty"
    if codes.operator == "In" and 0 in codes.values:
        yield (*at, "onExitCodes", "values"), "may not hold 0 with In: no failed container has it"
    if len(set(codes.values)) != len(codes.values):
        yield (*at, "onExitCodes", "values"), "may not hold a number twice"
    elif list(codes.values) != sorted(codes.values):
        yield (*at, "onExitCodes", "values"), "must be in rising order"
    if len(codes.values) > _EXIT_CODES_MAX:
        yield (*at, "onExitCodes", "values"), f"must be at most {_EXIT_CODES_MAX} numbers"
    if codes.container_name is not None and codes.container_name not in containers:
        yield (*at, "onExitCodes", "containerName"), f"{codes.container_name} is no container of this pod"
