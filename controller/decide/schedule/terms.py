"""What a pod's spec says about other pods, in the form that placing uses. Pure.

In: a spec with its pod's labels, namespace and owner. Out: Terms. Semantics: InterPodAffinity and PodTopologySpread of Kubernetes'
scheduler, with its default constraints for replicas that have none of their own: hostname with maxSkew 3, zone with maxSkew 5,
both soft.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.model.kinds.meta import LabelSelector
from controller.model.kinds.pod import PodSpec
from controller.model.kinds.scheduling import PodAffinity, PodAffinityTerm, TopologySpreadConstraint

if TYPE_CHECKING:
    from controller.decide.schedule.usage import Crowd

_DEFAULT_SPREAD = (("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5))

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which pods a term speaks of."""

    selector: LabelSelector | None  # None: none at all
    namespaces: frozenset[str]
    same: Pairs = ()  # labels that must have these values: matchLabelKeys
    other: Pairs = ()  # labels that must not have these values: mismatchLabelKeys
    owner: str = ""  # not "": all pods of this owner instead

    def matches(self, crowd: Crowd) -> bool:
        if self.owner:
            return crowd.owner == self.owner
        labels = crowd.labels
        return (
            self.selector is not None
            and crowd.namespace in self.namespaces
            and self.selector.matches(dict(labels))
            and all(labels.get(key) == value for key, value in self.same)
            and all(labels.get(key) != value for key, value in self.other)
        )


@dataclass(frozen=True, slots=True)
class Term:
    """`weight` of a preference, negative to stay away."""

    key: str
    selection: Selection
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Spread:
    key: str
    selection: Selection
    max_skew: int
    hard: bool
    min_domains: int = 1
    honors_affinity: bool = True
    honors_taints: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    spread: tuple[Spread, ...] = ()
    default_spread: bool = False  # then a node without one of the labels still counts for the others
    near: tuple[Term, ...] = ()
    apart: tuple[Term, ...] = ()
    liked: tuple[Term, ...] = ()

    @property
    def names_others(self) -> bool:
        """Whether pods with these terms have a say in where others go."""
        return bool(self.near or self.apart or self.liked)


def terms_of(
    spec: PodSpec,
    labels: Mapping[str, str],
    namespace: str,
    owner: str,
    namespaces: Mapping[str, Mapping[str, str]],
) -> Terms:
    """Args: owner: uid of whose pods are spread by default, "" where that is nobody's; namespaces: every namespace with its labels."""

    def term(written: PodAffinityTerm, weight: int = 0) -> Term:
        chosen = set(written.namespaces)
        if written.namespace_selector is not None:
            selector = written.namespace_selector
            chosen |= {name for name, own in namespaces.items() if selector.matches(dict(own))}
        elif not chosen:
            chosen = {namespace}
        same, other = _pairs(written.match_label_keys, labels), _pairs(written.mismatch_label_keys, labels)
        return Term(written.topology_key, Selection(written.label_selector, frozenset(chosen), same, other), weight)

    def required(affinity: PodAffinity | None) -> tuple[Term, ...]:
        return tuple(map(term, affinity.required_during_scheduling_ignored_during_execution)) if affinity else ()

    def preferred(affinity: PodAffinity | None, sign: int) -> list[Term]:
        weighted = affinity.preferred_during_scheduling_ignored_during_execution if affinity else ()
        return [term(item.pod_affinity_term, sign * item.weight) for item in weighted]

    near = spec.affinity.pod_affinity if spec.affinity else None
    apart = spec.affinity.pod_anti_affinity if spec.affinity else None
    own = tuple(_spread(item, labels, namespace) for item in spec.topology_spread_constraints)
    return Terms(
        spread=own or _default_spread(owner),
        default_spread=not own,
        near=required(near),
        apart=required(apart),
        liked=(*preferred(near, 1), *preferred(apart, -1)),
    )


def _spread(written: TopologySpreadConstraint, labels: Mapping[str, str], namespace: str) -> Spread:
    same = _pairs(written.match_label_keys, labels)
    return Spread(
        key=written.topology_key,
        selection=Selection(written.label_selector, frozenset({namespace}), same),
        max_skew=written.max_skew,
        hard=written.when_unsatisfiable == "DoNotSchedule",
        min_domains=written.min_domains or 1,
        honors_affinity=written.node_affinity_policy == "Honor",
        honors_taints=written.node_taints_policy == "Honor",
    )


def _default_spread(owner: str) -> tuple[Spread, ...]:
    """Of others Kubernetes has no selector to count by."""
    if not owner:
        return ()
    selection = Selection(None, frozenset(), owner=owner)
    return tuple(Spread(key, selection, max_skew, hard=False) for key, max_skew in _DEFAULT_SPREAD)


def _pairs(keys: tuple[str, ...], labels: Mapping[str, str]) -> Pairs:
    """Keys that the pod itself lacks say nothing, as in Kubernetes."""
    return tuple((key, labels[key]) for key in keys if key in labels)
