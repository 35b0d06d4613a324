"""HorizontalPodAutoscaler with Kubernetes' defaults (autoscaling/v2). Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.model.kinds.meta import DnsLabel, DnsSubdomain, Model, Object, ObjectMeta, Quantity
from controller.model.quantity import REPLICAS_MAX

AtLeastOne = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
Resource = Literal["cpu", "memory"]


class CrossVersionObjectReference(Model):
    kind: Literal["Deployment", "ReplicaSet", "StatefulSet"]
    name: DnsSubdomain
    api_version: Literal["apps/v1"] = "apps/v1"


class MetricTarget(Model):
    type: Literal["Utilization", "AverageValue"]
    average_utilization: AtLeastOne | None = None  # percent of the requests
    average_value: Quantity | None = None  # per pod


class ResourceMetricSource(Model):
    name: Resource
    target: MetricTarget


class ContainerResourceMetricSource(Model):
    name: Resource
    container: DnsLabel
    target: MetricTarget


class MetricSpec(Model):
    type: Literal["Resource", "ContainerResource"]
    resource: ResourceMetricSource | None = None
    container_resource: ContainerResourceMetricSource | None = None

    @property
    def source(self) -> ResourceMetricSource | ContainerResourceMetricSource:
        found = self.resource if self.type == "Resource" else self.container_resource
        assert found is not None  # checked when it came in
        return found

    @property
    def container(self) -> str:
        """The container that counts; "": all of a pod."""
        source = self.source
        return source.container if isinstance(source, ContainerResourceMetricSource) else ""


class HPAScalingPolicy(Model):
    type: Literal["Pods", "Percent"]
    value: AtLeastOne
    period_seconds: Annotated[int, Field(strict=True, ge=1, le=1800)]


class HPAScalingRules(Model):
    """What is None has a default that depends on the direction: see `up` and `down`."""

    stabilization_window_seconds: Annotated[int, Field(strict=True, ge=0, le=3600)] | None = None
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: tuple[HPAScalingPolicy, ...] | None = None
    tolerance: Quantity | None = None  # None: 0.1


_UP = (
    HPAScalingPolicy(type="Pods", value=4, period_seconds=15),
    HPAScalingPolicy(type="Percent", value=100, period_seconds=15),
)
_DOWN = (HPAScalingPolicy(type="Percent", value=100, period_seconds=15),)


class HorizontalPodAutoscalerBehavior(Model):
    scale_up: HPAScalingRules = HPAScalingRules()
    scale_down: HPAScalingRules = HPAScalingRules()

    @property
    def up(self) -> HPAScalingRules:
        """Filled in: no stabilization; per 15 s twice as many, or 4 more, whichever is more."""
        return _filled(self.scale_up, 0, _UP)

    @property
    def down(self) -> HPAScalingRules:
        """Filled in: 300 s of stabilization; then all in 15 s."""
        return _filled(self.scale_down, 300, _DOWN)


def _filled(rules: HPAScalingRules, window_s: int, policies: tuple[HPAScalingPolicy, ...]) -> HPAScalingRules:
    given = rules.stabilization_window_seconds
    return rules.model_copy(
        update={
            "stabilization_window_seconds": window_s if given is None else given,
            "policies": policies if rules.policies is None else rules.policies,
        }
    )


_CPU_80 = MetricSpec(
    type="Resource",
    resource=ResourceMetricSource(name="cpu", target=MetricTarget(type="Utilization", average_utilization=80)),
)


class HorizontalPodAutoscalerSpec(Model):
    scale_target_ref: CrossVersionObjectReference
    min_replicas: AtLeastOne = 1
    max_replicas: Annotated[AtLeastOne, Field(le=REPLICAS_MAX)]
    metrics: tuple[MetricSpec, ...] = ()
    behavior: HorizontalPodAutoscalerBehavior = HorizontalPodAutoscalerBehavior()

    @property
    def counted(self) -> tuple[MetricSpec, ...]:
        """The metrics; where none is written cpu at 80 % of the requests, as in Kubernetes."""
        return self.metrics or (_CPU_80,)


class HorizontalPodAutoscaler(Object):
    api_version: Literal["autoscaling/v2"] = "autoscaling/v2"
    kind: Literal["HorizontalPodAutoscaler"] = "HorizontalPodAutoscaler"
    metadata: ObjectMeta
    spec: HorizontalPodAutoscalerSpec
