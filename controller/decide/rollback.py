"""Automatic rollback of Deployments that ask for it by `sshoal.dev/auto-rollback: "true"`: an extension, Kubernetes has none. Pure.

In: the world with this pass's status. Out: which revisions have proven themselves, and Deployments that go back, each with an incident.
A revision that was fully available once is proven. One that is not, and that misses its progress deadline or crash-loops, is given up for
the newest proven one: its template comes back, as by `rollout undo`. Without a proven one nothing happens: there is nothing to go back to.

Worked example: revision 1 was fully available, revision 2 is rolled out and its first pod fails three times within 30 s. In that pass the
template of revision 1 comes back as revision 3, with an incident that tells of revision 2's pods; the next pass scales revision 2 down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from controller.decide.pods import is_active
from controller.decide.shapes import spec_of
from controller.decide.status import TIMED_OUT, condition, is_complete
from controller.decide.verbs import AUTO_ROLLBACK, Past, going_back, revisions_of
from controller.model.cluster import PROGRESSING, Deployment, Incident, Moment, Pod, ReplicaSet, World
from controller.model.plan import Change
from controller.model.text import printable
from nodeagent.protocol import ContainerReport

GIVEN_UP = "AutoRollback"  # the reason of such a change
CRASHES = 2  # restarts of a container that waits in CrashLoopBackOff: it has failed three times
INCIDENTS_MAX = 5
_PODS_TOLD = 3


def roll_back(world: World, now: Moment) -> tuple[Change, ...]:
    """Marks revisions that have proven themselves, and takes back those that have failed."""
    changes: list[Change] = []
    for deployment in sorted(world.deployments.values(), key=lambda item: item.meta.key):
        if deployment.meta.deleting is not None:
            continue
        new = _present(world, deployment)
        if new is None or new.proven is not None:
            continue
        spec = spec_of(deployment)
        if is_complete(spec, deployment.status) and spec.replicas:
            because = f"revision {new.revision} of {deployment.meta.name} is fully available"
            changes.append(Change("update", replace(new, proven=now), because, quiet=True))
        elif deployment.meta.annotations.get(AUTO_ROLLBACK) == "true" and not spec.paused:
            changes += _given_up(world, deployment, new, world.owned.get(new.meta.uid, ()), now)
    return tuple(changes)


def _present(world: World, deployment: Deployment) -> ReplicaSet | None:
    return next(
        (item for item in revisions_of(world, deployment) if item.template_hash == deployment.template_hash), None
    )


def _given_up(world: World, deployment: Deployment, new: ReplicaSet, pods: Sequence[Pod], now: Moment) -> list[Change]:
    reason, why = _failure(deployment, pods)
    proven = [item for item in revisions_of(world, deployment) if item.proven is not None and item is not new]
    if not reason or not proven:
        return []
    target = max(proven, key=lambda item: item.revision)
    name = deployment.meta.name
    because = f"{name} goes back from revision {new.revision} to {target.revision}: {why}"
    past = Past(target.revision, target.meta.name, target.template, target.template_hash, target.change_cause)
    fresh = going_back(deployment, past)
    incident = Incident(
        now, fresh.meta.generation, new.revision, target.revision, reason, why, _timeline(deployment, new, pods, now)
    )
    fresh = replace(fresh, incidents=(*deployment.incidents, incident)[-INCIDENTS_MAX:])
    return [Change("update", fresh, because, GIVEN_UP, warning=True)]


def _failure(deployment: Deployment, pods: Sequence[Pod]) -> tuple[str, str]:
    """(reason, words), empty while there is hope."""
    for pod in _by_name(pods):
        for container in pod.report.containers if pod.report is not None else ():
            if container.reason == "CrashLoopBackOff" and container.restarts >= CRASHES:
                return (
                    "CrashLoopBackOff",
                    f"container {printable(container.name, 63)} of {pod.meta.name} has failed {container.restarts + 1} times",
                )
    progressing = condition(deployment.status, PROGRESSING)
    if progressing is not None and progressing.reason == TIMED_OUT:
        return TIMED_OUT, progressing.message
    return "", ""


def _timeline(deployment: Deployment, new: ReplicaSet, pods: Sequence[Pod], now: Moment) -> tuple[str, ...]:
    """What was known when it was given up, a line each."""
    status = deployment.status
    lines = [f"revision {new.revision} ({new.meta.name}) was made {now.since(new.meta.created):.0f} s before"]
    if status.progressed is not None:
        lines.append(f"the last progress was {now.since(status.progressed):.0f} s before")
    lines.append(
        f"{status.updated} updated, {status.ready} ready, {status.available} available of {status.replicas} pods"
    )
    for pod in _by_name(pods)[:_PODS_TOLD]:
        where = f" on {pod.node}" if pod.node else f": {pod.unplaced}"
        lines.append(f"{pod.meta.name}{where}")
        lines += [f"  {_told(container)}" for container in (pod.report.containers if pod.report is not None else ())]
    return tuple(lines)


def _told(container: ContainerReport) -> str:
    """State, probes and exits of a container in one line."""
    words = [f"{container.name}: {container.state} {container.reason}".rstrip()]
    if container.message:
        words.append(container.message[:300])
    if container.last_exit_code is not None:
        words.append(f"last exit code {container.last_exit_code} {container.last_reason}".rstrip())
    elif container.exit_code is not None:
        words.append(f"exit code {container.exit_code}")
    words.append(f"restarts {container.restarts}")
    probes = "passed" if container.ready else "started, not ready" if container.started else "not passed yet"
    words.append(f"probes: {probes}")
    return ", ".join(words)


def _by_name(pods: Sequence[Pod]) -> list[Pod]:
    return sorted((pod for pod in pods if is_active(pod)), key=lambda pod: pod.meta.name)
