"""The cluster as it is stored and as it was seen. Frozen data, no I/O, no clock.

Records are what the store holds; only transitions are written, never "last seen" times, so that a converged pass writes nothing.
A `World` is one pass's whole picture: records, inventory and sightings. `decide` maps it to a Plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from nodeagent.protocol import (
    AgentEvent,
    Capacity,
    Condition,
    Cursor,
    ImageReport,
    Owner,
    PodReport,
    Usage,
    VolumeReport,
)

if TYPE_CHECKING:  # loaded when there is one
    from controller.model.policies import Policy
    from controller.model.workloads import Revision, Workload

# As in Kubernetes these are always there; they are stored only once somebody declares them, with labels for instance.
BUILT_IN_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")

# ---- time -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time of the controller. Comparable over a reboot by wall time only, within a boot by the boot clock."""

    wall_s: float
    boot_id: str
    boottime_s: float

    def since(self, earlier: Moment) -> float:
        """Seconds from `earlier` to this moment; never negative. Within a boot a step of the wall clock does not count."""
        if self.boot_id == earlier.boot_id:
            return max(0.0, self.boottime_s - earlier.boottime_s)
        return max(0.0, self.wall_s - earlier.wall_s)

    def seems_before(self, earlier: Moment) -> bool:
        """Whether a clock that was set back over a reboot hides how long ago `earlier` was: `since` says 0 until it has caught up."""
        return self.boot_id != earlier.boot_id and self.wall_s < earlier.wall_s


# ---- records: what the store holds --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ref:
    """Who owns an object."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Meta:
    """Kubernetes' object metadata. `version` is the store's counter (resourceVersion), set by the store."""

    kind: str
    namespace: str  # "" for kinds without namespaces
    name: str
    uid: str
    created: Moment
    generation: int = 1
    version: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    owner: Ref | None = None
    deleting: Moment | None = None  # an explicit delete was ordered

    @property
    def key(self) -> str:
        """ "namespace/name"; the name alone for kinds without namespaces."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


AVAILABLE, PROGRESSING, REPLICA_FAILURE = (
    "Available",
    "Progressing",
    "ReplicaFailure",
)  # Kubernetes' conditions of a Deployment


@dataclass(frozen=True, slots=True)
class StatusCondition:
    """A condition in an object's status. `moment` is when `status` last changed."""

    kind: str
    status: bool
    reason: str
    message: str
    moment: Moment


@dataclass(frozen=True, slots=True)
class Declared:
    """An object as the user wrote it: Namespace, ConfigMap, Secret, PriorityClass, ResourceQuota, LimitRange; or what a pushed image's name
    stands for (Image).

    A secret's source holds no values, only their names.
    """

    meta: Meta
    source: Mapping[str, Any]
    hash: str = ""  # of the content of config maps and secrets


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """How far a Deployment has come, as Kubernetes' status says it."""

    observed_generation: int = 0
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    conditions: tuple[StatusCondition, ...] = ()
    progressed: Moment | None = None  # when the rollout last made progress


@dataclass(frozen=True, slots=True)
class Incident:
    """A revision that was given up for an earlier one, and what was known then."""

    moment: Moment
    generation: int  # of the Deployment, with the earlier template
    revision: int
    back_to: int
    reason: str  # ProgressDeadlineExceeded | CrashLoopBackOff
    message: str
    timeline: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deployment:
    """`source` is the manifest as written; the hash of its pod template, as written, names the ReplicaSet."""

    meta: Meta
    source: Mapping[str, Any]
    template_hash: str
    status: DeploymentStatus = DeploymentStatus()
    incidents: tuple[Incident, ...] = ()  # the latest last; a few are kept
    # Content hashes, where a change of these restarts its pods
    configs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """One revision of a Deployment, or a ReplicaSet of its own. `template` is the pod template as written."""

    meta: Meta
    template: Mapping[str, Any]
    template_hash: str
    replicas: int
    selector: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 0  # of its Deployment
    min_ready_s: int = 0
    pods_made: int = 0  # counter: with the uid it names the next pod, so that no name is ever used twice
    desired: int = 0  # of its Deployment when this was last scaled: proportional scaling needs it
    change_cause: str = ""
    observed_generation: int = 0
    proven: Moment | None = None  # when a rollout to it was first complete
    refused: str = ""  # why it gets no (more) pods; of one of its own, since a Deployment's is told by that
    # Image as written → protocol.Container.pin, settled once per revision; None: not yet
    images: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The intent to end a pod."""

    because: str
    moment: Moment
    grace_s: int | None = None  # overrides the pod's own


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod and its binding. The record outlives a lost node; it goes when the agent has said that the pod is stopped."""

    meta: Meta
    template_hash: str
    source: Mapping[str, Any] | None = None  # of a pod of its own; else the ReplicaSet's template counts
    node: str = ""  # "": not placed yet
    bound: Moment | None = None
    stop: Stop | None = None
    lost: Moment | None = None  # given up with its node, and replaced; cleared when the node returns with it
    unplaced: str = ""  # why it has no node, in one line
    nominated: str = ""  # pods of lower priority are being stopped on this node to make room for it
    decision: str = ""  # why it is on its node: scores, the next best, and why others were out
    report: PodReport | None = None  # the agent's last word; written when it changes
    hostname: str = ""  # "": its name
    defaults: Mapping[str, Any] = field(default_factory=dict)  # by container: resources that LimitRanges gave it
    handover: bool = False  # its node is drained, and a budget wants its replacement ready before it goes
    # What its Job counted it as: Succeeded | Failed | Ignored | Stopped; set once, with the Job's counters
    verdict: str = ""
    home: str = ""  # the node that it must go to: its StatefulSet is sticky, and it ran there before
    address: str = ""  # a fixed one, from the upper half of its node's subnet; "": Podman gives one out


@dataclass(frozen=True, slots=True)
class VolumeClaim:
    """A PersistentVolumeClaim and its volume, which lies on one node. Bound with the first pod that uses it, and then it stays.

    The record goes when the agent has said that the volume is removed. A volume's name is never used twice: it is made of the claim's uid
    and a counter, so that what an old host brings back is never taken for the claim's present data.
    """

    meta: Meta
    source: Mapping[str, Any]
    node: str = ""  # where its volume is; "": not bound yet
    bound: Moment | None = None
    volume: str = ""  # the volume's name on that node
    directory: str = ""  # the declared path in which it lies; "": a volume of Podman
    volumes_made: int = 0  # counter that names volumes
    # Its node has said that it is there: one that is missing later is lost data, and not made anew
    is_made: bool = False
    report: VolumeReport | None = None  # the agent's last word; written when it changes
    removing: Moment | None = None  # the agent is told to remove the volume from here on
    lost: str = ""  # what became of the data of an earlier volume
    stale: Mapping[str, Stray] = field(default_factory=dict)  # by name: earlier volumes that came back with their host


@dataclass(frozen=True, slots=True)
class Stray:
    """A volume that is not the present one of its claim."""

    node: str
    directory: str  # "": a volume of Podman


@dataclass(frozen=True, slots=True)
class Drain:
    """The intent to empty a node. It stays until the node is empty, or uncordoned."""

    since: Moment
    grace_s: int | None = None  # overrides the pods' own
    force: bool = False  # pods that nothing replaces go too
    empty_dirs: bool = False  # pods with emptyDir volumes go too
    selector: str = ""  # only pods with these labels, as on the command line


@dataclass(frozen=True, slots=True)
class Missing:
    """An unbroken series of missed polls of a node.

    held: no node at all answers, and the time that is tolerated does not pass. counted: from when it does; None: from `since`.
    """

    since: Moment
    latest: Moment
    polls: int
    kind: str
    why: str
    held: bool = False
    counted: Moment | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """What is remembered of a host that runs pods, or did. Unknown is computed from `missing`, never stored as a state."""

    meta: Meta
    address: str
    subnet: str
    agent: str = ""  # UUID of its agent; "" before it was first seen
    host_key: str = ""  # fingerprint of the SSH key by which that agent was reached
    labels: Mapping[str, str] = field(default_factory=dict)  # from the inventory
    taints: tuple[Taint, ...] = ()
    bastion: str = ""
    connection: Mapping[str, Any] = field(default_factory=dict)  # as in HostEntry: an orphan is still reached by it
    cordoned: bool = False
    drain: Drain | None = None
    missing: Missing | None = None
    given_up: Moment | None = None  # its shared pods were replaced
    confirmed_dead: str = ""  # "powered-off" | "wiped": said by a person
    orphaned: bool = False  # gone from the inventory
    quarantined: str = ""  # why no command may go there
    serial: int = 0  # of the wanted set last made for it
    digest: str = ""
    storage: Mapping[str, Storage] = field(default_factory=dict)  # by name of the class, from the inventory


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a host keeps the volumes of one storage class."""

    path: str = ""  # a directory of the host; "": Podman's own volumes
    size_bytes: int = 0  # what claims may ask for there in all; 0: not known


@dataclass(frozen=True, slots=True)
class Taint:
    """What keeps pods off a node, or takes them away."""

    key: str
    value: str
    effect: str  # NoSchedule | PreferNoSchedule | NoExecute
    added: Moment | None = None  # when a node got it: tolerationSeconds count from here; None in an inventory


Record: TypeAlias = "Declared | Deployment | ReplicaSet | Pod | Node | Workload | Revision | Policy | VolumeClaim"


AGENT_NEWER = "AgentNewer"  # a condition that the controller adds: the agent speaks a newer protocol, and is only read


# ---- sightings: what one pass saw -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """An agent answered. The full picture of its node, accumulated from its delta reports. Everything in it is the host's word."""

    agent: str
    instance: str
    boot_id: str
    boottime_s: float
    wall_s: float
    version: str
    cursor: Cursor
    owner: Owner | None
    pods: Mapping[str, PodReport]  # by uid
    capacity: Capacity
    conditions: tuple[Condition, ...] = ()
    images: tuple[ImageReport, ...] = ()
    events: tuple[AgentEvent, ...] = ()  # new ones only
    missing_secrets: tuple[str, ...] = ()  # named by its wanted set, not there
    skew_s: float = 0.0  # host's wall clock minus the controller's
    usage: Usage | None = None  # asked for only where somebody needs it
    volumes: Mapping[str, VolumeReport] | None = None  # by name; None: its agent has not looked yet
    host_key: str = ""  # fingerprint of the host's SSH key, which the connection has proved: not the host's word


@dataclass(frozen=True, slots=True)
class Unseen:
    """No answer in this poll. Means nothing about the pods there."""

    kind: str  # unreachable | installing (it is just getting its agent) | auth | key-unknown | key-changed | not-ready | refused | nonsense
    why: str


Sighting = Seen | Unseen


@dataclass(frozen=True, slots=True)
class HostEntry:
    """A host of the inventory, as far as decisions need it."""

    name: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    bastion: str = ""
    connection: Mapping[str, Any] = field(default_factory=dict)  # Ansible's variables to reach it, without passwords
    storage: Mapping[str, Storage] = field(default_factory=dict)  # by name of the class


@dataclass(frozen=True, slots=True)
class Settings:
    """What a context can set about decisions."""

    period_s: float = 60.0  # between polls: a silence of more than three of them breaks a series of misses
    cluster_range: str = "10.86.0.0/16"
    node_prefix: int = 24
    host_paths: tuple[str, ...] = ()  # allow-list for hostPath volumes
    brake_fraction: float = 0.55
    brake_nodes_min: int = 3
    give_up_fraction: float = 0.10  # of the nodes, per minute; at least one
    inventory_loss_fraction: float = 0.30  # of the nodes may vanish from the inventory at once
    accept_inventory_loss: bool = False  # a person said that more than that is meant


@dataclass(frozen=True, slots=True)
class Cluster:
    """What one store is about."""

    id: str
    settings: Settings = Settings()


AskKey: TypeAlias = "tuple[str, tuple[str, ...]]"  # canonical name of an image, names of pull secrets


@dataclass(frozen=True, slots=True)
class Answer:
    """What a registry said a tag stands for now, or why that is not known."""

    digest: str = ""  # "sha256:…"
    why: str = ""


@dataclass(frozen=True)
class World:
    """One pass's whole picture. Records by uid, nodes and hosts by name. Its indexes are made when they are first asked for."""

    cluster: Cluster
    hosts: Mapping[str, HostEntry]
    nodes: Mapping[str, Node]
    sightings: Mapping[str, Sighting]
    declared: Mapping[str, Declared] = field(default_factory=dict)
    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    replica_sets: Mapping[str, ReplicaSet] = field(default_factory=dict)
    pods: Mapping[str, Pod] = field(default_factory=dict)
    counter: int = 0  # the store's resourceVersion: new objects derive their uid from it
    workloads: Mapping[str, Workload | Revision] = field(default_factory=dict)  # all other kinds that make pods
    policies: Mapping[str, Policy] = field(default_factory=dict)  # disruption budgets and autoscalers
    claims: Mapping[str, VolumeClaim] = field(default_factory=dict)
    answers: Mapping[AskKey, Answer] = field(default_factory=dict)  # of registries that were asked in this pass

    @cached_property
    def owned(self) -> Mapping[str, list[Pod]]:
        """Pods by the uid of their owner."""
        found: dict[str, list[Pod]] = {}
        for pod in self.pods.values():
            if pod.meta.owner is not None:
                found.setdefault(pod.meta.owner.uid, []).append(pod)
        return found

    @cached_property
    def bound_to(self) -> Mapping[str, list[Pod]]:
        """Pods by the name of their node; "": those that have none."""
        found: dict[str, list[Pod]] = {}
        for pod in self.pods.values():
            found.setdefault(pod.node, []).append(pod)
        return found

    @cached_property
    def revisions(self) -> Mapping[str, list[ReplicaSet]]:
        """ReplicaSets by the uid of their owner."""
        found: dict[str, list[ReplicaSet]] = {}
        for record in self.replica_sets.values():
            if record.meta.owner is not None:
                found.setdefault(record.meta.owner.uid, []).append(record)
        return found
