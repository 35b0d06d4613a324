"""ResourceQuotas: what a namespace has taken of what it may take, and what would be too much. Pure.

In: the world's records. Out: what is used by each quota; why one more pod or object is too much. Semantics: Kubernetes' quota evaluators
(pods, and objects by count). Pods that have ended, and those given up or stopping on a node that is silent, are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from controller.decide.admission.limits import totals
from controller.decide.nodes import POLLS_UNKNOWN
from controller.decide.phases import is_finished
from controller.decide.qos import qos_class
from controller.decide.schedule.volumes import class_of, size_of
from controller.model.cluster import Pod, VolumeClaim, World
from controller.model.kinds.pod import PodSpec
from controller.model.kinds.policy import COMPUTE, COUNTED, OF_CLASS, ResourceQuota, ResourceQuotaSpec, ScopeRequirement
from controller.model.kinds.scheduling import PodAffinityTerm
from controller.model.quantity import exact, format_exact

Amounts = Mapping[str, Fraction]


@dataclass(frozen=True, slots=True)
class Used:
    """One quota and how much of it is taken, by the names in `hard`."""

    quota: ResourceQuota
    amounts: Amounts

    def texts(self) -> dict[str, str]:
        return {name: format_exact(amount) for name, amount in self.amounts.items()}


def used_of(world: World, quotas: Iterable[ResourceQuota], spec_of: Callable[[Pod], PodSpec | None]) -> list[Used]:
    """What is used of quotas of one namespace.

    Args:
        spec_of: a pod's spec with all defaults; None for one whose owner is gone.
    """
    quotas = list(quotas)
    space = quotas[0].metadata.namespace if quotas else ""
    pods = [pod for pod in world.pods.values() if pod.meta.namespace == space and not _is_out_of_reach(world, pod)]
    running = [spec for pod in pods if not is_finished(pod) and (spec := spec_of(pod)) is not None]
    counts = counts_of(world, space)
    claims = [claim for claim in world.claims.values() if claim.meta.namespace == space]
    found = []
    for quota in quotas:
        mine = [asked(quota.spec, spec) for spec in running if matches(quota.spec.requirements, spec)]
        mine += [asked_of_claim(quota.spec, claim) for claim in claims]
        amounts = {}
        for name in quota.spec.hard:
            if name in COUNTED:
                amounts[name] = Fraction(counts.get(COUNTED[name], 0))
            else:
                amounts[name] = sum((each.get(name, Fraction(0)) for each in mine), Fraction(0))
        found.append(Used(quota, amounts))
    return found


def _is_out_of_reach(world: World, pod: Pod) -> bool:
    """Given up with its node, or to be stopped there once the node answers: while that lasts, others may take its place (QuotaV1Pod)."""
    node = world.nodes.get(pod.node)
    is_silent = node is not None and node.missing is not None and node.missing.polls >= POLLS_UNKNOWN
    return pod.lost is not None or (pod.stop is not None and is_silent)


def counts_of(world: World, space: str) -> dict[str, int]:
    """How many objects of each kind a namespace has. A revision of a DaemonSet or StatefulSet is none."""
    counts: dict[str, int] = {}
    tables = (world.declared, world.deployments, world.replica_sets, world.workloads, world.policies, world.pods)
    for table in tables:
        for record in table.values():
            if record.meta.namespace == space and record.meta.kind != "ControllerRevision":
                counts[record.meta.kind] = counts.get(record.meta.kind, 0) + 1
    return counts


def asked(quota: ResourceQuotaSpec, spec: PodSpec) -> dict[str, Fraction]:
    """What one pod takes of a quota."""
    sides = {side: totals(spec, side) for side in ("requests", "limits")}
    amounts = {"pods": Fraction(1), "count/pods": Fraction(1)}
    amounts |= {name: sides[side].get(resource, Fraction(0)) for name, (side, resource) in COMPUTE.items()}
    return {name: amounts[name] for name in quota.hard if name in amounts}


def asked_of_claim(quota: ResourceQuotaSpec, claim: VolumeClaim) -> dict[str, Fraction]:
    """What one volume claim takes of a quota."""
    size, one = Fraction(size_of(claim)), Fraction(1)
    amounts = {"persistentvolumeclaims": one, "count/persistentvolumeclaims": one, "requests.storage": size}
    of_class = f"{class_of(claim)}{OF_CLASS}"
    amounts |= {f"{of_class}persistentvolumeclaims": one, f"{of_class}requests.storage": size}
    return {name: amounts[name] for name in quota.hard if name in amounts}


def too_much(used: Used, more: Amounts) -> str:
    """Why that much more may not be taken; "" when it may."""
    hard = used.quota.spec.hard
    over = [name for name, amount in more.items() if amount and used.amounts[name] + amount > exact(hard[name])]
    if not over:
        return ""
    parts = (
        ", ".join(f"{name}={format_exact(more[name])}" for name in over),
        ", ".join(f"{name}={format_exact(used.amounts[name])}" for name in over),
        ", ".join(f"{name}={hard[name]}" for name in over),
    )
    return "exceeded quota: {}, requested: {}, used: {}, limited: {}".format(used.quota.metadata.name, *parts)


def unsaid(quota: ResourceQuotaSpec, spec: PodSpec) -> list[str]:
    """Compute resources that the quota counts and some container does not name, which Kubernetes refuses (validationSet: of
    ephemeral-storage nothing has to be said)."""
    names = []
    for name in quota.hard:
        side, resource = COMPUTE.get(name, ("", ""))
        if resource not in ("cpu", "memory"):
            continue
        for item in (*spec.init_containers, *spec.containers):
            given = item.resources.limits if side == "limits" else {**item.resources.limits, **item.resources.requests}
            if resource not in given and name not in names:
                names.append(name)
    return names


# ---- scopes -----------------------------------------------------------------------------------------------------------


def matches(requirements: Iterable[ScopeRequirement], spec: PodSpec) -> bool:
    """Whether a pod is one of those that a quota counts."""
    return all(_matches(item, spec) for item in requirements)


def _matches(item: ScopeRequirement, spec: PodSpec) -> bool:
    match item.scope_name:
        case "Terminating":
            return spec.active_deadline_seconds is not None
        case "NotTerminating":
            return spec.active_deadline_seconds is None
        case "BestEffort":
            return qos_class(spec) == "BestEffort"
        case "NotBestEffort":
            return qos_class(spec) != "BestEffort"
        case "CrossNamespacePodAffinity":
            return any(term.namespaces or term.namespace_selector is not None for term in _affinity_terms(spec))
        case "PriorityClass":
            name = spec.priority_class_name
            match item.operator:
                case "Exists":
                    return bool(name)
                case "DoesNotExist":
                    return not name
                case "In":
                    return name in item.values
                case "NotIn":
                    return name not in item.values


def _affinity_terms(spec: PodSpec) -> Iterator[PodAffinityTerm]:
    affinity = spec.affinity
    for side in (affinity.pod_affinity, affinity.pod_anti_affinity) if affinity is not None else ():
        if side is not None:
            yield from side.required_during_scheduling_ignored_during_execution
            for weighted in side.preferred_during_scheduling_ignored_during_execution:
                yield weighted.pod_affinity_term
