"""What the fields of a ResourceQuota or a LimitRange must agree on. Pure. Semantics: Kubernetes' own validation of core/v1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controller.model.kinds.policy import (
    COMPUTE,
    LEVELS,
    MODES,
    PREFIX,
    VERSION,
    LimitRange,
    LimitRangeItem,
    ResourceQuota,
)
from controller.model.quantity import exact

Path = tuple[str | int, ...]
Problem = tuple[Path, str]

_OPPOSITES = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))


def label_problems(labels: Mapping[str, str]) -> Iterator[Problem]:
    """Labels of Pod Security on a namespace, as the API server refuses them."""
    for mode in MODES:
        level, version = labels.get(PREFIX + mode), labels.get(f"{PREFIX}{mode}-version")
        if level is not None and level not in LEVELS:
            yield (
                ("metadata", "labels", PREFIX + mode),
                f"must be {', '.join(LEVELS[:-1])} or {LEVELS[-1]}, not {level!r}",
            )
        if version is not None and version != "latest" and not VERSION.fullmatch(version):
            path: Path = ("metadata", "labels", f"{PREFIX}{mode}-version")
            yield path, f"must be latest or a version such as v1.31, not {version!r}"


def policy_problems(thing: ResourceQuota | LimitRange) -> Iterator[Problem]:
    """Every problem."""
    if isinstance(thing, ResourceQuota):
        yield from _quota(thing)
        return
    kinds: set[str] = set()
    for index, item in enumerate(thing.spec.limits):
        at: Path = ("spec", "limits", index)
        if item.type in kinds:
            yield (*at, "type"), f"{item.type} is there twice"
        kinds.add(item.type)
        yield from _limits(item, at)


def _quota(quota: ResourceQuota) -> Iterator[Problem]:
    spec = quota.spec
    names = [item.scope_name for item in spec.requirements]
    for one, other in _OPPOSITES:
        if one in names and other in names:
            yield ("spec", "scopes"), f"{one} and {other} together match no pod"
    for index, item in enumerate(spec.scope_selector.match_expressions if spec.scope_selector else ()):
        at: Path = ("spec", "scopeSelector", "matchExpressions", index)
        if item.operator in ("In", "NotIn"):
            if item.scope_name != "PriorityClass":
                yield (*at, "operator"), f"must be Exists for the scope {item.scope_name}"
            if not item.values:
                yield (*at, "values"), f"must name one at least for {item.operator}"
        elif item.values:
            yield (*at, "values"), f"may not be set for {item.operator}"
        elif item.operator == "DoesNotExist" and item.scope_name != "PriorityClass":
            yield (*at, "operator"), f"must be Exists for the scope {item.scope_name}"
    for name in spec.hard if names else ():
        if name != "pods" and ("BestEffort" in names or name not in COMPUTE):
            yield ("spec", "hard", name), "cannot be counted with these scopes"


def _limits(item: LimitRangeItem, at: Path) -> Iterator[Problem]:
    if item.type == "Pod":
        for name, given in (("default", item.default), ("defaultRequest", item.default_request)):
            if given:
                yield (*at, name), "may not be set for type Pod"
    ordered = (
        ("min", item.min),
        ("defaultRequest", item.default_request),
        ("default", item.default),
        ("max", item.max),
    )
    for number, (low_name, low) in enumerate(ordered):
        for high_name, high in ordered[number + 1 :]:
            for resource in low.keys() & high.keys():
                if exact(low[resource]) > exact(high[resource]):
                    yield (*at, low_name, resource), f"{low[resource]} is more than {high_name}, {high[resource]}"
    for resource, ratio in item.max_limit_request_ratio.items():
        if exact(ratio) < 1:
            yield (*at, "maxLimitRequestRatio", resource), f"must be 1 at least, not {ratio}"
