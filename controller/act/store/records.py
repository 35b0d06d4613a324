"""Records ⇄ rows. In: rows of the store. Out: frozen records of model.cluster. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from controller.model.cluster import (
    Cluster,
    Declared,
    Deployment,
    HostEntry,
    Node,
    Pod,
    Record,
    ReplicaSet,
    Sighting,
    VolumeClaim,
    World,
)
from controller.model.errors import StoreError
from nodeagent import protocol

if TYPE_CHECKING:
    from controller.model.policies import Policy
    from controller.model.workloads import Revision, Workload

_CLASSES: Mapping[str, Any] = {
    "Deployment": Deployment,
    "ReplicaSet": ReplicaSet,
    "Pod": Pod,
    "Node": Node,
    "Namespace": Declared,
    "ConfigMap": Declared,
    "Secret": Declared,
    "PriorityClass": Declared,
    "ResourceQuota": Declared,
    "LimitRange": Declared,
    "Image": Declared,
    "PersistentVolumeClaim": VolumeClaim,
}
_WORKLOADS = {
    "ControllerRevision": "Revision",
    "CronJob": "CronJob",
    "DaemonSet": "DaemonSet",
    "Job": "Job",
    "StatefulSet": "StatefulSet",
}  # their module is loaded when there is one
_NONE: Mapping[str, Any] = MappingProxyType({})
_POLICIES = {"PodDisruptionBudget": "Budget", "HorizontalPodAutoscaler": "Autoscaler"}  # likewise


@dataclass(slots=True)
class Records:
    """All records of a store at one moment. By uid; nodes by name. `counter` is the store's resourceVersion then."""

    counter: int = 0
    serial: int = 0
    declared: dict[str, Declared] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    replica_sets: dict[str, ReplicaSet] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    workloads: dict[str, Workload | Revision] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    claims: dict[str, VolumeClaim] = field(default_factory=dict)

    def world(
        self, cluster: Cluster, entries: Mapping[str, HostEntry] = _NONE, sightings: Mapping[str, Sighting] = _NONE
    ) -> World:
        """These records as decisions read them, with what was seen of hosts; without, for verbs and for views of what is stored."""
        return World(
            cluster,
            entries,
            self.nodes,
            sightings,
            self.declared,
            self.deployments,
            self.replica_sets,
            self.pods,
            self.counter,
            self.workloads,
            self.policies,
            self.claims,
        )

    def put(self, record: Record) -> None:
        self._table(record)[self._key(record)] = record

    def remove(self, record: Record) -> None:
        self._table(record).pop(self._key(record), None)

    def all(self) -> Iterable[Record]:
        tables = (
            self.declared,
            self.deployments,
            self.replica_sets,
            self.workloads,
            self.policies,
            self.claims,
            self.pods,
            self.nodes,
        )
        for table in tables:
            yield from table.values()

    def copy(self) -> Records:
        return Records(
            self.counter,
            self.serial,
            dict(self.declared),
            dict(self.deployments),
            dict(self.replica_sets),
            dict(self.pods),
            dict(self.nodes),
            dict(self.workloads),
            dict(self.policies),
            dict(self.claims),
        )

    def _table(self, record: Record) -> dict[str, Any]:
        match record:
            case Deployment():
                return self.deployments
            case ReplicaSet():
                return self.replica_sets
            case Pod():
                return self.pods
            case Node():
                return self.nodes
            case Declared():
                return self.declared
            case _ if record.meta.kind in _POLICIES:
                return self.policies
            case VolumeClaim():
                return self.claims
            case _:
                return self.workloads

    @staticmethod
    def _key(record: Record) -> str:
        return record.meta.name if isinstance(record, Node) else record.meta.uid


def to_row(record: Record) -> str:
    """The JSON text that is stored. The version stands in a column of its own."""
    return json.dumps(protocol.encode(record), separators=(",", ":"), ensure_ascii=False)


def from_row(kind: str, version: int, data: str) -> Record:
    """Raises StoreError when the row is none of ours: a damaged store must not be read as "nothing declared"."""
    try:
        plain = json.loads(data)
        plain["meta"]["version"] = version
        record: Record = protocol.decode(_class_of(kind), plain, strict=True)
    except (KeyError, TypeError, ValueError, protocol.ProtocolError) as error:
        raise StoreError(f"the store holds a {kind} that cannot be read: {error}", hint="restore a backup") from error
    return record


def _class_of(kind: str) -> Any:
    if kind in _POLICIES:
        from controller.model import policies

        return getattr(policies, _POLICIES[kind])
    if kind not in _WORKLOADS:
        return _CLASSES[kind]
    from controller.model import workloads

    return getattr(workloads, _WORKLOADS[kind])
