"""What the agents say of their pods, folded into the pod records. Pure.

In: the world and the nodes' views. Out: changes of pod records; and who is ready since when, as of this pass.
Absence from the report of an agent that has the node's last order means stopped; no report means nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from controller.decide.nodes import trusted
from controller.decide.phases import FINISHED, is_finished
from controller.model.cluster import Moment, Pod, Seen, Stop, World
from controller.model.plan import Change, NodeView
from nodeagent import protocol


def fold(world: World, views: Mapping[str, NodeView], now: Moment) -> tuple[Change, ...]:
    """Stores new reports, takes back pods of nodes that returned, and removes what is known to be stopped."""
    seen = {name: trusted(world, views, name) for name in world.nodes}
    changes = []
    for pod in world.pods.values():
        if not pod.node:
            change = _unbound(pod)
        elif pod.node not in world.nodes:
            change = _forgotten(pod)
        elif (sighting := seen[pod.node]) is not None:
            change = _heard(world, pod, sighting, now)
        else:
            change = _silent(world, pod, views[pod.node])
        if change is not None:
            changes.append(change)
    return tuple(sorted(changes, key=lambda change: (change.record.meta.key, change.record.meta.uid)))


def ready_ages(world: World, views: Mapping[str, NodeView]) -> dict[str, float]:
    """By uid: for how many seconds each pod has been ready, measured on its host's own boot clock. Pods that are not ready, not heard of
    in this pass, or on their way out are not in it."""
    seen = {name: trusted(world, views, name) for name in world.nodes}
    ages = {}
    for uid, pod in world.pods.items():
        sighting = seen.get(pod.node)
        if sighting is None or pod.stop is not None or pod.lost is not None:
            continue
        report = sighting.pods.get(uid)
        if report is not None and report.ready and report.phase == protocol.RUNNING_PHASE:
            ages[uid] = max(0.0, sighting.boottime_s - report.ready_since_s)
    return ages


def is_active(pod: Pod) -> bool:
    """Whether a pod counts for its owner's replicas."""
    return pod.stop is None and pod.lost is None and not is_finished(pod)


def is_uncounted(world: World, pod: Pod) -> bool:
    """Whether a Job has yet to learn what came of its pod. Others than the Job stop pods without a verdict, and the next pass may come when
    they have stopped already."""
    owner = pod.meta.owner
    if owner is None or owner.kind != "Job" or pod.verdict:
        return False
    from controller.model.workloads import Job  # loaded when there is one

    job = world.workloads.get(owner.uid)
    return isinstance(job, Job) and job.meta.deleting is None and job.status.finished is None


def is_stopped(world: World, pod: Pod, seen: Seen) -> bool:
    """Whether its node's report says that it runs no more, and never will.

    That the report does not name it tells nothing as long as the agent lacks the node's last order: an earlier one, with the pod, may be
    under way to it, from a controller that died or timed out.
    """
    report = seen.pods.get(pod.meta.uid)
    if report is not None:
        return report.phase == protocol.STOPPED
    return (seen.owner.serial if seen.owner is not None else 0) >= world.nodes[pod.node].serial


def _unbound(pod: Pod) -> Change | None:
    """Never bound: no agent has heard of it."""
    return Change("remove", pod, pod.stop.because, "Killing") if pod.stop is not None else None


def _forgotten(pod: Pod) -> Change:
    return Change("remove", pod, f"node {pod.node} was forgotten, and its pods with it", "NodeForgotten", warning=True)


def _heard(world: World, pod: Pod, seen: Seen, now: Moment) -> Change | None:
    report = seen.pods.get(pod.meta.uid)
    if pod.stop is not None and is_stopped(world, pod, seen) and not is_uncounted(world, pod):
        return Change("remove", pod, f"stopped on {pod.node}", "Stopped")
    if pod.lost is not None:
        back = replace(pod, lost=None, report=report)
        word = "is healthy there" if report is not None and report.ready else "is not running there yet"
        return Change("restore", back, f"{pod.node} is back, and {pod.meta.name} {word}", "NodeReady")
    if _is_replaced(pod) and pod.stop is None and report is not None and report.phase in FINISHED:
        because = f"it ended on {pod.node} ({report.phase}{': ' + report.reason if report.reason else ''})"
        return Change("stop", replace(pod, report=report, stop=Stop(because, now)), because, "Finished", warning=True)
    if report != pod.report:
        return Change("report", replace(pod, report=report), f"{pod.node} reports a change", quiet=True)
    return None


def _is_replaced(pod: Pod) -> bool:
    """Whether another pod takes its place once it has ended. One of a Job stays, so that its logs and exit codes can be read."""
    return pod.meta.owner is not None and pod.meta.owner.kind != "Job"


def _silent(world: World, pod: Pod, view: NodeView) -> Change | None:
    """Only a node that a person has confirmed dead needs not to be asked."""
    if view.state == "Dead" and pod.stop is not None and not is_uncounted(world, pod):
        return Change("remove", pod, f"node {pod.node} is {view.why}", "NodeDead")
    return None
