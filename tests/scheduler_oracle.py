"""A second reading of Kubernetes' scheduler, one pod at a time over all nodes: slow, plain, and without the code under test.

In: nodes and pods as plain data. Out: the node that each filter leaves and the scores prefer; ties go to the first name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


@dataclass
class Host:
    name: str
    cpu_m: int
    memory_bytes: int
    labels: dict[str, str]
    taints: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class Thing:
    """A pod. `owner` is "" for one of its own; then nothing is spread by default."""

    labels: dict[str, str]
    spec: dict[str, Any]
    cpu_m: int
    memory_bytes: int
    owner: str = ""
    node: str = ""


def choose(pod: Thing, hosts: Iterable[Host], pods: Iterable[Thing], weigh_by: list[Host] | None = None) -> str:
    """The node's name; "" when there is none. `weigh_by`: over whose domains soft spreads are weighted (else those that fit)."""
    hosts, pods = list(hosts), [other for other in pods if other.node]
    fit = [host for host in hosts if _fits(pod, host, hosts, pods)]
    if not fit:
        return ""
    totals = dict.fromkeys((host.name for host in fit), 0)
    for weight, scores in _scores(pod, fit, hosts, pods, weigh_by or fit):
        for name, score in scores.items():
            totals[name] += weight * score
    return min(totals, key=lambda name: (-totals[name], name))


def otherwise_possible(pod: Thing, hosts: Iterable[Host], pods: Iterable[Thing]) -> list[Host]:
    """Hosts that fit but for what pods elsewhere say."""
    pods = [other for other in pods if other.node]
    return [host for host in hosts if _fits_alone(pod, host, pods)]


# ---- filters ----


def _fits(pod: Thing, host: Host, hosts: list[Host], pods: list[Thing]) -> bool:
    return (
        _fits_alone(pod, host, pods) and _fits_affinity(pod, host, hosts, pods) and _fits_spread(pod, host, hosts, pods)
    )


def _fits_alone(pod: Thing, host: Host, pods: list[Thing]) -> bool:
    here = [other for other in pods if other.node == host.name]
    return (
        not any(effect != "PreferNoSchedule" and not _tolerates(pod, key) for key, _, effect in host.taints)
        and _meets_node(pod, host)
        and (not pod.cpu_m or sum(other.cpu_m for other in here) + pod.cpu_m <= host.cpu_m)
        and (not pod.memory_bytes or sum(other.memory_bytes for other in here) + pod.memory_bytes <= host.memory_bytes)
    )


def _tolerates(pod: Thing, key: str) -> bool:
    return any(item.get("key") == key for item in pod.spec.get("tolerations") or ())


def _meets_node(pod: Thing, host: Host) -> bool:
    if any(host.labels.get(key) != value for key, value in (pod.spec.get("nodeSelector") or {}).items()):
        return False
    required = _affinity(pod, "nodeAffinity").get(REQUIRED)
    return required is None or any(_meets_term(term, host) for term in required["nodeSelectorTerms"])


def _meets_term(term: Mapping[str, Any], host: Host) -> bool:
    return bool(term) and all(host.labels.get(item["key"]) in item["values"] for item in term["matchExpressions"])


def _fits_affinity(pod: Thing, host: Host, hosts: list[Host], pods: list[Thing]) -> bool:
    by_name = {item.name: item for item in hosts}

    def same(other: Thing, key: str) -> bool:
        there = by_name[other.node].labels.get(key)
        return there is not None and there == host.labels.get(key)

    near = _affinity(pod, "podAffinity").get(REQUIRED) or []
    matching = [other for other in pods if all(_selects(term, other) for term in near)]
    if near:
        anywhere = any(term["topologyKey"] in by_name[other.node].labels for other in matching for term in near)
        for term in near:
            if term["topologyKey"] not in host.labels:
                return False
            if any(same(other, term["topologyKey"]) for other in matching):
                continue
            if anywhere or not all(_selects(item, pod) for item in near):
                return False
    for term in _affinity(pod, "podAntiAffinity").get(REQUIRED) or []:
        if any(_selects(term, other) and same(other, term["topologyKey"]) for other in pods):
            return False
    return not any(
        _selects(term, pod) and same(other, term["topologyKey"])
        for other in pods
        for term in _affinity(other, "podAntiAffinity").get(REQUIRED) or []
    )


def _fits_spread(pod: Thing, host: Host, hosts: list[Host], pods: list[Thing]) -> bool:
    constraints = _constraints(pod, "DoNotSchedule")
    keys = [item["topologyKey"] for item in constraints]
    if any(key not in host.labels for key in keys):
        return False
    eligible = [item for item in hosts if all(key in item.labels for key in keys)]
    for item in constraints:
        counts = _spread_counts(pod, item, [one for one in eligible if _included(pod, item, one)], pods)
        least = 0 if len(counts) < item.get("minDomains", 1) else min(counts.values(), default=0)
        own = int(_selects(item, pod))
        if counts.get(host.labels[item["topologyKey"]], 0) + own - least > item["maxSkew"]:
            return False
    return True


def _included(pod: Thing, constraint: Mapping[str, Any], host: Host) -> bool:
    if constraint.get("nodeAffinityPolicy", "Honor") == "Honor" and not _meets_node(pod, host):
        return False
    untolerated = any(effect != "PreferNoSchedule" and not _tolerates(pod, key) for key, _, effect in host.taints)
    return constraint.get("nodeTaintsPolicy", "Ignore") == "Ignore" or not untolerated


def _spread_counts(pod: Thing, constraint: Mapping[str, Any], hosts: list[Host], pods: list[Thing]) -> dict[str, int]:
    key = constraint["topologyKey"]
    counts = {host.labels[key]: 0 for host in hosts}
    domain = {host.name: host.labels[key] for host in hosts}
    for other in pods:
        owned = constraint.get("owner") and other.owner == constraint["owner"]
        if other.node in domain and (owned or (not constraint.get("owner") and _selects(constraint, other))):
            counts[domain[other.node]] += 1
    return counts


def _selects(term: Mapping[str, Any], pod: Thing) -> bool:
    if "labelSelector" not in term:
        return False
    return all(pod.labels.get(key) == value for key, value in term["labelSelector"].get("matchLabels", {}).items())


def _constraints(pod: Thing, when: str) -> list[dict[str, Any]]:
    written = pod.spec.get("topologySpreadConstraints") or []
    if written:
        return [item for item in written if item["whenUnsatisfiable"] == when]
    if not pod.owner or when != "ScheduleAnyway":
        return []
    return [
        {"topologyKey": HOSTNAME, "maxSkew": 3, "owner": pod.owner},
        {"topologyKey": ZONE, "maxSkew": 5, "owner": pod.owner},
    ]


def _affinity(pod: Thing, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = (pod.spec.get("affinity") or {}).get(kind) or {}
    return found


# ---- scores ----


def _scores(
    pod: Thing, fit: list[Host], hosts: list[Host], pods: list[Thing], weigh_by: list[Host]
) -> Iterable[tuple[int, dict[str, int]]]:
    taints = {
        host.name: sum(effect == "PreferNoSchedule" and not _tolerates(pod, key) for key, _, effect in host.taints)
        for host in fit
    }
    worst = max(taints.values())
    yield 3, {name: 100 - (100 * count // worst if worst else 0) for name, count in taints.items()}
    liking = {
        host.name: sum(
            item["weight"]
            for item in _affinity(pod, "nodeAffinity").get(PREFERRED) or []
            if _meets_term(item["preference"], host)
        )
        for host in fit
    }
    best = max(liking.values())
    yield 2, {name: 100 * value // best if best else 0 for name, value in liking.items()}
    yield 2, _spread_scores(pod, fit, hosts, pods, weigh_by)
    yield 2, _affinity_scores(pod, fit, hosts, pods)
    yield 1, {host.name: _least(pod, host, pods) for host in fit}
    yield 1, {host.name: _balance(pod, host, pods) for host in fit}


def _spread_scores(
    pod: Thing, fit: list[Host], hosts: list[Host], pods: list[Thing], weigh_by: list[Host]
) -> dict[str, int]:
    constraints = _constraints(pod, "ScheduleAnyway")
    if not constraints:
        return {}
    own = bool(pod.spec.get("topologySpreadConstraints"))
    keys = [item["topologyKey"] for item in constraints] if own else []

    def whole(host: Host) -> bool:
        return all(key in host.labels for key in keys)

    raw: dict[str, float] = {host.name: 0.0 for host in fit if whole(host)}
    for item in constraints:
        key = item["topologyKey"]
        counted = [host for host in hosts if whole(host) and key in host.labels and _included(pod, item, host)]
        counts = _spread_counts(pod, item, counted, pods)
        measured = [host for host in weigh_by if whole(host)]
        size = len(measured) if key == HOSTNAME else len({host.labels.get(key, "") for host in measured})
        for host in fit:
            if host.name in raw and key in host.labels:
                raw[host.name] += counts.get(host.labels[key], 0) * math.log(size + 2) + item["maxSkew"] - 1
    rounded = {name: math.floor(value + 0.5) for name, value in raw.items()}
    low, high = min(rounded.values(), default=0), max(rounded.values(), default=0)
    return {name: 100 * (high + low - value) // high if high else 100 for name, value in rounded.items()}


def _affinity_scores(pod: Thing, fit: list[Host], hosts: list[Host], pods: list[Thing]) -> dict[str, int]:
    by_name = {host.name: host for host in hosts}
    raw = {host.name: 0 for host in fit}

    def credit(other: Thing, key: str, weight: int) -> None:
        there = by_name[other.node].labels.get(key)
        for host in fit:
            if there is not None and host.labels.get(key) == there:
                raw[host.name] += weight

    for other in pods:
        for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
            for item in _affinity(pod, kind).get(PREFERRED) or []:
                if _selects(item["podAffinityTerm"], other):
                    credit(other, item["podAffinityTerm"]["topologyKey"], sign * item["weight"])
            for item in _affinity(other, kind).get(PREFERRED) or []:
                if _selects(item["podAffinityTerm"], pod):
                    credit(other, item["podAffinityTerm"]["topologyKey"], sign * item["weight"])
        for term in _affinity(other, "podAffinity").get(REQUIRED) or []:
            if _selects(term, pod):
                credit(other, term["topologyKey"], 1)
    low, high = min(raw.values()), max(raw.values())
    return {name: int(100.0 * ((value - low) / (high - low))) if high > low else 0 for name, value in raw.items()}


def _least(pod: Thing, host: Host, pods: list[Thing]) -> int:
    here = [*(other for other in pods if other.node == host.name), pod]
    cpu_m = sum(other.cpu_m or 100 for other in here)
    memory_bytes = sum(other.memory_bytes or 200 * 2**20 for other in here)
    cpu = max(0, host.cpu_m - cpu_m) * 100 // host.cpu_m
    memory = max(0, host.memory_bytes - memory_bytes) * 100 // host.memory_bytes
    return (cpu + memory) // 2


def _balance(pod: Thing, host: Host, pods: list[Thing]) -> int:
    if not pod.cpu_m and not pod.memory_bytes:
        return 0
    here = [*(other for other in pods if other.node == host.name), pod]
    cpu = min(1.0, sum(other.cpu_m for other in here) / host.cpu_m)
    memory = min(1.0, sum(other.memory_bytes for other in here) / host.memory_bytes)
    return int((1 - abs((cpu - memory) / 2)) * 100)
