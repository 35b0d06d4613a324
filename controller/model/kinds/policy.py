"""ResourceQuota, LimitRange and the labels of Pod Security: what a namespace and what one pod of it may take. Core/v1. Pure."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from controller.model.kinds.meta import Model, Object, ObjectMeta, Quantity

# Labels of a namespace that say what its pods may ask for (Pod Security Standards).
PREFIX = "pod-security.kubernetes.io/"
MODES = ("enforce", "audit", "warn")
LEVELS = PRIVILEGED, BASELINE, RESTRICTED = ("privileged", "baseline", "restricted")
VERSION = re.compile(r"v1\.(0|[1-9][0-9]{0,3})")

Scope = Literal[
    "Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity"
]

# What is counted of pods: name in `hard` → (requests or limits, resource). `cpu` is another name of `requests.cpu`.
COMPUTE: dict[str, tuple[str, str]] = {
    "cpu": ("requests", "cpu"),
    "memory": ("requests", "memory"),
    "ephemeral-storage": ("requests", "ephemeral-storage"),
    **{
        f"{side}.{name}": (side, name)
        for side in ("requests", "limits")
        for name in ("cpu", "memory", "ephemeral-storage")
    },
}
# Objects that are counted by their old names, and the kinds that are counted as `count/…`.
COUNTED: dict[str, str] = {
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "resourcequotas": "ResourceQuota",
    "count/pods": "Pod",
    "count/configmaps": "ConfigMap",
    "count/secrets": "Secret",
    "count/resourcequotas": "ResourceQuota",
    "count/limitranges": "LimitRange",
    "count/deployments.apps": "Deployment",
    "count/replicasets.apps": "ReplicaSet",
    "count/statefulsets.apps": "StatefulSet",
    "count/daemonsets.apps": "DaemonSet",
    "count/jobs.batch": "Job",
    "count/cronjobs.batch": "CronJob",
    "count/horizontalpodautoscalers.autoscaling": "HorizontalPodAutoscaler",
    "count/poddisruptionbudgets.policy": "PodDisruptionBudget",
}
# What is counted of volume claims; behind `<class>OF_CLASS` of those of one storage class.
CLAIMED = ("persistentvolumeclaims", "count/persistentvolumeclaims", "requests.storage")
OF_CLASS = ".storageclass.storage.k8s.io/"
# Kubernetes' own names of things that there are none of here yet: any number of them is more than is used.
NEVER_USED = (
    "replicationcontrollers",
    "services",
    "services.loadbalancers",
    "services.nodeports",
)


class ScopeRequirement(Model):
    scope_name: Scope
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class ScopeSelector(Model):
    match_expressions: tuple[ScopeRequirement, ...] = ()


class ResourceQuotaSpec(Model):
    hard: dict[str, Quantity] = Field(default_factory=dict)
    scopes: tuple[Scope, ...] = ()
    scope_selector: ScopeSelector | None = None

    @property
    def requirements(self) -> tuple[ScopeRequirement, ...]:
        """`scopes` and `scopeSelector` together: a pod counts when all hold."""
        plain = tuple(ScopeRequirement(scope_name=name, operator="Exists") for name in self.scopes)
        return (*plain, *(self.scope_selector.match_expressions if self.scope_selector else ()))


class ResourceQuota(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["ResourceQuota"] = "ResourceQuota"
    metadata: ObjectMeta
    spec: ResourceQuotaSpec = ResourceQuotaSpec()


Limited = Literal["cpu", "memory", "ephemeral-storage", "storage"]


class LimitRangeItem(Model):
    """`default` is the limit of a container that has none, `default_request` its request."""

    type: Literal["Container", "Pod", "PersistentVolumeClaim"]
    max: dict[Limited, Quantity] = Field(default_factory=dict)
    min: dict[Limited, Quantity] = Field(default_factory=dict)
    default: dict[Limited, Quantity] = Field(default_factory=dict)
    default_request: dict[Limited, Quantity] = Field(default_factory=dict)
    max_limit_request_ratio: dict[Limited, Quantity] = Field(default_factory=dict)

    def limit_of(self) -> dict[Limited, str]:
        """What a container without a limit gets: `default`, else `max` (SetDefaults_LimitRangeItem)."""
        return {**self.max, **self.default} if self.type == "Container" else {}

    def request_of(self) -> dict[Limited, str]:
        """What one without a request gets: `defaultRequest`, else its default limit, else `min`."""
        return {**self.min, **self.limit_of(), **self.default_request} if self.type == "Container" else {}


class LimitRangeSpec(Model):
    limits: tuple[LimitRangeItem, ...]


class LimitRange(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["LimitRange"] = "LimitRange"
    metadata: ObjectMeta
    spec: LimitRangeSpec
