"""Disruption budgets and autoscalers in tables, as objects and in `describe`. Pure; loaded when such a kind is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.cli.objects import stored_condition, timestamp
from controller.cli.output import age
from controller.cli.scene import Scene
from controller.cli.tables import Columns, Row, selector_text
from controller.decide.autoscale import current_metrics, spec_of
from controller.decide.pods import ready_ages
from controller.decide.replicas import Demand
from controller.model.kinds.autoscaling import HPAScalingRules, MetricSpec
from controller.model.policies import Autoscaler, Budget, Policy

Details = list[tuple[str, str]]


def object_of(scene: Scene, record: Policy) -> dict[str, Any]:
    """spec and status with Kubernetes' names."""
    status = _budget_status(record) if isinstance(record, Budget) else _autoscaler_status(scene, record)
    return {"spec": dict(record.source.get("spec") or {}), "status": status}


def details_of(scene: Scene, record: Policy) -> Details:
    """What `describe` says beside the head: (name, text)."""
    return _budget_details(record) if isinstance(record, Budget) else _autoscaler_details(scene, record)


# ---- budgets ----


def _budget_row(scene: Scene, record: Budget) -> Row:
    spec = record.source.get("spec") or {}
    numbers = [str(spec.get(name, "N/A")) for name in ("minAvailable", "maxUnavailable")]
    created = age(scene.age_s(record.meta.created))
    return [record.meta.name, *numbers, str(record.status.disruptions_allowed), created]


def _budget_status(record: Budget) -> dict[str, Any]:
    status = record.status
    return {
        "observedGeneration": status.observed_generation,
        "currentHealthy": status.current_healthy,
        "desiredHealthy": status.desired_healthy,
        "disruptionsAllowed": status.disruptions_allowed,
        "expectedPods": status.expected_pods,
    }


def _budget_details(record: Budget) -> Details:
    spec, status = record.source.get("spec") or {}, record.status
    lines = [(words, str(spec[name])) for name, words in _AMOUNTS.items() if name in spec]
    lines.append(("Selector", selector_text(spec.get("selector") or {}) or "<none>"))
    lines.append(("Unhealthy pods", str(spec.get("unhealthyPodEvictionPolicy") or "IfHealthyBudget")))
    lines.append(("Disruptions", f"{status.disruptions_allowed} allowed"))
    healthy = f"{status.current_healthy} healthy, {status.desired_healthy} have to be, {status.expected_pods} expected"
    lines.append(("Pods", healthy))
    return [*lines, ("Trouble", status.trouble)] if status.trouble else lines


_AMOUNTS = {"minAvailable": "Min available", "maxUnavailable": "Max unavailable"}

# ---- autoscalers ----


def _autoscaler_row(scene: Scene, record: Autoscaler) -> Row:
    spec, status = spec_of(record), record.status
    reference = spec.scale_target_ref
    targets = ", ".join(_target_text(scene, record))
    created = age(scene.age_s(record.meta.created))
    numbers = [str(spec.min_replicas), str(spec.max_replicas), str(status.desired_replicas)]
    return [record.meta.name, f"{reference.kind}/{reference.name}", targets, *numbers, created]


def _target_text(scene: Scene, record: Autoscaler) -> list[str]:
    """Each metric as kubectl has it: cpu: 43%/80%. What it is now is known only from agents that were asked."""
    found = []
    demands = _now(scene, record)
    for number, metric in enumerate(spec_of(record).counted):
        target = metric.source.target
        demand = demands[number] if number < len(demands) else None
        if target.type == "Utilization":
            now = f"{demand.utilization}%" if demand is not None and demand.utilization is not None else "<unknown>"
            wanted = f"{target.average_utilization}%"
        else:
            average = demand.average if demand is not None else None
            now = "<unknown>" if average is None else _amount(metric.source.name, average)
            wanted = str(target.average_value)
        name = f"{metric.source.name}/{metric.container}" if metric.container else metric.source.name
        found.append(f"{name}: {now}/{wanted}")
    return found


def _now(scene: Scene, record: Autoscaler) -> list[Demand]:
    return current_metrics(scene.world, record, ready_ages(scene.world, scene.views), scene.now) if scene.live else []


def _amount(name: str, average: int) -> str:
    return f"{-(-average // 1000)}m" if name == "cpu" else f"{average // 2**20}Mi"


def _autoscaler_status(scene: Scene, record: Autoscaler) -> dict[str, Any]:
    status = record.status
    shown: dict[str, Any] = {
        "observedGeneration": status.observed_generation,
        "currentReplicas": status.current_replicas,
        "desiredReplicas": status.desired_replicas,
    }
    if status.last_scale is not None:
        shown["lastScaleTime"] = timestamp(status.last_scale.wall_s)
    metrics = [
        _metric_status(metric, demand)
        for metric, demand in zip(spec_of(record).counted, _now(scene, record), strict=False)
        if demand.average is not None
    ]
    if metrics:
        shown["currentMetrics"] = metrics
    shown["conditions"] = [stored_condition(item) for item in status.conditions]
    return shown


def _metric_status(metric: MetricSpec, demand: Demand) -> dict[str, Any]:
    assert demand.average is not None
    is_cpu = metric.source.name == "cpu"
    current: dict[str, Any] = {"averageValue": f"{-(-demand.average // 1000)}m" if is_cpu else str(demand.average)}
    if demand.utilization is not None:
        current["averageUtilization"] = demand.utilization
    field = "resource" if metric.type == "Resource" else "containerResource"
    source = {"name": metric.source.name, **({"container": metric.container} if metric.container else {})}
    return {"type": metric.type, field: {**source, "current": current}}


def _autoscaler_details(scene: Scene, record: Autoscaler) -> Details:
    spec, status = spec_of(record), record.status
    reference, behavior = spec.scale_target_ref, spec.behavior
    lines = [("Target", f"{reference.kind}/{reference.name}")]
    lines += [("Metric", text) for text in _target_text(scene, record)]
    lines.append(("Replicas", f"{spec.min_replicas} to {spec.max_replicas}"))
    lines.append(("Now", f"{status.current_replicas} current, {status.desired_replicas} desired"))
    lines += [("Scale up", _rules_text(behavior.up)), ("Scale down", _rules_text(behavior.down))]
    for item in status.conditions:
        lines.append((item.kind, f"{item.status} {item.reason}: {item.message}"))
    return lines


def _rules_text(rules: HPAScalingRules) -> str:
    """One line: Max of 4 Pods in 15s, 100 Percent in 15s; 0s of stabilization."""
    policies = ", ".join(f"{one.value} {one.type} in {one.period_seconds}s" for one in rules.policies or ())
    what = "Disabled" if rules.select_policy == "Disabled" else f"{rules.select_policy} of {policies}"
    return f"{what}; {rules.stabilization_window_seconds}s of stabilization"


COLUMNS: Mapping[str, Columns] = {
    "PodDisruptionBudget": Columns(
        ("NAME", "MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS", "AGE"), _budget_row
    ),
    "HorizontalPodAutoscaler": Columns(
        ("NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"), _autoscaler_row
    ),
}
