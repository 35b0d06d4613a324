"""The rules of namespaces: what LimitRanges add and forbid, Pod Security, quotas, in Kubernetes' order. Pure.

In: the world, then pod templates one after the other. Out: a Verdict for each; what was admitted counts against the quotas for the next.
Loaded when there is a rule.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from controller.decide.admission import limits, quota, security
from controller.decide.admission.gate import FREE, Verdict
from controller.decide.owners import with_defaults
from controller.decide.schedule.priority import Priorities
from controller.decide.schedule.volumes import spec_of_claim
from controller.decide.shapes import Shapes, shape_of
from controller.decide.stored import stored
from controller.model.cluster import Pod, VolumeClaim, World
from controller.model.kinds.pod import PodSpec
from controller.model.kinds.policy import COUNTED, PRIVILEGED, LimitRange, ResourceQuota
from controller.model.quantity import exact


class Rules:
    """Of all namespaces of a world, during one pass or one `apply`."""

    def __init__(self, world: World, counted: World | None = None) -> None:
        """`counted`: whose records count as used, where that is not the world that has the rules."""
        self._counted = counted or world
        self._ranges: dict[str, list[LimitRange]] = defaultdict(list)
        self._quotas: dict[str, list[ResourceQuota]] = defaultdict(list)
        self._levels: dict[str, security.Level] = {}
        for item in sorted(world.declared.values(), key=lambda item: item.meta.key):
            if item.meta.kind == "LimitRange":
                self._ranges[item.meta.namespace].append(stored(LimitRange, item.source))
            elif item.meta.kind == "ResourceQuota":
                self._quotas[item.meta.namespace].append(stored(ResourceQuota, item.source))
            elif item.meta.kind == "Namespace":
                level = security.policy_of(item.meta.labels).enforce
                if level.name != PRIVILEGED:
                    self._levels[item.meta.name] = level
        self._world = world
        self._judged: dict[tuple[str, str], Verdict] = {}
        self._used: dict[str, list[quota.Used]] = {}
        self._asks: dict[
            tuple[str, str], dict[str, quota.Amounts]
        ] = {}  # by template: what its pods take of which quota

    def admit(self, template: Mapping[str, Any], namespace: str) -> Verdict:
        """One pod, which counts as made when nothing is against it."""
        if namespace not in self._levels and namespace not in self._ranges and namespace not in self._quotas:
            return FREE
        key = (namespace, json.dumps(template, sort_keys=True))
        if key not in self._judged:
            self._judged[key] = self._judge(template, namespace)
        verdict = self._judged[key]
        if not verdict.why and verdict.shape is not None and namespace in self._quotas:
            verdict = replace(verdict, why=self._take(key, self._with_class(verdict.shape.spec)))
        return verdict

    def admit_object(self, kind: str, namespace: str) -> str:
        """One object that is no pod: why it may not be made; "" when it counts as made."""
        used = self.used(namespace) if namespace in self._quotas else []
        asks = [{name: Fraction(1) for name in one.quota.spec.hard if COUNTED.get(name) == kind} for one in used]
        return self._take_all(namespace, used, asks)

    def admit_claim(self, claim: VolumeClaim) -> str:
        """One volume claim: why it may not be made; "" when it counts as made."""
        namespace = claim.meta.namespace
        request = spec_of_claim(claim).resources.requests.get("storage", "0")
        if problems := limits.objections_to_claim(self._ranges.get(namespace, ()), request):
            return "; ".join(problems)
        used = self.used(namespace) if namespace in self._quotas else []
        return self._take_all(namespace, used, [quota.asked_of_claim(one.quota.spec, claim) for one in used])

    def used(self, namespace: str) -> list[quota.Used]:
        """The quotas of a namespace with what is used of them, what was admitted here included."""
        if namespace not in self._used:
            shapes = Shapes(self._counted)

            def spec_of(pod: Pod) -> PodSpec | None:
                shape = shapes.of(pod)
                return self._with_class(shape.spec) if shape is not None else None

            self._used[namespace] = quota.used_of(self._counted, self._quotas.get(namespace, ()), spec_of)
        return self._used[namespace]

    @cached_property
    def _default_class(self) -> str:
        return Priorities(self._world).default

    def _with_class(self, spec: PodSpec) -> PodSpec:
        """As quotas see it: a pod without a PriorityClass has the default one."""
        name = spec.priority_class_name or self._default_class
        return spec if spec.priority_class_name == name else spec.model_copy(update={"priority_class_name": name})

    def _judge(self, template: Mapping[str, Any], namespace: str) -> Verdict:
        shape = shape_of(template, namespace)
        ranges = self._ranges.get(namespace, ())
        defaults = limits.defaults_of(ranges, shape.spec)
        if defaults:
            shape = shape_of(with_defaults(template, defaults), namespace)
        problems = [*_beyond_limits(shape.spec), *limits.objections(ranges, shape.spec)]
        level = self._levels.get(namespace, security.Level())
        broken = security.violations(level, shape.spec, shape.annotations)
        if broken:
            problems.append(f'violates PodSecurity "{level}": {"; ".join(broken)}')
        return Verdict("; ".join(problems), defaults, shape)

    def _take(self, key: tuple[str, str], spec: PodSpec) -> str:
        """Counts a pod against all quotas that it falls under, or against none and says why."""
        namespace, _ = key
        used = self.used(namespace)
        if key not in self._asks:
            mine = [one.quota for one in used if quota.matches(one.quota.spec.requirements, spec)]
            self._asks[key] = {item.metadata.name: quota.asked(item.spec, spec) for item in mine}
        asks = self._asks[key]
        for one in used:
            names = quota.unsaid(one.quota.spec, spec) if one.quota.metadata.name in asks else ()
            if names:
                return f"failed quota: {one.quota.metadata.name}: each container must say {', '.join(names)}"
        return self._take_all(namespace, used, [asks.get(one.quota.metadata.name, {}) for one in used])

    def _take_all(self, namespace: str, used: Sequence[quota.Used], asks: Sequence[quota.Amounts]) -> str:
        """Counts that much against each quota, or nothing against any and says why."""
        for one, more in zip(used, asks, strict=True):
            if why := quota.too_much(one, more):
                return why
        if any(asks):
            self._used[namespace] = [
                replace(
                    one, amounts={**one.amounts, **{name: one.amounts[name] + amount for name, amount in more.items()}}
                )
                for one, more in zip(used, asks, strict=True)
            ]
        return ""


def _beyond_limits(spec: PodSpec) -> list[str]:
    """A default limit may be less than what a container asks for: then it is no valid pod."""
    found = []
    for item in (*spec.init_containers, *spec.containers):
        for name, request in item.resources.requests.items():
            limit = item.resources.limits.get(name)
            if limit is not None and exact(request) > exact(limit):
                found.append(f"container {item.name} asks for {request} of {name}, more than its limit, {limit}")
    return found
