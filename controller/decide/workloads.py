"""All kinds of workload but Deployments: one step of each object, its end included. Pure; loaded when there is such an object.

In: the world and who is ready. Out: changes of their records and pods, lines for people who wait, and when time alone brings a change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from controller.decide.admission.gate import Admission
from controller.decide.cleanup import can_be_asked, ending_namespaces
from controller.decide.context import Context, Step
from controller.decide.job import step_job
from controller.decide.owners import left_uid
from controller.decide.phases import is_finished
from controller.decide.pods import is_uncounted
from controller.decide.shapes import forbidden_path, shape_of
from controller.model.cluster import Meta, Moment, Pod, Ref, Stop, World
from controller.model.plan import Change, NodeView, changed
from controller.model.workloads import CronJob, DaemonSet, Job, Revision, StatefulSet, Workload

FINISHED_MAX = 200  # pods of Jobs on one node


@dataclass(frozen=True, slots=True)
class Steps:
    changes: tuple[Change, ...]
    waiting: tuple[str, ...]
    wake_s: tuple[float, ...]


def step_all(
    world: World, views: Mapping[str, NodeView], ages: Mapping[str, float], admission: Admission, now: Moment
) -> Steps:
    """One step of every object."""
    first = (*_marks(world, now), *_outdated(world, now))
    changes = list(first)
    world = changed(world, first)
    runs, wake_s = _runs(world, now)
    changes += runs
    context = Context(changed(world, runs), views, ages, admission, now)
    owned = context.world.owned
    revisions = _revisions(context.world)
    waiting: list[str] = []
    for item in _ordered(context.world):
        pods = owned.get(item.meta.uid, [])
        if item.meta.deleting is not None:
            changes += _ended(item, pods, now)
            changes += _claims_of(item, context)
            waiting.append(f"{item.meta.kind.lower()} {item.meta.key}: is being deleted")
            continue
        if isinstance(item, CronJob):
            continue
        why = _barred(item, context)
        if why:
            waiting.append(f"{item.meta.kind.lower()} {item.meta.key}: no pods can be made: {why}")
            continue
        step = _step(item, pods, revisions[item.meta.uid], context)
        changes += step.changes
        waiting += [step.waiting] if step.waiting else []
        wake_s += step.wake_s
    return Steps(tuple(changes), tuple(waiting), tuple(wake_s))


def collect(world: World, views: Mapping[str, NodeView]) -> tuple[Change, ...]:
    """Removes deleted objects once nothing of theirs is left that could still be asked to stop."""
    owned = world.owned
    children = {item.meta.owner.uid for item in _ordered(world) if item.meta.owner is not None}
    ended = [
        item
        for item in _ordered(world)
        if item.meta.deleting is not None
        and item.meta.uid not in children
        and not any(can_be_asked(pod, views) for pod in owned.get(item.meta.uid, ()))
    ]
    gone = [Change("remove", item, "all its pods are stopped or lost", "Deleted") for item in ended]
    left = [_left_of(item) for item in ended if isinstance(item, Job) and item.meta.uid in owned]
    # A revision says what a pod is: it stays while there is one, wherever that is.
    kept = (world.workloads.keys() - {change.record.meta.uid for change in gone}) | owned.keys()
    revisions = sorted(
        (item for item in world.workloads.values() if isinstance(item, Revision)), key=lambda item: item.meta.key
    )
    gone += [
        Change("remove", item, "its owner is gone", "Deleted", quiet=True)
        for item in revisions
        if item.meta.owner is None or item.meta.owner.uid not in kept
    ]
    return (*gone, *left)


def _left_of(job: Job) -> Change:
    """What a Job's pods are, kept beyond it: silent nodes do not hold up its end, and can be told to stop them when they are back."""
    meta = Meta(
        "ControllerRevision",
        job.meta.namespace,
        f"{job.meta.name}-{job.meta.uid}",  # no other record has it: the Job's name may be used again at once
        left_uid(job.meta.uid),
        job.meta.deleting or job.meta.created,
        owner=Ref("Job", job.meta.name, job.meta.uid),
    )
    left = Revision(meta, job.template, job.template_hash, 1, images=job.images or {})
    return Change("create", left, f"pods of {job.meta.name} are on silent nodes", quiet=True)


def _outdated(world: World, now: Moment) -> list[Change]:
    """Finished pods of Jobs that a node keeps no longer, as Kubernetes' pod garbage collector: the oldest beyond so many. What came of them
    is counted, in an earlier pass; a set that is pushed holds every pod that is not ordered to stop, and agents take only so many."""
    by_node: dict[str, list[Pod]] = defaultdict(list)
    for pod in world.pods.values():
        owner = pod.meta.owner
        if owner is not None and owner.kind == "Job" and pod.node and pod.stop is None and is_finished(pod):
            by_node[pod.node].append(pod)
    changes = []
    for name, pods in sorted(by_node.items()):
        pods.sort(key=lambda pod: (pod.meta.created.wall_s, pod.meta.key))
        because = f"{name} keeps {FINISHED_MAX} finished pods of jobs"
        changes += [
            Change("stop", replace(pod, stop=Stop(because, now)), because, quiet=True)
            for pod in pods[: max(0, len(pods) - FINISHED_MAX)]
            if not is_uncounted(world, pod)
        ]
    return changes


def _runs(world: World, now: Moment) -> tuple[list[Change], list[float]]:
    """What CronJobs begin and clear away, and until when they sleep."""
    crons = [item for item in _ordered(world) if isinstance(item, CronJob) and item.meta.deleting is None]
    if not crons:
        return [], []
    from controller.decide.cronjob import step_cron

    jobs: dict[str, list[Job]] = defaultdict(list)
    names = set()
    for item in world.workloads.values():
        if isinstance(item, Job):
            names.add((item.meta.namespace, item.meta.name))
            jobs[item.meta.owner.uid if item.meta.owner is not None else ""].append(item)
    changes: list[Change] = []
    wake_s: list[float] = []
    for cron in crons:
        step = step_cron(cron, jobs[cron.meta.uid], names, now)
        changes += step.changes
        wake_s += step.wake_s
    return changes, wake_s


def _step(item: Workload, pods: Sequence[Pod], revisions: Sequence[Revision], context: Context) -> Step:
    if isinstance(item, Job):
        return step_job(item, pods, context)
    if isinstance(item, DaemonSet):
        from controller.decide.daemonset import step_daemon

        return step_daemon(item, pods, revisions, context)
    assert isinstance(item, StatefulSet)
    from controller.decide.statefulset import step_stateful

    return step_stateful(item, pods, revisions, context)


def _revisions(world: World) -> dict[str, list[Revision]]:
    """By uid of the owner."""
    found: dict[str, list[Revision]] = defaultdict(list)
    for item in world.workloads.values():
        if isinstance(item, Revision) and item.meta.owner is not None:
            found[item.meta.owner.uid].append(item)
    return found


def _barred(item: Workload, context: Context) -> str:
    """Why no pods may be made of it: a hostPath that this context does not allow."""
    allowed = context.world.cluster.settings.host_paths
    path = forbidden_path(shape_of(item.template, item.meta.namespace), allowed)
    return f"hostPath {path} is not in the allow-list of this context ({', '.join(allowed) or 'empty'})" if path else ""


def _marks(world: World, now: Moment) -> tuple[Change, ...]:
    """What belongs to a namespace or an object that is being deleted."""
    spaces = {item.meta.name for item in ending_namespaces(world)}
    changes = []
    for item in _ordered(world):
        if item.meta.deleting is not None:
            continue
        because = ""
        if item.meta.namespace in spaces:
            because = f"namespace {item.meta.namespace} is being deleted"
        elif item.meta.owner is not None and _is_ending(world, item.meta.owner.uid):
            because = f"{item.meta.owner.kind.lower()} {item.meta.owner.name} is being deleted"
        if because:
            marked: Workload = replace(item, meta=replace(item.meta, deleting=now))
            changes.append(Change("update", marked, because, "Deleting", quiet=True))
    return tuple(changes)


def _is_ending(world: World, uid: str) -> bool:
    owner = world.workloads.get(uid)
    return owner is None or owner.meta.deleting is not None


def _ended(item: Workload, pods: Iterable[Pod], now: Moment) -> list[Change]:
    because = f"{item.meta.kind.lower()} {item.meta.name} is being deleted"
    return [
        Change("stop", replace(pod, stop=Stop(because, now)), because, "SuccessfulDelete")
        for pod in sorted(pods, key=lambda pod: (pod.meta.key, pod.meta.uid))
        if pod.stop is None
    ]


def _claims_of(item: Workload, context: Context) -> list[Change]:
    if not isinstance(item, StatefulSet) or not item.claims:
        return []
    from controller.decide.statefulset import given_up_with

    return given_up_with(item, context)


def _ordered(world: World) -> list[Workload]:
    found = [item for item in world.workloads.values() if not isinstance(item, Revision)]
    return sorted(found, key=lambda item: (item.meta.kind, item.meta.key, item.meta.uid))
