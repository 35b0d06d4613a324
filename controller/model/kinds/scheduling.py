"""What a pod says about where it may run: node and pod affinity, topology spread (core/v1); PriorityClass. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from controller.model.kinds.meta import (
    Bool,
    ClusterObjectMeta,
    DnsLabel,
    DnsSubdomain,
    LabelKey,
    LabelSelector,
    Model,
    Object,
)

PreemptionPolicy = Literal["PreemptLowerPriority", "Never"]

Weight = Annotated[int, Field(strict=True, ge=1, le=100)]
AtLeastOne = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]

INTEGER = re.compile(r"[+-]?[0-9]{1,19}")

# --- nodes ---------------------------------------------------------------------------------------------------------


class NodeSelectorRequirement(Model):
    key: str  # a label's, or in matchFields metadata.name
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Gt and Lt compare whole numbers; a label that is none does not match."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt":
                if value is None or not INTEGER.fullmatch(value):
                    return False
                bound = int(self.values[0])
                return int(value) > bound if self.operator == "Gt" else int(value) < bound


class NodeSelectorTerm(Model):
    match_expressions: tuple[NodeSelectorRequirement, ...] = ()
    match_fields: tuple[NodeSelectorRequirement, ...] = ()

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether every requirement holds. A term without any matches nothing, as in Kubernetes."""
        if not self.match_expressions and not self.match_fields:
            return False
        fields = {"metadata.name": name}
        return all(item.matches(labels) for item in self.match_expressions) and all(
            item.matches(fields) for item in self.match_fields
        )


class NodeSelector(Model):
    node_selector_terms: tuple[NodeSelectorTerm, ...]

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether one of the terms matches."""
        return any(term.matches(name, labels) for term in self.node_selector_terms)


class PreferredSchedulingTerm(Model):
    weight: Weight
    preference: NodeSelectorTerm


class NodeAffinity(Model):
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredSchedulingTerm, ...] = ()


# --- other pods ----------------------------------------------------------------------------------------------------


class PodAffinityTerm(Model):
    topology_key: LabelKey
    label_selector: LabelSelector | None = None  # None matches no pod, {} every one
    namespaces: tuple[DnsLabel, ...] = ()
    namespace_selector: LabelSelector | None = None  # neither this nor `namespaces`: the pod's own
    match_label_keys: tuple[LabelKey, ...] = ()
    mismatch_label_keys: tuple[LabelKey, ...] = ()


class WeightedPodAffinityTerm(Model):
    weight: Weight
    pod_affinity_term: PodAffinityTerm


class PodAffinity(Model):
    """Also of podAntiAffinity, which has the same fields."""

    required_during_scheduling_ignored_during_execution: tuple[PodAffinityTerm, ...] = ()
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPodAffinityTerm, ...] = ()


class Affinity(Model):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(Model):
    max_skew: AtLeastOne
    topology_key: LabelKey
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    label_selector: LabelSelector | None = None
    min_domains: AtLeastOne | None = None  # None: 1
    node_affinity_policy: Literal["Honor", "Ignore"] = "Honor"
    node_taints_policy: Literal["Honor", "Ignore"] = "Ignore"
    match_label_keys: tuple[LabelKey, ...] = ()


# --- priority ------------------------------------------------------------------------------------------------------

BUILT_IN_PRIORITIES: Mapping[str, int] = {
    "system-cluster-critical": 2_000_000_000,
    "system-node-critical": 2_000_001_000,
}
LARGEST_USER_PRIORITY = 1_000_000_000


class PriorityClassMeta(ClusterObjectMeta):
    name: DnsSubdomain


class PriorityClass(Object):
    namespaced: ClassVar[bool] = False

    api_version: Literal["scheduling.k8s.io/v1"] = "scheduling.k8s.io/v1"
    kind: Literal["PriorityClass"] = "PriorityClass"
    metadata: PriorityClassMeta
    value: Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)]
    global_default: Bool = False
    preemption_policy: PreemptionPolicy = "PreemptLowerPriority"
    description: str = ""


def class_fields(source: Mapping[str, Any]) -> tuple[int, bool, str]:
    """(value, globalDefault, preemptionPolicy) of a stored PriorityClass."""
    return (
        int(source["value"]),
        bool(source.get("globalDefault")),
        str(source.get("preemptionPolicy") or "PreemptLowerPriority"),
    )
