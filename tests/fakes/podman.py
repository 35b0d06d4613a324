"""A container engine in memory, as treacherous as Podman was measured to be: nodeagent.runtime.Runtime for simulation and unit tests.

In: the bodies that nodeagent.spec makes; the image's name says how the container behaves. Out: what Podman would answer. Waits only by
asyncio.sleep and loop timers, so that a loop with virtual time runs it; all chance comes from the given generator.

What it reproduces (FAULTS §1): a killed conmon and payload go on being listed as running, start is then a no-op and the first remove
fails; a killed conmon loses the exit code; an interrupted create leaves records, some of them invisible, that hold the name; a taken
name is refused, a replaced one is sometimes busy; a payload may ignore SIGTERM.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import ipaddress
import json
import random
import tarfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nodeagent import protocol
from nodeagent.runtime import (
    LABEL_CLUSTER,
    Clock,
    ContainerInfo,
    ExecResult,
    Exit,
    ImageInfo,
    Listing,
    PodInfo,
    PodNet,
    Process,
    RegistryAuth,
    RuntimeFault,
    RuntimeInfo,
    VolumeInfo,
)
from nodeagent.spec import NAME_PREFIX
from tests.fakes.streams import Echo, FakeExec, outcome

DEADLINE_S = 10.0  # of one call while the engine hangs
STALL_S = 60.0  # a pull without progress is given up after this
LEARNING_S = 0.02  # between a process's end and the engine knowing it
TICKS_PER_S = 100

# shortest and longest time of each call
LATENCY_S: Mapping[str, tuple[float, float]] = {
    "list": (0.001, 0.004),
    "look": (0.001, 0.003),
    "create": (0.005, 0.03),
    "start": (0.02, 0.12),
    "remove": (0.02, 0.1),
    "exec": (0.02, 0.08),
    "pull": (0.2, 3.0),
}


@dataclass(frozen=True)
class Behaviour:
    """What a container of an image does. Times are in seconds since its start."""

    ready_after_s: float | None = 0.05  # None: its probes never pass
    exits_after_s: float | None = None
    exit_code: int = 0
    ignores_term: bool = False
    unkillable: bool = False  # stuck in the kernel: not even SIGKILL ends it
    fails_to_start: bool = False
    ends_after_term_s: float = 0.01
    user: str = ""
    stop_signal: str = ""


SERVE = Behaviour()
NEVER_READY = Behaviour(ready_after_s=None)
DEAF = Behaviour(ignores_term=True)
BROKEN = Behaviour(fails_to_start=True)


def exits(code: int, after_s: float = 0.5) -> Behaviour:
    """A container that ends by itself with `code`."""
    return Behaviour(exits_after_s=after_s, exit_code=code)


@dataclass
class Faults:
    """What goes wrong at the moment; a test or the simulation changes it while the world runs."""

    hang: bool = False  # calls block until their deadline
    stuck_helper: bool = False  # what it hangs on is a process of ours, which can be killed
    stuck_for_ever: bool = False  # … and that does not help
    unavailable: bool = False  # the engine's service does not answer
    disk_full: bool = False
    busy_rate: float = 0.0  # share of removals that fail once as "device or resource busy"
    failure_rate: float = 0.0  # share of calls that fail for no reason a program could know
    pull_failures: dict[str, str] = field(default_factory=dict)  # image -> the registry's words
    damaged: set[str] = field(default_factory=set)  # images whose layers are lost
    in_use: bool = False  # no image can be removed: containers are made of them
    pull_stalls: set[str] = field(default_factory=set)


@dataclass(eq=False)
class _Life:
    """One process; `ended` is set when it is gone."""

    process: Process
    started_s: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    timers: list[asyncio.TimerHandle] = field(default_factory=list)


@dataclass(eq=False)
class _Container:
    id: str
    name: str
    labels: dict[str, str]
    pod_id: str = ""
    image: str = ""
    behaviour: Behaviour = SERVE
    state: str = "external"
    life: _Life | None = None
    conmon: bool = True
    healthy: bool = True
    remove_fails_once: bool = False
    exit_code: int | None = None
    oom_killed: bool = False
    started_wall_s: float = 0.0
    finished_wall_s: float = 0.0
    is_infra: bool = False
    foreign: bool = False

    @property
    def alive(self) -> bool:
        return self.life is not None and not self.life.ended.is_set()


@dataclass(eq=False)
class Pod:
    id: str
    name: str
    labels: dict[str, str]
    ports: tuple[tuple[int, str], ...]
    host_network: bool
    infra_id: str = ""
    ip: str = ""
    fixed_ip: str = ""


class FakePodman:
    """Implements runtime.Runtime. Beyond it: what a world can do to an engine, and what a test may ask afterwards.

    Args:
        clock: of the host; processes get their start time from it.
        rng: the only source of chance.
        registry: behaviour by image name; `present` says which of them the host has already (all, when left out).
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        faults: Faults | None = None,
        registry: Mapping[str, Behaviour] | None = None,
        present: set[str] | None = None,
    ) -> None:
        self.faults = faults or Faults()
        self.created_last: Mapping[str, Any] = {}  # what the newest container was to be
        self.engine = RuntimeInfo("4.3.1", "v2", rootless=False, graph_root="/var/lib/containers/storage")
        self.registry: dict[str, Behaviour] = dict(registry or {"serve": SERVE})
        self.present: set[str] = set(self.registry) if present is None else set(present)
        self.credentials: dict[str, tuple[str, str]] = {}  # image -> who may pull it
        self.version = "4.3.1"
        self.unstuck: list[frozenset[str]] = []  # ids that each call of unstick was given
        self.taken_ports: set[tuple[int, str]] = set()  # by processes that are no containers
        self.calls: Counter[str] = Counter()
        self.mutations: Counter[str] = Counter()
        self.signals: list[str] = []  # that reached a process
        self.violations = 0  # how often something foreign was touched
        self.subnet = ""
        self.named_volumes: dict[str, VolumeInfo] = {}
        self._clock = clock
        self._rng = rng
        self._containers: dict[str, _Container] = {}
        self._pods: dict[str, Pod] = {}
        self._lives: dict[Process, _Life] = {}
        self._next_pid = 1000
        self._starts: list[tuple[Mapping[str, str], float]] = []

    # ---- what the world does --------------------------------------------------------------------------------------------

    def kill(self, container: str, *, conmon: bool = False, payload: bool = True, oom: bool = False) -> None:
        """SIGKILL from outside, for the container of that name or id: its payload, its conmon, or both."""
        victim = self._find(container)
        if conmon:
            victim.conmon = False
            victim.remove_fails_once = payload
        if payload:
            victim.oom_killed = oom
            self._end(victim, 137)

    def interrupt_create(self, body: Mapping[str, Any], *, stage: str) -> None:
        """What a create leaves behind that was killed at `stage`: "created" (a record) or "external" (storage only, no labels)."""
        labels = dict(body["labels"]) if stage == "created" else {}
        left = _Container(self._new_id(), body["name"], labels, body.get("pod", ""), body["image"], state=stage)
        self._containers[left.id] = left

    def exit(self, container: str, code: int) -> None:
        """The container's first process ends by itself."""
        self._end(self._find(container), code)

    def set_healthy(self, container: str, healthy: bool) -> None:
        """Whether its probes pass from now on (if its image ever lets them)."""
        self._find(container).healthy = healthy

    def reboot(self) -> None:
        """All processes are gone at once, records stay; nobody knows how containers ended. Process ids start anew."""
        for container in self._containers.values():
            if container.life is not None:
                self._bury(container.life)
            if container.state == "running":
                container.state, container.exit_code = "exited", None
            container.conmon, container.remove_fails_once = True, False
        for pod in self._pods.values():
            pod.ip = ""
        self._lives.clear()
        self._next_pid = 300

    def add_foreign(self, name: str) -> str:
        """A running container that is none of ours; touching it counts as a violation."""
        container = _Container(self._new_id(), name, {}, state="created", foreign=True)
        self._containers[container.id] = container
        self._begin(container)
        return container.id

    def running(self) -> tuple[str, ...]:
        """Names of the containers of ours whose payload is alive, infra containers left out."""
        return tuple(sorted(c.name for c in self._containers.values() if c.alive and not c.is_infra and not c.foreign))

    def live(self) -> tuple[Mapping[str, str], ...]:
        """Labels of the containers of ours whose payload is alive, infra containers left out."""
        return tuple(c.labels for c in self._containers.values() if c.alive and not c.is_infra and not c.foreign)

    def starts(self) -> list[tuple[Mapping[str, str], float]]:
        """(labels, time on the loop's clock) of each start of a container of ours since this was last asked."""
        taken, self._starts = self._starts, []
        return taken

    async def probe(self, container_id: str, handler: protocol.Handler) -> bool:
        """What a probe of that container sees at this moment."""
        await self._take_time("look")
        container = self._containers.get(container_id)
        if container is None or container.life is None or not container.alive or not container.healthy:
            return False
        ready_after_s = container.behaviour.ready_after_s
        return ready_after_s is not None and self._clock.boottime_s() - container.life.started_s >= ready_after_s

    # ---- runtime.Runtime: looking ---------------------------------------------------------------------------------------

    async def info(self) -> RuntimeInfo:
        await self._call("info", "look")
        return replace(self.engine, version=self.version)

    async def list(self) -> Listing:
        await self._call("list", "list")
        pods = tuple(PodInfo(p.id, p.name, dict(p.labels), p.infra_id) for p in self._pods.values())
        ours = (c for c in self._containers.values() if LABEL_CLUSTER in c.labels or _is_leftover(c))
        return Listing(pods, tuple(self._info(container) for container in ours))

    async def pod_net(self, pod_id: str) -> PodNet:
        await self._call("pod_net", "look")
        pod = self._pods.get(pod_id)
        if pod is None:
            raise RuntimeFault("not-found", f"no pod {pod_id[:12]}")
        return self._net(pod)

    def is_alive(self, process: Process) -> bool:
        return process in self._lives

    async def wait_exit(self, process: Process) -> None:
        life = self._lives.get(process)
        if life is not None:
            await life.ended.wait()

    async def exit_of(self, container_id: str) -> Exit:
        await self._call("exit_of", "look")
        await asyncio.sleep(2 * LEARNING_S)
        container = self._known(container_id)
        if container.state != "exited":
            return Exit(None, container.oom_killed)
        return Exit(container.exit_code, container.oom_killed)

    # ---- runtime.Runtime: pods ------------------------------------------------------------------------------------------

    async def ensure_network(self, subnet: str, labels: Mapping[str, str]) -> None:
        await self._call("ensure_network", "look")
        if self.subnet == subnet:
            return
        if self.subnet and self._is_network_used():
            raise RuntimeFault("conflict", f"network sshoal has subnet {self.subnet}, wanted {subnet}, and is in use")
        self.mutations["ensure_network"] += 1
        self.subnet = subnet

    async def remove_network(self) -> None:
        await self._call("remove_network", "look", mutates=True)
        if self._is_network_used():
            raise RuntimeFault("failed", "network sshoal is in use")
        self.subnet = ""

    async def create_pod(self, body: Mapping[str, Any]) -> str:
        await self._call("create_pod", "create", mutates=True)
        for old in [pod for pod in self._pods.values() if pod.name == body["name"]]:
            await self.remove_pod(old.id)
        ports = tuple((port["host_port"], port.get("protocol", "tcp")) for port in body.get("portmappings", ()))
        host_network = body.get("netns", {}).get("nsmode") == "host"
        addresses = [address for net in body.get("Networks", {}).values() for address in net.get("static_ips", ())]
        fixed_ip = addresses[0] if addresses else ""
        pod = Pod(self._new_id(), body["name"], dict(body["labels"]), ports, host_network, fixed_ip=fixed_ip)
        self._pods[pod.id] = pod
        infra = await self._create({"name": f"{pod.name}-infra", "labels": pod.labels, "pod": pod.id}, is_infra=True)
        pod.infra_id = infra.id
        return pod.id

    async def start_pod(self, pod_id: str) -> PodNet:
        await self._call("start_pod", "start", mutates=True)
        pod = self._pods.get(pod_id)
        if pod is None:
            raise RuntimeFault("not-found", f"no pod {pod_id[:12]}")
        infra = self._known(pod.infra_id)
        if infra.alive:
            return self._net(pod)
        for port, kind in pod.ports:
            if (port, kind) in self._ports_in_use():
                raise RuntimeFault("port-taken", f"host port {port}/{kind} is taken by another process")
        pod.ip = "" if pod.host_network else pod.fixed_ip or self._free_address()
        self._begin(infra)
        return self._net(pod)

    async def remove_pod(self, pod_id: str) -> None:
        await self._call("remove_pod", "remove", mutates=True)
        for container in [c for c in self._containers.values() if c.pod_id == pod_id]:
            await self._remove(container)
        self._pods.pop(pod_id, None)

    # ---- runtime.Runtime: volumes ---------------------------------------------------------------------------------------

    async def volumes(self) -> tuple[VolumeInfo, ...]:
        await self._call("volumes", "look")
        return tuple(info for info in self.named_volumes.values() if LABEL_CLUSTER in info.labels)

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> str:
        await self._call("create_volume", "create", mutates=True)
        path = f"/var/lib/containers/storage/volumes/{name}/_data"
        found = self.named_volumes.setdefault(name, VolumeInfo(name, dict(labels), path))
        if found.labels.get(LABEL_CLUSTER) != labels[LABEL_CLUSTER]:
            raise RuntimeFault("conflict", f"the name {name} is taken by something that is not ours")
        return found.path

    async def remove_volume(self, name: str) -> None:
        await self._call("remove_volume", "remove", mutates=True)
        found = self.named_volumes.get(name)
        if found is None:
            return
        if LABEL_CLUSTER not in found.labels:
            raise RuntimeFault("conflict", f"{name[:12]} is not ours and is left alone")
        del self.named_volumes[name]

    # ---- runtime.Runtime: containers ------------------------------------------------------------------------------------

    async def create_container(self, body: Mapping[str, Any]) -> str:
        await self._call("create_container", "create", mutates=True)
        self.created_last = body
        for old in [c for c in self._containers.values() if c.name == body["name"]]:
            if old.foreign:
                raise RuntimeFault("conflict", f"the name {old.name} is in use by a container that is not ours")
            await self._remove(old)
        for name in self.faults.damaged:
            if body.get("image") in _names(name):
                self._whole(name)
        return (await self._create(body)).id

    async def start_container(self, container_id: str) -> Process:
        await self._call("start_container", "start", mutates=True)
        container = self._known(container_id)
        if container.state == "running":  # as Podman believes: it does nothing, whether or not there is a process
            if container.life is None or not container.alive:
                raise RuntimeFault("failed", f"{container.name}: Podman says running, but its process is gone")
            return container.life.process
        pod = self._pods.get(container.pod_id)
        if pod is not None and not self._known(pod.infra_id).alive:
            raise RuntimeFault("failed", f"{container.name}: the infra container of its pod is not running")
        if container.behaviour.fails_to_start:
            raise RuntimeFault("failed", f"{container.name}: exec: no such file or directory")
        return self._begin(container).process

    async def signal(self, container_id: str, process: Process, name: str) -> None:
        await self._call("signal", "look", mutates=True)
        container = self._containers.get(container_id)
        if container is None or container.life is None or container.life.process != process or not container.alive:
            return
        self._guard(container)
        self.signals.append(name)
        if name == "SIGKILL":
            self._end(container, 137)
        elif not container.behaviour.ignores_term:
            self._after(container, container.behaviour.ends_after_term_s, 143 if name == "SIGTERM" else 0)

    async def remove_container(self, container_id: str) -> None:
        await self._call("remove_container", "remove", mutates=True)
        if not container_id:
            raise TypeError("a path without an id is that of the list of containers")
        container = self._containers.get(container_id)
        if container is not None:
            await self._remove(container)

    async def exec(self, container_id: str, command: tuple[str, ...], timeout_s: float) -> ExecResult:
        await self._call("exec", "exec")
        self._executable(container_id)
        code, output, duration_s = outcome(command)
        await asyncio.sleep(min(duration_s, timeout_s))
        return ExecResult(None if duration_s >= timeout_s else code, output)

    async def exec_stream(self, container_id: str, command: tuple[str, ...], tty: bool, stdin: bool) -> FakeExec:
        await self._call("exec_stream", "exec")
        self._executable(container_id)
        return FakeExec(command, stdin)

    async def connect(self, process: Process, port: int, timeout_s: float) -> Any:
        await self._call("connect", "look")
        if process not in self._lives:
            raise RuntimeFault("not-found", "the pod is not running")
        echo = Echo()
        return echo.reader, echo

    # ---- runtime.Runtime: images ----------------------------------------------------------------------------------------

    async def images(self) -> tuple[ImageInfo, ...]:
        await self._call("images", "look")
        if self.faults.damaged & self.present:
            raise RuntimeFault("storage-corrupt", "retrieving label for image: layer not known")
        return tuple(self._image(name) for name in sorted(self.present))

    async def image(self, reference: str) -> ImageInfo | None:
        await self._call("image", "look")
        for name in sorted(self.present):
            if reference in _names(name):
                self._whole(name)
                return self._image(name)
        return None

    async def remove_image(self, reference: str) -> None:
        await self._call("remove_image", "look", mutates=True)
        if self.faults.in_use:
            raise RuntimeFault("conflict", f"image {reference} is in use by a container")
        for name in [name for name in self.present if reference in _names(name)]:
            self.present.discard(name)
            self.faults.damaged.discard(name)

    def _whole(self, name: str) -> None:
        if name in self.faults.damaged:
            raise RuntimeFault("storage-corrupt", f"{name}: layer not known")

    async def pull(self, reference: str, auth: RegistryAuth | None) -> str:
        await self._call("pull", "pull", mutates=True)
        name = next((name for name in sorted(self.registry) if reference in _names(name)), reference)
        if name in self.faults.pull_stalls:
            await asyncio.sleep(STALL_S)
            raise RuntimeFault("pull-failed", f"{reference}: no progress for {STALL_S:g} s")
        self._refuse(name, auth)
        self.present.add(name)
        return _image_id(name)

    def _refuse(self, name: str, auth: RegistryAuth | None) -> None:
        """What its registry says to a pull that cannot be."""
        if name in self.faults.pull_failures:
            raise RuntimeFault("pull-failed", f"{name}: {self.faults.pull_failures[name]}")
        if name not in self.registry:
            raise RuntimeFault("pull-failed", f"{name}: manifest unknown")
        wanted = self.credentials.get(name)
        if wanted is not None and (auth is None or (auth.username, auth.password) != wanted):
            raise RuntimeFault("pull-failed", f"{name}: unauthorized: authentication required")

    async def resolve(self, reference: str, auth: RegistryAuth | None) -> str:
        await self._call("resolve", "look")
        name = next(
            (name for name in sorted(self.registry) if f"/{reference}".endswith(f"/{_tagged(name)}")), reference
        )
        self._refuse(name, auth)
        return _image_id(name)

    async def layers(self) -> frozenset[str]:
        await self._call("layers", "look")
        return frozenset()

    async def load_image(self, archive: Iterable[bytes]) -> None:
        await self._call("load_image", "pull", mutates=True)
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as tar:
            index = tar.extractfile("index.json")
            assert index is not None
            (image,) = json.load(index)["manifests"]
        self.present.add(image["annotations"]["org.opencontainers.image.ref.name"])

    async def tag(self, image_id: str, name: str) -> None:
        await self._call("tag", "look", mutates=True)
        self.present.add(name)

    async def unstick(self, ids: Collection[str], hanging_s: float) -> tuple[str, ...]:
        self.unstuck.append(frozenset(ids))
        if not (self.faults.hang and self.faults.stuck_helper):
            return ()
        if not self.faults.stuck_for_ever:
            self.faults.hang = self.faults.stuck_helper = False
        return ("podman container cleanup (process 4711)",)

    # ---- the engine below -----------------------------------------------------------------------------------------------

    async def _call(self, name: str, kind: str, *, mutates: bool = False) -> None:
        """Every call passes here: it is counted, takes its time, and fails as the faults say."""
        self.calls[name] += 1
        if mutates:
            self.mutations[name] += 1
        if self.faults.unavailable:
            raise RuntimeFault("unavailable", "Podman's service does not answer")
        await self._take_time(kind)
        if self.faults.hang:
            await asyncio.sleep(DEADLINE_S)
            raise RuntimeFault("timeout", f"{name}: no answer within {DEADLINE_S:g} s")
        if self.faults.disk_full and kind in ("create", "pull"):
            raise RuntimeFault("no-space", f"{name}: no space left on device")
        if self.faults.failure_rate and self._rng.random() < self.faults.failure_rate:
            raise RuntimeFault("failed", f"{name}: internal error")

    async def _take_time(self, kind: str) -> None:
        shortest, longest = LATENCY_S[kind]
        await asyncio.sleep(self._rng.uniform(shortest, longest))

    async def _create(self, body: Mapping[str, Any], *, is_infra: bool = False) -> _Container:
        """In two steps: storage first, then the record. Whoever is interrupted between them leaves a name nobody sees."""
        image = "" if is_infra else body["image"]
        name = next((name for name in sorted(self.present) if image in _names(name)), "")
        if not is_infra and not name:
            raise RuntimeFault("image-missing", f"{image}: no such image on this host")
        behaviour = SERVE if is_infra else self.registry.get(name, SERVE)
        labels = dict(body["labels"])
        container = _Container(
            self._new_id(), body["name"], labels, body.get("pod", ""), name, behaviour, is_infra=is_infra
        )
        container.labels = {}  # storage knows no labels
        self._containers[container.id] = container
        await self._take_time("create")
        container.state, container.labels = "created", labels
        await self._take_time("look")
        return container

    async def _remove(self, container: _Container) -> None:
        self._guard(container)
        await self._take_time("remove")
        if container.behaviour.unkillable and container.alive:
            await asyncio.sleep(DEADLINE_S)
            raise RuntimeFault("failed", f"{container.name}: its process {_pid(container)} does not end when killed")
        if container.remove_fails_once or self._rng.random() < self.faults.busy_rate:
            container.remove_fails_once = False  # "conmon exited prematurely", "device or resource busy": a retry helps
            await self._take_time("remove")
        if container.life is not None:
            self._bury(container.life)
        self._containers.pop(container.id, None)

    def _begin(self, container: _Container) -> _Life:
        self._next_pid += self._rng.randint(1, 9)
        now_s = self._clock.boottime_s()
        process = Process(self._next_pid, int(now_s * TICKS_PER_S))
        container.life = self._lives[process] = _Life(process, now_s)
        container.state, container.exit_code, container.conmon = "running", None, True
        container.started_wall_s = self._clock.wall_s()
        if not (container.is_infra or container.foreign):
            self._starts.append((container.labels, asyncio.get_running_loop().time()))
        if container.behaviour.exits_after_s is not None and not container.is_infra:
            self._after(container, container.behaviour.exits_after_s, container.behaviour.exit_code)
        return container.life

    def _after(self, container: _Container, delay_s: float, code: int) -> None:
        life = container.life
        if life is None:
            return
        life.timers.append(asyncio.get_running_loop().call_later(delay_s, self._end, container, code))

    def _end(self, container: _Container, code: int) -> None:
        """The process is gone now; the engine learns of it a moment later, and never without conmon."""
        if container.life is None or not container.alive or container.behaviour.unkillable:
            return
        life = container.life
        self._bury(life)
        if container.conmon:
            container.finished_wall_s = self._clock.wall_s()
            asyncio.get_running_loop().call_later(LEARNING_S, self._learn, container, life, code)

    def _learn(self, container: _Container, life: _Life, code: int) -> None:
        if container.life is life and container.state == "running":
            container.state, container.exit_code = "exited", code

    def _bury(self, life: _Life) -> None:
        for timer in life.timers:
            timer.cancel()
        self._lives.pop(life.process, None)
        life.ended.set()

    def _info(self, container: _Container) -> ContainerInfo:
        return ContainerInfo(
            id=container.id,
            name=container.name,
            labels=dict(container.labels),
            pod_id=container.pod_id,
            state=container.state,
            process=container.life.process if container.alive and container.life is not None else None,
            exit_code=container.exit_code if container.state == "exited" else None,
            oom_killed=container.oom_killed,
            started_wall_s=container.started_wall_s,
            finished_wall_s=container.finished_wall_s,
            image_id=_image_id(container.image) if container.image else "",
            is_infra=container.is_infra,
        )

    def _net(self, pod: Pod) -> PodNet:
        infra = self._containers.get(pod.infra_id)
        if infra is None or infra.life is None or not infra.alive:
            return PodNet(ip="", process=None)
        return PodNet(ip=pod.ip, process=infra.life.process)

    def _is_network_used(self) -> bool:
        return any(not pod.host_network for pod in self._pods.values())

    def _ports_in_use(self) -> set[tuple[int, str]]:
        running = (pod for pod in self._pods.values() if self._net(pod).process is not None)
        return self.taken_ports.union(*(pod.ports for pod in running))

    def _free_address(self) -> str:
        if not self.subnet:
            raise RuntimeFault("failed", "network sshoal not found")
        used = {pod.ip for pod in self._pods.values()}
        hosts = (str(host) for host in ipaddress.ip_network(self.subnet).hosts())
        next(hosts)  # the gateway
        address = next((host for host in hosts if host not in used), "")
        if not address:
            raise RuntimeFault("failed", f"no free address in {self.subnet}")
        return address

    def _image(self, name: str) -> ImageInfo:
        behaviour = self.registry.get(name, SERVE)
        digest = f"{name}@{_image_id(name)}"
        return ImageInfo(_image_id(name), (name,), (digest,), 4_000_000, behaviour.user, behaviour.stop_signal)

    def _known(self, container_id: str) -> _Container:
        container = self._containers.get(container_id)
        if container is None:
            raise RuntimeFault("not-found", f"no container {container_id[:12]}")
        return container

    def _find(self, name_or_id: str) -> _Container:
        for container in self._containers.values():
            if name_or_id in (container.name, container.id):
                return container
        raise KeyError(name_or_id)

    def _executable(self, container_id: str) -> None:
        if not self._known(container_id).alive:
            raise RuntimeFault("failed", "exec: the container is not running")

    def _guard(self, container: _Container) -> None:
        if container.foreign:
            self.violations += 1

    def _new_id(self) -> str:
        return f"{self._rng.getrandbits(256):064x}"


def _image_id(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def _is_leftover(container: _Container) -> bool:
    return container.state == "external" and not container.foreign and container.name.startswith(NAME_PREFIX)


def _names(name: str) -> tuple[str, ...]:
    """What an image can be called by: its name, its id, its id without the algorithm, its digest (which is its id here)."""
    digest = f"{_tagged(name).rpartition(':')[0]}@{_image_id(name)}"
    return name, _image_id(name), _image_id(name).partition(":")[2], digest


def _tagged(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _pid(container: _Container) -> int:
    return container.life.process.pid if container.life is not None else 0
