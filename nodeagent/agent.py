"""The agent as its controller sees it: the verbs of protocol.py, who may give orders, and the reports.

In: wanted sets, secrets, takeovers. Out: refusals or acceptance, reports as changes since a cursor. What is
accepted is on disk before it takes effect and before it is answered, so that a crash or reboot brings it back.
State that can't be read is "no set", never "nothing wanted": what runs is adopted by its labels and kept until a
controller sends a set.
"""

import asyncio
import uuid
from dataclasses import replace
from typing import Any, Callable, Optional

from nodeagent import protocol
from nodeagent.events import Ledger
from nodeagent.images import credentials, resolved
from nodeagent.logfiles import Logs, NoLogFiles
from nodeagent.protocol import (
    Accepted,
    Capacity,
    Condition,
    Epoch,
    ForgetRequest,
    Hello,
    ImageReport,
    Owner,
    Pod,
    ProtocolError,
    Report,
    ReportRequest,
    SecretsRequest,
    SecretValue,
    TakeoverRequest,
    Usage,
    UsageRequest,
    WantedSet,
    decode,
    encode,
)
from nodeagent.records import NAME, UID, all_containers
from nodeagent.runtime import Clock, Files, Prober, Process, Runtime, RuntimeFault, RuntimeInfo, Storage, StorageCorrupt
from nodeagent.spec import ROOTFUL_RULES, HostRules
from nodeagent.supervisor import Supervisor
from nodeagent.usage import SAMPLE_S, Gauge, Meter
from nodeagent.volumes import VOLUMES_MAX, is_directory, is_name

PODS_MAX = 512  # that are to run
PODS_NAMED_MAX = 2000  # with those that are to stop, which must always find a way in
CONTAINERS_MAX = 64  # of one pod
WAIT_MAX_S = 300.0
FIRST_LISTING_S = 5.0  # how long the start waits for the engine before the agent answers without it
# A listing costs Podman 0.75 ms CPU per container. Processes tell of their end by themselves, also when a person stops or removes them; a
# listing is for what has no process: records that went, leftovers, containers started by hand.
RELIST_S = 30.0
RELIST_SOON_S = 10.0  # while the engine does not answer, or somebody waits for an image
INFO_EVERY = 10  # relists between two looks at the engine's version
FORGET_S = 600.0  # how long forget waits for pods that end slowly
DISK_FREE_MIN_BYTES = 512 * 1024 * 1024

IDENTITY, WANTED, SECRETS = "agent", "wanted", "secrets"  # documents


class Refused(Exception):
    """The agent does not do what was asked; nothing was changed. `code` is one of protocol's error codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Agent:
    """One per host.

    Args:
        bundle: digest of the code that runs.
        host: what the host has; the engine's part is filled in by the agent.
        free_bytes: free space where images and state live; None: not watched.
        rules: what the engine can be told here; the part that the engine itself knows is filled in by the agent.
        selinux: whether SELinux is on there, enforcing or permissive.
        meter: reads what containers use; None: nothing is sampled.
    """

    def __init__(
        self,
        runtime: Runtime,
        files: Files,
        storage: Storage,
        clock: Clock,
        prober: Prober,
        *,
        bundle: str,
        logs_dir: str,
        relist_s: float = RELIST_S,
        logs: Optional[Logs] = None,
        host: Optional[Capacity] = None,
        free_bytes: Optional[Callable[[], int]] = None,
        rules: HostRules = ROOTFUL_RULES,
        selinux: bool = False,
        meter: Optional[Meter] = None,
    ) -> None:
        self.runtime = runtime
        self._files = files
        self._storage = storage
        self._clock = clock
        self._prober = prober
        self._bundle = bundle
        self._logs: Logs = logs or NoLogFiles(logs_dir)
        self._relist_s = relist_s
        self._capacity = host or Capacity()
        self._free_bytes = free_bytes
        self._rules = rules
        self._selinux = selinux
        self._gauge = Gauge(meter, clock) if meter is not None else None
        self._sampling: Optional[asyncio.Task[None]] = None
        self._agent_id = ""
        self._owner: Optional[Owner] = None
        self._former: tuple[str, ...] = ()  # clusters this host was taken over from: their pods are ours to end
        self._wanted: Optional[WantedSet] = None
        self._wanted_boot = ""  # in which boot it was received
        self._in_force = False  # what was committed is, unless something went wrong on the way
        self._forgetting = False
        self._secrets: dict[str, SecretValue] = {}
        self._task: Optional[asyncio.Task[None]] = None
        self._relists = 0

    async def start(self) -> None:
        """Takes up the last accepted set and what runs. Needs no engine that answers: it goes on trying."""
        lost: list[str] = []
        identity = self._load(IDENTITY, lost) or {}
        starts = identity.get("starts", 0) + 1 if isinstance(identity.get("starts", 0), int) else 1
        known = identity.get("id")
        moment = f"{self._clock.boot_id()}/{self._clock.boottime_s()!r}/{self._clock.wall_s()!r}"
        self._agent_id = known if isinstance(known, str) and known else str(uuid.uuid5(uuid.NAMESPACE_OID, moment))
        instance = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._agent_id}/{moment}/{starts}"))
        self.ledger = Ledger(instance)
        self._supervisor = Supervisor(
            self.runtime, self._files, self._storage, self._clock, self._prober, self.ledger, self._logs
        )
        self._supervisor.capacity, self._supervisor.rules = self._capacity, self._rules
        self._supervisor.selinux = self._selinux
        self._save_quietly(IDENTITY, {"id": self._agent_id, "starts": starts})
        leaving = self._load_wanted(lost)
        self._load_secrets(lost)
        if self._secrets and self._storage.sealing is None:  # they are there unsealed: perhaps it works by now
            self._save_secrets()
        if lost:
            message = f"the agent's records can't be read ({', '.join(lost)}): what runs is kept until a set comes"
            self._supervisor.set_condition("StateLost", Condition("StateLost", "Unreadable", message))
        uids = {pod.uid for pod in self._wanted.pods} if self._wanted is not None else set()
        await self._take_up(uids, leaving)

    async def close(self) -> None:
        """Ends the agent; pods run on."""
        tasks = [task for task in (self._task, self._sampling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._supervisor.end()

    # ---- verbs ------------------------------------------------------------------------------------------------------------

    def hello(self) -> Hello:
        return Hello(
            version=protocol.VERSION,
            agent=self._agent_id,
            instance=self.ledger.instance,
            bundle=self._bundle,
            boot_id=self._clock.boot_id(),
            boottime_s=self._clock.boottime_s(),
            wall_s=self._clock.wall_s(),
            owner=self._owner,
            capacity=self._capacity,
        )

    async def report(self, request: ReportRequest) -> Report:
        """What changed since the cursor; waits up to `wait_s` for something to change.

        Raises: Refused(failed) while the records are lost and the engine has not told yet what runs: that is not "nothing runs".
        """
        supervisor = self._supervisor
        wait_s = min(max(0.0, request.wait_s), WAIT_MAX_S)
        if self._wanted is None and not supervisor.adopted.is_set():
            raise Refused(
                protocol.FAILED_CODE, "Podman has not answered since the agent's start: what runs is not known"
            )
        await self.ledger.wait(request.cursor, wait_s)
        changes = self.ledger.since(request.cursor)
        if changes.full:
            self._look_at_disk()
        images = tuple(ImageReport(i.id, i.names, i.digests, i.size_bytes) for i in supervisor.held_images)
        return Report(
            agent=self._agent_id,
            cursor=protocol.Cursor(self.ledger.instance, self.ledger.sequence),
            boot_id=self._clock.boot_id(),
            boottime_s=self._clock.boottime_s(),
            wall_s=self._clock.wall_s(),
            version=self._bundle,
            owner=self._owner,
            full=changes.full,
            pods=changes.pods,
            gone=changes.gone,
            events=changes.events,
            capacity=self._capacity if changes.full or "capacity" in changes.topics else None,
            conditions=tuple(condition for _, condition in sorted(supervisor.conditions.items())),
            images=images if changes.full or "images" in changes.topics else None,
            missing_secrets=supervisor.missing_secrets(),
            volumes=supervisor.volumes.reports if changes.full or "volumes" in changes.topics else None,
        )

    def usage(self, request: UsageRequest) -> Usage:
        """What the node and our containers used in the last minutes; empty where nothing is sampled."""
        if self._gauge is None:
            return Usage(self._clock.boot_id(), self._clock.boottime_s())
        return self._gauge.usage(request)

    async def want(self, wanted: WantedSet) -> Accepted:
        """Takes a wanted set into force. Raises Refused: owned, old-epoch, forked, old-serial, conflict, bad-request, failed."""
        self._check_sender(wanted.cluster, wanted.epoch)
        self._check_serial(wanted)
        owner = Owner(wanted.cluster, wanted.epoch, wanted.serial, wanted.digest)
        again = self._in_force and self._wanted is not None and self._owner == owner
        if again and self._wanted_boot == self._clock.boot_id():
            return Accepted(wanted.serial, self._supervisor.missing_secrets())
        self._check_pods(wanted)
        _check_volumes(wanted)
        self._commit(owner, wanted, self._clock.boot_id(), self._former, forgetting=False)
        self._supervisor.set_condition("StateLost", None)
        self._drop_unnamed_secrets()
        self._put_in_force()
        return Accepted(wanted.serial, self._supervisor.missing_secrets())

    async def secrets(self, request: SecretsRequest) -> None:
        """Stores values; those that the set in force does not name are ignored. Raises Refused."""
        self._check_sender(request.cluster, request.epoch)
        if self._owner is None or self._wanted is None:
            raise Refused(protocol.BAD_REQUEST, "no wanted set was accepted yet: it says which secrets are needed")
        kept = {name: value for name, value in request.values.items() if name in self._wanted.secrets}
        secrets = {**self._secrets, **kept}
        self._save_or_refuse(SECRETS, {name: encode(value) for name, value in secrets.items()}, secret=True)
        self._secrets = secrets
        self._tell_sealing()
        self._raise_epoch(request.epoch)
        self._supervisor.set_secrets(secrets)
        self.ledger.tell_topic("secrets")

    async def takeover(self, request: TakeoverRequest) -> None:
        """Changes the owner. Pods of the former cluster run until the new one's first set, which says what stays. Raises Refused."""
        if self._owner is not None and self._owner.cluster == request.to_cluster:
            self._check_sender(request.to_cluster, request.epoch)
            return
        if self._owner is not None and self._owner.cluster != request.from_cluster:
            raise Refused(protocol.OWNED, f"owned by {self._owner.cluster}, not by {request.from_cluster}")
        former = tuple(sorted({*self._former, request.from_cluster} - {request.to_cluster, ""}))
        owner = Owner(request.to_cluster, request.epoch, 0)
        self._commit(owner, self._wanted, "", former, forgetting=False)
        self._put_in_force()
        self.ledger.tell_topic("owner")

    async def forget(self, request: ForgetRequest) -> None:
        """Stops and removes all that is ours on the host, in order, then the agent's own records. Raises Refused."""
        self._check_sender(request.cluster, request.epoch)
        if not self._supervisor.adopted.is_set():
            raise Refused(protocol.FAILED_CODE, "Podman has not answered since the agent's start: try again")
        epoch = request.epoch
        node = self._wanted.node if self._wanted is not None else protocol.NodeConfig("", "", "")
        serial = self._owner.serial if self._owner is not None else 0
        empty = WantedSet(request.cluster, epoch, serial, "", node)
        self._commit(Owner(request.cluster, epoch, serial), empty, self._clock.boot_id(), self._former, forgetting=True)
        self._put_in_force()
        ended = asyncio.get_running_loop().create_task(self._supervisor.wait_erased())
        try:
            await asyncio.wait({ended}, timeout=FORGET_S)
        finally:
            ended.cancel()
        if self._supervisor.workers:
            still = ", ".join(sorted(self._supervisor.workers)[:5])
            raise Refused(
                protocol.FAILED_CODE, f"still ending after {FORGET_S:g} s: {still}; the agent goes on with it"
            )
        await self._finish_forgetting()

    async def resolve(self, request: protocol.ResolveRequest) -> protocol.Resolved:
        """Raises Refused: failed, in the registry's words."""
        try:
            digest = await resolved(self.runtime, request.image, credentials(request.image, request.secrets))
        except RuntimeFault as fault:
            raise Refused(protocol.FAILED_CODE, str(fault)) from None
        return protocol.Resolved(digest)

    # ---- for the streams --------------------------------------------------------------------------------------------------

    def find_container(self, uid: str, container: str, previous: bool = False) -> tuple[Optional[str], Optional[str]]:
        """(container id or None, path of its log or None when there is no such attempt). Raises Refused(not-found) for an unknown pod."""
        worker = self._supervisor.workers.get(uid)
        if worker is None:
            raise Refused(protocol.NOT_FOUND, f"pod {uid[:64]} is not on this node")
        names = {c.name for c in all_containers(worker.pod)} if worker.pod is not None else set()
        if container not in names | {mine.name for mine in worker.record.containers}:
            raise Refused(protocol.NOT_FOUND, f"pod {worker.record.name} has no container {container[:64]!r}")
        mine = worker.record.container(container)
        if previous:
            if mine.last is None:
                return None, None
            return mine.last.id or None, self._logs.path(uid, container, mine.last.attempt)
        if mine.attempt < 0:
            return None, None
        ended_id = mine.ended.id if mine.ended is not None else mine.id
        return ended_id or None, self._logs.path(uid, container, mine.attempt)

    def has_ended(self, uid: str, container: str, container_id: Optional[str]) -> bool:
        """Whether that attempt of a container is over and its log complete. From memory: followers ask several times a second.

        The engine tells how a container ended once its log is written, so an end that is not `known` yet does not count.
        """
        worker = self._supervisor.workers.get(uid)
        if worker is None:
            return True
        mine = worker.record.container(container)
        if mine.ended is not None:
            return mine.ended.known or mine.ended.id != container_id
        return mine.id != container_id

    def pod_process(self, uid: str) -> Process:
        """The process that holds a pod's network namespace. Raises Refused(not-found)."""
        worker = self._supervisor.workers.get(uid)
        process = worker.record.sandbox_process if worker is not None else None
        if process is None:
            raise Refused(protocol.NOT_FOUND, f"pod {uid[:64]} does not run on this node")
        return process

    async def images_changed(self) -> None:
        """To be called when an image was loaded: pods that wait for one go on at once."""
        try:
            await self._supervisor.look_at_images()
        except RuntimeFault:
            return  # the image is loaded all the same; the next look is seconds away

    # ---- who may give orders ------------------------------------------------------------------------------------------------

    def _check_sender(self, cluster: str, epoch: Epoch) -> None:
        owner = self._owner
        if owner is None:
            self._check_unowned(cluster)
            return
        if cluster != owner.cluster:
            raise Refused(protocol.OWNED, f"owned by {owner.cluster}")
        if epoch.number < owner.epoch.number:
            message = f"epoch {epoch.number} is over: a controller with epoch {owner.epoch.number} has been here"
            raise Refused(protocol.OLD_EPOCH, message)
        if epoch.number == owner.epoch.number and epoch.id != owner.epoch.id:
            raise Refused(
                protocol.FORKED, f"epoch {epoch.number} is known here under another id: two stores have forked"
            )

    def _check_unowned(self, cluster: str) -> None:
        """With the records lost, the labels of what runs say who the owner was."""
        labelled = {worker.record.cluster for worker in self._supervisor.workers.values()}
        if "StateLost" in self._supervisor.conditions and labelled and cluster not in labelled:
            raise Refused(protocol.OWNED, f"owned by {min(labelled)}, by the labels of what runs here")

    def _check_serial(self, wanted: WantedSet) -> None:
        owner = self._owner
        if owner is None:
            return
        if wanted.serial < owner.serial:
            message = f"serial {wanted.serial} is behind {owner.serial}, which was accepted here"
            raise Refused(protocol.OLD_SERIAL, message)
        if wanted.serial == owner.serial and owner.digest and wanted.digest != owner.digest:
            raise Refused(protocol.CONFLICT, f"serial {wanted.serial} was accepted here with other content")

    def _check_pods(self, wanted: WantedSet) -> None:
        """Bounds and names, which become parts of paths. A pod is never changed in place: another hash is another pod."""
        running = sum(not pod.stop for pod in wanted.pods)
        if running > PODS_MAX or len(wanted.pods) > PODS_NAMED_MAX:
            bounds = f"at most {PODS_MAX} and {PODS_NAMED_MAX} are allowed"
            raise Refused(protocol.BAD_REQUEST, f"{running} pods to run, {len(wanted.pods)} in all: {bounds}")
        seen: set[str] = set()
        for pod in wanted.pods:
            where = f"pod {pod.namespace[:64]}/{pod.name[:64]}"
            if not UID.match(pod.uid) or not NAME.match(pod.name) or not NAME.match(pod.namespace):
                raise Refused(protocol.BAD_REQUEST, f"{where}: uid, name or namespace is not well-formed")
            if pod.uid in seen:
                raise Refused(protocol.BAD_REQUEST, f"{where}: its uid {pod.uid} occurs twice")
            seen.add(pod.uid)
            names = [container.name for container in all_containers(pod)]
            lacks = not pod.containers and not pod.stop  # a pod whose owner's template is gone can still be stopped
            if lacks or len(names) > CONTAINERS_MAX or len(set(names)) != len(names):
                message = f"{where}: 1 to {CONTAINERS_MAX} containers with different names are allowed"
                raise Refused(protocol.BAD_REQUEST, message)
            if not all(NAME.match(name) for name in names):
                raise Refused(protocol.BAD_REQUEST, f"{where}: a container's name is not well-formed")
            worker = self._supervisor.workers.get(pod.uid)
            if worker is not None and worker.record.hash not in ("", pod.hash):
                raise Refused(protocol.BAD_REQUEST, f"{where}: uid {pod.uid} runs with another hash; pods don't change")

    # ---- persistence ----------------------------------------------------------------------------------------------------------

    def _commit(
        self, owner: Owner, wanted: Optional[WantedSet], boot: str, former: tuple[str, ...], *, forgetting: bool
    ) -> None:
        """On disk first, then in memory. Raises Refused(failed) and changes nothing when the disk refuses."""
        kept = {pod.uid for pod in wanted.pods} if wanted is not None else set()
        leaving = [pod for pod in self._supervisor.leaving() if pod.uid not in kept]
        if self._wanted is not None and wanted is not self._wanted:
            known = kept | {pod.uid for pod in leaving}
            leaving += [pod for pod in self._wanted.pods if pod.uid not in known]
        document = {
            "owner": encode(owner),
            "set": encode(wanted) if wanted is not None else None,
            "boot_id": boot,
            "former": list(former),
            "leaving": [encode(pod) for pod in leaving],
            "forgetting": forgetting,
        }
        self._save_or_refuse(WANTED, document)
        self._in_force = self._in_force and wanted is self._wanted
        self._owner, self._wanted, self._wanted_boot, self._former = owner, wanted, boot, former
        self._forgetting = forgetting

    def _save_or_refuse(self, name: str, document: dict[str, Any], *, secret: bool = False) -> None:
        try:
            self._storage.save(name, document, secret=secret)
        except OSError as error:
            self._supervisor.storage_failed(error)
            raise Refused(protocol.FAILED_CODE, f"the agent can't store it: {error.strerror or error}") from None
        self._supervisor.storage_worked()

    def _save_quietly(self, name: str, document: dict[str, Any]) -> None:
        try:
            self._storage.save(name, document)
        except OSError as error:
            self._supervisor.storage_failed(error)

    def _load(self, name: str, lost: list[str]) -> Optional[dict[str, Any]]:
        try:
            return self._storage.load(name)
        except StorageCorrupt:
            lost.append(name)
            return None

    def _load_wanted(self, lost: list[str]) -> dict[str, Pod]:
        """The accepted set → specs of pods that were leaving when the agent ended."""
        document = self._load(WANTED, lost)
        if document is None:
            return {}
        try:
            owner = decode(Owner, document["owner"], strict=False)
            wanted = decode(WantedSet, document["set"], strict=False) if document["set"] is not None else None
            leaving = {pod.uid: pod for pod in (decode(Pod, item, strict=False) for item in document["leaving"])}
            former = tuple(str(cluster) for cluster in document["former"])
            boot, forgetting = str(document["boot_id"]), bool(document["forgetting"])
        except (ProtocolError, KeyError, TypeError):
            lost.append(WANTED)
            return {}
        self._owner, self._wanted, self._wanted_boot, self._former = owner, wanted, boot, former
        self._forgetting = forgetting
        return leaving

    def _load_secrets(self, lost: list[str]) -> None:
        document = self._load(SECRETS, lost) or {}
        try:
            self._secrets = {name: decode(SecretValue, value, strict=False) for name, value in document.items()}
        except ProtocolError:
            lost.append(SECRETS)

    def _drop_unnamed_secrets(self) -> None:
        named = self._wanted.secrets if self._wanted is not None else {}
        kept = {name: value for name, value in self._secrets.items() if name in named}
        if kept != self._secrets:
            self._secrets = kept
            self._save_secrets()

    def _save_secrets(self) -> None:
        try:
            self._storage.save(SECRETS, {name: encode(value) for name, value in self._secrets.items()}, secret=True)
        except OSError as error:
            self._supervisor.storage_failed(error)
        self._tell_sealing()

    def _tell_sealing(self) -> None:
        """For information: such a node takes pods like any other."""
        condition = None
        if self._secrets and self._storage.sealing is False:
            message = f"secrets are kept on this disk unsealed, readable by the agent's user only: {self._storage.sealing_trouble}"
            condition = Condition("SecretsUnsealed", "SealingFailed", message)
        self._supervisor.set_condition("SecretsUnsealed", condition)

    def _raise_epoch(self, epoch: Epoch) -> None:
        if self._owner is not None and epoch.number > self._owner.epoch.number:
            owner = replace(self._owner, epoch=epoch)
            self._commit(owner, self._wanted, self._wanted_boot, self._former, forgetting=self._forgetting)

    # ---- life -------------------------------------------------------------------------------------------------------------------

    async def _take_up(self, uids: set[str], leaving: dict[str, Pod]) -> None:
        try:
            uids |= set(await self._files.uids())
        except OSError as error:
            self.ledger.tell_event(self._clock.wall_s(), "Leftover", f"files of pods: {error}", warning=True)
        self._supervisor.set_secrets(self._secrets)
        self._supervisor.load({uid for uid in uids | set(leaving) if UID.match(uid)}, leaving)
        self._put_in_force()
        self._task = asyncio.get_running_loop().create_task(self._relist_for_ever())
        if self._gauge is not None:
            self._sampling = asyncio.get_running_loop().create_task(self._sample_for_ever(self._gauge))
        waiting = asyncio.get_running_loop().create_task(self._supervisor.adopted.wait())
        await asyncio.wait({waiting}, timeout=FIRST_LISTING_S)
        waiting.cancel()

    def _put_in_force(self) -> None:
        clusters = (self._owner.cluster, *self._former) if self._owner is not None else ()
        received = self._wanted_boot == self._clock.boot_id()
        self._supervisor.set_secrets(self._secrets)
        self._supervisor.set_wanted(self._wanted, clusters, fresh=received)
        self._in_force = True
        self.ledger.tell_topic("owner")

    async def _relist_for_ever(self) -> None:
        while True:
            try:
                listed = await self._look_around()
            except Exception as error:  # a defect of ours, or of the disk: say so and go on
                listed = False
                context = {"message": "defect while looking around", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
            calm = listed and not self._supervisor.waits_for_image()
            await asyncio.sleep(self._relist_s if calm else min(RELIST_SOON_S, self._relist_s))

    async def _sample_for_ever(self, gauge: Gauge) -> None:
        while True:
            try:
                await gauge.sample(self._supervisor.processes())
            # A defect of ours, or a kernel that writes its files otherwise: pods matter more
            except Exception as error:
                context = {"message": "defect while sampling", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
            await asyncio.sleep(SAMPLE_S)

    async def _look_around(self) -> bool:
        """Whether the engine answered."""
        await self._look_at_engine()
        listed = await self._supervisor.relist()
        if (self._relists - 1) % INFO_EVERY == 0:
            self._supervisor.volumes.look()  # a person may have removed one
        if self._supervisor.adopted.is_set() and not self._supervisor.workers:
            await self._finish_forgetting()
        self._look_at_disk()
        return listed

    async def _look_at_engine(self) -> None:
        self._relists += 1
        if self._capacity.podman and (self._relists - 1) % INFO_EVERY:
            return
        try:
            info = await self._supervisor.guard(self.runtime.info())
        except RuntimeFault:
            return
        capacity = replace(self._capacity, podman=info.version, cgroups=info.cgroups, rootless=info.rootless)
        self._learn_limits(info)
        if capacity != self._capacity:
            self._capacity = self._supervisor.capacity = capacity
            self.ledger.tell_topic("capacity")

    def _learn_limits(self, info: RuntimeInfo) -> None:
        """Root may set every limit; an ordinary user those whose controllers his systemd was given, none with version 1."""
        lacking = sorted({"cpu", "memory"} - set(info.controllers if info.cgroups == "v2" else ()))
        if not info.rootless or not lacking:
            self._supervisor.set_condition("LimitsIgnored", None)
            self._supervisor.rules = self._rules
            return
        self._supervisor.rules = replace(self._rules, cpu="cpu" not in lacking, memory="memory" not in lacking)
        message = f"requests and limits of {' and '.join(lacking)} are not enforced: a rootless node with control groups {info.cgroups}"
        self._supervisor.set_condition("LimitsIgnored", Condition("LimitsIgnored", "Rootless", message))

    def _look_at_disk(self) -> None:
        """Free space changes all the time: it is told with full reports only, the lack of it at once."""
        if self._free_bytes is None:
            return
        free_bytes = self._free_bytes()
        self._capacity = replace(self._capacity, disk_free_bytes=free_bytes)
        condition = None
        if free_bytes < DISK_FREE_MIN_BYTES:
            message = f"less than {DISK_FREE_MIN_BYTES // 2**20} MiB are free on the disk"
            condition = Condition("DiskPressure", "LowDisk", message)
        self._supervisor.set_condition("DiskPressure", condition)

    async def _finish_forgetting(self) -> None:
        if not self._forgetting:
            return
        try:
            await self._supervisor.guard(self.runtime.remove_network())
        except RuntimeFault as fault:
            self.ledger.tell_event(self._clock.wall_s(), "Leftover", f"network: {fault}", warning=True)
        for name in (WANTED, SECRETS):
            try:
                self._storage.delete(name)
            except OSError as error:
                self._supervisor.storage_failed(error)
        self._owner, self._wanted, self._wanted_boot, self._former = None, None, "", ()
        self._forgetting, self._secrets = False, {}
        self._put_in_force()


def _check_volumes(wanted: WantedSet) -> None:
    """Bounds and names, which become parts of paths."""
    if len(wanted.volumes) > VOLUMES_MAX:
        raise Refused(protocol.BAD_REQUEST, f"{len(wanted.volumes)} volumes, at most {VOLUMES_MAX} are allowed")
    for volume in wanted.volumes:
        if not is_name(volume.name, wanted.cluster) or not is_directory(volume.directory):
            raise Refused(protocol.BAD_REQUEST, f"volume {volume.name[:80]!r}: name or directory is not well-formed")
