"""What is said of objects from their records alone: rollout progress, pod status as kubectl words it. Pure; serves every view and wait."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.decide.owners import template_of
from controller.decide.verbs import AUTO_ROLLBACK, revisions_of
from controller.model.cluster import (
    AVAILABLE,
    REPLICA_FAILURE,
    Declared,
    Deployment,
    Node,
    Pod,
    Record,
    ReplicaSet,
    Unseen,
    VolumeClaim,
    World,
)
from controller.model.errors import UsageError
from controller.model.plan import is_policy
from nodeagent.protocol import ContainerReport, PodReport

# Reasons of a waiting container that do not pass by waiting alone: somebody has to look.
TROUBLE = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)

# Of an init container these say no more than how many are through.
_UNDER_WAY = ("Running", "PodInitializing", "ContainerCreating")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an object is. `text` is one line; `trouble` tells what keeps it from getting on, a line per reason."""

    done: bool
    text: str
    trouble: tuple[str, ...] = ()


def progress_of(world: World, record: Record) -> Progress:
    """Whether what was declared is there, judged as `kubectl rollout status` and `kubectl wait` do."""
    match record:
        case Deployment():
            return _deployment(world, record)
        case ReplicaSet():
            pods = pods_of(world, record)
            ready = sum(is_ready(pod) for pod in pods)
            done = ready == record.replicas == len(pods)
            trouble = (*((f"FailedCreate: {record.refused}",) if record.refused else ()), *troubles(world, pods))
            return Progress(done, f"replicaset {record.meta.name}: {ready} of {record.replicas} ready", trouble)
        case Pod():
            phase = record.report.phase if record.report else "Pending"
            done = is_ready(record) or phase == "Succeeded"
            return Progress(done, f"pod {record.meta.name}: {status_word(world, record)}", troubles(world, [record]))
        case VolumeClaim() if record.meta.deleting is not None:
            return Progress(False, f"persistentvolumeclaim {record.meta.name} is being deleted")
        case _ if isinstance(record, Declared | Node | VolumeClaim) or is_policy(record):
            return Progress(True, f"{record.meta.kind.lower()} {record.meta.name} is there")
        case _:
            from controller.decide.standing_workloads import progress  # only when there is such an object

            return progress(world, record)


def condition_of(kind: str) -> Callable[[World, Record], Progress]:
    """Whether the condition of this name, in lower case, is true of an object."""
    if kind == "available":
        return _is_available
    if kind == "ready":
        return _is_ready

    def judge(world: World, record: Record) -> Progress:
        if isinstance(record, Declared | Deployment | ReplicaSet | Pod | Node | VolumeClaim) or is_policy(record):
            raise UsageError(f"a {record.meta.kind} has no condition {kind}", hint="--for ready, available or delete")
        from controller.decide.standing_workloads import has_condition

        return has_condition(record, kind)

    return judge


def _is_available(world: World, record: Record) -> Progress:
    """Of a Deployment its condition Available, as `kubectl wait` asks; old replicas count too. Anything else: that it is as declared."""
    progress = progress_of(world, record)
    if not isinstance(record, Deployment) or not _is_seen(record):
        return progress
    found = next((item for item in record.status.conditions if item.kind == AVAILABLE), None)
    return Progress(found is not None and found.status, _available_text(record), progress.trouble)


def _is_ready(world: World, record: Record) -> Progress:
    """That it is as declared. A paused Deployment is not rolled out any further: it is ready with all its replicas, of any revision."""
    progress = progress_of(world, record)
    if not (isinstance(record, Deployment) and _is_seen(record) and _is_paused(record)):
        return progress
    enough = record.status.available >= desired_replicas(record)
    return Progress(enough, f"{_available_text(record)} (paused)", progress.trouble)


def _is_seen(deployment: Deployment) -> bool:
    """Whether its status is of what is declared now."""
    return deployment.meta.deleting is None and deployment.status.observed_generation >= deployment.meta.generation


def _is_paused(deployment: Deployment) -> bool:
    return bool((deployment.source.get("spec") or {}).get("paused"))


def _available_text(deployment: Deployment) -> str:
    desired = desired_replicas(deployment)
    return f"deployment {deployment.meta.name}: {deployment.status.available} of {desired} replicas are available"


def _deployment(world: World, deployment: Deployment) -> Progress:
    name, status = deployment.meta.name, deployment.status
    desired = desired_replicas(deployment)
    pods = [pod for owned in revisions_of(world, deployment) for pod in pods_of(world, owned)]
    new = [pod for pod in pods if pod.template_hash == deployment.template_hash]
    refused = [item for item in status.conditions if item.kind == REPLICA_FAILURE and item.status]
    trouble = (*(f"{item.reason}: {item.message}" for item in refused), *troubles(world, new))
    if _will_go_back(world, deployment) and all("CrashLoopBackOff" in line for line in trouble):
        trouble = ()  # it passes by waiting: the revision is given up after a few crashes
    if deployment.meta.deleting is not None:
        return Progress(False, f"deployment {name} is being deleted", trouble)
    if status.observed_generation < deployment.meta.generation:
        return Progress(False, f"deployment {name}: waiting for the change to be seen", trouble)
    if deployment.incidents and deployment.incidents[-1].generation == deployment.meta.generation:
        incident = deployment.incidents[-1]
        why = f"revision {incident.revision} was given up for {incident.back_to}: {incident.message}"
        return Progress(False, f"deployment {name} was rolled back", (f"{incident.reason}: {why}",))
    if _is_paused(deployment):
        return Progress(True, f"deployment {name} is paused", trouble)
    if status.updated < desired:
        return Progress(
            False, f"deployment {name}: {status.updated} of {desired} new replicas have been started", trouble
        )
    if status.replicas > status.updated:
        old = status.replicas - status.updated
        return Progress(
            False, f"deployment {name}: {old} old replica{'s are' if old > 1 else ' is'} still to stop", trouble
        )
    if status.available < status.updated:
        return Progress(
            False, f"deployment {name}: {status.available} of {status.updated} replicas are available", trouble
        )
    return Progress(True, _available_text(deployment), ())


def _will_go_back(world: World, deployment: Deployment) -> bool:
    """Whether a revision that crash-loops is taken back without anybody's doing."""
    asks = deployment.meta.annotations.get(AUTO_ROLLBACK) == "true"
    revisions = revisions_of(world, deployment) if asks else ()
    return any(item.proven is not None and item.template_hash != deployment.template_hash for item in revisions)


def desired_replicas(deployment: Deployment) -> int:
    """spec.replicas; 1 when the manifest leaves it open."""
    replicas = (deployment.source.get("spec") or {}).get("replicas")
    return 1 if replicas is None else int(replicas)


def pods_of(world: World, owner: Record) -> list[Pod]:
    """Pods of a ReplicaSet or the like that count: neither stopping nor lost. In the order of their names."""
    pods = world.owned.get(owner.meta.uid, ())
    return sorted((pod for pod in pods if pod.stop is None and pod.lost is None), key=lambda pod: pod.meta.name)


def is_ready(pod: Pod) -> bool:
    return pod.report is not None and pod.report.ready and pod.stop is None and pod.lost is None


def status_word(world: World, pod: Pod, *, node_unseen: bool = False) -> str:
    """The STATUS column of `get pods`: as kubectl computes it, most telling reason first."""
    if pod.lost is not None:
        return "Lost"
    if node_unseen:
        return "Unknown"
    if pod.stop is not None:
        return "Terminating"
    spec = (template_of(world, pod) or {}).get("spec") or {}
    if not pod.node and spec.get("schedulingGates"):
        return "SchedulingGated"
    if not pod.node or pod.report is None:
        return "Pending"
    return _from_report(pod.report, sidecars_of(spec))


def sidecars_of(spec: Mapping[str, Any]) -> frozenset[str]:
    """Names of the init containers that run on beside the others."""
    return frozenset(item["name"] for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always")


def is_initialized(report: PodReport, sidecars: Collection[str]) -> bool:
    """Its init containers are through. Once others have run it stays so, as in Kubernetes: a sidecar may start anew then."""
    init = [container for container in report.containers if container.init]
    others = (container for container in report.containers if not container.init)
    return all(_is_through(container, sidecars) for container in init) or any(
        container.state != "waiting" or container.restarts for container in others
    )


def _is_through(container: ContainerReport, sidecars: Collection[str]) -> bool:
    if container.name in sidecars and container.state == "running":
        return container.started
    return container.state == "terminated" and container.exit_code == 0


def _from_report(report: PodReport, sidecars: Collection[str]) -> str:
    init = [container for container in report.containers if container.init]
    at = next((index for index, container in enumerate(init) if not _is_through(container, sidecars)), None)
    held = ""
    if at is not None:
        why = _container_word(init[at])
        held = f"Init:{at}/{len(init)}" if why in _UNDER_WAY else f"Init:{why}"
        if not is_initialized(report, sidecars):
            return held
    words = [_container_word(container) for container in report.containers if not container.init]
    return (
        next((word for word in words if word not in ("Running", "Completed")), "")
        or held
        or report.reason
        or _phase_word(report, words)
    )


def _phase_word(report: PodReport, words: list[str]) -> str:
    if report.phase == "Succeeded" or (words and all(word == "Completed" for word in words)):
        return "Completed"
    if "Completed" in words and not report.ready:
        return "NotReady"  # only some have ended
    return report.phase


def _container_word(container: ContainerReport) -> str:
    if container.state == "waiting":
        return container.reason or "ContainerCreating"
    if container.state == "terminated":
        if container.reason:
            return container.reason
        return "Completed" if container.exit_code == 0 else "Error"
    return "Running"


def troubles(world: World, pods: Sequence[Pod]) -> tuple[str, ...]:
    """Why pods can't get on: one line per distinct reason, with the first pod as the example.

    That no node takes them is no trouble while a host is still on its way to become one.
    """
    lines: dict[str, list[str]] = {}
    growing = _is_growing(world)
    for pod in pods:
        if pod.unplaced and not pod.node and not growing:
            lines.setdefault(f"no node: {pod.unplaced}", []).append(pod.meta.name)
        if pod.report and pod.report.phase == "Pending" and pod.report.reason:
            lines.setdefault(f"{pod.report.reason}: {pod.report.message}", []).append(pod.meta.name)
        for container in pod.report.containers if pod.report else ():
            if container.state == "waiting" and container.reason in TROUBLE:
                detail = f": {container.message}" if container.message else ""
                lines.setdefault(f"{container.reason}{detail}", []).append(pod.meta.name)
    return tuple(
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
        for reason, names in sorted(lines.items())
    )


def _is_growing(world: World) -> bool:
    """Whether a host is just getting its agent, or is no node yet and was not asked here: then another controller is at it."""
    installing = (
        isinstance(sighting, Unseen) and sighting.kind == "installing" for sighting in world.sightings.values()
    )
    return any(installing) or any(name not in world.nodes and name not in world.sightings for name in world.hosts)
