"""HorizontalPodAutoscalers: how many replicas their targets shall have. Pure; loaded when there is one.

In: the world with what pods used, as the agents sampled it. Out: targets with another number of replicas, and statuses that changed.
Semantics: Kubernetes' horizontal pod autoscaler (autoscaling/v2). What a metric asks for is computed in replicas.py; here it is held
back by windows and policies. Differences: no `behavior` is the default behaviour, written out; and between two passes that are minutes
apart (cron) the recommendations by each sample that the agents kept count for the windows as well.

Worked example: cpu at 50 % of the requests, 4 pods use 90 %: ceil(4 × 90/50) = 8. Four more or twice as many are allowed in 15 s: 8.
The load ends: ceil(8 × 5/50) = 1, but for 300 s some recommendation was 8, so 8 stay; then 1.

What is stored is a step function of recommendations, and what was scaled when: a steady load writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from controller.decide.pods import is_active
from controller.decide.replicas import Demand, Used, demand, measure
from controller.decide.stored import stored
from controller.decide.verbs import revisions_of, scale
from controller.model import quantity
from controller.model.cluster import Meta, Moment, Pod, ReplicaSet, StatusCondition, World
from controller.model.errors import UsageError
from controller.model.kinds.autoscaling import HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HPAScalingRules
from controller.model.plan import Change
from controller.model.policies import Autoscaler, AutoscalerStatus, Recommended, Scaled

PERIOD_S = 15.0
TICKS_MAX = 20  # samples that agents keep: five minutes
ABLE, ACTIVE, LIMITED = "AbleToScale", "ScalingActive", "ScalingLimited"
_TOLERANCE = Fraction(1, 10)

Record = Any  # a Deployment, ReplicaSet or StatefulSet


@dataclass(frozen=True, slots=True)
class Autoscaled:
    changes: tuple[Change, ...] = ()
    wake_s: tuple[float, ...] = ()


def autoscale(world: World, ages: Mapping[str, float], now: Moment) -> Autoscaled:
    """One evaluation of every autoscaler."""
    items = sorted(
        (item for item in world.policies.values() if isinstance(item, Autoscaler)), key=lambda item: item.meta.key
    )
    if not items:
        return Autoscaled()
    changes: list[Change] = []
    used, owned = Used(world), world.owned
    for item in items:
        changes += _Work(world, item, used, owned, ages, now).step()
    return Autoscaled(tuple(changes), (PERIOD_S,))


def current_metrics(world: World, item: Autoscaler, ages: Mapping[str, float], now: Moment) -> list[Demand]:
    """What each metric is now, in the order of the spec: for people. Empty when the target is not there."""
    work = _Work(world, item, Used(world), world.owned, ages, now)
    return work.demands(0.0) if work.target is not None else []


def spec_of(item: Autoscaler) -> HorizontalPodAutoscalerSpec:
    """The spec with Kubernetes' defaults."""
    return stored(HorizontalPodAutoscaler, item.source).spec


class _Work:
    def __init__(
        self,
        world: World,
        item: Autoscaler,
        used: Used,
        owned: Mapping[str, Sequence[Pod]],
        ages: Mapping[str, float],
        now: Moment,
    ) -> None:
        self.world, self.item, self.used, self.ages, self.now = world, item, used, ages, now
        self.spec = spec_of(item)
        self.target = _target(world, item.meta, self.spec)
        self.pods = _pods(world, owned, self.target) if self.target is not None else []
        self.current = replicas_of(self.target) if self.target is not None else 0
        # As in Kubernetes, what is there when an autoscaler comes is the first recommendation: it does not begin by taking away.
        self.recommended = item.status.recommended or (Recommended(self.current, now),)
        self.conditions = {one.kind: one for one in item.status.conditions}

    def step(self) -> list[Change]:
        target, status = self.target, self.item.status
        if target is None:
            reference = self.spec.scale_target_ref
            because = f"there is no {reference.kind} {reference.name} in namespace {self.item.meta.namespace}"
            self._condition(ABLE, False, "FailedGetScale", because)
            return self._told(replace(status, current_replicas=0))
        status = replace(status, current_replicas=self.current, recommended=self.recommended)
        self._condition(ABLE, True, "SucceededGetScale", "the target's number of replicas is known")
        if self.current == 0:
            self._condition(ACTIVE, False, "ScalingDisabled", "the target has been scaled to 0: that is left alone")
            return self._told(replace(status, desired_replicas=0))
        if not self.spec.min_replicas <= self.current <= self.spec.max_replicas:
            return self._bring_within()
        demands = self.demands(0.0)
        wanted, why = self._combined(demands)
        if wanted is None:
            return self._told(replace(status, desired_replicas=self.current))
        held, recommended = self._stabilized(wanted)
        allowed = self._limited(held)
        if allowed == self.current:
            if self.conditions[ABLE].reason == "SucceededGetScale":
                self._condition(ABLE, True, "ReadyForNewScale", "the recommended number of replicas is the present one")
            return self._told(self._status(allowed, recommended))
        return self._rescaled(allowed, why, recommended)

    # ---- what the metrics ask for ----

    def demands(self, ago_s: float) -> list[Demand]:
        """What each metric asks for by the samples of now, or of so many seconds ago."""
        behavior = self.spec.behavior
        up, down = _tolerance(behavior.up), _tolerance(behavior.down)
        found = []
        for metric in self.spec.counted:
            measured = measure(self.pods, metric, self.used, self.ages, self.now, ago_s)
            found.append(demand(metric, measured, self.current, up, down))
        return found

    def _combined(self, demands: Sequence[Demand]) -> tuple[int | None, str]:
        """The most that any metric asks for; where one does not tell, nothing goes down. None: none tells."""
        known = [one for one in demands if one.replicas is not None]
        troubles = [one.trouble for one in demands if one.replicas is None]
        best = max(known, key=lambda one: one.replicas or 0, default=None)
        wanted = best.replicas if best is not None else None
        if wanted is None or (troubles and wanted < self.current):
            self._condition(ACTIVE, False, "FailedGetResourceMetric", troubles[0] if troubles else "there is no metric")
            return None, ""
        assert best is not None
        self._condition(ACTIVE, True, "ValidMetricFound", f"the number of replicas could be computed from {best.name}")
        return wanted, f"{best.name} {'above' if wanted > self.current else 'below'} target"

    # ---- holding back ----

    def _stabilized(self, wanted: int) -> tuple[int, tuple[Recommended, ...]]:
        """Not above the least that was right during the window of scaling up, nor below the most during that of scaling down."""
        behavior = self.spec.behavior
        up_s, down_s = behavior.up.stabilization_window_seconds or 0, behavior.down.stabilization_window_seconds or 0
        history = _with_ticks(self.recommended, (), wanted, self.now)
        held = self._held(history, up_s, down_s)
        # What no pass has seen matters when something is about to change, or would be out of the agents' memory by then.
        if held != self.current or max(up_s, down_s) > TICKS_MAX * PERIOD_S:
            history = _with_ticks(self.recommended, self._between(), wanted, self.now)
            held = self._held(history, up_s, down_s)
        if held != wanted:
            if held < wanted:
                self._condition(
                    ABLE, True, "ScaleUpStabilized", "recent recommendations were lower: the lowest of them counts"
                )
            else:
                self._condition(
                    ABLE, True, "ScaleDownStabilized", "recent recommendations were higher: the highest of them counts"
                )
        # What has fallen out of the windows is dropped with the next step, never by a write of its own.
        is_same = history == self.recommended
        return held, self.recommended if is_same else _forgetting(history, max(up_s, down_s), self.now)

    def _held(self, history: Sequence[Recommended], up_s: float, down_s: float) -> int:
        least, most = min(_during(history, up_s, self.now)), max(_during(history, down_s, self.now))
        return min(max(self.current, least), most)

    def _between(self) -> list[tuple[float, int]]:
        """(seconds ago, recommendation) of samples that no pass has seen, oldest first. None from before the target was last scaled: pods
        that are gone have taken their samples with them."""
        since = [self.recommended[-1].moment, *(one.moment for one in self.item.status.scaled[-1:])]
        seen_s = min(self.now.since(moment) for moment in since)
        found = []
        for tick in range(min(TICKS_MAX, int(seen_s // PERIOD_S)), 0, -1):
            demands = self.demands(tick * PERIOD_S)
            known = [one.replicas for one in demands if one.replicas is not None and one.complete]
            if known and len(known) == len(demands):
                found.append((tick * PERIOD_S, max(known)))
        return found

    def _limited(self, wanted: int) -> int:
        """Within minReplicas and maxReplicas, and as fast as the policies allow."""
        spec, current = self.spec, self.current
        scaled = self.item.status.scaled
        if wanted > current:
            most = max(current, fastest_up(spec.behavior.up, current, scaled, self.now))
            if wanted > min(spec.max_replicas, most):
                if spec.max_replicas <= most:
                    self._condition(LIMITED, True, "TooManyReplicas", "more are wanted than maxReplicas allows")
                    return spec.max_replicas
                self._condition(LIMITED, True, "ScaleUpLimit", "more are wanted than may be added at once")
                return most
        elif wanted < current:
            least = min(current, fastest_down(spec.behavior.down, current, scaled, self.now))
            if wanted < max(spec.min_replicas, least):
                if spec.min_replicas >= least:
                    self._condition(LIMITED, True, "TooFewReplicas", "fewer are wanted than minReplicas allows")
                    return spec.min_replicas
                self._condition(LIMITED, True, "ScaleDownLimit", "fewer are wanted than may be taken at once")
                return least
        self._condition(LIMITED, False, "DesiredWithinRange", "the wanted number is within the range")
        return wanted

    # ---- what comes of it ----

    def _bring_within(self) -> list[Change]:
        """Limits are kept at once, whatever the metrics say."""
        least, most = self.spec.min_replicas, self.spec.max_replicas
        too_many = self.current > most
        reason = "TooManyReplicas" if too_many else "TooFewReplicas"
        self._condition(LIMITED, True, reason, f"the target had {self.current} replicas, {least} to {most} are allowed")
        why = f"the number of replicas was {'above maxReplicas' if too_many else 'below minReplicas'}"
        return self._rescaled(most if too_many else least, why, self.recommended)

    def _rescaled(self, wanted: int, why: str, recommended: tuple[Recommended, ...]) -> list[Change]:
        assert self.target is not None
        try:
            changes = scale(self.world, self.target, wanted)
        except UsageError as error:
            self._condition(ABLE, False, "FailedUpdateScale", error.message)
            return self._told(self._status(self.current, recommended))
        because = f"{self.item.meta.name}: new size {wanted}, was {self.current}: {why}"
        moved = [replace(change, because=because, reason="SuccessfulRescale") for change in changes]
        self._condition(ABLE, True, "SucceededRescale", f"the target was scaled to {wanted}")
        fresh = self._status(wanted, recommended)
        fresh = replace(fresh, last_scale=self.now, scaled=(*fresh.scaled, Scaled(wanted - self.current, self.now)))
        return [*moved, *self._told(fresh, because)]

    def _status(self, desired: int, recommended: tuple[Recommended, ...]) -> AutoscalerStatus:
        behavior = self.spec.behavior
        policies = (*(behavior.up.policies or ()), *(behavior.down.policies or ()))
        longest_s = max((policy.period_seconds for policy in policies), default=0)
        before = self.item.status
        # What no rule looks back to is dropped with the next change, never by a write of its own.
        scaled = tuple(one for one in before.scaled if self.now.since(one.moment) <= longest_s)
        kept = scaled if recommended != before.recommended or desired != before.desired_replicas else before.scaled
        return replace(
            before, current_replicas=self.current, desired_replicas=desired, recommended=recommended, scaled=kept
        )

    def _told(self, status: AutoscalerStatus, because: str = "") -> list[Change]:
        conditions = tuple(self.conditions[kind] for kind in (ABLE, ACTIVE, LIMITED) if kind in self.conditions)
        fresh = replace(
            self.item,
            status=replace(status, observed_generation=self.item.meta.generation, conditions=conditions),
        )
        if fresh == self.item:
            return []
        if because:
            return [Change("update", fresh, because, "SuccessfulRescale")]
        failing = [
            one
            for one in conditions
            if one.kind in (ABLE, ACTIVE) and not one.status and one not in self.item.status.conditions
        ]
        if failing and failing[0].reason != "ScalingDisabled":
            return [Change("update", fresh, failing[0].message, failing[0].reason, warning=True)]
        return [Change("update", fresh, f"the status of {self.item.meta.name} changed", quiet=True)]

    def _condition(self, kind: str, status: bool, reason: str, message: str) -> None:
        before = next((one for one in self.item.status.conditions if one.kind == kind), None)
        moment = before.moment if before is not None and before.status == status else self.now
        self.conditions[kind] = StatusCondition(kind, status, reason, message, moment)


# ---- policies -------------------------------------------------------------------------------------------------------


def fastest_up(rules: HPAScalingRules, current: int, scaled: Sequence[Scaled], now: Moment) -> int:
    """The most replicas that the policies allow now.

    10 replicas, of which 3 were added within the period; 100 % per period: 10 - 3 = 7 were there at its beginning, so at most 14.
    """
    if rules.select_policy == "Disabled":
        return current
    proposals = []
    for policy in rules.policies or ():
        start = current - _moved(scaled, policy.period_seconds, now)
        proposals.append(
            start + policy.value if policy.type == "Pods" else math.ceil(Fraction(start * (100 + policy.value), 100))
        )
    return max(proposals) if rules.select_policy == "Max" else min(proposals)


def fastest_down(rules: HPAScalingRules, current: int, scaled: Sequence[Scaled], now: Moment) -> int:
    """The fewest replicas that the policies allow now. 5 replicas, 10 %: 4 (4.5 rounds down)."""
    if rules.select_policy == "Disabled":
        return current
    proposals = []
    for policy in rules.policies or ():
        start = current - _moved(scaled, policy.period_seconds, now)
        left = (
            start - policy.value if policy.type == "Pods" else math.floor(Fraction(start * (100 - policy.value), 100))
        )
        proposals.append(max(0, left))
    return min(proposals) if rules.select_policy == "Max" else max(proposals)


def _moved(scaled: Sequence[Scaled], period_s: float, now: Moment) -> int:
    """By how many the target grew in the period."""
    return sum(one.by for one in scaled if now.since(one.moment) < period_s)


def _tolerance(rules: HPAScalingRules) -> Fraction:
    return _TOLERANCE if rules.tolerance is None else quantity.exact(rules.tolerance)


# ---- recommendations over time --------------------------------------------------------------------------------------


def _with_ticks(
    before: Sequence[Recommended], ticks: Sequence[tuple[float, int]], wanted: int, now: Moment
) -> tuple[Recommended, ...]:
    """The step function with what came since: a step only where the recommendation is another one."""
    steps = list(before)
    for ago_s, replicas in (*ticks, (0.0, wanted)):
        if not steps or steps[-1].replicas != replicas:
            moment = Moment(now.wall_s - ago_s, now.boot_id, now.boottime_s - ago_s)
            steps.append(Recommended(replicas, moment))
    return tuple(steps)


def _during(steps: Sequence[Recommended], window_s: float, now: Moment) -> list[int]:
    """What was recommended within the window, the present included. A step holds until the next one."""
    found = []
    for step, later in zip(steps, (*steps[1:], None), strict=True):
        if later is None or now.since(later.moment) < window_s:
            found.append(step.replicas)
    return found


def _forgetting(steps: Sequence[Recommended], window_s: float, now: Moment) -> tuple[Recommended, ...]:
    """Without what has fallen out of the window; bounded, the oldest go first."""
    kept = [
        step
        for step, later in zip(steps, (*steps[1:], None), strict=True)
        if later is None or now.since(later.moment) < window_s
    ]
    return tuple(kept[-_STEPS_MAX:])


_STEPS_MAX = 256  # one every 15 s for an hour, the longest window


# ---- the target -----------------------------------------------------------------------------------------------------


def _target(world: World, meta: Meta, spec: HorizontalPodAutoscalerSpec) -> Record | None:
    reference = spec.scale_target_ref
    tables: dict[str, Mapping[str, Any]] = {
        "Deployment": world.deployments,
        "ReplicaSet": world.replica_sets,
        "StatefulSet": world.workloads,
    }
    wanted = (reference.kind, meta.namespace, reference.name)
    for record in tables[reference.kind].values():
        found = record.meta
        if (found.kind, found.namespace, found.name) == wanted and found.deleting is None:
            return record
    return None


def replicas_of(record: Record) -> int:
    """How many the target shall have."""
    if isinstance(record, ReplicaSet):
        return record.replicas
    replicas = record.source["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def _pods(world: World, owned: Mapping[str, Sequence[Pod]], target: Record) -> list[Pod]:
    owners = [target.meta.uid]
    if target.meta.kind == "Deployment":
        owners = [item.meta.uid for item in revisions_of(world, target)]
    found = (pod for uid in owners for pod in owned.get(uid, ()) if is_active(pod))
    return sorted(found, key=lambda pod: pod.meta.key)
