"""ReplicaSet and Deployment with Kubernetes' defaults (apps/v1). Pure."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from controller.model.kinds.meta import (
    Bool,
    Count,
    LabelSelector,
    Model,
    Object,
    ObjectMeta,
    PercentOrCount,
    Replicas,
    Seconds,
)
from controller.model.kinds.pod import PodTemplateSpec


class ReplicaSetSpec(Model):
    selector: LabelSelector
    template: PodTemplateSpec
    replicas: Replicas = 1
    min_ready_seconds: Seconds = 0


class ReplicaSet(Object):
    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["ReplicaSet"] = "ReplicaSet"
    metadata: ObjectMeta
    spec: ReplicaSetSpec


class RollingUpdateDeployment(Model):
    max_surge: PercentOrCount = "25%"
    max_unavailable: PercentOrCount = "25%"

    def surge(self, replicas: int) -> int:
        """Pods allowed above `replicas`: a percentage rounds up. 25 % of 10 → 3."""
        return scaled(self.max_surge, replicas, up=True)

    def unavailable(self, replicas: int) -> int:
        """Pods that may be missing: a percentage rounds down, 25 % of 10 → 2.

        Where both numbers come out as 0 nothing could ever move, so Kubernetes then allows one to be missing.
        """
        missing = scaled(self.max_unavailable, replicas, up=False)
        return missing if missing or self.surge(replicas) else 1


def _rolling_update_of(fields: dict[str, Any]) -> RollingUpdateDeployment | None:
    return RollingUpdateDeployment() if fields.get("type") == "RollingUpdate" else None


class DeploymentStrategy(Model):
    type: Literal["RollingUpdate", "Recreate"] = "RollingUpdate"
    rolling_update: RollingUpdateDeployment | None = Field(default_factory=_rolling_update_of)  # None for Recreate


class DeploymentSpec(Model):
    selector: LabelSelector
    template: PodTemplateSpec
    replicas: Replicas = 1
    strategy: DeploymentStrategy = DeploymentStrategy()
    min_ready_seconds: Seconds = 0
    progress_deadline_seconds: Seconds = 600
    revision_history_limit: Count = 10
    paused: Bool = False


class Deployment(Object):
    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["Deployment"] = "Deployment"
    metadata: ObjectMeta
    spec: DeploymentSpec


def scaled(amount: int | str, whole: int, *, up: bool) -> int:
    if isinstance(amount, int):
        return amount
    percent = int(amount.removesuffix("%"))
    return -(-percent * whole // 100) if up else percent * whole // 100
