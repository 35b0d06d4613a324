"""PodDisruptionBudget with Kubernetes' defaults (policy/v1). Pure."""

from __future__ import annotations

from typing import Literal

from controller.model.kinds.meta import LabelSelector, Model, Object, ObjectMeta, PercentOrCount


class PodDisruptionBudgetSpec(Model):
    """With neither number Kubernetes lets no pod go; so do we."""

    min_available: PercentOrCount | None = None
    max_unavailable: PercentOrCount | None = None
    selector: LabelSelector | None = None  # None: no pod; {}: all of the namespace
    unhealthy_pod_eviction_policy: Literal["IfHealthyBudget", "AlwaysAllow"] = "IfHealthyBudget"


class PodDisruptionBudget(Object):
    api_version: Literal["policy/v1"] = "policy/v1"
    kind: Literal["PodDisruptionBudget"] = "PodDisruptionBudget"
    metadata: ObjectMeta
    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
