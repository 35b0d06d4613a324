"""What must hold at every moment of a simulated run (FAULTS §3), judged from outside: by the engines' truth and the store's records."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from controller.decide.standing import desired_replicas
from controller.loop import Pass
from controller.model.cluster import Deployment, Pod, Seen, World
from controller.model.policies import Autoscaler
from controller.model.workloads import Job
from nodeagent.runtime import LABEL_CONTAINER, LABEL_UID
from tests.sim.host import SimHost
from tests.sim.world import COMPLETIONS, REPLICA_M, REPLICAS_MAX, REPLICAS_MIN, TOLERATION_S, SimWorld

REQUESTED_BYTES = 256 * 2**20  # by each pod of a Deployment (world.py)
STARTS_MAX = 9  # of one container within ten minutes: 0, 0, 10, 30, 70, 150, 310, 610 s by Kubernetes' back-off, and one for a race
WINDOW_S = 600.0
BELIEVED_S = 30.0  # for how long an agent may believe in a process that is gone


@dataclass
class Watch:
    """Looks at a world again and again; what it finds goes into the outcome, each kind of violation once."""

    world: SimWorld
    known_since_s: float = 0.0
    _told: set[str] = field(default_factory=set)
    _owners: dict[str, tuple[int, int]] = field(default_factory=dict)
    _losses: dict[str, int] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _retired: set[str] = field(default_factory=set)
    _present: set[str] = field(default_factory=set)
    _lost: set[str] = field(default_factory=set)
    _answered_s: dict[str, float] = field(default_factory=dict)
    _starts: dict[tuple[str, str, str], list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))
    _false_since_s: dict[tuple[str, str], float] = field(default_factory=dict)
    _volumes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _all_cut_since_s: float | None = None

    def look(self, records: World, now_s: float) -> None:
        """Once a simulated second, at what is stored."""
        self._one_place_per_pod(records)
        self._no_identity_twice(records)
        self._orders_only_move_forward()
        self._nothing_foreign_is_touched()
        self._names_are_used_once(records)
        self._volumes_last(records)
        self._backoff_is_kept(now_s)
        self._nothing_healthy_ends_without_a_reason(records)
        self._what_is_said_to_be_ready_runs(now_s)
        if all(name in self.world.cut or not host.up for name, host in self.world.hosts.items()):
            self._all_cut_since_s = self._all_cut_since_s if self._all_cut_since_s is not None else now_s
        else:
            self._all_cut_since_s = None
        self._lost_pods_were_silent_long(records, now_s)

    def passed(self, done: Pass) -> None:
        """After each pass of a controller."""
        now_s = self.world.now().boottime_s
        for name, sighting in done.world.sightings.items():
            if isinstance(sighting, Seen):
                self._answered_s[name] = now_s
        self._stops_keep_enough(done)
        self._capacity_holds(done)
        self._drained_is_empty(done)
        self._autoscaled_is_within_bounds(done)

    # ---- each invariant -------------------------------------------------------------------------------------------------

    def _one_place_per_pod(self, records: World) -> None:
        """A pod runs on one host only, and nothing of ours runs that has no record (I5)."""
        places: dict[str, str] = {}
        for name, host in self.world.hosts.items():
            for labels in host.podman.live():
                uid = labels[LABEL_UID]
                if places.setdefault(uid, name) != name:
                    self._violation(f"pod {uid} runs on {places[uid]} and {name}")
                if uid not in records.pods:
                    self._violation(f"a container of pod {uid} runs on {name}, and no record says so")

    def _no_identity_twice(self, records: World) -> None:
        """Two pods of one name never run at the same time: a StatefulSet's names come again, each after the end of the one before."""
        running: dict[str, str] = {}
        for host in self.world.hosts.values():
            for labels in host.podman.live():
                pod = records.pods.get(labels[LABEL_UID])
                if pod is not None and running.setdefault(pod.meta.name, pod.meta.uid) != pod.meta.uid:
                    self._violation(f"{pod.meta.name} runs twice")

    def _volumes_last(self, records: World) -> None:
        """A volume is removed by an explicit delete of its claim only (I10); who mounts one runs where it is; and not twice."""
        for name, host in self.world.hosts.items():
            there = {*host.podman.named_volumes, *(volume for _, volume in host.files.lasting)}
            for gone in self._volumes[name] - there:
                if not any(uid in gone for uid in self.world.deleted_claims):
                    self._violation(f"volume {gone} is gone from {name}, and nobody deleted its claim")
            self._volumes[name] = there
            for labels in host.podman.live():
                missing = host.files.mounted.get(labels[LABEL_UID], set()) - there
                if missing:
                    self._violation(f"a pod on {name} runs without its volume {min(missing)}")
        held = Counter(claim.volume for claim in records.claims.values() if claim.volume)
        for volume, count in held.items():
            if count > 1:
                self._violation(f"{count} claims have the volume {volume}")

    def _orders_only_move_forward(self) -> None:
        """Epoch and serial that an agent obeys never fall (I6), unless its disk lost them."""
        for name, host in self.world.hosts.items():
            if host.agent is None or host.life is None or not host.life.alive:
                continue
            owner = host.agent.hello().owner
            if self._losses.get(name) != host.state_losses:
                self._losses[name] = host.state_losses
                self._owners.pop(name, None)
            if owner is None:
                continue
            epoch, serial = self._owners.get(name, (0, 0))
            if owner.epoch.number < epoch:
                self._violation(f"{name} obeys epoch {owner.epoch.number} after {epoch}")
            if owner.serial < serial:
                self._violation(f"{name} obeys serial {owner.serial} after {serial}")
            if owner.serial and (owner.epoch.number, owner.serial) != (epoch, serial):
                self._is_recorded(name, owner.epoch.number, owner.serial)
            self._owners[name] = (owner.epoch.number, owner.serial)

    def _is_recorded(self, name: str, epoch: int, serial: int) -> None:
        """What an agent goes by has one row in the record of operations (I5); a later controller may have repeated the order."""
        rows = self.world.store.operations(serial=serial)
        if [row.node for row in rows] != [name] or rows[0].epoch > epoch:
            self._violation(f"{name} obeys serial {serial} of epoch {epoch}, of which the record says {rows}")

    def _nothing_foreign_is_touched(self) -> None:
        for name, host in self.world.hosts.items():
            if host.podman.violations:
                self._violation(f"something foreign was touched on {name}")

    def _nothing_healthy_ends_without_a_reason(self, records: World) -> None:
        """What runs well is ended only by an order that is on record, or because its record is gone (I5)."""
        for name, host in self.world.hosts.items():
            for uid, container in host.podman.ended_healthy():
                pod = records.pods.get(uid)
                if pod is not None and pod.stop is None:
                    self._violation(f"{container} on {name} was healthy and was ended, and no record says why")

    def _what_is_said_to_be_ready_runs(self, now_s: float) -> None:
        """No agent goes on saying that a pod is ready whose process is gone."""
        false: dict[tuple[str, str], float] = {}
        for name, host in self.world.hosts.items():
            if host.agent is None or host.life is None or not host.life.alive:
                continue
            live = {labels[LABEL_UID] for labels in host.podman.live()}
            for report in host.agent.ledger.since(None).pods:
                if report.ready and report.uid not in live:
                    key = (name, report.uid)
                    false[key] = self._false_since_s.get(key, now_s)
                    if now_s - false[key] > BELIEVED_S:
                        self._violation(f"{name} says that pod {report.uid} is ready, and it does not run")
        self._false_since_s = false

    def _names_are_used_once(self, records: World) -> None:
        present = {uid: pod.meta.name for uid, pod in records.pods.items()}
        for uid, name in present.items():
            owner = records.pods[uid].meta.owner
            lasting = owner is not None and owner.kind == "StatefulSet"
            if not lasting and self._names.setdefault(name, uid) != uid:
                self._violation(f"the name {name} was used twice")
            if uid in self._retired:
                self._violation(f"the uid of pod {name} was used again")
        self._retired |= self._present - present.keys()
        self._present = set(present)

    def _backoff_is_kept(self, now_s: float) -> None:
        """No container is started more often than Kubernetes' back-off allows (I14), whatever happens to the agent."""
        for name, host in self.world.hosts.items():
            for labels, started_s in host.podman.starts():
                key = (name, labels[LABEL_UID], labels[LABEL_CONTAINER])
                starts = self._starts[key]
                starts.append((started_s, host.clock.boot_id() + str(host.state_losses)))
                recent = [one for one in starts if one[0] > now_s - WINDOW_S and one[1] == starts[-1][1]]
                self._starts[key] = recent
                if len(recent) > STARTS_MAX:
                    self._violation(f"container {key[2]} on {name} was started {len(recent)} times within ten minutes")

    def _lost_pods_were_silent_long(self, records: World, now_s: float) -> None:
        """Unreachable is not dead: nothing is given up before its toleration, nor while every host is silent (I8)."""
        lost = {uid for uid, pod in records.pods.items() if pod.lost is not None}
        for uid in lost - self._lost:
            node = records.pods[uid].node
            silent_s = now_s - self._answered_s.get(node, 0.0)
            if silent_s < TOLERATION_S - 1:
                self._violation(f"pod {uid} was given up {silent_s:.0f} s after {node} had answered")
            if self._all_cut_since_s is not None and now_s - self._all_cut_since_s > TOLERATION_S:
                self._violation(f"pod {uid} was given up while every host was silent")
        self._lost = lost

    def _stops_keep_enough(self, done: Pass) -> None:
        """A pass never stops ready pods below replicas − maxUnavailable (I2)."""
        for uid, deployment in done.after.deployments.items():
            if deployment.meta.deleting is not None or uid not in done.world.deployments:
                continue
            before = _ready(done.world, done.world, deployment)
            after = _ready(done.world, done.after, deployment)
            promised = desired_replicas(deployment) - 1  # maxUnavailable of every deployment here
            # What is above a ReplicaSet's size is surplus (it came back, or stood in during a drain): it goes, none is lost.
            least = min(promised, _within_sizes(done.world, before))
            stopped_by_pass = {
                pod
                for pod in before - after
                if done.after.pods.get(pod) is None or done.after.pods[pod].stop is not None
            }
            if stopped_by_pass and len(after) < least:
                self._violation(
                    f"a pass stopped ready pods of {deployment.meta.name}: {len(before)} → {len(after)}, at least {least} must stay"
                )

    def _capacity_holds(self, done: Pass) -> None:
        """No node is given more than it has (I13)."""
        used: dict[str, int] = defaultdict(int)
        for pod in done.after.pods.values():
            asks = (
                pod.meta.owner is not None and pod.meta.owner.kind == "ReplicaSet"
            )  # pods of the others ask for nothing
            if pod.node and pod.lost is None and asks:
                used[pod.node] += REQUESTED_BYTES
        for name, sighting in done.world.sightings.items():
            if isinstance(sighting, Seen) and used[name] > sighting.capacity.memory_bytes > 0:
                self._violation(
                    f"{name} is given {used[name]} bytes of memory, it has {sighting.capacity.memory_bytes}"
                )

    def _drained_is_empty(self, done: Pass) -> None:
        """A drain is over when nothing that it was about runs there any more."""
        for name, node in done.after.nodes.items():
            before = done.world.nodes.get(name)
            if before is None or before.drain is None or node.drain is not None or not node.cordoned:
                continue
            for labels in self.world.hosts[name].podman.live():
                pod = done.after.pods.get(labels[LABEL_UID])
                if pod is not None and pod.lost is None:
                    self._violation(f"{name} is said to be drained, and pod {pod.meta.name} runs there")

    def _autoscaled_is_within_bounds(self, done: Pass) -> None:
        """Whatever a user or the load asks for: a pass leaves what is autoscaled within minReplicas and maxReplicas."""
        if self.world.load is None or not any(isinstance(one, Autoscaler) for one in done.world.policies.values()):
            return
        for deployment in done.after.deployments.values():
            replicas = desired_replicas(deployment)
            if deployment.meta.name == "web0" and not REPLICAS_MIN <= replicas <= REPLICAS_MAX:
                self._violation(f"web0 has {replicas} replicas, its autoscaler allows {REPLICAS_MIN} to {REPLICAS_MAX}")

    def _violation(self, text: str) -> None:
        kind = " ".join(word for word in text.split() if not any(letter.isdigit() for letter in word))
        if kind not in self._told:
            self._told.add(kind)
            self.world.violate(f"{self.world.now().boottime_s:.0f} s: {text}")


def at_rest(world: SimWorld) -> list[str]:
    """What differs from the declared state, by the engines' truth: nothing once the world has come to rest."""
    problems = []
    records = world.view()
    for name, declared in world.declared.items():
        deployment = next((one for one in records.deployments.values() if one.meta.name == name), None)
        if deployment is None:
            problems.append(f"deployment {name} is gone")
            continue
        replicas = desired_replicas(deployment)
        if world.load is not None and name == "web0":
            if not _suits(world.load.total_m, replicas):
                problems.append(f"{name} has {replicas} replicas for a load of {world.load.total_m}m")
        elif replicas != declared.replicas:
            problems.append(f"{name} wants {replicas} replicas; the user was told {declared.replicas}")
        running = _running(world, records, deployment)
        if running != replicas:
            problems.append(f"{name}: {running} of {replicas} replicas run")
    problems += _stale_files(world, records)
    problems += _sets_and_jobs(world, records)
    problems += [
        f"claim {claim.meta.name} has no volume on {claim.node}"
        for claim in records.claims.values()
        if claim.node and claim.volume not in world.hosts[claim.node].podman.named_volumes
    ]
    expected = sum(desired_replicas(one) for one in records.deployments.values()) + world.stateful
    total = sum(len(host.podman.live()) for host in world.hosts.values())
    if total != expected:
        problems.append(f"{total} containers run, {expected} are declared")
    problems += [
        f"pod {pod.meta.name} is still there"
        for pod in records.pods.values()
        if pod.stop is not None or pod.lost is not None
    ]
    return problems


def _sets_and_jobs(world: SimWorld, records: World) -> list[str]:
    """A StatefulSet whose names do not all run, and a Job that is not complete or has counted wrongly."""
    names = {pod.meta.uid: pod.meta.name for pod in records.pods.values()}
    live = [names.get(labels[LABEL_UID], "") for host in world.hosts.values() for labels in host.podman.live()]
    problems = [f"db-{ordinal} does not run" for ordinal in range(world.stateful) if f"db-{ordinal}" not in live]
    for item in records.workloads.values():
        if isinstance(item, Job):
            verdicts = [
                pod.verdict for pod in records.pods.values() if pod.meta.owner and pod.meta.owner.uid == item.meta.uid
            ]
            succeeded = item.status.succeeded
            if item.status.finished is None or succeeded < COMPLETIONS or verdicts.count("Succeeded") > succeeded:
                problems.append(f"job {item.meta.name}: {succeeded} succeeded, its pods: {verdicts}")
    return problems


def _stale_files(world: SimWorld, records: World) -> list[str]:
    """Pods that see another content of config maps and secrets than the one declared last."""
    digests = {
        f"{'config' if one.meta.kind == 'ConfigMap' else 'secret'} {one.meta.key}": one.hash
        for one in records.declared.values()
    }
    return [
        f"a pod on {name} sees {source} as it was before the last edit"
        for name, host in world.hosts.items()
        for labels in host.podman.live()
        for source, digest in host.files.shown.get(labels[LABEL_UID], {}).items()
        if digests.get(source) != digest
    ]


def serving(world: SimWorld, records: World) -> list[str]:
    """Uids of the pods of web0 that run."""
    live = (labels[LABEL_UID] for host in world.hosts.values() for labels in host.podman.live())
    return [uid for uid in live if uid in records.pods and records.pods[uid].meta.name.startswith("web0-")]


def _suits(load_m: int, replicas: int) -> bool:
    """What Kubernetes' formula leaves alone: within a tenth of the target, or what rounding up comes to."""
    ratio = load_m / (replicas * REPLICA_M)
    wanted = min(max(math.ceil(load_m / REPLICA_M), REPLICAS_MIN), REPLICAS_MAX)
    return replicas == wanted or (abs(ratio - 1) <= 0.1 and REPLICAS_MIN <= replicas <= REPLICAS_MAX)


def mutations(hosts: dict[str, SimHost]) -> int:
    """How often engines were told to change something."""
    return sum(host.podman.mutations.total() for host in hosts.values())


def _ready(sightings: World, records: World, deployment: Deployment) -> set[str]:
    """Pods of a deployment that are not ordered to stop and whose agent says in this very pass that they are ready."""
    owners = {
        one.meta.uid
        for one in records.replica_sets.values()
        if one.meta.owner and one.meta.owner.uid == deployment.meta.uid
    }
    return {
        uid
        for uid, pod in records.pods.items()
        if pod.stop is None
        and pod.lost is None
        and pod.meta.owner
        and pod.meta.owner.uid in owners
        and _is_seen_ready(sightings, pod)
    }


def _within_sizes(records: World, pods: set[str]) -> int:
    """How many of these pods their ReplicaSets wanted before the pass."""
    of = Counter(owner.uid for uid in pods if (owner := records.pods[uid].meta.owner) is not None)
    return sum(min(count, records.replica_sets[uid].replicas) for uid, count in of.items())


def _is_seen_ready(world: World, pod: Pod) -> bool:
    sighting = world.sightings.get(pod.node)
    report = sighting.pods.get(pod.meta.uid) if isinstance(sighting, Seen) else None
    return report is not None and report.ready


def _running(world: SimWorld, records: World, deployment: Deployment) -> int:
    owners = {
        one.meta.uid
        for one in records.replica_sets.values()
        if one.meta.owner
        and one.meta.owner.uid == deployment.meta.uid
        and one.template_hash == deployment.template_hash
    }
    uids = {
        uid for uid, pod in records.pods.items() if pod.meta.owner and pod.meta.owner.uid in owners and pod.stop is None
    }
    return sum(labels[LABEL_UID] in uids for host in world.hosts.values() for labels in host.podman.live())
