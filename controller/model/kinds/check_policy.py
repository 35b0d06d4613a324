"""What the fields of a ResourceQuota or a LimitRange must agree on. Pure. Semantics: Kubernetes' own validation of core/v1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controller.model.kinds.meta import check_label_key
from controller.model.kinds.policy import (
    CLAIMED,
    COMPUTE,
    COUNTED,
    LEVELS,
    MODES,
    NEVER_USED,
    OF_CLASS,
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


# Behind these prefixes Kubernetes has resources that are none of ours; without a '/' only huge pages.
_PREFIXES = ("count/", "requests.", "limits.", "hugepages-")
_HUGE_PAGES = ("hugepages-", "requests.hugepages-")


def _hard(name: str, amount: str) -> Iterator[Problem]:
    at: Path = ("spec", "hard", name)
    if not _is_ours(name) and not _is_another_resource(name):
        yield at, "is nothing that a quota counts: pods, requests.cpu, limits.memory, count/jobs.batch, …"
        return
    counted = name in ("pods", *COUNTED, *NEVER_USED, CLAIMED[0]) or name.startswith("count/")
    if counted and exact(amount) % 1:
        yield at, f"must be a whole number, not {amount}"


def _is_ours(name: str) -> bool:
    if name == "pods" or name in COMPUTE or name in COUNTED or name in NEVER_USED or name in CLAIMED:
        return True
    return name.partition(OF_CLASS)[2] in ("requests.storage", "persistentvolumeclaims")


def _is_another_resource(name: str) -> bool:
    """Whether Kubernetes would count it, for kinds and devices that there are none of here."""
    try:
        check_label_key(name)
    except ValueError:
        return False
    return name.startswith(_HUGE_PAGES) or (name.startswith(_PREFIXES) and "/" in name)


def _quota(quota: ResourceQuota) -> Iterator[Problem]:
    spec = quota.spec
    for name, amount in spec.hard.items():
        yield from _hard(name, amount)
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
        scoped = name in COMPUTE and not name.endswith("ephemeral-storage")
        if name != "pods" and ("BestEffort" in names or not scoped):
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
    for name, given in (*ordered, ("maxLimitRequestRatio", item.max_limit_request_ratio)):
        if item.type != "PersistentVolumeClaim" and "storage" in given:
            yield (*at, name, "storage"), f"is of volume claims, not of type {item.type}"
    for number, (low_name, low) in enumerate(ordered):
        for high_name, high in ordered[number + 1 :]:
            for resource in low.keys() & high.keys():
                if exact(low[resource]) > exact(high[resource]):
                    yield (*at, low_name, resource), f"{low[resource]} is more than {high_name}, {high[resource]}"
    if item.type == "PersistentVolumeClaim" and not {"storage"} & (item.min.keys() | item.max.keys()):
        yield at, "needs min or max of storage for type PersistentVolumeClaim"
    for resource, ratio in item.max_limit_request_ratio.items():
        least, most = exact(item.min.get(resource, "0")), exact(item.max.get(resource, "0"))
        if exact(ratio) < 1:
            yield (*at, "maxLimitRequestRatio", resource), f"must be 1 at least, not {ratio}"
        elif least and most and exact(ratio) > most / least:
            yield (*at, "maxLimitRequestRatio", resource), f"is more than max / min, {float(most / least):g}"
