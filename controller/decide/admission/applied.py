"""What the rules of namespaces say of a user's `apply`: refusals, warnings, what is kept for the record. Pure.

In: what became of each manifest. Out: the same, pods with what LimitRanges give them; or Forbidden with every refusal. Pods of workloads
are judged when they are made; here who applies a workload is warned of what they will meet, as Kubernetes does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from controller.decide.admission import security
from controller.decide.admission.rules import Rules
from controller.decide.shapes import Shapes, shape_of
from controller.model.cluster import Declared, Pod, Record, VolumeClaim, World
from controller.model.errors import Forbidden
from controller.model.plan import Change, changed

if TYPE_CHECKING:
    from controller.decide.verbs import Applied

_NAMED_MAX = 5  # pods in a warning


def judged(world: World, applied: Sequence[Applied], places: Sequence[str]) -> tuple[Applied, ...]:
    """Args:
        world: before it.
        places: file:line of each, for messages.
    Raises: Forbidden.
    """
    rules = changed(world, [one.change for one in applied if one.change and isinstance(one.change.record, Declared)])
    labels = {item.meta.name: item.meta.labels for item in rules.declared.values() if item.meta.kind == "Namespace"}
    admission = Rules(rules, counted=world)
    refusals: list[str] = []
    outcome: list[Applied] = []
    for one, place in zip(applied, places, strict=True):
        change = one.change
        if change is not None and (why := _second_default(rules, change.record)):
            refusals.append(f"{place}: priorityclass {one.name} is forbidden: {why}")
        if change is not None and one.outcome == "created" and one.namespace:
            change, why = _admitted(change, admission)
            if why:
                refusals.append(f"{place}: {one.kind.lower()} {one.namespace}/{one.name} is forbidden: {why}")
        one = replace(one, change=change)
        if change is not None and one.kind == "Namespace":
            one = replace(one, warnings=tuple(namespace_warnings(world, rules, change.record)))
        elif change is not None and one.namespace in labels:
            one = _noted(one, change.record, security.policy_of(labels[one.namespace]))
        outcome.append(one)
    if refusals:
        raise Forbidden(
            "\n".join(refusals),
            hint="nothing was changed; `sshoal describe namespace/NAME` shows the rules of a namespace",
        )
    return tuple(outcome)


def _admitted(change: Change, admission: Rules) -> tuple[Change, str]:
    record = change.record
    if isinstance(record, VolumeClaim):
        return change, admission.admit_claim(record)
    if not isinstance(record, Pod):
        return change, admission.admit_object(record.meta.kind, record.meta.namespace)
    verdict = admission.admit(_template(record), record.meta.namespace)
    return replace(change, record=replace(record, defaults=verdict.defaults)), verdict.why


def _second_default(rules: World, record: Record) -> str:
    """Why a PriorityClass may not be the default of pods without one: there is another."""
    if record.meta.kind != "PriorityClass" or not (isinstance(record, Declared) and record.source.get("globalDefault")):
        return ""
    others = [
        item.meta.name
        for item in rules.declared.values()
        if item.meta.kind == "PriorityClass" and item.source.get("globalDefault") and item.meta.uid != record.meta.uid
    ]
    return f"{min(others)} has globalDefault already, and there can be one only" if others else ""


def _noted(one: Applied, record: Record, policy: security.Policy) -> Applied:
    """With what the namespace's `warn` and `audit` find in an object that makes pods."""
    template = _template(record)
    if template is None or policy == security.Policy():
        return one
    shape = shape_of(template, record.meta.namespace)
    subject = f"{one.kind.lower()} {record.meta.key}"
    if found := security.violations(policy.warn, shape.spec, shape.annotations):
        warning = f'{subject} would violate PodSecurity "{policy.warn}": {"; ".join(found)}'
        one = replace(one, warnings=(*one.warnings, warning))
    if found := security.violations(policy.audit, shape.spec, shape.annotations):
        because = f'{subject} would violate PodSecurity "{policy.audit}": {"; ".join(found)}'
        one = replace(one, audit=Change("update", record, because, "PodSecurityAudit", warning=True))
    return one


def _template(record: Record) -> Any:
    """The pod template of whatever makes pods; None of anything else."""
    if isinstance(record, Pod):
        source = record.source or {}
        return {"metadata": source.get("metadata") or {}, "spec": source.get("spec") or {}}
    if record.meta.kind == "Deployment":
        return record.source["spec"]["template"]  # type: ignore[union-attr]
    return getattr(record, "template", None)


def namespace_warnings(before: World, rules: World, space: Record) -> Iterator[str]:
    """Pods that are there already stay, whatever a new level says; it is told which would not be made again."""
    policy = security.policy_of(space.meta.labels)
    former = before.declared.get(space.meta.uid)
    if former is not None and security.policy_of(former.meta.labels).enforce == policy.enforce:
        return
    shapes = Shapes(rules)
    names = []
    for pod in sorted(rules.pods.values(), key=lambda pod: pod.meta.key):
        shape = shapes.of(pod) if pod.meta.namespace == space.meta.name and pod.stop is None else None
        if shape is not None and security.violations(policy.enforce, shape.spec, shape.annotations):
            names.append(pod.meta.name)
    if names:
        more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
        listed = ", ".join(names[:_NAMED_MAX])
        yield f'pods of namespace {space.meta.name} violate the new level "{policy.enforce}" and stay: {listed}{more}'
