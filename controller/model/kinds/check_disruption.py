"""What the fields of PodDisruptionBudget and HorizontalPodAutoscaler must agree on. Pure.

Semantics: Kubernetes' own validation of policy/v1 and autoscaling/v2.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.model import quantity
from controller.model.kinds.autoscaling import HorizontalPodAutoscaler, HPAScalingRules, MetricSpec
from controller.model.kinds.check_scheduling import requirements_problems
from controller.model.kinds.disruption import PodDisruptionBudget
from controller.model.kinds.meta import is_more_than_all

Path = tuple[str | int, ...]
Problem = tuple[Path, str]


def disruption_problems(thing: PodDisruptionBudget | HorizontalPodAutoscaler) -> Iterator[Problem]:
    if isinstance(thing, PodDisruptionBudget):
        yield from _budget(thing)
    else:
        yield from _autoscaler(thing)


def _budget(thing: PodDisruptionBudget) -> Iterator[Problem]:
    spec = thing.spec
    if spec.min_available is not None and spec.max_unavailable is not None:
        yield ("spec", "maxUnavailable"), "may not be set together with minAvailable"
    for name, amount in (("minAvailable", spec.min_available), ("maxUnavailable", spec.max_unavailable)):
        if amount is not None and is_more_than_all(amount):
            yield ("spec", name), f"may not be more than 100%, not {amount}"
    if spec.selector is not None:
        yield from requirements_problems(spec.selector, ("spec", "selector", "matchExpressions"))


def _autoscaler(thing: HorizontalPodAutoscaler) -> Iterator[Problem]:
    spec = thing.spec
    if spec.max_replicas < spec.min_replicas:
        yield ("spec", "maxReplicas"), f"may not be less than minReplicas, which is {spec.min_replicas}"
    for number, metric in enumerate(spec.metrics):
        yield from _metric(metric, ("spec", "metrics", number))
    for name, rules in (("scaleUp", spec.behavior.scale_up), ("scaleDown", spec.behavior.scale_down)):
        yield from _rules(rules, ("spec", "behavior", name))


def _metric(metric: MetricSpec, at: Path) -> Iterator[Problem]:
    fields = {"resource": metric.resource, "containerResource": metric.container_resource}
    own = "resource" if metric.type == "Resource" else "containerResource"
    for name, source in fields.items():
        if name != own and source is not None:
            yield (*at, name), f"may not be set when type is {metric.type}"
    source = fields[own]
    if source is None:
        yield (*at, own), f"is required when type is {metric.type}"
        return
    target = source.target
    values = {"averageUtilization": target.average_utilization, "averageValue": target.average_value}
    wanted = "averageUtilization" if target.type == "Utilization" else "averageValue"
    for name, value in values.items():
        if name == wanted and value is None:
            yield (*at, own, "target", name), f"is required when type is {target.type}"
        if name != wanted and value is not None:
            yield (*at, own, "target", name), f"may not be set when type is {target.type}"
    if target.average_value is not None and not quantity.memory_bytes(target.average_value):
        yield (*at, own, "target", "averageValue"), "must be more than 0"


def _rules(rules: HPAScalingRules, at: Path) -> Iterator[Problem]:
    if rules.policies is not None and not rules.policies:
        yield (*at, "policies"), "must have one policy at least"
