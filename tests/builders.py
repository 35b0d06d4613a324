"""Records and worlds with defaults: a test names only what matters to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from controller.model.cluster import (
    Cluster,
    Declared,
    Deployment,
    HostEntry,
    Meta,
    Moment,
    Node,
    Pod,
    ReplicaSet,
    Seen,
    Settings,
    Sighting,
    Taint,
    Unseen,
    VolumeClaim,
    World,
)
from controller.model.fitness.facts import Disk, HostFacts, Program
from controller.model.identity import child_uid, content_hash, template_hash
from controller.model.plan import Plan, changed
from controller.model.policies import Autoscaler, Budget
from controller.model.workloads import CronJob, DaemonSet, Job, StatefulSet
from nodeagent import protocol
from nodeagent.protocol import Capacity, Condition, Cursor, Owner, PodReport

CLUSTER = "00000000-0000-4000-8000-000000000001"
START_S = 1_700_000_000.0


def moment(seconds: float = 0.0, boot_id: str = "boot") -> Moment:
    """So many seconds after the start of the test's time."""
    return Moment(START_S + seconds, boot_id, 1000.0 + seconds)


def meta(kind: str, name: str, namespace: str = "default", **fields: Any) -> Meta:
    fields = {"uid": child_uid(CLUSTER, f"{kind}/{namespace}/{name}"), "created": moment(), **fields}
    return Meta(kind, namespace, name, **fields)


def template(image: str = "web:1", **spec: Any) -> dict[str, Any]:
    """A pod template as written. `requests` and `ports` go to its only container, the rest to the spec."""
    container: dict[str, Any] = {"name": "main", "image": image}
    if "requests" in spec:
        container["resources"] = {"requests": spec.pop("requests")}
    if "ports" in spec:
        container["ports"] = spec.pop("ports")
    if "env_from" in spec:
        container["envFrom"] = spec.pop("env_from")
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container], **spec}}


def deployment(
    name: str = "web", replicas: int = 3, pods: Mapping[str, Any] | None = None, namespace: str = "default", **spec: Any
) -> Deployment:
    """A Deployment as written; `spec` takes Kubernetes' field names, `pods` a template."""
    written = pods or template()
    source = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": written, **spec},
    }
    return Deployment(meta("Deployment", name, namespace), source, template_hash(written))


def edited(record: Deployment, pods: Mapping[str, Any] | None = None, **spec: Any) -> Deployment:
    """The Deployment as a user changed it."""
    fields = {**record.source["spec"], **spec}
    if pods is not None:
        fields["template"] = pods
    return replace(
        record,
        meta=replace(record.meta, generation=record.meta.generation + 1),
        source={**record.source, "spec": fields},
        template_hash=template_hash(fields["template"]),
    )


def replica_set(name: str = "bare", replicas: int = 2, pods: Mapping[str, Any] | None = None) -> ReplicaSet:
    """A ReplicaSet of its own."""
    written = pods or template()
    selector = {"matchLabels": {"app": "web"}}
    return ReplicaSet(meta("ReplicaSet", name), written, template_hash(written), replicas, selector)


def job(name: str = "sum", pods: Mapping[str, Any] | None = None, **spec: Any) -> Job:
    """A Job as written; `spec` takes Kubernetes' field names, `pods` a template."""
    written = pods or template("sum:1", restartPolicy="Never")
    source = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": written, **spec},
    }
    return Job(meta("Job", name), source, template_hash(written))


def cron_job(name: str = "tick", schedule: str = "* * * * *", **spec: Any) -> CronJob:
    """A CronJob as written, made at the start of the test's time."""
    work = {"template": template("sum:1", restartPolicy="Never")}
    source = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": work}, **spec},
    }
    return CronJob(meta("CronJob", name), source)


def daemon_set(name: str = "web", pods: Mapping[str, Any] | None = None, **spec: Any) -> DaemonSet:
    """A DaemonSet as written."""
    written = pods or template()
    return DaemonSet(meta("DaemonSet", name), _set_source("DaemonSet", name, written, spec), template_hash(written))


def stateful_set(
    name: str = "web", replicas: int = 3, pods: Mapping[str, Any] | None = None, **spec: Any
) -> StatefulSet:
    """A StatefulSet as written."""
    written = pods or template()
    source = _set_source("StatefulSet", name, written, {"replicas": replicas, **spec})
    return StatefulSet(meta("StatefulSet", name), source, template_hash(written))


def budget(name: str = "web", labels: Mapping[str, str] | None = None, **spec: Any) -> Budget:
    """A PodDisruptionBudget as written, over the pods of `template`."""
    selector = {"matchLabels": dict(labels or {"app": "web"})}
    source = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": selector, **spec},
    }
    return Budget(meta("PodDisruptionBudget", name), source)


def autoscaler(name: str = "web", target: str = "Deployment/web", **spec: Any) -> Autoscaler:
    """A HorizontalPodAutoscaler as written: up to 10 replicas, unless `spec` says otherwise."""
    kind, _, target_name = target.partition("/")
    reference = {"apiVersion": "apps/v1", "kind": kind, "name": target_name}
    source = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"scaleTargetRef": reference, "maxReplicas": 10, **spec},
    }
    return Autoscaler(meta("HorizontalPodAutoscaler", name), source)


def _set_source(kind: str, name: str, written: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": written, **spec},
    }


def bare_pod(name: str = "lonely", **spec: Any) -> Pod:
    """A Pod of its own."""
    written = template(**spec)
    source = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", **written["metadata"]},
        "spec": written["spec"],
    }
    return Pod(meta("Pod", name, labels={"app": "web"}), template_hash(written), source)


def claim(name: str = "data", size: str = "1Gi", modes: Iterable[str] = ("ReadWriteOnce",), **spec: Any) -> VolumeClaim:
    """A PersistentVolumeClaim as written; `spec` takes Kubernetes' field names."""
    fields = {"accessModes": list(modes), "resources": {"requests": {"storage": size}}, **spec}
    source = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": fields,
    }
    return VolumeClaim(meta("PersistentVolumeClaim", name), source)


def claiming(name: str = "data") -> dict[str, Any]:
    """Fields of a pod's spec: a volume of that claim."""
    return {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]}


def config_map(name: str, data: Mapping[str, str], namespace: str = "default") -> Declared:
    source = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": dict(data),
    }
    return Declared(meta("ConfigMap", name, namespace), source, content_hash({"data": dict(data), "binaryData": {}}))


def secret(name: str, digest: str, namespace: str = "default") -> Declared:
    return Declared(meta("Secret", name, namespace), {"data": {"password": ""}}, digest)


def namespace(name: str, **fields: Any) -> Declared:
    return Declared(meta("Namespace", name, "", **fields), {"metadata": {"name": name}})


def host(name: str, **fields: Any) -> HostEntry:
    return HostEntry(name, fields.pop("address", f"{name}.example"), **fields)


def node(name: str, number: int = 1, **fields: Any) -> Node:
    """As `reconcile` would have made it for host(name) and seen(name)."""
    labels = {"kubernetes.io/arch": "amd64", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    fields = {
        "address": f"{name}.example",
        "subnet": f"10.86.{number}.0/24",
        "agent": f"agent-{name}",
        "labels": labels,
        **fields,
    }
    return Node(meta("Node", name, ""), **fields)


def seen(
    name: str,
    pods: Iterable[PodReport] = (),
    *,
    cpu_m: int = 4000,
    memory_bytes: int = 4 * 2**30,
    boottime_s: float = 5000.0,
    **fields: Any,
) -> Seen:
    capacity = Capacity(cpu_m=cpu_m, memory_bytes=memory_bytes, arch="x86_64", os="Debian GNU/Linux 13 (trixie)")
    defaults: dict[str, Any] = {
        "agent": f"agent-{name}",
        "instance": f"instance-{name}",
        "boot_id": f"boot-{name}",
        "boottime_s": boottime_s,
        "wall_s": START_S,
        "version": "v1",
        "cursor": Cursor(f"instance-{name}", 1),
        "owner": Owner(CLUSTER, protocol.Epoch(1, "epoch"), 1),
        "pods": {report.uid: report for report in pods},
        "capacity": capacity,
    }
    return Seen(**{**defaults, **fields})


def unseen(kind: str = "unreachable", why: str = "no route to host") -> Unseen:
    return Unseen(kind, why)


def condition(kind: str) -> Condition:
    return Condition(kind, kind, f"{kind} is said")


def taint(key: str, effect: str = "NoSchedule", value: str = "") -> Taint:
    return Taint(key, value, effect)


def report(
    pod: Pod | protocol.Pod, phase: str = "Running", *, ready: bool = True, ready_since_s: float = 0.0
) -> PodReport:
    """What an agent says of a pod."""
    if isinstance(pod, Pod):
        uid, space, name, digest = pod.meta.uid, pod.meta.namespace, pod.meta.name, pod.template_hash
    else:
        uid, space, name, digest = pod.uid, pod.namespace, pod.name, pod.hash
    is_ready = ready and phase == "Running"
    return PodReport(uid, space, name, digest, phase, is_ready, ready_since_s if is_ready else 0.0)


def world(*things: Any, settings: Settings | None = None, sightings: Mapping[str, Sighting] | None = None) -> World:
    """A world of records and hosts, in any order. Nodes get a host, hosts and nodes a sighting, unless these are given."""
    hosts = {item.name: item for item in things if isinstance(item, HostEntry)}
    nodes = {item.meta.name: item for item in things if isinstance(item, Node)}
    hosts |= {name: _host_of(item) for name, item in nodes.items() if name not in hosts and not item.orphaned}
    told: dict[str, Sighting] = {name: seen(name) for name in (*hosts, *nodes)}
    told |= dict(sightings or {})

    def table(kind: Any) -> dict[str, Any]:
        return {item.meta.uid: item for item in things if isinstance(item, kind)}

    return World(
        Cluster(CLUSTER, settings or Settings()),
        hosts,
        nodes,
        told,
        table(Declared),
        table(Deployment),
        table(ReplicaSet),
        table(Pod),
        workloads=table(Job | CronJob | DaemonSet | StatefulSet),
        policies=table(Budget | Autoscaler),
        claims=table(VolumeClaim),
    )


def _host_of(item: Node) -> HostEntry:
    labels = {key: value for key, value in item.labels.items() if not key.startswith("kubernetes.io/")}
    taints = tuple(replace(taint, added=None) for taint in item.taints)
    return HostEntry(item.meta.name, item.address, labels, taints, item.bastion, storage=item.storage)


def cluster(count: int, *things: Any, **fields: Any) -> World:
    """A world with so many healthy nodes: n1, n2 …"""
    return world(*(node(f"n{number}", number) for number in range(1, count + 1)), *things, **fields)


def after(before: World, plan: Plan) -> World:
    """The world once the plan is committed. Sightings stay as they were."""
    return replace(changed(before, plan.changes), counter=before.counter + bool(plan.changes))


def put(before: World, *records: Any) -> World:
    """The world with these records, hosts or sightings in place of those of the same name."""
    tables: dict[str, Any] = {}
    names: dict[Any, str] = {
        Declared: "declared",
        Deployment: "deployments",
        ReplicaSet: "replica_sets",
        Pod: "pods",
        Node: "nodes",
        Budget: "policies",
        Autoscaler: "policies",
        VolumeClaim: "claims",
    }
    for record in records:
        name = names.get(type(record), "workloads")
        table = tables.setdefault(name, dict(getattr(before, name)))
        table[record.meta.name if isinstance(record, Node) else record.meta.uid] = record
    return replace(before, **tables)


def with_sightings(before: World, **sightings: Sighting) -> World:
    return replace(before, sightings={**before.sightings, **sightings})


def fit_host(*without: str) -> HostFacts:
    """Facts of a Debian 12 that has all that a node needs, but for the programs named."""
    versions = {"podman": (4, 5, 0), "crun": (1, 8, 1), "conmon": (2, 1, 6), "netavark": (1, 4, 0)}
    versions |= {"catatonit": (0, 1, 7), "iptables": (1, 8, 9), "nft": (1, 0, 6)}
    roomy = Disk("/", 50 << 30, frozenset({"rw", "relatime"}))
    return HostFacts(
        user_id=0,
        arch="x86_64",
        kernel="6.1.0-30-amd64",
        system="Debian GNU/Linux 12 (bookworm)",
        system_ids=("debian",),
        managers=("apt-get",),
        systemd=True,
        python_path="/usr/bin/python3",
        python_found=True,
        python=(3, 11, 2),
        programs={name: Program(f"/usr/bin/{name}", found) for name, found in versions.items() if name not in without},
        cgroups=2,
        controllers=frozenset({"cpu", "memory", "pids", "io"}),
        state_disk=roomy,
        image_disk=roomy,
        sshd={"maxsessions": "10", "allowstreamlocalforwarding": "yes"},
    )
