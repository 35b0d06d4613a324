"""DaemonSet and StatefulSet with Kubernetes' defaults (apps/v1). Pure."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from controller.model.kinds.meta import (
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
from controller.model.kinds.storage import PersistentVolumeClaimTemplate
from controller.model.kinds.workloads import scaled

# --- daemon sets ---------------------------------------------------------------------------------------------------


class RollingUpdateDaemonSet(Model):
    max_unavailable: PercentOrCount = 1
    max_surge: PercentOrCount = 0

    def unavailable(self, desired: int) -> int:
        """Nodes whose pod may be missing: a percentage rounds up, 10 % of 3 → 1."""
        return scaled(self.max_unavailable, desired, up=True)

    def surge(self, desired: int) -> int:
        """Nodes that may have a new pod beside the old one: a percentage rounds up."""
        return scaled(self.max_surge, desired, up=True)


def _daemon_rolling_of(fields: dict[str, Any]) -> RollingUpdateDaemonSet | None:
    return RollingUpdateDaemonSet() if fields.get("type") == "RollingUpdate" else None


class DaemonSetUpdateStrategy(Model):
    type: Literal["RollingUpdate", "OnDelete"] = "RollingUpdate"
    rolling_update: RollingUpdateDaemonSet | None = Field(default_factory=_daemon_rolling_of)


class DaemonSetSpec(Model):
    selector: LabelSelector
    template: PodTemplateSpec
    update_strategy: DaemonSetUpdateStrategy = DaemonSetUpdateStrategy()
    min_ready_seconds: Seconds = 0
    revision_history_limit: Count = 10


class DaemonSet(Object):
    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["DaemonSet"] = "DaemonSet"
    metadata: ObjectMeta
    spec: DaemonSetSpec


# --- stateful sets -------------------------------------------------------------------------------------------------


class RollingUpdateStatefulSet(Model):
    partition: Count = 0
    max_unavailable: PercentOrCount = 1

    def unavailable(self, replicas: int) -> int:
        """Pods that may be missing during an update: a percentage rounds down, and 1 is the least, as in Kubernetes'
        getStatefulSetMaxUnavailable (stateful_set_utils.go); the comment of its API says up."""
        return max(1, scaled(self.max_unavailable, replicas, up=False))


def _stateful_rolling_of(fields: dict[str, Any]) -> RollingUpdateStatefulSet | None:
    return RollingUpdateStatefulSet() if fields.get("type") == "RollingUpdate" else None


class StatefulSetUpdateStrategy(Model):
    type: Literal["RollingUpdate", "OnDelete"] = "RollingUpdate"
    rolling_update: RollingUpdateStatefulSet | None = Field(default_factory=_stateful_rolling_of)


class PersistentVolumeClaimRetentionPolicy(Model):
    when_deleted: Literal["Retain", "Delete"] = "Retain"
    when_scaled: Literal["Retain", "Delete"] = "Retain"


class StatefulSetOrdinals(Model):
    start: Count = 0


class StatefulSetSpec(Model):
    selector: LabelSelector
    template: PodTemplateSpec
    replicas: Replicas = 1
    service_name: str = ""
    pod_management_policy: Literal["OrderedReady", "Parallel"] = "OrderedReady"
    update_strategy: StatefulSetUpdateStrategy = StatefulSetUpdateStrategy()
    min_ready_seconds: Seconds = 0
    revision_history_limit: Count = 10
    ordinals: StatefulSetOrdinals = StatefulSetOrdinals()
    persistent_volume_claim_retention_policy: PersistentVolumeClaimRetentionPolicy = (
        PersistentVolumeClaimRetentionPolicy()
    )
    volume_claim_templates: tuple[PersistentVolumeClaimTemplate, ...] = ()


class StatefulSet(Object):
    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["StatefulSet"] = "StatefulSet"
    metadata: ObjectMeta
    spec: StatefulSetSpec
