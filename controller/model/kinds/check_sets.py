"""What the fields of DaemonSets and StatefulSets must agree on, beside what holds for all that make pods. Pure.

Semantics: Kubernetes' own validation of apps/v1.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.model.kinds.check_storage import claim_problems
from controller.model.kinds.meta import check_dns_label, is_more_than_all
from controller.model.kinds.sets import DaemonSet, RollingUpdateDaemonSet, StatefulSet

Path = tuple[str | int, ...]
Problem = tuple[Path, str]


def set_problems(thing: DaemonSet | StatefulSet) -> Iterator[Problem]:
    """Every problem that is not one of selector or template."""
    strategy = thing.spec.update_strategy
    at: Path = ("spec", "updateStrategy", "rollingUpdate")
    if isinstance(thing, DaemonSet):
        if thing.spec.template.spec.scheduling_gates:
            yield (
                ("spec", "template", "spec", "schedulingGates"),
                "may not be set here: these pods are made for their node",
            )
        if strategy.type == "RollingUpdate" and isinstance(strategy.rolling_update, RollingUpdateDaemonSet):
            yield from _daemon_rolling(strategy.rolling_update, at)
        return
    if strategy.type == "OnDelete" and strategy.rolling_update is not None:
        yield at, "may not be set when type is OnDelete"
    rolling = strategy.rolling_update
    if rolling is not None and _is_zero(rolling.max_unavailable):
        yield (*at, "maxUnavailable"), "may not be 0: nothing could ever be replaced"
    if rolling is not None and is_more_than_all(rolling.max_unavailable):
        yield (*at, "maxUnavailable"), f"may not be more than 100%, not {rolling.max_unavailable}"
    if thing.spec.service_name:
        yield from _service(thing.spec.service_name)
    yield from _claim_templates(thing)
    last = thing.spec.ordinals.start + max(0, thing.spec.replicas - 1)
    try:
        check_dns_label(f"{thing.metadata.name}-{last}")
    except ValueError:
        yield ("metadata", "name"), f"its pods are host names: {thing.metadata.name}-{last} must be a DNS label"


def _claim_templates(thing: StatefulSet) -> Iterator[Problem]:
    at: Path = ("spec", "volumeClaimTemplates")
    seen: set[str] = set()
    for index, template in enumerate(thing.spec.volume_claim_templates):
        name = template.metadata.name
        if name in seen:
            yield (*at, index, "metadata", "name"), f"{name!r} is there twice"
        seen.add(name)
        yield from claim_problems(template.spec, (*at, index, "spec"))


def _service(name: str) -> Iterator[Problem]:
    try:
        check_dns_label(name)
    except ValueError as error:
        yield ("spec", "serviceName"), str(error)


def _daemon_rolling(rolling: RollingUpdateDaemonSet, at: Path) -> Iterator[Problem]:
    no_unavailable, no_surge = _is_zero(rolling.max_unavailable), _is_zero(rolling.max_surge)
    if no_unavailable and no_surge:
        yield (*at, "maxUnavailable"), "may not be 0 when maxSurge is 0 too: nothing could ever be replaced"
    if not no_unavailable and not no_surge:
        yield (*at, "maxSurge"), "may only be set together with maxUnavailable: 0"
    for name, amount in (("maxUnavailable", rolling.max_unavailable), ("maxSurge", rolling.max_surge)):
        if is_more_than_all(amount):
            yield (*at, name), f"may not be more than 100%, not {amount}"


def _is_zero(amount: int | str) -> bool:
    return not str(amount).rstrip("%").strip("0")
