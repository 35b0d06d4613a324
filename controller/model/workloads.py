"""Records of Jobs, CronJobs, DaemonSets and StatefulSets. Frozen data, no I/O, no clock.

They share one table of the store and of a World, and this module is loaded when there is one: a cluster of Deployments pays nothing for it.
`source` is the manifest as written; `template` is what pods are made from: as written, with what Kubernetes adds for that kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.model.cluster import Meta, Moment, StatusCondition
from controller.model.identity import OWN_NAME

INDEX_KEY = "batch.kubernetes.io/job-completion-index"  # annotation and label of an Indexed Job's pod
INDEX_ENV = "JOB_COMPLETION_INDEX"

# ---- jobs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed pods of a Job, or of one of its indexes."""

    count: int
    in_row: int  # since the last success: sets the back-off
    latest: Moment


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Counters move in the transaction that marks the pod as counted, so each pod counts once."""

    started: Moment | None = None  # None before the first pass and while suspended
    finished: Moment | None = None  # when Complete or Failed became true
    active: int = 0
    ready: int = 0
    terminating: int = 0
    succeeded: int = 0
    failed: int = 0
    completed_indexes: str = ""  # e.g. "0,2-4"
    failed_indexes: str = ""
    failures: Mapping[str, Failures] = field(default_factory=dict)  # by index; "" for the Job as a whole
    conditions: tuple[StatusCondition, ...] = ()
    refused: str = ""  # why no (more) pods may be made


@dataclass(frozen=True, slots=True)
class Job:
    """A Job as it was declared, and what came of it."""

    meta: Meta
    source: Mapping[str, Any]
    template_hash: str
    pods_made: int = 0  # counter that names pods: no name is ever used twice
    status: JobStatus = JobStatus()
    images: Mapping[str, str] | None = None  # as in cluster.ReplicaSet

    @property
    def template(self) -> Mapping[str, Any]:
        """With the variable that tells a container of an Indexed Job its index."""
        spec = self.source["spec"]
        template: Mapping[str, Any] = spec["template"]
        return _with_index(template) if spec.get("completionMode") == "Indexed" else template


def _with_index(template: Mapping[str, Any]) -> Mapping[str, Any]:
    variable = {"name": INDEX_ENV, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_KEY}']"}}}
    spec = dict(template["spec"])
    for kind in ("initContainers", "containers"):
        if spec.get(kind):
            spec[kind] = [
                one
                if any(item.get("name") == INDEX_ENV for item in one.get("env") or ())
                else {**one, "env": [*(one.get("env") or ()), variable]}
                for one in spec[kind]
            ]
    return {**template, "spec": spec}


# ---- cron jobs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CronStatus:
    """What a CronJob has run."""

    tick_s: float = 0.0  # the latest time of the schedule that was run: it and those before it never run again
    succeeded: Moment | None = None  # when one of its Jobs last completed
    conditions: tuple[StatusCondition, ...] = ()  # Kubernetes has none


@dataclass(frozen=True, slots=True)
class CronJob:
    """A CronJob as it was declared, and what it has run."""

    meta: Meta
    source: Mapping[str, Any]
    status: CronStatus = CronStatus()

    @property
    def template(self) -> Mapping[str, Any]:
        template: Mapping[str, Any] = self.source["spec"]["jobTemplate"]["spec"]["template"]
        return template


# ---- daemon sets and stateful sets ----------------------------------------------------------------------------------

_DAEMON_TAINTS = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_HOST_NETWORK_TAINT = ("node.kubernetes.io/network-unavailable", "NoSchedule")


@dataclass(frozen=True, slots=True)
class SetStatus:
    """How far a DaemonSet or StatefulSet has come."""

    observed_generation: int = 0
    desired: int = 0  # nodes of a DaemonSet, replicas of a StatefulSet
    current: int = 0  # pods that are there, not on their way out
    updated: int = 0  # of these, those of the present template
    ready: int = 0
    available: int = 0
    misscheduled: int = 0  # on nodes where they should not be
    behind: int = 0  # nodes that answer, or replicas, without an available pod of the revision that they shall have
    revision: str = ""  # template hash of the revision that was last rolled out completely
    trouble: tuple[str, ...] = ()  # what keeps it from getting on
    conditions: tuple[StatusCondition, ...] = ()  # Kubernetes has none


@dataclass(frozen=True, slots=True)
class Revision:
    """One template of a DaemonSet or StatefulSet. `written` as the user wrote it: undo gives it back.

    Of a Job there is one only when the Job is gone and pods of it are not.
    """

    meta: Meta
    written: Mapping[str, Any]
    template_hash: str
    number: int
    change_cause: str = ""
    service: str = ""
    images: Mapping[str, str] | None = None  # as in cluster.ReplicaSet
    claims: tuple[str, ...] = ()  # names of a StatefulSet's volumeClaimTemplates

    @property
    def template(self) -> Mapping[str, Any]:
        if self.meta.owner is not None and self.meta.owner.kind == "DaemonSet":
            return _with_tolerations(self.written)
        return _with_claims(_with_subdomain(self.written, self.service), self.claims)


@dataclass(frozen=True, slots=True)
class DaemonSet:
    """A DaemonSet as it was declared, and how far it has come."""

    meta: Meta
    source: Mapping[str, Any]
    template_hash: str
    pods_made: int = 0
    status: SetStatus = SetStatus()
    configs: Mapping[str, str] = field(default_factory=dict)  # as in Deployment

    @property
    def template(self) -> Mapping[str, Any]:
        return _with_tolerations(self.source["spec"]["template"])


@dataclass(frozen=True, slots=True)
class Home:
    """Where a pod of a sticky StatefulSet is at home."""

    node: str
    address: str = ""  # "": not sticky, or none was free


@dataclass(frozen=True, slots=True)
class StatefulSet:
    """A StatefulSet as it was declared, and how far it has come."""

    meta: Meta
    source: Mapping[str, Any]
    template_hash: str
    pods_made: int = 0
    status: SetStatus = SetStatus()
    configs: Mapping[str, str] = field(default_factory=dict)  # as in Deployment
    homes: Mapping[str, Home] = field(default_factory=dict)  # by name of the pod

    @property
    def template(self) -> Mapping[str, Any]:
        spec = self.source["spec"]
        return _with_claims(_with_subdomain(spec["template"], str(spec.get("serviceName") or "")), self.claims)

    @property
    def claims(self) -> tuple[str, ...]:
        """Names of its volumeClaimTemplates."""
        templates = self.source["spec"].get("volumeClaimTemplates") or ()
        return tuple(str(item["metadata"]["name"]) for item in templates)


def _with_tolerations(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """What Kubernetes' DaemonSet controller adds: these pods stay on nodes that others have to leave."""
    spec = dict(template["spec"])
    taints = (*_DAEMON_TAINTS, _HOST_NETWORK_TAINT) if spec.get("hostNetwork") else _DAEMON_TAINTS
    added = [{"key": key, "operator": "Exists", "effect": effect} for key, effect in taints]
    spec["tolerations"] = [*(spec.get("tolerations") or ()), *added]
    return {**template, "spec": spec}


def _with_subdomain(template: Mapping[str, Any], service: str) -> Mapping[str, Any]:
    return {**template, "spec": {**template["spec"], "subdomain": service}} if service else template


def _with_claims(template: Mapping[str, Any], claims: Sequence[str]) -> Mapping[str, Any]:
    """The volumes of the claim templates; they take the place of volumes of the same name, as in Kubernetes."""
    if not claims:
        return template
    spec = dict(template["spec"])
    kept = [volume for volume in spec.get("volumes") or () if volume.get("name") not in claims]
    made = [{"name": name, "persistentVolumeClaim": {"claimName": f"{name}-{OWN_NAME}"}} for name in claims]
    spec["volumes"] = [*kept, *made]
    return {**template, "spec": spec}


Workload = Job | CronJob | DaemonSet | StatefulSet
