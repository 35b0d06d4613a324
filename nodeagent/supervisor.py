"""All pods of the host: one worker each, and what they share: the engine's health, start and pull slots, network,
content, the ledger.

In: the accepted wanted set, secrets, the engine's listing every few seconds. Out: workers with their orders.
Without an accepted set nothing is stopped or removed ("no set" is not "empty set"); what belongs to other
clusters, or to nobody of ours, is never looked at.
"""

import asyncio
import json
from collections.abc import Awaitable, Mapping
from typing import Any, Optional, TypeVar

from nodeagent import adopt
from nodeagent.decide import KEEP, LEAVE, PULL, RUN
from nodeagent.events import Ledger
from nodeagent.images import Images
from nodeagent.logfiles import Logs
from nodeagent.protocol import (
    Capacity,
    Condition,
    Config,
    NodeConfig,
    Pod,
    ProtocolError,
    SecretValue,
    WantedSet,
    decode,
)
from nodeagent.records import MESSAGE_CHARS_MAX, NAME, UID, PodRecord, after_reboot, all_containers, fresh
from nodeagent.runtime import (
    LABEL_CLUSTER,
    LABEL_CONTAINER,
    LABEL_UID,
    Clock,
    ContainerInfo,
    Content,
    Files,
    Listing,
    PodInfo,
    Prober,
    Process,
    Runtime,
    RuntimeFault,
    Storage,
    StorageCorrupt,
)
from nodeagent.spec import ROOTFUL_RULES
from nodeagent.volumes import Volumes
from nodeagent.worker import PodWorker

STARTS_MAX = 4
TIMEOUTS_MAX = 3  # in a row: then the engine is said to be unhealthy
UNSTICK_AGAIN_S, UNSTICK_AGAIN_MAX_S = 60.0, 600.0  # after what was ended did not help; doubled each time
IMAGES_EVERY = 2  # relists between two looks at the images, unless somebody waits for one

T = TypeVar("T")


class Supervisor:
    """Create it within a running event loop."""

    def __init__(
        self, runtime: Runtime, files: Files, storage: Storage, clock: Clock, prober: Prober, ledger: Ledger, logs: Logs
    ) -> None:
        self.runtime = runtime
        self.files = files
        self.storage = storage
        self.clock = clock
        self.prober = prober
        self.ledger = ledger
        self.logs = logs
        self.workers: dict[str, PodWorker] = {}
        self.images = Images(runtime, self.guard, self._tell_damage)
        self.volumes = Volumes(self)
        self.starts = asyncio.Semaphore(STARTS_MAX)
        self.node = NodeConfig("", "", "")
        self.capacity = Capacity()
        self.rules = ROOTFUL_RULES
        self.selinux = False
        self.adopted = asyncio.Event()  # the engine has been listed once: what runs is known
        self.conditions: dict[str, Condition] = {}
        self.held_images: tuple[Any, ...] = ()
        self._wanted: Optional[WantedSet] = None
        self._clusters: tuple[str, ...] = ()  # whose containers are ours
        self._fresh = False  # the set was received in this boot
        self._leaving: dict[str, Pod] = {}
        self._secrets: Mapping[str, SecretValue] = {}
        self._timeouts = 0
        self._hanging_since_s = 0.0  # of the boot clock: when the first of them began to be
        self._unsticking = False
        self._unstuck = 0  # how often in this silence; and when it may be tried again: what did not help is not repeated without end
        self._unstick_at_s = 0.0
        self._infra_ids: frozenset[str] = frozenset()
        self._network_lock = asyncio.Lock()
        self._network = ""
        self._relists = 0
        self._idle = asyncio.Event()
        self._dismissed: set[asyncio.Task[None]] = set()
        # Pods that ended since the present listing was asked for: it may still show them
        self._erased: set[str] = set()

    # ---- orders ---------------------------------------------------------------------------------------------------------

    def load(self, uids: set[str], leaving: Mapping[str, Pod]) -> None:
        """Workers for pods with records on disk; they touch nothing before the first listing.

        Args:
            leaving: specs of pods that left the set but had not ended yet.
        """
        self._leaving = dict(leaving)
        for uid in sorted(uids):
            record = self._load_record(uid)
            if record is not None and uid not in self.workers:
                self._employ(record, leaving.get(uid), KEEP)

    def set_wanted(self, wanted: Optional[WantedSet], clusters: tuple[str, ...], *, fresh: bool) -> None:
        """The set in force (None: there is none), and whether it was received in this boot."""
        changed_network = wanted is not None and wanted.node.subnet != self.node.subnet
        self._wanted, self._clusters, self._fresh = wanted, clusters, fresh
        if wanted is not None:
            self.node = wanted.node
        if changed_network:
            self.forget_network()
        self._give_orders()
        if wanted is not None and clusters:
            # After a takeover the set is still the former cluster's, and so are its volumes.
            self.volumes.want(wanted.cluster, wanted.volumes, wanted.node.storage)
        self.content_changed()

    def set_secrets(self, secrets: Mapping[str, SecretValue]) -> None:
        self._secrets = secrets
        self.content_changed()

    def content_changed(self) -> None:
        """Something that pods may wait for has come."""
        for worker in list(self.workers.values()):
            worker.content_changed()

    def leaving(self) -> tuple[Pod, ...]:
        """Specs of pods that are not wanted any more and have not ended yet."""
        workers = [worker for _, worker in sorted(self.workers.items())]
        return tuple(w.pod for w in workers if w.order == LEAVE and w.pod is not None)

    def processes(self) -> dict[tuple[str, str], Process]:
        """The running containers' first processes, by uid of the pod and name of the container."""
        return {
            (uid, mine.name): mine.process
            for uid, worker in sorted(self.workers.items())
            for mine in worker.record.containers
            if mine.process is not None
        }

    async def wait_erased(self) -> None:
        """Until no pod is left."""
        while self.workers:
            self._idle.clear()
            await self._idle.wait()

    async def end(self) -> None:
        """All workers stop working, their pods run on."""
        await self.volumes.end()
        await asyncio.gather(*(worker.end() for worker in self.workers.values()))

    def _give_orders(self) -> None:
        """Nobody is told to stop or start anything before the engine was listed."""
        pods = {pod.uid: pod for pod in self._wanted.pods} if self._wanted is not None else {}
        for uid, worker in list(self.workers.items()):
            if worker.record.cluster not in self._clusters and self._wanted is not None:
                self._dismiss(worker)
            elif self._wanted is None or not self.adopted.is_set():
                worker.set_order(pods.get(uid), KEEP)
            elif uid not in pods:
                worker.set_order(self._leaving.get(uid) if worker.pod is None else None, LEAVE)
        for uid, pod in pods.items():
            order = RUN if self.adopted.is_set() else KEEP
            if uid in self.workers:
                self.workers[uid].set_order(pod, order)
            else:
                record = self._load_record(uid) or fresh(
                    pod,
                    cluster=self._clusters[0],
                    boot_id=self.clock.boot_id(),
                    now_s=self.clock.boottime_s(),
                    wall_s=self.clock.wall_s(),
                )
                self._employ(record, pod, order)

    def _employ(self, record: PodRecord, pod: Optional[Pod], order: str) -> PodWorker:
        worker = PodWorker(self, record, pod, order)
        self.workers[record.uid] = worker
        worker.begin()
        return worker

    def _dismiss(self, worker: PodWorker) -> None:
        """A pod of another cluster: it is none of ours and runs on."""
        self.workers.pop(worker.record.uid, None)
        worker.erased = True
        task = asyncio.get_running_loop().create_task(worker.end())
        self._dismissed.add(task)
        task.add_done_callback(self._dismissed.discard)
        self.ledger.tell_gone(worker.record.uid)

    def _load_record(self, uid: str) -> Optional[PodRecord]:
        try:
            document = self.storage.load(f"pod-{uid}")
            record = decode(PodRecord, document, strict=False) if document is not None else None
        except (StorageCorrupt, ProtocolError) as error:
            self.ledger.tell_event(
                self.clock.wall_s(), "StateLost", f"record of pod {uid}: {error}", warning=True, pod_uid=uid
            )
            return None
        if record is not None and record.boot_id != self.clock.boot_id():
            now_s, wall_s = self.clock.boottime_s(), self.clock.wall_s()
            return after_reboot(record, boot_id=self.clock.boot_id(), now_s=now_s, wall_s=wall_s)
        return record

    # ---- the listing ----------------------------------------------------------------------------------------------------

    async def relist(self) -> bool:
        """Compares everything with what the engine lists. False when it does not answer: the next relist comes."""
        self._erased = set()
        marks = {uid: worker.marks() for uid, worker in self.workers.items()}
        try:
            listing = await self.guard(self.runtime.list())
        except RuntimeFault:
            return False
        answered = True
        try:
            await self._look_at_images()
        except RuntimeFault as fault:
            # With hundreds of images their list alone may take too long: what runs is known all the same.
            answered = fault.reason not in ("timeout", "unavailable")
        self._adopt(listing, marks)
        if not self.adopted.is_set():
            self.adopted.set()
            self._give_orders()
            self.volumes.look()
            self._leaving = {}
            await self._remove_leftover_files()
        return answered

    def _adopt(self, listing: Listing, marks: Mapping[str, dict[str, int]]) -> None:
        pods: dict[str, PodInfo] = {info.labels[LABEL_UID]: info for info in listing.pods if self._is_ours(info.labels)}
        self._infra_ids = frozenset(info.infra_id for info in pods.values() if info.infra_id)
        containers: dict[str, list[ContainerInfo]] = {}
        ours = {info.id for info in pods.values()}
        for info in listing.containers:
            # Labels alone don't tell: an image that was committed from a container has them, and what a person runs of it, too.
            if info.pod_id in ours and self._is_ours(info.labels):
                containers.setdefault(info.labels[LABEL_UID], []).append(info)
        for uid in sorted(set(pods) | set(containers) | set(marks)):
            worker = self.workers.get(uid)
            if worker is None:
                if uid in self._erased:
                    continue
                labels = pods[uid].labels if uid in pods else containers[uid][0].labels
                worker = self._employ_stranger(uid, labels)
            worker.merge(pods.get(uid), containers.get(uid, []), marks.get(uid, {}))

    def _is_ours(self, labels: Mapping[str, str]) -> bool:
        """Labels that nobody of ours could have written are somebody else's."""
        cluster = labels.get(LABEL_CLUSTER)
        if not cluster or not UID.match(labels.get(LABEL_UID, "")) or not NAME.match(labels.get(LABEL_CONTAINER, "x")):
            return False
        return cluster in self._clusters or not self._clusters

    def _employ_stranger(self, uid: str, labels: Mapping[str, str]) -> PodWorker:
        """A pod of ours that is in no set we know: with a set in force it is a leftover, without one it is kept."""
        record = self._load_record(uid) or adopt.from_labels(
            dict(labels),
            boot_id=self.clock.boot_id(),
            now_s=self.clock.boottime_s(),
            wall_s=self.clock.wall_s(),
        )
        order = LEAVE if self._wanted is not None and self.adopted.is_set() else KEEP
        return self._employ(record, self._leaving.get(uid), order)

    async def _look_at_images(self) -> None:
        self._relists += 1
        if not self.waits_for_image() and (self._relists - 1) % IMAGES_EVERY:
            return
        await self.look_at_images()

    def waits_for_image(self) -> bool:
        """Whether a pod that is to run waits for an image that could not be had."""
        waiting = (w for w in self.workers.values() if w.order == RUN and not w.record.verdict)
        return any(slot.kind == PULL for w in waiting for slot in w.troubles.values())

    async def look_at_images(self) -> None:
        """Notices images that came or went, so that who waits for one need not wait for its back-off."""
        await self.images.look_at_damaged()
        images = tuple(sorted(await self.guard(self.runtime.images()), key=lambda image: image.id))
        if images != self.held_images:
            self.held_images = images
            self.ledger.tell_topic("images")
            for worker in list(self.workers.values()):
                worker.content_changed()

    async def _remove_leftover_files(self) -> None:
        if self._wanted is None:
            return
        for uid in await self.files.uids():
            if uid not in self.workers:
                try:
                    await self.files.remove(uid)
                except OSError as error:
                    self.ledger.tell_event(
                        self.clock.wall_s(), "Leftover", f"files of pod {uid}: {error}", warning=True, pod_uid=uid
                    )

    # ---- for the workers ------------------------------------------------------------------------------------------------

    async def guard(self, call: Awaitable[T]) -> T:
        """Awaits a call of the engine and keeps account of its health. Raises what the call raises."""
        try:
            result = await call
        except RuntimeFault as fault:
            if fault.reason in ("timeout", "unavailable"):
                await self._not_answered(fault)
            raise
        recovered = self._timeouts >= TIMEOUTS_MAX
        self._timeouts = self._unstuck = 0
        if recovered:
            self.set_condition("RuntimeUnhealthy", None)
            self.content_changed()
        return result

    async def _not_answered(self, fault: RuntimeFault) -> None:
        """The third silence in a row is told, and it and each third after it are reason to end what of ours Podman waits for."""
        if not self._timeouts:
            self._hanging_since_s = self._unstick_at_s = self.clock.boottime_s()
        self._timeouts += 1
        if self._timeouts == TIMEOUTS_MAX:
            message = f"Podman does not answer: {fault}"
            self.set_condition("RuntimeUnhealthy", Condition("RuntimeUnhealthy", "NoAnswer", message))
        if self._timeouts % TIMEOUTS_MAX or self._unsticking or self.clock.boottime_s() < self._unstick_at_s:
            return
        ids = {c.id for w in self.workers.values() for c in w.record.containers if c.id}
        ids |= {w.record.sandbox_id for w in self.workers.values() if w.record.sandbox_id}
        hanging_s = self.clock.boottime_s() - self._hanging_since_s
        self._unsticking = True
        try:
            ended = await self.runtime.unstick(ids | self._infra_ids, hanging_s)
            for one in ended:
                told = f"Podman did not answer for {hanging_s:.0f} s: ended {one}, which it seemed to wait for; pods run on"
                self.ledger.tell_event(self.clock.wall_s(), "RuntimeUnstuck", told, warning=True)
            if ended:
                self._unstick_at_s = self.clock.boottime_s() + min(
                    UNSTICK_AGAIN_S * 2**self._unstuck, UNSTICK_AGAIN_MAX_S
                )
                self._unstuck += 1
        finally:
            self._unsticking = False

    def set_condition(self, kind: str, condition: Optional[Condition]) -> None:
        if condition is None:
            changed = self.conditions.pop(kind, None) is not None
        else:
            before = self.conditions.get(kind)
            changed = before is None
            self.conditions[kind] = condition if before is None else before
        if changed:
            self.ledger.tell_topic("conditions")

    def _tell_damage(self, damaged: Mapping[str, str]) -> None:
        """While an image could not be replaced no new pods shall come here: the same disk may have lost more."""
        condition = None
        if damaged:
            names = ", ".join(sorted(damaged)[:5])
            why = next(iter(damaged.values()))
            message = (
                f"Podman's storage has lost layers of {names}; a pull or `sshoal image push` brings them anew ({why})"
            )
            condition = Condition("StorageCorrupt", "LayersLost", message[:MESSAGE_CHARS_MAX])
        self.set_condition("StorageCorrupt", condition)

    def storage_failed(self, error: OSError) -> None:
        message = f"the agent can't store its state: {error.strerror or error}"
        self.set_condition("StateNotSaved", Condition("StateNotSaved", "WriteFailed", message))

    def storage_worked(self) -> None:
        self.set_condition("StateNotSaved", None)

    def content(self) -> Content:
        wanted = self._wanted
        configs: Mapping[str, Config] = wanted.configs if wanted is not None else {}
        named = wanted.secrets if wanted is not None else {}
        return Content(configs, self._secrets, named, self.node.host_paths, self.volumes.paths())

    def missing_secrets(self) -> tuple[str, ...]:
        """Secrets that the set names and whose value, as the set wants it, is not here."""
        named = self._wanted.secrets if self._wanted is not None else {}
        return tuple(name for name, digest in sorted(named.items()) if not self._holds(name, digest))

    def _holds(self, name: str, digest: str) -> bool:
        held = self._secrets.get(name)
        return held is not None and held.hash == digest

    def content_key(self, pod: Pod) -> str:
        """Changes when a config map or secret changes that the pod mounts."""
        content = self.content()
        parts = []
        for volume in pod.volumes:
            for source in volume.sources:
                held = (content.configs if source.kind == "config" else content.secrets).get(source.name)
                parts.append([source.kind, source.name, held.hash if held is not None else ""])
        return json.dumps(parts)

    def hold(self, worker: PodWorker) -> Optional[tuple[str, str]]:
        """Why a pod may not begin yet: (reason, message)."""
        pod = worker.pod
        if pod is None or self._wanted is None:
            return None
        if pod.at_boot == "hold" and not self._fresh:
            return "HeldAtBoot", "waits for a wanted set received since the host was booted"
        named = self._wanted.secrets
        missing = [name for name in secret_names(pod) if name in named and not self._holds(name, named[name])]
        if missing:
            return "WaitingForSecrets", f"the value of secret {missing[0]} has not arrived"
        return self._port_hold(worker, pod)

    def _port_hold(self, worker: PodWorker, pod: Pod) -> Optional[tuple[str, str]]:
        """Who is about to go gives up its host ports first."""
        ports = host_ports(pod)
        if not ports:
            return None
        for uid, other in sorted(self.workers.items()):
            ends = other.order == LEAVE or other.record.verdict or (other.pod is not None and other.pod.stop)
            if other is worker or other.pod is None or not other.record.sandbox_id or not ends:
                continue
            common = ports & host_ports(other.pod)
            if common:
                name = f"{other.record.namespace}/{other.record.name}"
                return "WaitingForPort", f"host port {min(common)[0]} is held by pod {name} ({uid}), which is stopping"
        return None

    def sandbox_removed(self) -> None:
        """Host ports may have become free."""
        for worker in list(self.workers.values()):
            if worker.pod is not None and not worker.record.sandbox_id and host_ports(worker.pod):
                worker.wake()

    async def ensure_network(self) -> None:
        async with self._network_lock:
            if self._network != self.node.subnet:
                labels = {LABEL_CLUSTER: self._clusters[0]}
                await self.guard(self.runtime.ensure_network(self.node.subnet, labels))
                self._network = self.node.subnet

    def forget_network(self) -> None:
        """It is looked at again before the next pod is made."""
        self._network = ""

    def log_path(self, uid: str, container: str, attempt: int) -> str:
        return self.logs.path(uid, container, attempt)

    def log_end(self, uid: str, container: str, attempt: int) -> str:
        return self.logs.end(uid, container, attempt)

    def remove_log(self, uid: str, container: str, attempt: int) -> None:
        self.logs.remove(uid, container, attempt)

    def remove_logs(self, uid: str) -> None:
        self.logs.remove_pod(uid)

    def erase(self, worker: PodWorker) -> None:
        """The last trace of a pod goes."""
        uid = worker.record.uid
        worker.erased = True
        self._erased.add(uid)
        self.workers.pop(uid, None)
        try:
            self.storage.delete(f"pod-{uid}")
        except OSError as error:
            self.storage_failed(error)
        self.ledger.tell_gone(uid)
        self.volumes.pod_ended()
        if not self.workers:
            self._idle.set()


def secret_names(pod: Pod) -> tuple[str, ...]:
    """Secrets that the pod refers to, by "namespace/name"."""
    names = set(pod.pull_secrets)
    for container in all_containers(pod):
        names.update(variable.secret for variable in container.env if variable.secret)
        names.update(source.secret for source in container.env_from if source.secret)
    for volume in pod.volumes:
        names.update(source.name for source in volume.sources if source.kind == "secret")
    return tuple(sorted(names))


def host_ports(pod: Pod) -> frozenset[tuple[int, str]]:
    """(port, protocol) pairs the pod takes on the host."""
    return frozenset(
        (port.host_port, port.protocol)
        for container in all_containers(pod)
        for port in container.ports
        if port.host_port
    )
