"""Records of PodDisruptionBudgets and HorizontalPodAutoscalers. Frozen data, no I/O, no clock; loaded when there is one.

`source` is the manifest as written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.model.cluster import Meta, Moment, StatusCondition

# ---- budgets --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """Kubernetes' fields, and why a budget cannot be judged."""

    observed_generation: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    disruptions_allowed: int = 0
    expected_pods: int = 0
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget as it was declared, and what it allows now."""

    meta: Meta
    source: Mapping[str, Any]
    status: BudgetStatus = BudgetStatus()


# ---- autoscalers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recommended:
    """From `moment` until the next one of its kind so many replicas were right."""

    replicas: int
    moment: Moment


@dataclass(frozen=True, slots=True)
class Scaled:
    """The number of replicas was changed by so many."""

    by: int
    moment: Moment


@dataclass(frozen=True, slots=True)
class AutoscalerStatus:
    """Only what changes seldom: what the metrics are now is computed when somebody looks.

    `recommended` is a step function, so that a steady load writes nothing; both histories reach back as far as the rules look.
    """

    observed_generation: int = 0
    current_replicas: int = 0
    desired_replicas: int = 0
    last_scale: Moment | None = None
    conditions: tuple[StatusCondition, ...] = ()
    recommended: tuple[Recommended, ...] = ()
    scaled: tuple[Scaled, ...] = ()


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """A HorizontalPodAutoscaler as it was declared, and what it has done."""

    meta: Meta
    source: Mapping[str, Any]
    status: AutoscalerStatus = AutoscalerStatus()


Policy = Budget | Autoscaler
