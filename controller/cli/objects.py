"""Records as Kubernetes writes objects: what `-o json` and `-o yaml` print. Pure.

Specs are as the user wrote them, status has Kubernetes' field names. Values of secrets are never there: their keys are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from controller.cli.scene import Scene
from controller.cli.targets import with_own_name
from controller.decide.owners import template_of
from controller.decide.qos import qos_class
from controller.decide.replicaset import HASH_LABEL
from controller.decide.shapes import shape_of
from controller.decide.standing import is_initialized, sidecars_of
from controller.model import quantity
from controller.model.cluster import (
    Declared,
    Deployment,
    DeploymentStatus,
    Meta,
    Node,
    Pod,
    Record,
    ReplicaSet,
    StatusCondition,
    VolumeClaim,
)
from controller.model.errors import PlanBug
from controller.model.plan import is_policy
from controller.model.text import HIDDEN
from nodeagent.protocol import Capacity, ContainerReport, PodReport

if TYPE_CHECKING:
    from controller.act.store import Event

_VERSIONS = {"Deployment": "apps/v1", "ReplicaSet": "apps/v1", "Job": "batch/v1", "CronJob": "batch/v1"}
_VERSIONS |= dict.fromkeys(("DaemonSet", "StatefulSet", "ControllerRevision"), "apps/v1")
_VERSIONS |= {"PodDisruptionBudget": "policy/v1", "HorizontalPodAutoscaler": "autoscaling/v2"}
_VERSIONS |= {"PriorityClass": "scheduling.k8s.io/v1"}
_PHASES = {"Stopping": "Running", "Stopped": "Succeeded"}  # the agent's words that Kubernetes does not have


def to_object(scene: Scene, record: Record) -> dict[str, Any]:
    """One object."""
    head: dict[str, Any] = {"apiVersion": _version(record.meta.kind), "kind": record.meta.kind}
    head["metadata"] = _metadata(record.meta)
    match record:
        case Pod():
            return {**head, **_pod(scene, record)}
        case Deployment():
            return {**head, "spec": record.source.get("spec") or {}, "status": _deployment_status(record.status)}
        case ReplicaSet():
            return {**head, **_replica_set(scene, record)}
        case Node():
            return {**head, **_node(scene, record)}
        case Declared():
            return {**head, **_declared(scene, record)}
        case _ if is_policy(record):
            from controller.cli import scaling_views

            return {**head, **scaling_views.object_of(scene, record)}
        case VolumeClaim():
            from controller.cli.claim_views import object_of_claim

            return {**head, **object_of_claim(record)}
        case _:
            from controller.cli.workload_views import object_of

            return {**head, **object_of(scene, record)}


def with_labels(template: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """A pod template whose pods have these labels too."""
    metadata = template.get("metadata") or {}
    return {**template, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}}


def _version(kind: str) -> str:
    return _VERSIONS.get(kind, "v1")


def to_list(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several objects as one."""
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": list(objects)}


def event_object(event: Event) -> dict[str, Any]:
    """An event as core/v1 has them. Its name is made from what it says: the store gives events none."""
    involved = {"kind": event.kind, "namespace": event.namespace, "name": event.name}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{event.name}.{int(event.first_wall_s * 1e6):x}",
            "namespace": event.namespace or "default",
            "creationTimestamp": timestamp(event.first_wall_s),
        },
        "involvedObject": {key: item for key, item in involved.items() if item},
        "reason": event.reason,
        "message": event.message,
        "type": "Warning" if event.warning else "Normal",
        "count": event.count,
        "firstTimestamp": timestamp(event.first_wall_s),
        "lastTimestamp": timestamp(event.wall_s),
        "source": {"component": "sshoal", **({"host": event.node} if event.node else {})},
    }


def timestamp(wall_s: float) -> str:
    """Seconds since 1970 as Kubernetes writes times: 2025-01-31T12:00:00Z."""
    try:
        return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "1970-01-01T00:00:00Z"  # a host can say anything


def _metadata(meta: Meta) -> dict[str, Any]:
    data: dict[str, Any] = {"name": meta.name}
    if meta.namespace:
        data["namespace"] = meta.namespace
    data |= {
        "uid": meta.uid,
        "resourceVersion": str(meta.version),
        "generation": meta.generation,
        "creationTimestamp": timestamp(meta.created.wall_s),
    }
    if meta.deleting is not None:
        data["deletionTimestamp"] = timestamp(meta.deleting.wall_s)
    if labels := with_own_name(meta):
        data["labels"] = dict(labels)
    if meta.annotations:
        data["annotations"] = dict(meta.annotations)
    if meta.owner is not None:
        owner = meta.owner
        version = _version(owner.kind)
        data["ownerReferences"] = [
            {"apiVersion": version, "kind": owner.kind, "name": owner.name, "uid": owner.uid, "controller": True}
        ]
    return data


def _condition(kind: str, status: bool | None, reason: str, message: str, moment_s: float | None) -> dict[str, Any]:
    word = "Unknown" if status is None else str(status)
    condition: dict[str, Any] = {"type": kind, "status": word}
    if moment_s is not None:
        condition["lastTransitionTime"] = timestamp(moment_s)
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


# ---- workloads ----


def _deployment_status(status: DeploymentStatus) -> dict[str, Any]:
    counts = {
        "observedGeneration": status.observed_generation,
        "replicas": status.replicas,
        "updatedReplicas": status.updated,
        "readyReplicas": status.ready,
        "availableReplicas": status.available,
        "unavailableReplicas": status.replicas - status.available,
    }
    shown: dict[str, Any] = {key: count for key, count in counts.items() if count}
    shown["conditions"] = [stored_condition(item) for item in status.conditions]
    return shown


def stored_condition(item: StatusCondition) -> dict[str, Any]:
    """As in status.conditions."""
    return _condition(item.kind, item.status, item.reason, item.message, item.moment.wall_s)


def _replica_set(scene: Scene, record: ReplicaSet) -> dict[str, Any]:
    pods = [pod for pod in scene.owned(record) if pod.stop is None and pod.lost is None]
    ready = sum(bool(pod.report and pod.report.ready) and not scene.is_unseen(pod) for pod in pods)
    spec: dict[str, Any] = {"replicas": record.replicas}
    if record.min_ready_s:
        spec["minReadySeconds"] = record.min_ready_s
    template = dict(record.template)
    if record.meta.owner is not None:  # what its selector looks for, as on its pods
        template = with_labels(template, {HASH_LABEL: record.template_hash})
    spec |= {"selector": dict(record.selector), "template": template}
    status = {"replicas": len(pods), "readyReplicas": ready, "observedGeneration": record.observed_generation}
    return {"spec": spec, "status": {key: count for key, count in status.items() if count or key == "replicas"}}


def _pod(scene: Scene, pod: Pod) -> dict[str, Any]:
    template: Mapping[str, Any] = scene.template(pod)
    spec = dict(template.get("spec") or {})
    if pod.node:
        spec["nodeName"] = pod.node
    return {"spec": spec, "status": _pod_status(scene, pod)}


def _pod_status(scene: Scene, pod: Pod) -> dict[str, Any]:
    report = pod.report
    node = scene.world.nodes.get(pod.node)
    status: dict[str, Any] = {"phase": _phase(scene, pod), "conditions": _pod_conditions(scene, pod)}
    with contextlib.suppress(PlanBug):  # of a newer version
        if template := template_of(scene.world, pod):
            status["qosClass"] = qos_class(shape_of(template, pod.meta.namespace).spec)
    if node is not None:
        status["hostIP"] = node.address
    if pod.nominated and not pod.node:
        status["nominatedNodeName"] = pod.nominated
    if report is None:
        return status
    if report.ip:
        status |= {"podIP": report.ip, "podIPs": [{"ip": report.ip}]}
    if report.started_wall_s:
        status["startTime"] = timestamp(report.started_wall_s)
    status |= {key: text for key, text in (("reason", report.reason), ("message", report.message)) if text}
    init = [container_status(item) for item in report.containers if item.init]
    if init:
        status["initContainerStatuses"] = init
    status["containerStatuses"] = [container_status(item) for item in report.containers if not item.init]
    return status


def _phase(scene: Scene, pod: Pod) -> str:
    if pod.lost is not None or scene.is_unseen(pod):
        return "Unknown"
    if pod.report is None:
        return "Pending"
    return _PHASES.get(pod.report.phase, pod.report.phase)


def _pod_conditions(scene: Scene, pod: Pod) -> list[dict[str, Any]]:
    report = pod.report or PodReport("", "", "", "", "Pending")
    unknown = scene.is_unseen(pod) or pod.lost is not None
    ready = None if unknown else report.ready
    template: Mapping[str, Any] = scene.template(pod)
    spec: Mapping[str, Any] = template.get("spec") or {}
    initialized = pod.report is not None and is_initialized(pod.report, sidecars_of(spec))
    bound_s = pod.bound.wall_s if pod.bound else None
    why = why_unplaced(scene, pod)
    reason = "SchedulingGated" if spec.get("schedulingGates") else "Unschedulable"
    scheduled = _condition("PodScheduled", bool(pod.node), reason if why else "", why, bound_s)
    return [
        scheduled,
        _condition("Initialized", None if unknown else initialized, "", "", None),
        _condition("ContainersReady", ready, "", "", None),
        _condition("Ready", ready, "NodeUnreachable" if unknown else "", scene.unseen.get(pod.node, ""), None),
    ]


def why_unplaced(scene: Scene, pod: Pod) -> str:
    """Why a pod has no node; "" when it has one."""
    if pod.node:
        return ""
    unplaced = scene.unplaced.get(pod.meta.uid)
    return unplaced.summary if unplaced else pod.unplaced


def container_status(item: ContainerReport) -> dict[str, Any]:
    """As in status.containerStatuses."""
    status: dict[str, Any] = {
        "name": item.name,
        "image": item.image,
        "imageID": item.image_id,
        "ready": item.ready,
        "started": item.started,
        "restartCount": item.restarts,
        "state": _state(item),
    }
    if item.last_reason or item.last_exit_code is not None:
        last: dict[str, Any] = {"exitCode": item.last_exit_code, "reason": item.last_reason}
        if item.last_finished_wall_s:
            last["finishedAt"] = timestamp(item.last_finished_wall_s)
        status["lastState"] = {"terminated": last}
    return status


def _state(item: ContainerReport) -> dict[str, Any]:
    words = {key: text for key, text in (("reason", item.reason), ("message", item.message)) if text}
    if item.state == "running":
        return {"running": {"startedAt": timestamp(item.started_wall_s)}}
    if item.state == "terminated":
        times = {"startedAt": timestamp(item.started_wall_s), "finishedAt": timestamp(item.finished_wall_s)}
        return {"terminated": {"exitCode": item.exit_code, **words, **times}}
    return {"waiting": words}


# ---- nodes and the rest ----


def _node(scene: Scene, node: Node) -> dict[str, Any]:
    seen = scene.seen(node.meta.name)
    spec: dict[str, Any] = {"podCIDR": node.subnet}
    if node.taints:
        spec["taints"] = [{"key": taint.key, "value": taint.value, "effect": taint.effect} for taint in node.taints]
    if node.cordoned:
        spec["unschedulable"] = True
    addresses = [{"type": "InternalIP", "address": node.address}, {"type": "Hostname", "address": node.meta.name}]
    status: dict[str, Any] = {"addresses": addresses, "conditions": node_conditions(scene, node)}
    if seen is not None:
        status |= {"capacity": capacity(seen.capacity), "allocatable": capacity(seen.capacity)}
        status["nodeInfo"] = {
            "operatingSystem": "linux",
            "osImage": seen.capacity.os,
            "architecture": seen.capacity.arch,
            "kernelVersion": seen.capacity.kernel,
            "containerRuntimeVersion": f"podman://{seen.capacity.podman}",
            "bootID": seen.boot_id,
            "systemUUID": seen.agent,
        }
        status["images"] = [{"names": [*image.names], "sizeBytes": image.size_bytes} for image in seen.images]
    return {"spec": spec, "status": status}


def node_conditions(scene: Scene, node: Node) -> list[dict[str, Any]]:
    """Ready first, then what is wrong with it."""
    view = scene.views.get(node.meta.name)
    state = view.state if view else "Unknown"
    ready = {"Ready": True, "Orphaned": True, "NotReady": False, "Dead": False, "Quarantined": None}.get(state)
    since_s = node.missing.since.wall_s if node.missing else None
    found = [_condition("Ready", ready, state, view.why if view else "", since_s)]
    seen = scene.seen(node.meta.name)
    return [*found, *(_condition(item.kind, True, item.reason, item.message, None) for item in _wrong(seen))]


def _wrong(seen: Any) -> Sequence[Any]:
    return seen.conditions if seen is not None else ()


def capacity(room: Capacity) -> dict[str, str]:
    """As in status.capacity."""
    return {
        "cpu": quantity.format_cpu(room.cpu_m),
        "memory": f"{room.memory_bytes // 1024}Ki",
        "ephemeral-storage": f"{room.disk_free_bytes // 1024}Ki",
        "pods": str(room.pods),
    }


def _declared(scene: Scene, record: Declared) -> dict[str, Any]:
    rest = {key: item for key, item in record.source.items() if key not in ("apiVersion", "kind", "metadata")}
    if record.meta.kind == "Secret":
        rest["data"] = dict.fromkeys(record.source.get("data") or {}, HIDDEN)
    if record.meta.kind == "Namespace":
        rest["status"] = {"phase": "Terminating" if record.meta.deleting else "Active"}
    if record.meta.kind == "ResourceQuota":
        from controller.cli.policy_views import status_of

        rest["status"] = status_of(scene.world, record)
    return rest
