"""Station 4. World × now → Plan. Pure: no clock, no dice, no I/O. Next: the plan's changes are committed, then the wanted sets are pushed.

Each step reads the world as the steps before it leave it, so that one pass takes an applied Deployment all the way to bound pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.decide import (
    cleanup,
    configroll,
    deployment,
    evict,
    nodes,
    pins,
    pods,
    replicaset,
    rollback,
    status,
    wanted,
)
from controller.decide.admission.gate import Admission
from controller.decide.check import check_plan
from controller.decide.phases import is_finished
from controller.decide.shapes import Shapes
from controller.model.cluster import Moment, Pod, World
from controller.model.plan import Change, NodeView, Plan, Unplaced, changed


def reconcile(world: World, now: Moment) -> Plan:
    """What to write, and what each node shall run, so that the world comes closer to what is declared.

    Raises: PlanBug when the outcome breaks an invariant; then nothing may be done.
    """
    steps = _Steps(world)

    judged = nodes.judge(world, now)
    views = judged.views
    steps.take(judged.changes)

    before = steps.world
    steps.take(pods.fold(steps.world, views, now))
    restored = _restored(before, steps.world)
    evicted = evict.evict(steps.world, views, judged.brake, Shapes(steps.world), now)
    steps.take(evicted.changes)

    _follow_claims(steps, views, now)
    ages = pods.ready_ages(steps.world, views)
    steps.take(cleanup.hand_down(steps.world, now))
    steps.take(configroll.restart_changed(steps.world))
    autoscaled_s = _autoscale(steps, ages, now)
    steps.take(deployment.roll(steps.world, replicaset.tallies(steps.world, ages), now))
    failures = replicaset.failures(steps.world, Shapes(steps.world))
    admission = Admission(steps.world)
    steps.take(replicaset.replicate(steps.world, ages, restored, failures, admission, now))
    failures = {**failures, **admission.refused}

    others = _step_others(steps, views, ages, admission, now)
    drained = _step_drains(steps, views, ages, now)

    bindings, unplaced = _place(steps.world, views, now)
    steps.take(bindings)
    _keep_homes(steps)
    _collect_others(steps, views)
    held_up = _collect_claims(steps, views, now)
    steps.take(cleanup.collect(steps.world, views))

    judged_status = status.judge_status(steps.world, replicaset.tallies(steps.world, ages), failures, now)
    steps.take(judged_status.changes)
    steps.take(rollback.roll_back(steps.world, now))
    settled_pins = pins.settle(steps.world, views, Shapes(steps.world))
    steps.take(settled_pins.changes)
    _judge_budgets(steps, ages)
    sets = wanted.wanted_sets(steps.world, views, Shapes(steps.world))
    steps.take(wanted.new_digests(steps.world, sets))

    waiting = (
        *judged_status.waiting,
        *others.waiting,
        *drained.waiting,
        *held_up,
        *_waiting(steps.world, views, ages, failures, unplaced),
    )
    wake_s = (
        *evicted.wake_s,
        *judged_status.wake_s,
        *others.wake_s,
        *drained.wake_s,
        *autoscaled_s,
        *_until_available(steps.world, ages),
    )
    plan = Plan(
        changes=tuple(steps.changes),
        wanted=sets,
        nodes=views,
        unplaced=unplaced,
        refused=_refused(steps.world, {**failures, **admission.refused}),
        notes=judged.notes,
        wake_s=min(wake_s, default=None),
        settled=not waiting,
        brake=judged.brake,
        waiting=waiting,
        asks=settled_pins.asks,
    )
    check_plan(world, steps.world, plan, judged.brake, ages)
    return plan


@dataclass(frozen=True, slots=True)
class _Others:
    waiting: tuple[str, ...] = ()
    wake_s: tuple[float, ...] = ()


def _step_others(
    steps: _Steps, views: Mapping[str, NodeView], ages: Mapping[str, float], admission: Admission, now: Moment
) -> _Others:
    """Jobs and the like. Their code is loaded when there is one."""
    if not steps.world.workloads:
        return _Others()
    from controller.decide import workloads

    stepped = workloads.step_all(steps.world, views, ages, admission, now)
    steps.take(stepped.changes)
    return _Others(stepped.waiting, stepped.wake_s)


def _autoscale(steps: _Steps, ages: Mapping[str, float], now: Moment) -> tuple[float, ...]:
    """When it is to be looked at again."""
    if not steps.world.policies:
        return ()
    from controller.decide.autoscale import autoscale

    autoscaled = autoscale(steps.world, ages, now)
    steps.take(autoscaled.changes)
    return autoscaled.wake_s


def _step_drains(steps: _Steps, views: Mapping[str, NodeView], ages: Mapping[str, float], now: Moment) -> _Others:
    """After everything else that stops pods: budgets count what is left."""
    nodes = steps.world.nodes.values()
    if all(node.drain is None for node in nodes) and not any(pod.handover for pod in steps.world.pods.values()):
        return _Others()
    from controller.decide.drain import step_drains

    stepped = step_drains(steps.world, views, ages, now)
    steps.take(stepped.changes)
    return _Others(stepped.waiting, stepped.wake_s)


def _judge_budgets(steps: _Steps, ages: Mapping[str, float]) -> None:
    if steps.world.policies:
        from controller.decide.budgets import judge_budgets

        steps.take(judge_budgets(steps.world, ages))


def _collect_others(steps: _Steps, views: Mapping[str, NodeView]) -> None:
    if steps.world.workloads:
        from controller.decide import workloads

        steps.take(workloads.collect(steps.world, views))


def _follow_claims(steps: _Steps, views: Mapping[str, NodeView], now: Moment) -> None:
    """Volume claims: their code, too, is loaded when there is one."""
    if steps.world.claims:
        from controller.decide import claims

        steps.take(claims.follow(steps.world, views, now))


def _collect_claims(steps: _Steps, views: Mapping[str, NodeView], now: Moment) -> tuple[str, ...]:
    if not steps.world.claims:
        return ()
    from controller.decide import claims

    ending = claims.collect(steps.world, views, now)
    steps.take(ending.changes)
    return ending.waiting


def _keep_homes(steps: _Steps) -> None:
    if any(item.meta.kind == "StatefulSet" for item in steps.world.workloads.values()):
        from controller.decide import homes

        steps.take(homes.keep(steps.world))


def _refused(world: World, why: Mapping[str, str]) -> tuple[str, ...]:
    """`why` by uid. A Deployment's ReplicaSet is not spoken of: people know the former."""
    lines = set()
    for uid, text in why.items():
        record = world.replica_sets.get(uid) or world.workloads.get(uid)
        if record is not None:
            owner = record.meta.owner
            kind, name = (owner.kind, owner.name) if owner is not None else (record.meta.kind, record.meta.name)
            lines.add(f"{kind.lower()} {record.meta.namespace}/{name}: {text}")
    return tuple(sorted(lines))


class _Steps:
    """The world as the changes so far leave it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.changes: list[Change] = []

    def take(self, changes: Iterable[Change]) -> None:
        taken = tuple(changes)
        self.changes += taken
        self.world = changed(self.world, taken)


def _place(world: World, views: Mapping[str, NodeView], now: Moment) -> tuple[tuple[Change, ...], tuple[Unplaced, ...]]:
    if all(pod.node or pod.stop is not None for pod in world.pods.values()):
        return (), ()
    from controller.decide.schedule.place import place  # a converged pass starts quicker without it

    placed = place(world, views, Shapes(world), now)
    return placed.changes, placed.unplaced


def _restored(before: World, after: World) -> dict[str, Moment]:
    """By uid: pods that came back with their node in this pass, and since when they had been lost."""
    return {
        uid: pod.lost
        for uid, pod in before.pods.items()
        if pod.lost is not None and uid in after.pods and after.pods[uid].lost is None
    }


def _waiting(
    world: World,
    views: Mapping[str, NodeView],
    ages: Mapping[str, float],
    failures: Mapping[str, str],
    unplaced: Iterable[Unplaced],
) -> list[str]:
    """What is still under way besides rollouts, a line each."""
    lines = _unplaced(world, unplaced)
    owned = world.owned
    for item in sorted(world.replica_sets.values(), key=lambda item: item.meta.key):
        if item.meta.owner is None and item.meta.deleting is None:
            count = sum(pod.meta.uid in ages for pod in owned.get(item.meta.uid, ()))
            if count != item.replicas:
                why = f"; {failures[item.meta.uid]}" if item.meta.uid in failures else ""
                lines.append(f"replicaset {item.meta.key}: {count} of {item.replicas} ready{why}")
    for pod in sorted(world.pods.values(), key=lambda pod: pod.meta.key):
        view = views.get(pod.node)
        if pod.stop is not None and view is not None and view.may_push:
            lines.append(f"pod {pod.meta.key}: stops on {pod.node}")
        elif pod.stop is None and pod.meta.owner is None and pod.node and not _is_up(pod, ages):
            lines.append(f"pod {pod.meta.key}: not ready on {pod.node}")
    metas = [*(item.meta for item in world.deployments.values()), *(item.meta for item in world.declared.values())]
    lines += [f"{meta.kind.lower()} {meta.key}: is being deleted" for meta in metas if meta.deleting is not None]
    return lines


def _unplaced(world: World, unplaced: Iterable[Unplaced]) -> list[str]:
    """One line per reason: there may be thousands of pods."""
    names: dict[str, list[str]] = {}
    for item in unplaced:
        names.setdefault(item.summary, []).append(world.pods[item.pod].meta.key)
    return [
        f"pod {keys[0]}{f' and {len(keys) - 1} more' if len(keys) > 1 else ''}: {summary}"
        for summary, keys in names.items()
    ]


def _is_up(pod: Pod, ages: Mapping[str, float]) -> bool:
    return pod.meta.uid in ages or is_finished(pod)


def _until_available(world: World, ages: Mapping[str, float]) -> Iterable[float]:
    """Until ready pods have been so for minReadySeconds."""
    for uid, age in ages.items():
        pod = world.pods[uid]
        owner = world.replica_sets.get(pod.meta.owner.uid) if pod.meta.owner is not None else None
        if owner is not None and pod.stop is None and age < owner.min_ready_s:
            yield owner.min_ready_s - age
