"""How many replicas one metric asks for. Pure.

In: the pods of a target and what they used. Out: a number, or why there is none.
Semantics: Kubernetes' replica calculator (autoscaling/v2). Pods that are not ready yet use nothing when the number would go up,
and do not count when it would go down; pods without samples use nothing when it would go up, and all of the target when it would
go down. Where that turns the direction round, nothing is changed.

Worked example: target 50 %, 3 pods that ask for 1 cpu each, of which two use 800m and one has no sample yet. 80 % of those that
are known: up. The third counts as 0 %: 1600m of 3000m are 53 %, within a tenth of the target, so 3 stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from controller.decide.shapes import Shapes
from controller.model import quantity
from controller.model.cluster import Moment, Pod, Seen, World
from controller.model.kinds.autoscaling import MetricSpec, MetricTarget, Resource
from controller.model.kinds.pod import Container, PodSpec
from nodeagent import protocol
from nodeagent.protocol import Sample

CPU_INITIALIZATION_S = 300.0
STALE_S = 60.0  # an older sample says nothing of now


@dataclass(frozen=True, slots=True)
class Measured:
    """Pods by uid. Processor in millionths of a cpu, memory in bytes."""

    used: Mapping[str, int] = field(default_factory=dict)  # of pods that count
    requests: Mapping[str, int] = field(default_factory=dict)  # of all pods; empty when they are not asked for
    unready: frozenset[str] = frozenset()  # too young for their processor time to say anything
    missing: frozenset[str] = frozenset()  # without samples
    trouble: str = ""  # why utilization has no meaning


@dataclass(frozen=True, slots=True)
class Demand:
    """What a metric asks for. `replicas` None: `trouble` says why not."""

    name: str
    replicas: int | None = None
    trouble: str = ""
    utilization: int | None = None  # percent of the requests, of pods that are ready
    average: int | None = None  # per pod
    complete: bool = False  # every pod was counted


class Used:
    """All samples that agents told in this pass of their own pods, and what pods ask for."""

    def __init__(self, world: World) -> None:
        self.shapes = Shapes(world)
        self._told: dict[tuple[str, str], tuple[float, tuple[Sample, ...]]] = {}
        for name, sighting in world.sightings.items():
            if isinstance(sighting, Seen) and sighting.usage is not None:
                usage = sighting.usage
                for one in usage.containers:
                    pod = world.pods.get(one.uid)
                    if pod is not None and pod.node == name:  # a host may say what it likes of others' pods
                        self._told[one.uid, one.container] = (usage.boottime_s, one.samples)

    def at(self, uid: str, container: str, ago_s: float) -> tuple[float, Sample] | None:
        """A container's newest sample of so many seconds ago, with its age."""
        told_s, samples = self._told.get((uid, container), (0.0, ()))
        for sample in reversed(samples):
            age_s = told_s - sample.at_s
            if age_s >= ago_s:
                return (age_s, sample) if age_s < ago_s + STALE_S else None
        return None


def measure(
    pods: Sequence[Pod],
    metric: MetricSpec,
    seen: Used,
    ages: Mapping[str, float],
    now: Moment,
    ago_s: float = 0.0,
) -> Measured:
    """What the pods used now, or so many seconds ago.

    Args:
        ages: for how long pods have been ready.
    """
    source = metric.source
    is_cpu = source.name == "cpu"
    used: dict[str, int] = {}
    requests: dict[str, int] = {}
    unready, missing = set(), set()
    trouble = ""
    for pod in pods:
        uid = pod.meta.uid
        shape = seen.shapes.of(pod)
        containers = _counting(shape.spec, metric.container) if shape is not None else []
        if source.target.type == "Utilization":
            requested = [_request(one, source.name) for one in containers]
            if not containers or None in requested:
                where = metric.container or next(
                    (c.name for c, r in zip(containers, requested, strict=True) if r is None), ""
                )
                trouble = trouble or f"container {where} of pod {pod.meta.name} has no request for {source.name}"
            requests[uid] = sum(one for one in requested if one is not None)
        found = [seen.at(uid, one.name, ago_s) for one in containers]
        known = [one for one in found if one is not None]
        if pod.report is None or pod.report.phase == protocol.PENDING:
            unready.add(uid)
        elif not known or len(known) < len(found):
            missing.add(uid)
        elif is_cpu and _is_too_young(pod, known, ages.get(uid), now):
            unready.add(uid)
        else:
            used[uid] = sum(one.cpu_u if is_cpu else one.memory_bytes for _, one in known)
    return Measured(used, requests, frozenset(unready), frozenset(missing), trouble)


def demand(metric: MetricSpec, measured: Measured, current: int, up: Fraction, down: Fraction) -> Demand:
    """The number of replicas that a metric asks for.

    Args:
        current: how many the target shall have now.
        up, down: how far from the target nothing is changed, as a fraction of it.
    """
    source = metric.source
    name = f"{source.name} of container {metric.container}" if metric.container else source.name
    used, target = dict(measured.used), source.target
    if measured.trouble:
        return Demand(name, trouble=measured.trouble)
    if not used:
        return Demand(name, trouble=f"no pod has told yet what {name} it uses (they might not be ready)")
    complete = not measured.unready and not measured.missing
    average = sum(used.values()) // len(used)
    percent = _percent(used, measured.requests) if target.type == "Utilization" else None
    if target.type == "Utilization" and percent is None:
        return Demand(name, trouble=f"the requests for {source.name} are 0")

    def told(replicas: int) -> Demand:
        return Demand(name, replicas, "", percent, average, complete)

    ratio = _ratio(target, used, measured.requests, source.name)
    counts_unready = bool(measured.unready) and ratio > 1
    if not counts_unready and not measured.missing:
        return told(current if _is_near(ratio, up, down) else math.ceil(ratio * len(used)))
    for uid in measured.missing:
        if ratio < 1:
            used[uid] = _presumed(target, measured.requests.get(uid, 0), source.name)
        elif ratio > 1:
            used[uid] = 0
    if counts_unready:
        used.update(dict.fromkeys(measured.unready, 0))
    again = _ratio(target, used, measured.requests, source.name)
    if _is_near(again, up, down) or (ratio < 1 < again) or (again < 1 < ratio):
        return told(current)
    replicas = math.ceil(again * len(used))
    if (again < 1 and replicas > current) or (again > 1 and replicas < current):
        return told(current)
    return told(replicas)


def _ratio(target: MetricTarget, used: Mapping[str, int], requests: Mapping[str, int], name: str) -> Fraction:
    if target.type == "Utilization":
        assert target.average_utilization is not None
        return Fraction(_percent(used, requests) or 0, target.average_utilization)
    return Fraction(sum(used.values()) // len(used), _value(target, name))


def _percent(used: Mapping[str, int], requests: Mapping[str, int]) -> int | None:
    """In whole percent, rounded down, as Kubernetes computes it."""
    whole = sum(requests[uid] for uid in used)
    return sum(used.values()) * 100 // whole if whole else None


def _presumed(target: MetricTarget, request: int, name: str) -> int:
    """Of a pod without figures, on the way down: all that it asks for, or the target where that is more."""
    if target.type == "Utilization":
        assert target.average_utilization is not None
        return request * max(100, target.average_utilization) // 100
    return _value(target, name)


def _value(target: MetricTarget, name: str) -> int:
    assert target.average_value is not None
    exact = quantity.exact(target.average_value)
    return max(1, math.ceil(exact * 1_000_000 if name == "cpu" else exact))


def _is_near(ratio: Fraction, up: Fraction, down: Fraction) -> bool:
    return 1 - down <= ratio <= 1 + up


# ---- pods -----------------------------------------------------------------------------------------------------------


def _counting(spec: PodSpec, container: str) -> list[Container]:
    """Containers that run as long as the pod, or the one that is named."""
    lasting = [*spec.containers, *(one for one in spec.init_containers if one.restart_policy == "Always")]
    return [one for one in lasting if not container or one.name == container]


def _request(container: Container, name: Resource) -> int | None:
    text = container.resources.request(name)
    if text is None:
        return None
    return quantity.cpu_millicores(text) * 1000 if name == "cpu" else quantity.memory_bytes(text)


def _is_too_young(pod: Pod, samples: Sequence[tuple[float, Sample]], ready_s: float | None, now: Moment) -> bool:
    """In its first five minutes a pod counts once a whole sample lies after it got ready: starting costs what serving does not."""
    if now.since(pod.bound or pod.meta.created) >= CPU_INITIALIZATION_S:
        return False
    return ready_s is None or any(age_s + sample.window_s > ready_s for age_s, sample in samples)
