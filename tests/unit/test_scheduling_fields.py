"""The fields that say where a pod may run: what is read, what is refused and where, and what the selectors match."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.model.errors import ManifestError
from controller.model.kinds.scheduling import NodeSelectorRequirement, NodeSelectorTerm
from controller.model.manifest import load, parse_object

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def pod(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], **spec},
    }


def problems(thing: dict[str, Any]) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load(json.dumps(thing), "a.yaml")
    return [line.removeprefix("a.yaml:1: ") for line in str(caught.value).splitlines()]


def node_required(**expression: Any) -> dict[str, Any]:
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}}


def node_field(**field: Any) -> dict[str, Any]:
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": [field]}]}}}}


def pod_term(kind: str = "podAffinity", **term: Any) -> dict[str, Any]:
    return {"affinity": {kind: {REQUIRED: [{"topologyKey": "zone", **term}]}}}


def spread(**fields: Any) -> dict[str, Any]:
    constraint = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", **fields}
    return {"topologySpreadConstraints": [{key: value for key, value in constraint.items() if value is not None}]}


NODE = f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0]"
NEAR = f"spec.affinity.podAffinity.{REQUIRED}[0]"
SPREAD = "spec.topologySpreadConstraints[0]"

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("In without values", node_required(key="a", operator="In"), f"{NODE}.matchExpressions[0].values: must not be empty for In"),
    ("Exists with values", node_required(key="a", operator="Exists", values=["b"]), f"{NODE}.matchExpressions[0].values: must be empty for Exists"),
    ("Gt with two", node_required(key="a", operator="Gt", values=["1", "2"]), f"{NODE}.matchExpressions[0].values: must hold exactly one value for Gt"),
    ("Lt with a word", node_required(key="a", operator="Lt", values=["x"]), f"{NODE}.matchExpressions[0].values: must hold a whole number for Lt, not 'x'"),
    ("Gt with two signs", node_required(key="a", operator="Gt", values=["-+5"]), f"{NODE}.matchExpressions[0].values: must hold a whole number for Gt, not '-+5'"),
    ("no such operator", node_required(key="a", operator="Is", values=["x"]), f"{NODE}.matchExpressions[0].operator: must be In, NotIn, Exists, DoesNotExist, Gt or Lt, not 'Is'"),
    ("no such field", node_field(key="metadata.uid", operator="In", values=["n1"]), f"{NODE}.matchFields[0].key: must be metadata.name, not 'metadata.uid'"),
    ("field with Exists", node_field(key="metadata.name", operator="Exists"), f"{NODE}.matchFields[0].operator: must be In or NotIn for a field, not Exists"),
    ("field with two", node_field(key="metadata.name", operator="In", values=["a", "b"]), f"{NODE}.matchFields[0].values: must hold exactly one value for a field"),
    ("no terms", {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": []}}}}, f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms: must have at least one term"),
    ("weight", {"affinity": {"nodeAffinity": {PREFERRED: [{"weight": 101, "preference": {}}]}}}, f"spec.affinity.nodeAffinity.{PREFERRED}[0].weight: must be at most 100"),
    ("no topology key", {"affinity": {"podAffinity": {REQUIRED: [{"labelSelector": {}}]}}}, f"{NEAR}.topologyKey: is required"),
    ("label selector", pod_term(labelSelector={"matchExpressions": [{"key": "a", "operator": "In"}]}), f"{NEAR}.labelSelector.matchExpressions[0].values: must not be empty for In"),
    ("match label keys alone", pod_term(matchLabelKeys=["a"]), f"{NEAR}.matchLabelKeys: may only be set together with labelSelector"),
    ("match and mismatch", pod_term(labelSelector={}, matchLabelKeys=["a"], mismatchLabelKeys=["a"]), f"{NEAR}.mismatchLabelKeys[0]: 'a' is in matchLabelKeys too"),
    ("skew 0", spread(maxSkew=0), f"{SPREAD}.maxSkew: must be at least 1"),
    ("no skew", spread(maxSkew=None), f"{SPREAD}.maxSkew: is required"),
    ("soft minDomains", spread(whenUnsatisfiable="ScheduleAnyway", minDomains=2), f"{SPREAD}.minDomains: may only be set when whenUnsatisfiable is DoNotSchedule"),
    ("key in selector", spread(labelSelector={"matchLabels": {"a": "b"}}, matchLabelKeys=["a"]), f"{SPREAD}.matchLabelKeys[0]: 'a' is in labelSelector too"),
    ("a policy", spread(nodeTaintsPolicy="Maybe"), f"{SPREAD}.nodeTaintsPolicy: must be Honor or Ignore, not 'Maybe'"),
    ("twice", {"topologySpreadConstraints": 2 * spread()["topologySpreadConstraints"]}, "spec.topologySpreadConstraints[1]: repeats the topologyKey and whenUnsatisfiable of topologySpreadConstraints[0]"),
    ("toleration key", {"tolerations": [{"key": "a b"}]}, "spec.tolerations[0].key: key 'a b' must be 1–63 letters, digits, '-', '_' or '.' (after an optional prefix and '/'), and begin and end with a letter or digit"),
    ("preemption policy", {"preemptionPolicy": "Always"}, "spec.preemptionPolicy: must be PreemptLowerPriority or Never, not 'Always'"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "problem"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_cannot_be_meant_is_refused_with_its_place(spec: dict[str, Any], problem: str) -> None:
    assert problems(pod(**spec)) == [problem]


def test_defaults_of_a_spread_constraint() -> None:
    thing: Any = parse_object("Pod", pod(**spread()))
    [constraint] = thing.spec.topology_spread_constraints
    assert (constraint.min_domains, constraint.label_selector) == (None, None)
    assert (constraint.node_affinity_policy, constraint.node_taints_policy) == ("Honor", "Ignore")


def test_the_priority_that_a_server_worked_out_from_the_class_is_left_out_with_a_note() -> None:
    dumped = pod(priorityClassName="high", priority=1000)
    dumped["metadata"]["uid"] = "00000000-0000-4000-8000-000000000001"
    loaded = load(json.dumps(dumped), "a.yaml")
    assert loaded.warnings == ("a.yaml:1: left out what the API server wrote: metadata.uid, spec.priority",)
    assert "priority" not in loaded.manifests[0].source["spec"]


def priority_class(name: str = "high", **fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": 1000,
        **fields,
    }


def test_a_priority_class_lies_in_no_namespace_and_has_kubernetes_defaults() -> None:
    [manifest] = load(json.dumps(priority_class("very.high")), "a.yaml").manifests
    thing: Any = manifest.object
    assert thing.key == ("PriorityClass", "", "very.high")
    assert (thing.value, thing.global_default, thing.preemption_policy) == (1000, False, "PreemptLowerPriority")


@pytest.mark.parametrize(
    ("name", "fields", "problem"),
    [
        ("system-mine", {}, "metadata.name: may not begin with 'system-': those classes are built in"),
        ("high", {"value": 1_000_000_001}, "value: must be at most 1000000000: what lies above is the system's"),
        ("high", {"value": "1"}, "value: must be a whole number, not a text"),
    ],
)
def test_a_users_priorities_stay_below_the_systems(name: str, fields: dict[str, Any], problem: str) -> None:
    assert problems(priority_class(name, **fields)) == [problem]


@pytest.mark.parametrize(
    ("operator", "values", "labels", "matches"),
    [
        ("In", ["a", "b"], {"k": "b"}, True),
        ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"k": "b"}, True),
        ("NotIn", ["a"], {"k": "a"}, False),
        ("NotIn", ["a"], {}, True),
        ("Exists", [], {"k": ""}, True),
        ("Exists", [], {}, False),
        ("DoesNotExist", [], {}, True),
        ("DoesNotExist", [], {"k": ""}, False),
        ("Gt", ["5"], {"k": "6"}, True),
        ("Gt", ["5"], {"k": "5"}, False),
        ("Gt", ["-5"], {"k": "-4"}, True),
        ("Gt", ["5"], {"k": "six"}, False),
        ("Gt", ["5"], {}, False),
        ("Lt", ["5"], {"k": "4"}, True),
        ("Lt", ["5"], {"k": "5"}, False),
        ("Lt", ["5"], {"k": "4.5"}, False),
    ],
)
def test_a_node_requirement_matches_as_in_kubernetes(
    operator: Any, values: list[str], labels: dict[str, str], matches: bool
) -> None:
    assert NodeSelectorRequirement(key="k", operator=operator, values=tuple(values)).matches(labels) == matches


def test_an_empty_term_matches_no_node_and_fields_and_labels_must_both_hold() -> None:
    assert not NodeSelectorTerm().matches("n1", {})
    here = NodeSelectorRequirement(key="metadata.name", operator="In", values=("n1",))
    ssd = NodeSelectorRequirement(key="disk", operator="In", values=("ssd",))
    term = NodeSelectorTerm(match_fields=(here,), match_expressions=(ssd,))
    assert term.matches("n1", {"disk": "ssd"})
    assert not term.matches("n2", {"disk": "ssd"})
    assert not term.matches("n1", {})
