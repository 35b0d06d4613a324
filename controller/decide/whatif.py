"""What would become of the cluster if hosts were lost, emptied or added, or manifests applied. Pure: decisions on an imagined world.

In: the world as it was seen, and what shall be imagined. Out: who would run where in the end, and who nowhere. Every pod is imagined to
start and get ready at once, and no time passes: what counts is where there is room, not how long it takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from controller.decide.pods import is_active
from controller.decide.reconcile import reconcile
from controller.model.cluster import HostEntry, Moment, Pod, Seen, Stop, Unseen, World
from controller.model.errors import NotFound
from controller.model.plan import Change, Plan, Unplaced, changed
from nodeagent.protocol import FAILED, RUNNING_PHASE, SUCCEEDED, Capacity, Cursor, PodReport

_PASSES_MAX = 200


@dataclass(frozen=True, slots=True)
class Machine:
    """A host that is imagined."""

    cpu_m: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Imagined:
    """What is different from how it is."""

    lose: tuple[str, ...] = ()  # names of nodes that are gone for good
    drain: tuple[str, ...] = ()  # names of nodes whose pods go elsewhere
    add: tuple[Machine, ...] = ()
    changes: tuple[Change, ...] = ()  # as `apply` would commit them


@dataclass(frozen=True, slots=True)
class Outcome:
    world: World  # in the end
    placed: tuple[Pod, ...]  # pods that are new on their node
    gone: tuple[Pod, ...]  # pods of now that run no more
    unplaced: tuple[tuple[Pod, Unplaced], ...]
    refused: tuple[str, ...]  # workloads that would not be given their pods, and why
    stuck: tuple[Pod, ...]  # pods of their own on nodes that are lost or emptied: nothing replaces them
    at_rest: bool  # False: it did not come to rest within a bound of passes


def imagine(world: World, what: Imagined, now: Moment) -> Outcome:
    """Raises NotFound for a node that does not exist."""
    for name in (*what.lose, *what.drain):
        if name not in world.nodes:
            known = ", ".join(sorted(world.nodes)[:8]) or "none"
            raise NotFound(f'node "{name}" not found', hint=f"there are: {known}")
    present = _imagined_reports(world)
    present, now_plan = _settle(present, now)  # what is under way anyway is no consequence of what is imagined
    world = changed(present, what.changes)
    for name in what.lose:
        world = _lose(world, name)
    for name in what.drain:
        world = _drain(world, name, now)
    unused = (name for number in count(1) if (name := f"new-{number}") not in {*present.hosts, *present.nodes})
    for machine, name in zip(what.add, unused, strict=False):
        world = _add(world, name, machine)
    end, plan = _settle(world, now)
    refused_now = now_plan.refused if now_plan is not None else ()
    before = {uid: pod.node for uid, pod in present.pods.items() if is_active(pod)}
    after = {uid: pod for uid, pod in end.pods.items() if is_active(pod)}
    elsewhere = {*what.lose, *what.drain}
    return Outcome(
        world=end,
        placed=tuple(_by_name(pod for uid, pod in after.items() if pod.node and before.get(uid) != pod.node)),
        gone=tuple(_by_name(pod for uid, pod in present.pods.items() if uid in before and uid not in after)),
        unplaced=tuple((end.pods[item.pod], item) for item in (plan.unplaced if plan is not None else ())),
        refused=tuple(line for line in (plan.refused if plan is not None else ()) if line not in refused_now),
        stuck=tuple(_by_name(pod for pod in after.values() if pod.meta.owner is None and pod.node in elsewhere)),
        at_rest=plan is not None,
    )


def _settle(world: World, now: Moment) -> tuple[World, Plan | None]:
    """Passes until one changes nothing that people see, and that one's plan; None when that takes too long."""
    for _ in range(_PASSES_MAX):
        plan = reconcile(world, now)
        world = replace(changed(world, plan.changes), counter=world.counter + 1)
        if all(change.quiet for change in plan.changes):
            return world, plan
        world = _imagined_reports(world)
    return world, None


def _imagined_reports(world: World) -> World:
    """Every agent that was heard says that its pods are up, and have been for long, or are stopped."""
    reports: dict[str, dict[str, PodReport]] = {name: {} for name in world.nodes}
    for uid, pod in world.pods.items():
        if pod.stop is None and pod.node in reports:
            reports[pod.node][uid] = _report(pod)
    sightings = dict(world.sightings)
    for name, sighting in world.sightings.items():
        if isinstance(sighting, Seen) and name in reports:
            sightings[name] = replace(sighting, pods=reports[name], boottime_s=_LONG_S)
    return replace(world, sightings=sightings)


_LONG_S = 1e7  # longer than any minReadySeconds that people write


def _report(pod: Pod) -> PodReport:
    if pod.report is not None and pod.report.phase in (SUCCEEDED, FAILED):
        return pod.report
    meta = pod.meta
    if pod.report is not None and pod.report.phase == RUNNING_PHASE and pod.report.ready:
        return replace(pod.report, ready_since_s=0.0)
    return PodReport(meta.uid, meta.namespace, meta.name, pod.template_hash, RUNNING_PHASE, True, 0.0)


def _lose(world: World, name: str) -> World:
    node = replace(world.nodes[name], confirmed_dead="powered-off")
    silent = Unseen("unreachable", "imagined to be lost")
    return replace(world, nodes={**world.nodes, name: node}, sightings={**world.sightings, name: silent})


def _drain(world: World, name: str, now: Moment) -> World:
    """Cordoned, and its pods stopped that something replaces elsewhere: as `drain` does, it leaves those of DaemonSets."""
    stop = Stop(f"{name} is drained", now)
    moved = {
        uid: replace(pod, stop=stop)
        for uid, pod in world.pods.items()
        if pod.node == name and is_active(pod) and pod.meta.owner is not None and pod.meta.owner.kind != "DaemonSet"
    }
    node = replace(world.nodes[name], cordoned=True)
    return _imagined_reports(replace(world, nodes={**world.nodes, name: node}, pods={**world.pods, **moved}))


def _add(world: World, name: str, machine: Machine) -> World:
    agent = f"agent-{name}"
    capacity = Capacity(cpu_m=machine.cpu_m, memory_bytes=machine.memory_bytes, arch="x86_64")
    seen = Seen(agent, "", "", _LONG_S, 0.0, "", Cursor("", 0), None, {}, capacity)
    host = HostEntry(name, name)
    return replace(world, hosts={**world.hosts, name: host}, sightings={**world.sightings, name: seen})


def _by_name(pods: Iterable[Pod]) -> Sequence[Pod]:
    return sorted(pods, key=lambda pod: pod.meta.key)
