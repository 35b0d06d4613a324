"""What disruption budgets allow. Pure; loaded when there is a budget, or a node is drained.

In: the world, and which pods are ready. Out: how each budget stands, and whether a pod may be made to go. Only what is done on purpose
asks here (drain, preemption, rebalance): a host that is lost asks nobody, and a rollout has its own promise.
Semantics: Kubernetes' disruption controller and eviction subresource (policy/v1).

Worked example: 7 replicas, minAvailable 50 %: 4 must stay healthy (3.5 rounds up); with 6 healthy, 2 may go. maxUnavailable 30 %: 3 may be
missing (2.1 rounds up), so that 4 must stay healthy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from controller.decide.pods import is_active
from controller.decide.stored import stored
from controller.model.cluster import Pod, World
from controller.model.kinds.disruption import PodDisruptionBudget, PodDisruptionBudgetSpec
from controller.model.kinds.workloads import scaled
from controller.model.plan import Change
from controller.model.policies import Budget, BudgetStatus
from nodeagent import protocol


class Budgets:
    """All budgets over one world; what they allow shrinks with each pod that is let go.

    Args:
        ready: uids of pods that are ready, as heard in this pass: of a silent host nothing is.
    """

    def __init__(self, world: World, ready: Collection[str]) -> None:
        self._ready = ready
        found = (item for item in world.policies.values() if isinstance(item, Budget))
        self._budgets = sorted(found, key=lambda item: item.meta.key)
        self._specs = {item.meta.uid: _spec(item) for item in self._budgets}
        self._over: dict[str, list[Budget]] = defaultdict(list)  # by uid of the pod
        self.statuses: dict[str, BudgetStatus] = {}  # by uid of the budget
        spaces: dict[str, list[Pod]] = defaultdict(list)
        for pod in world.pods.values() if self._budgets else ():
            spaces[pod.meta.namespace].append(pod)
        for item in self._budgets:
            pods = _selected(self._specs[item.meta.uid], spaces[item.meta.namespace])
            for pod in pods:
                self._over[pod.meta.uid].append(item)
            self.statuses[item.meta.uid] = self._judge(world, item, pods)

    def refusal(self, pod: Pod) -> str:
        """Why a pod may not be made to go; "" when it may, and then it counts as gone."""
        budgets = self._over.get(pod.meta.uid, ())
        if not budgets or not is_active(pod) or _is_pending(pod):
            return ""
        if len(budgets) > 1:
            names = ", ".join(item.meta.name for item in budgets)
            return f"more than one disruption budget covers it ({names}): none of them can be kept then"
        item = budgets[0]
        status, spec = self.statuses[item.meta.uid], self._specs[item.meta.uid]
        if pod.meta.uid not in self._ready:
            enough = 0 < status.desired_healthy <= status.current_healthy
            if spec.unhealthy_pod_eviction_policy == "AlwaysAllow" or enough:
                return ""
        if status.disruptions_allowed > 0:
            self.statuses[item.meta.uid] = replace(
                status,
                disruptions_allowed=status.disruptions_allowed - 1,
                current_healthy=status.current_healthy - (pod.meta.uid in self._ready),
            )
            return ""
        return f"disruption budget {item.meta.name} allows none to go: {_standing(status)}"

    def waits_for_room(self, pod: Pod) -> bool:
        """Whether one more healthy pod would let this one go."""
        return (
            len(self._over.get(pod.meta.uid, ())) == 1
            and not self.statuses[self._over[pod.meta.uid][0].meta.uid].trouble
        )

    def violated_by(self, pods: Iterable[Pod]) -> frozenset[str]:
        """Uids of those pods that no budget lets go, when they go together, the first ones first. Nothing is counted as gone."""
        left = {uid: status.disruptions_allowed for uid, status in self.statuses.items()}
        found = set()
        for pod in pods:
            for item in self._over.get(pod.meta.uid, ()):
                left[item.meta.uid] -= 1
                if left[item.meta.uid] < 0:
                    found.add(pod.meta.uid)
        return frozenset(found)

    def gone(self, pods: Iterable[Pod]) -> None:
        """They are being stopped, whatever the budgets say: from now on these stand as the next pass would find them."""
        for pod in pods:
            if pod.meta.uid not in self._ready or not is_active(pod):
                continue  # it was none of the healthy ones
            for item in self._over.get(pod.meta.uid, ()):
                status = self.statuses[item.meta.uid]
                self.statuses[item.meta.uid] = replace(
                    status,
                    disruptions_allowed=max(0, status.disruptions_allowed - 1),
                    current_healthy=status.current_healthy - 1,
                )

    def _judge(self, world: World, item: Budget, pods: Sequence[Pod]) -> BudgetStatus:
        spec = self._specs[item.meta.uid]
        expected, trouble = _expected(world, spec, pods)
        healthy = sum(pod.meta.uid in self._ready and is_active(pod) for pod in pods)
        if spec.max_unavailable is not None:
            desired = max(0, expected - scaled(spec.max_unavailable, expected, up=True))
        else:
            desired = scaled(spec.min_available or 0, expected, up=True)
        is_set = spec.max_unavailable is not None or spec.min_available is not None
        allowed = max(0, healthy - desired) if expected and is_set and not trouble else 0
        return BudgetStatus(item.meta.generation, healthy, desired, allowed, expected, trouble)


def judge_budgets(world: World, ready: Collection[str]) -> tuple[Change, ...]:
    """The budgets' statuses where they changed."""
    if not any(isinstance(item, Budget) for item in world.policies.values()):
        return ()
    statuses = Budgets(world, ready).statuses
    changes = []
    for item in sorted(world.policies.values(), key=lambda item: item.meta.key):
        if isinstance(item, Budget) and item.status != statuses[item.meta.uid]:
            fresh = replace(item, status=statuses[item.meta.uid])
            changes.append(Change("update", fresh, f"the status of {item.meta.name} changed", quiet=True))
    return tuple(changes)


def _spec(item: Budget) -> PodDisruptionBudgetSpec:
    return stored(PodDisruptionBudget, item.source).spec


def _selected(spec: PodDisruptionBudgetSpec, pods: Iterable[Pod]) -> list[Pod]:
    """Pods of one template have the same labels, mostly: each set of them is compared once."""
    selector = spec.selector
    if selector is None:
        return []
    known: dict[tuple[tuple[str, str], ...], bool] = {}
    found = []
    for pod in pods:
        labels = tuple(pod.meta.labels.items())
        matches = known.get(labels)
        if matches is None:
            matches = known[labels] = selector.matches(dict(labels))
        if matches:
            found.append(pod)
    return sorted(found, key=lambda pod: pod.meta.key)


def _expected(world: World, spec: PodDisruptionBudgetSpec, pods: Sequence[Pod]) -> tuple[int, str]:
    """How many pods there shall be, and why that is not known. A plain minAvailable asks only how many there are."""
    if isinstance(spec.min_available, int):
        return len(pods), ""
    if spec.min_available is None and spec.max_unavailable is None:
        return 0, ""
    scales: dict[str, int] = {}
    for pod in pods:
        owner = pod.meta.owner
        if owner is None:
            continue  # nothing says how many of it there shall be
        found = _scale(world, owner.uid)
        if found is None:
            return 0, f"{pod.meta.name} belongs to {owner.kind} {owner.name}, which has no number of replicas"
        scales[found[0]] = found[1]
    return sum(scales.values()), ""


def _scale(world: World, uid: str) -> tuple[str, int] | None:
    """The object that has the number of replicas, and the number."""
    item = world.replica_sets.get(uid)
    if item is not None:
        above = world.deployments.get(item.meta.owner.uid) if item.meta.owner is not None else None
        return (uid, item.replicas) if above is None else (above.meta.uid, _written(above.source))
    workload = world.workloads.get(uid)
    if workload is None or workload.meta.kind != "StatefulSet":
        return None
    source: Mapping[str, object] = getattr(workload, "source", {})
    return uid, _written(source)


def _written(source: Mapping[str, object]) -> int:
    spec = source["spec"]
    assert isinstance(spec, Mapping)
    replicas = spec.get("replicas")
    return 1 if replicas is None else int(replicas)


def _is_pending(pod: Pod) -> bool:
    """It serves nobody yet: no budget speaks for it."""
    return pod.report is None or pod.report.phase == protocol.PENDING


def _standing(status: BudgetStatus) -> str:
    return status.trouble or f"{status.current_healthy} healthy, {status.desired_healthy} have to be"
