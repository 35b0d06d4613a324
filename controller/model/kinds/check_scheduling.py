"""What the fields of affinity, spread, tolerations and PriorityClass must agree on, as the API server checks it. Pure.

In: parts of an object whose shape is right, and their path. Out: problems as in check.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.model.kinds.meta import LabelSelector, check_label_key, check_label_value, shown
from controller.model.kinds.pod import PodSpec, Toleration
from controller.model.kinds.scheduling import (
    BUILT_IN_PRIORITIES,
    INTEGER,
    LARGEST_USER_PRIORITY,
    NodeAffinity,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    PodAffinity,
    PodAffinityTerm,
    PriorityClass,
    TopologySpreadConstraint,
)

Path = tuple[str | int, ...]
Problem = tuple[Path, str]

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def scheduling_problems(spec: PodSpec, at: Path) -> Iterator[Problem]:
    """Every problem of the fields that say where a pod may run."""
    for index, toleration in enumerate(spec.tolerations):
        yield from _toleration(toleration, (*at, "tolerations", index))
    if spec.affinity is not None:
        if spec.affinity.node_affinity is not None:
            yield from _node_affinity(spec.affinity.node_affinity, (*at, "affinity", "nodeAffinity"))
        for name, affinity in (
            ("podAffinity", spec.affinity.pod_affinity),
            ("podAntiAffinity", spec.affinity.pod_anti_affinity),
        ):
            if affinity is not None:
                yield from _pod_affinity(affinity, (*at, "affinity", name))
    seen: dict[tuple[str, str], int] = {}
    for index, constraint in enumerate(spec.topology_spread_constraints):
        here: Path = (*at, "topologySpreadConstraints", index)
        yield from _spread(constraint, here)
        key = (constraint.topology_key, constraint.when_unsatisfiable)
        if key in seen:
            yield here, f"repeats the topologyKey and whenUnsatisfiable of topologySpreadConstraints[{seen[key]}]"
        seen.setdefault(key, index)


def priority_class_problems(thing: PriorityClass) -> Iterator[Problem]:
    """A user's classes stay below the system's."""
    built_in = BUILT_IN_PRIORITIES.get(thing.metadata.name)
    if built_in is not None:
        if thing.value != built_in:
            yield ("value",), f"must be {built_in}: {thing.metadata.name} is built in"
        return
    if thing.metadata.name.startswith("system-"):
        yield ("metadata", "name"), "may not begin with 'system-': those classes are built in"
    if thing.value > LARGEST_USER_PRIORITY:
        yield ("value",), f"must be at most {LARGEST_USER_PRIORITY}: what lies above is the system's"


def requirements_problems(selector: LabelSelector, at: Path) -> Iterator[Problem]:
    """Of a label selector's matchExpressions; `at` is their path."""
    for index, requirement in enumerate(selector.match_expressions):
        yield from _values(requirement.operator, requirement.values, (*at, index, "values"))


def _values(operator: str, values: tuple[str, ...], at: Path) -> Iterator[Problem]:
    needs_values = operator in ("In", "NotIn")
    if needs_values != bool(values):
        yield at, f"{'must not be empty' if needs_values else 'must be empty'} for {operator}"


def _toleration(toleration: Toleration, at: Path) -> Iterator[Problem]:
    if toleration.key:
        yield from _syntax(toleration.key, (*at, "key"), key=True)
    if not toleration.key and toleration.operator != "Exists":
        yield (*at, "operator"), "must be Exists when key is empty"
    if toleration.operator == "Exists" and toleration.value:
        yield (*at, "value"), "must be empty when operator is Exists"
    elif toleration.value:
        yield from _syntax(toleration.value, (*at, "value"), key=False)
    if toleration.toleration_seconds is not None and toleration.effect != "NoExecute":
        yield (*at, "effect"), "must be NoExecute when tolerationSeconds is set"


# --- nodes ---------------------------------------------------------------------------------------------------------


def _node_affinity(affinity: NodeAffinity, at: Path) -> Iterator[Problem]:
    required = affinity.required_during_scheduling_ignored_during_execution
    if required is not None:
        here: Path = (*at, _REQUIRED, "nodeSelectorTerms")
        if not required.node_selector_terms:
            yield here, "must have at least one term"
        for index, term in enumerate(required.node_selector_terms):
            yield from _node_term(term, (*here, index))
    for index, preferred in enumerate(affinity.preferred_during_scheduling_ignored_during_execution):
        yield from _node_term(preferred.preference, (*at, _PREFERRED, index, "preference"))


def _node_term(term: NodeSelectorTerm, at: Path) -> Iterator[Problem]:
    for index, requirement in enumerate(term.match_expressions):
        here: Path = (*at, "matchExpressions", index)
        yield from _syntax(requirement.key, (*here, "key"), key=True)
        yield from _node_requirement(requirement, here)
    for index, requirement in enumerate(term.match_fields):
        here = (*at, "matchFields", index)
        if requirement.key != "metadata.name":
            yield (*here, "key"), f"must be metadata.name, not {shown(requirement.key)}"
        if requirement.operator not in ("In", "NotIn"):
            yield (*here, "operator"), f"must be In or NotIn for a field, not {requirement.operator}"
        elif len(requirement.values) != 1:
            yield (*here, "values"), "must hold exactly one value for a field"


def _node_requirement(requirement: NodeSelectorRequirement, at: Path) -> Iterator[Problem]:
    here: Path = (*at, "values")
    if requirement.operator in ("Gt", "Lt"):
        if len(requirement.values) != 1:
            yield here, f"must hold exactly one value for {requirement.operator}"
        elif not INTEGER.fullmatch(requirement.values[0]):
            yield here, f"must hold a whole number for {requirement.operator}, not {shown(requirement.values[0])}"
        return
    yield from _values(requirement.operator, requirement.values, here)
    for index, value in enumerate(requirement.values):
        yield from _syntax(value, (*here, index), key=False)


# --- other pods ----------------------------------------------------------------------------------------------------


def _pod_affinity(affinity: PodAffinity, at: Path) -> Iterator[Problem]:
    for index, term in enumerate(affinity.required_during_scheduling_ignored_during_execution):
        yield from _pod_term(term, (*at, _REQUIRED, index))
    for index, weighted in enumerate(affinity.preferred_during_scheduling_ignored_during_execution):
        yield from _pod_term(weighted.pod_affinity_term, (*at, _PREFERRED, index, "podAffinityTerm"))


def _pod_term(term: PodAffinityTerm, at: Path) -> Iterator[Problem]:
    for name, selector in (("labelSelector", term.label_selector), ("namespaceSelector", term.namespace_selector)):
        if selector is not None:
            yield from requirements_problems(selector, (*at, name, "matchExpressions"))
    for name, keys in (("matchLabelKeys", term.match_label_keys), ("mismatchLabelKeys", term.mismatch_label_keys)):
        yield from _label_keys(keys, term.label_selector, (*at, name))
    for index, key in enumerate(term.mismatch_label_keys):
        if key in term.match_label_keys:
            yield (*at, "mismatchLabelKeys", index), f"{shown(key)} is in matchLabelKeys too"


def _spread(constraint: TopologySpreadConstraint, at: Path) -> Iterator[Problem]:
    if constraint.min_domains is not None and constraint.when_unsatisfiable != "DoNotSchedule":
        yield (*at, "minDomains"), "may only be set when whenUnsatisfiable is DoNotSchedule"
    if constraint.label_selector is not None:
        yield from requirements_problems(constraint.label_selector, (*at, "labelSelector", "matchExpressions"))
    yield from _label_keys(constraint.match_label_keys, constraint.label_selector, (*at, "matchLabelKeys"))


def _label_keys(keys: tuple[str, ...], selector: LabelSelector | None, at: Path) -> Iterator[Problem]:
    if keys and selector is None:
        yield at, "may only be set together with labelSelector"
    known = {item.key for item in selector.match_expressions} | set(selector.match_labels) if selector else set()
    for index, key in enumerate(keys):
        if key in known:
            yield (*at, index), f"{shown(key)} is in labelSelector too"


def _syntax(text: str, at: Path, *, key: bool) -> Iterator[Problem]:
    try:
        _ = check_label_key(text) if key else check_label_value(text)
    except ValueError as error:
        yield at, str(error)
