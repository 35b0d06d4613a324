"""Where the pods of one crowd may go, and like to, because of the pods that are there already. Not pure: placing counts on.

In: a crowd and the index. Out: an Axis for each topology key that its terms name; each counts pods per domain (a zone, a host …) and
says what a node of a domain with such counts is worth. Semantics: InterPodAffinity and PodTopologySpread of Kubernetes' scheduler.

Worked example: maxSkew 1 over zones, two pods in a, one in b, none in c. The least is 0, so that a third in a (3 - 0) or a second in b
(2 - 0) is too many, and the pod goes to c. Then the least is 1, and b may get its second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controller.decide.schedule.rejection import Rejection
from controller.decide.schedule.scores import HARD_AFFINITY_WEIGHT, spread_weight
from controller.decide.schedule.terms import Spread, Term
from controller.decide.schedule.usage import HOSTNAME, Crowd, Index, Room

Counts = tuple[int, ...]
# Whether a constraint's policies let a node count; None where they let all.
_Included = Callable[[Spread], Callable[[Room], bool] | None]


@dataclass(slots=True)
class Tally:
    """Something that is counted per domain. `step`: by how much one more pod of the crowd raises it.

    `is_first`, of required affinity: no such pod is anywhere yet, and this is one, so that it may go anywhere.
    """

    role: str  # near | apart | liked | hard | soft
    counts: dict[str, int]
    step: int
    words: str = ""
    is_first: bool = False
    nodes: Container[str] | None = None  # of a spread: whose pods count; None: all
    max_skew: int = 0
    weight: float = 0.0
    least: int = 0  # of a hard spread: the count of the emptiest domain
    histogram: Counter[int] = field(default_factory=Counter)
    domains_short: bool = False  # fewer domains than minDomains: the least is 0

    def add(self, domain: str, count: int) -> None:
        before = self.counts.get(domain, 0)
        self.counts[domain] = before + count
        if self.role == "hard":
            self.histogram[before] -= 1
            self.histogram[before + count] += 1
            self.find_least()

    def find_least(self) -> None:
        """From where it was: counts only grow."""
        if not self.domains_short and self.counts:
            while not self.histogram[self.least]:
                self.least += 1


@dataclass(frozen=True, slots=True)
class Worth:
    """What all nodes of a domain have in common. `spread` is None where a soft constraint's label is missing."""

    rejection: Rejection | None
    liking: int
    spread: float | None


class Axis:
    """One topology key."""

    def __init__(self, key: str, domain_of: Mapping[str, str], tallies: list[Tally], whole_spread: bool) -> None:
        self.key = key
        self.domain_of = domain_of
        self.tallies = tallies
        self._whole_spread = whole_spread
        self._worth: dict[Counts, Worth] = {}
        self._at: dict[str, Counts] = {}
        self._counted = {domain for tally in tallies for domain, count in tally.counts.items() if count}
        self._nothing = (0,) * len(tallies)
        self._without = self._judge_missing()

    def counts_at(self, domain: str) -> Counts:
        if domain not in self._counted:
            return self._nothing
        found = self._at.get(domain)
        if found is None:
            found = self._at[domain] = tuple([tally.counts.get(domain, 0) for tally in self.tallies])
        return found

    def worth(self, counts: Counts | None) -> Worth:
        """Args: counts: None for a node without the label."""
        if counts is None:
            return self._without
        found = self._worth.get(counts)
        if found is None:
            found = self._worth[counts] = self._judge(counts)
        return found

    def place(self, domain: str, node: str) -> bool:
        """One more pod of the crowd is in the domain, on that node. Whether that changes anything."""
        changed = False
        for tally in self.tallies:
            if tally.step and (tally.nodes is None or node in tally.nodes):
                least = tally.least
                tally.add(domain, tally.step)
                changed = True
                if tally.least != least:
                    self._worth.clear()
        if changed:
            self._counted.add(domain)
            self._at.pop(domain, None)
        return changed

    def not_the_first(self) -> None:
        """From now on required affinity wants a pod that is there."""
        for tally in self.tallies:
            tally.is_first = False
        self._worth.clear()

    def _judge(self, counts: Counts) -> Worth:
        rejection: Rejection | None = None
        liking = 0
        spread = 0.0
        for tally, count in zip(self.tallies, counts, strict=True):
            if tally.role == "liked":
                liking += count
            elif tally.role == "soft":
                spread += count * tally.weight + (tally.max_skew - 1)
            elif rejection is None:
                rejection = self._rejection(tally, count)
        return Worth(rejection, liking, spread)

    def _rejection(self, tally: Tally, count: int) -> Rejection | None:
        where = f"its {self.key}"
        if tally.role == "near" and not count and not tally.is_first:
            return Rejection("podAffinity", f"has no pod of {tally.words} in {where}, which podAffinity requires")
        if tally.role == "apart" and count:
            return Rejection("podAntiAffinity", f"has a pod in {where} that podAntiAffinity keeps apart")
        if tally.role == "hard" and count + tally.step - tally.least > tally.max_skew:
            text = f"would have {count + tally.step} pods in {where}, more than {tally.max_skew} above the least ({tally.least})"
            return Rejection("topologySpread", text, -count)
        return None

    def _judge_missing(self) -> Worth:
        """Neither kept apart nor liked; but affinity and spread need the label."""
        rejection: Rejection | None = None
        for tally in self.tallies:
            if rejection is None and tally.role in ("near", "hard"):
                kind = "podAffinity" if tally.role == "near" else "topologySpread"
                rejection = Rejection(kind, f"lacks the label {self.key}, which {kind} needs")
        soft = any(tally.role == "soft" for tally in self.tallies)
        return Worth(rejection, 0, None if soft and self._whole_spread else 0.0)


def axes_of(
    crowd: Crowd, index: Index, included: _Included, fitting: Sequence[str], lasting: bool = False
) -> list[Axis]:
    """The axes of a crowd, counted.

    Args:
        included: by spread constraint, whether its policies let a node count.
        fitting: names of the nodes that are otherwise possible: soft spreads are weighted by how many domains they have.
        lasting: required affinity wants pods that are not leaving.
    """
    terms = crowd.terms
    known = [other for other in index.crowds() if other.terms.names_others]
    if not (terms.spread or terms.names_others or known):
        return []
    by_key: dict[str, list[Tally]] = {}
    if terms.near:
        _near(crowd, index, by_key, lasting)
    _apart(crowd, index, known, by_key)
    _liked(crowd, index, known, by_key)
    _spread(crowd, index, included, fitting, by_key)
    return [Axis(key, index.domains(key), tallies, not terms.default_spread) for key, tallies in sorted(by_key.items())]


def _near(crowd: Crowd, index: Index, by_key: dict[str, list[Tally]], lasting: bool) -> None:
    """Required affinity. A pod counts when it matches all terms together; the first of its kind may go anywhere."""
    near = crowd.terms.near

    def matches(other: Crowd) -> bool:
        return all(term.selection.matches(other) for term in near)

    others = [other for other in index.crowds() if matches(other) and not (lasting and other.leaving)]
    own = matches(crowd)
    counted = [_counted(others, index.domains(term.key)) for term in near]
    is_first = own and not any(counted)
    for term, counts in zip(near, counted, strict=True):
        by_key.setdefault(term.key, []).append(Tally("near", counts, int(own), _words(term), is_first))


def _apart(crowd: Crowd, index: Index, known: Iterable[Crowd], by_key: dict[str, list[Tally]]) -> None:
    """Required anti-affinity, both ways: what this crowd avoids, and who avoids it."""
    found: dict[str, dict[str, int]] = {}
    steps: Counter[str] = Counter()
    for term in crowd.terms.apart:
        others = [other for other in index.crowds() if term.selection.matches(other)]
        _add(found.setdefault(term.key, {}), _counted(others, index.domains(term.key)))
        steps[term.key] += term.selection.matches(crowd)
    for other in known:
        for term in other.terms.apart:
            if term.selection.matches(crowd):
                _add(found.setdefault(term.key, {}), _counted((other,), index.domains(term.key)))
    for key, counts in found.items():
        by_key.setdefault(key, []).append(Tally("apart", counts, steps[key]))


def _liked(crowd: Crowd, index: Index, known: Iterable[Crowd], by_key: dict[str, list[Tally]]) -> None:
    """Preferences, both ways, summed per key. A required affinity of others counts as a preference for those it names."""
    found: dict[str, dict[str, int]] = {}
    steps: Counter[str] = Counter()
    for term in crowd.terms.liked:
        others = [other for other in index.crowds() if term.selection.matches(other)]
        _add(found.setdefault(term.key, {}), _counted(others, index.domains(term.key), term.weight))
        steps[term.key] += 2 * term.weight * term.selection.matches(crowd)
    for term in crowd.terms.near:
        steps[term.key] += HARD_AFFINITY_WEIGHT * term.selection.matches(crowd)
    for other in known:
        weighted = [*((term, HARD_AFFINITY_WEIGHT) for term in other.terms.near)]
        weighted += [(term, term.weight) for term in other.terms.liked]
        for term, weight in weighted:
            if term.selection.matches(crowd):
                _add(found.setdefault(term.key, {}), _counted((other,), index.domains(term.key), weight))
    for key in found.keys() | {key for key, step in steps.items() if step}:
        by_key.setdefault(key, []).append(Tally("liked", found.get(key, {}), steps[key]))


def _spread(
    crowd: Crowd, index: Index, included: _Included, fitting: Sequence[str], by_key: dict[str, list[Tally]]
) -> None:
    terms = crowd.terms
    for hard in (True, False):
        constraints = [item for item in terms.spread if item.hard == hard]
        if not constraints:
            continue
        keys = [] if terms.default_spread else [item.key for item in constraints]
        needed = [index.domains(key) for key in keys]
        whole: Sequence[Room] = index.counted
        names = fitting
        if needed:
            whole = [room for room in whole if all(room.name in domain_of for domain_of in needed)]
            names = [name for name in fitting if all(name in domain_of for domain_of in needed)]
        for item in constraints:
            domain_of = index.domains(item.key)
            counts_for = included(item)
            rooms = [room.name for room in whole if room.name in domain_of and (counts_for is None or counts_for(room))]
            others = [
                other
                for other in (index.owned(item.selection.owner) if item.selection.owner else index.crowds())
                if not other.leaving and other.namespace == crowd.namespace and item.selection.matches(other)
            ]
            counts = dict.fromkeys((domain_of[name] for name in rooms), 0)
            counted = set(rooms)
            for other in others:
                for name, count in other.on.items():
                    if name in counted:
                        counts[domain_of[name]] += count
            tally = Tally("hard" if hard else "soft", counts, int(item.selection.matches(crowd)))
            tally.nodes, tally.max_skew = counted, item.max_skew
            if hard:
                tally.domains_short = len(counts) < item.min_domains
                tally.histogram = Counter(counts.values())
                tally.find_least()
            else:
                values = {domain_of.get(name, "") for name in names}
                tally.weight = spread_weight(len(names) if item.key == HOSTNAME else len(values))
            by_key.setdefault(item.key, []).append(tally)


def _counted(crowds: Iterable[Crowd], domain_of: Mapping[str, str], weight: int = 1) -> dict[str, int]:
    counts: dict[str, int] = {}
    for crowd in crowds:
        for name, count in crowd.on.items():
            domain = domain_of.get(name)
            if domain is not None and count:
                counts[domain] = counts.get(domain, 0) + count * weight
    return counts


def _add(into: dict[str, int], counts: Mapping[str, int]) -> None:
    for domain, count in counts.items():
        into[domain] = into.get(domain, 0) + count


def _words(term: Term) -> str:
    selector = term.selection.selector
    if selector is None:
        return "nothing"
    parts = [f"{key}={value}" for key, value in selector.match_labels.items()]
    parts += [" ".join((item.key, item.operator, ",".join(item.values))).strip() for item in selector.match_expressions]
    return ",".join(parts) or "any kind"
