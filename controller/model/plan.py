"""What a pass decided: changes of records with their reasons, and each node's wanted set. Frozen data.

The same words appear in `plan`, `events`, `describe` and tests: a change carries its reason as data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from controller.model.cluster import Declared, Deployment, Node, Pod, Record, ReplicaSet, VolumeClaim, World
from nodeagent import protocol

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from controller.model.policies import Policy


@dataclass(frozen=True, slots=True)
class Change:
    """One record to write or remove, and why.

    `quiet` changes are bookkeeping (a report was stored, a serial moved): written, but neither shown by `plan` nor kept as events.
    """

    verb: str  # create | update | bind | stop | remove | scale | evict | restore | report
    record: Record  # as it shall be; for remove: as it was
    because: str
    reason: str = ""  # CamelCase, as in Kubernetes' events, e.g. ScalingReplicaSet, SuccessfulCreate
    warning: bool = False
    quiet: bool = False

    @property
    def subject(self) -> str:
        """ "kind namespace/name", for people."""
        return f"{self.record.meta.kind.lower()} {self.record.meta.key}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A node's wanted set before it gets a serial and an epoch. `digest` covers everything in it."""

    node: protocol.NodeConfig
    digest: str
    pods: tuple[protocol.Pod, ...]
    configs: Mapping[str, protocol.Config] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[protocol.ClaimVolume, ...] = ()


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A pod that fits nowhere: per node the reason of its rejection."""

    pod: str  # uid
    summary: str  # e.g. "0/3 nodes fit: 2 memory: needs 512Mi, free 300Mi; 1 cordoned"
    rejected: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node's state as this pass computed it."""

    name: str
    state: str  # Ready | NotReady | Unknown | Quarantined | Orphaned | Dead | Unseen (missed polls, not yet Unknown)
    why: str = ""
    may_push: bool = False  # commands may go there
    may_place: bool = False  # new pods may go there


@dataclass(frozen=True, slots=True)
class Ask:
    """What does a tag stand for in its registry now? To be asked through a node that is to run it, before the plan is carried out."""

    image: str  # canonical
    secrets: tuple[str, ...]  # pull secrets, "namespace/name"
    nodes: tuple[str, ...]  # the next one when the first cannot tell


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of `reconcile`. Empty `changes` and unchanged digests: converged."""

    changes: tuple[Change, ...]
    wanted: Mapping[str, Wanted]  # for nodes that may be pushed to
    nodes: Mapping[str, NodeView]
    unplaced: tuple[Unplaced, ...] = ()
    refused: tuple[str, ...] = ()  # workloads that may not have (all) their pods, and why, a line each
    notes: tuple[str, ...] = ()  # for people: brake on, duplicate agents, forked epochs, …
    wake_s: float | None = None  # seconds until time alone would change the plan
    settled: bool = True  # nothing under way: rollouts complete, pods ready, stops done
    brake: str = ""  # why nothing may be given up
    waiting: tuple[str, ...] = ()  # what `settled` is waiting for, a line each
    asks: tuple[Ask, ...] = ()  # with their answers in the world, the plan would say more

    @property
    def is_empty(self) -> bool:
        return not self.changes


def changed(world: World, changes: Iterable[Change]) -> World:
    """The world as it will be once `changes` are committed. The world given stays as it is."""
    tables: dict[str, Any] = {}
    for change in changes:
        field_name = _TABLES.get(type(change.record)) or _table_of_others(change.record)
        if field_name not in tables:
            tables[field_name] = dict(getattr(world, field_name))
        table = tables[field_name]
        key = change.record.meta.name if isinstance(change.record, Node) else change.record.meta.uid
        if change.verb == "remove":
            table.pop(key, None)
        else:
            table[key] = change.record
    return replace(world, **tables)


_TABLES = {
    Declared: "declared",
    Deployment: "deployments",
    ReplicaSet: "replica_sets",
    Pod: "pods",
    Node: "nodes",
    VolumeClaim: "claims",
}


POLICIES = frozenset({"PodDisruptionBudget", "HorizontalPodAutoscaler"})


def is_policy(record: Record) -> TypeIs[Policy]:
    """Whether a record says something about other objects' pods, and has none of its own."""
    return record.meta.kind in POLICIES


def _table_of_others(record: Record) -> str:
    """By kind: their modules are loaded when there is one."""
    return "policies" if is_policy(record) else "workloads"
