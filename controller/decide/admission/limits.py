"""LimitRanges: what containers get that say nothing of their resources, and what is too little or too much. Pure.

In: the limit ranges of a namespace and a pod's spec. Out: the resources of the containers that get something; or what is wrong.
Semantics: Kubernetes' LimitRanger admission plug-in. It looks at a pod when that is made, never again, and never at templates.

Worked example, default 500m, defaultRequest 200m: a container that says nothing has request 200m, limit 500m; one with limit 300m has the
request 300m, since a limit alone is a request too; one with request 600m would have a limit of 500m, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from controller.model.kinds.pod import Container, PodSpec
from controller.model.kinds.policy import LimitRange, LimitRangeItem
from controller.model.quantity import exact, format_exact

Resources = Mapping[str, Mapping[str, str]]  # {"requests": {…}, "limits": {…}}


def defaults_of(ranges: Sequence[LimitRange], spec: PodSpec) -> dict[str, Any]:
    """By container: its resources, for those that get something."""
    found: dict[str, Any] = {}
    for container in (*spec.init_containers, *spec.containers):
        limits = {str(name): text for name, text in container.resources.limits.items()}
        requests = {**limits, **{str(name): text for name, text in container.resources.requests.items()}}
        before = (dict(limits), {str(name): text for name, text in container.resources.requests.items()})
        for item in (item for one in ranges for item in one.spec.limits if item.type == "Container"):
            limits = {**{str(name): text for name, text in item.limit_of().items()}, **limits}
            requests = {**{str(name): text for name, text in item.request_of().items()}, **requests}
        if limits.keys() > before[0].keys() or requests.keys() - before[1].keys() - before[0].keys():
            found[container.name] = {"limits": limits, "requests": requests}
    return found


def objections(ranges: Sequence[LimitRange], spec: PodSpec) -> Iterator[str]:
    """What a pod, its defaults filled in, has too little or too much of."""
    for one in ranges:
        for item in one.spec.limits:
            if item.type == "Container":
                for container in (*spec.init_containers, *spec.containers):
                    sides = {side: _amounts(container, side) for side in ("requests", "limits")}
                    yield from _judge(item, f"container {container.name}", sides)
            elif item.type == "Pod":
                yield from _judge(item, "the pod", {side: totals(spec, side) for side in ("requests", "limits")})


def totals(spec: PodSpec, side: str) -> dict[str, Fraction]:
    """Requests or limits of a pod: containers and sidecars together, or the largest moment of the init phase.

    Only what some container names is in it, as in Kubernetes.
    """
    names = {name for item in (*spec.init_containers, *spec.containers) for name in _amounts(item, side)}
    return {name: _total(spec, side, name) for name in names}


def _total(spec: PodSpec, side: str, name: str) -> Fraction:
    peak = sidecars = Fraction(0)
    for item in spec.init_containers:
        amount = _amounts(item, side).get(name, Fraction(0))
        peak = max(peak, sidecars + amount)
        sidecars += amount if item.restart_policy == "Always" else 0
    return max(peak, sidecars + sum(_amounts(item, side).get(name, Fraction(0)) for item in spec.containers))


def _amounts(container: Container, side: str) -> dict[str, Fraction]:
    """A limit alone is a request too."""
    resources = container.resources
    given = resources.limits if side == "limits" else {**resources.limits, **resources.requests}
    return {str(name): exact(text) for name, text in given.items()}


def objections_to_claim(ranges: Sequence[LimitRange], request: str) -> list[str]:
    """Why a volume claim that asks for so much storage may not be made."""
    found = []
    for item in (item for one in ranges for item in one.spec.limits if item.type == "PersistentVolumeClaim"):
        least, most = item.min.get("storage"), item.max.get("storage")
        if least is not None and exact(request) < exact(least):
            found.append(f"it asks for {request} of storage, at least {least} per {item.type} is wanted")
        if most is not None and exact(request) > exact(most):
            found.append(f"it asks for {request} of storage, at most {most} per {item.type} is allowed")
    return found


def _judge(item: LimitRangeItem, who: str, sides: Mapping[str, Mapping[str, Fraction]]) -> Iterator[str]:
    requests, limits = sides["requests"], sides["limits"]
    for name, least in item.min.items():
        if name not in requests:
            yield f"{who} asks for no {name}, at least {least} per {item.type} is wanted"
        for side, amounts in sides.items():
            if name in amounts and amounts[name] < exact(least):
                yield f"{who} has {side}.{name} {format_exact(amounts[name])}, at least {least} per {item.type} is wanted"
    for name, most in item.max.items():
        if name not in limits:
            yield f"{who} has no limit of {name}, at most {most} per {item.type} is allowed"
        for side, amounts in sides.items():
            if name in amounts and amounts[name] > exact(most):
                yield f"{who} has {side}.{name} {format_exact(amounts[name])}, at most {most} per {item.type} is allowed"
    for name, ratio in item.max_limit_request_ratio.items():
        if not requests.get(name) or not limits.get(name):
            yield f"{who} needs a request and a limit of {name}, whose ratio may be {ratio} at most"
        elif limits[name] / requests[name] > exact(ratio):
            found = float(limits[name] / requests[name])
            yield f"{who} has a limit of {name} {found:g} times its request, {ratio} times at most is allowed"
