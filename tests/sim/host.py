"""Simulated hosts: clock, disk, files, engine, and the production agent on top, which can be killed between any two of its steps.

A killed process does nothing more: its tasks are cancelled, and whatever they still try through their interfaces is refused by `Mortal`,
so that no `finally` can do what a real SIGKILL would have prevented.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nodeagent import protocol
from nodeagent.agent import Agent
from nodeagent.runtime import (
    LABEL_CLUSTER,
    LABEL_CONTAINER,
    LABEL_UID,
    Content,
    MissingContent,
    ProbeOutcome,
    Process,
    StorageCorrupt,
)
from nodeagent.server import Conversation
from nodeagent.usage import Reading
from tests.fakes.podman import Behaviour, FakePodman, Faults, Pod

WALL_S = 1_800_000_000.0
OTHER_CLUSTER = "5e2d1c6a-0000-4000-8000-00000000beef"

OWNER: contextvars.ContextVar[Life | None] = contextvars.ContextVar("owner", default=None)


class Life:
    """One run of a process: the tasks that belong to it, and whether it still lives."""

    def __init__(self) -> None:
        self.alive = True
        self.tasks: dict[
            asyncio.Task[Any], None
        ] = {}  # in the order of their start: a set's order differs between runs

    def start(self, work: Any) -> asyncio.Task[Any]:
        """Runs a coroutine as part of this process."""
        context = contextvars.copy_context()
        context.run(OWNER.set, self)
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work, context=context)
        return task

    def kill(self) -> None:
        """SIGKILL."""
        self.alive = False
        for task in list(self.tasks):
            task.cancel()


def task_factory(loop: asyncio.AbstractEventLoop, coroutine: Any, context: Any = None) -> asyncio.Task[Any]:
    """Remembers for every task to which process it belongs."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context)
    owner = (context or contextvars.copy_context()).get(OWNER)
    if owner is not None:
        owner.tasks[task] = None
        task.add_done_callback(lambda done: owner.tasks.pop(done, None))
        if not owner.alive:
            task.cancel()
    return task


class Mortal:
    """An interface as one process sees it: after its death nothing passes any more."""

    def __init__(self, life: Life, inner: Any) -> None:
        self._life = life
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        if not self._life.alive:
            raise asyncio.CancelledError
        return getattr(self._inner, name)


class MemoryStorage:
    """runtime.Storage in memory, as durable as a disk with fsync; can be full, corrupt or wiped."""

    def __init__(self) -> None:
        self.documents: dict[str, str] = {}
        self.full = False
        self.corrupt: set[str] = set()
        self.sealing: bool | None = True
        self.sealing_trouble = ""

    def load(self, name: str) -> dict[str, Any] | None:
        if name in self.corrupt:
            self.corrupt.discard(name)  # the bad file is put aside, as the real storage does
            self.documents.pop(name, None)
            raise StorageCorrupt(f"{name} cannot be read back")
        text = self.documents.get(name)
        return json.loads(text) if text is not None else None

    def save(self, name: str, document: Mapping[str, Any], *, secret: bool = False) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on device")
        self.documents[name] = json.dumps(document)

    def delete(self, name: str) -> None:
        self.documents.pop(name, None)


class MemoryFiles:
    """runtime.Files in memory: paths are made up, missing content is told as the real one tells it."""

    def __init__(self) -> None:
        self.shown: dict[str, dict[str, str]] = {}  # pod -> content that it sees: "config default/x" -> hash
        self.lasting: dict[tuple[str, str], str] = {}  # (directory, name) -> path
        self.mounted: dict[str, set[str]] = {}  # pod -> volumes of claims
        self._pods: dict[str, set[str]] = {}

    async def prepare(self, pod: protocol.Pod, content: Content) -> dict[str, str]:
        for volume in pod.volumes:
            for source in volume.sources:
                held = content.configs if source.kind == "config" else content.secrets
                if source.kind != "downward" and source.name not in held and not source.optional:
                    raise MissingContent(f"{source.kind} {source.name} not found")
        for volume in pod.volumes:
            if volume.kind == "claim" and volume.claim not in content.volumes:
                raise MissingContent(f"volume {volume.name} is not here")
        self.mounted[pod.uid] = {volume.claim for volume in pod.volumes if volume.kind == "claim"}
        self._pods[pod.uid] = {volume.name for volume in pod.volumes}
        self._show(pod, content)
        names = [*self._pods[pod.uid], "/etc/resolv.conf", "/etc/hosts"]
        return {name: f"/var/lib/sshoal/pods/{pod.uid}/{name}" for name in names}

    async def prepare_container(
        self, pod: protocol.Pod, container: protocol.Container, attempt: int, paths: Mapping[str, str]
    ) -> dict[str, str]:
        return {}

    async def termination_message(self, uid: str, container: str, attempt: int) -> str:
        return ""

    async def refresh(self, pod: protocol.Pod, content: Content) -> None:
        self._show(pod, content)

    async def set_address(self, pod: protocol.Pod, ip: str) -> None: ...

    async def volumes(self, directory: str) -> dict[str, str]:
        return {name: path for (where, name), path in self.lasting.items() if where == directory}

    async def make_volume(self, directory: str, name: str) -> str:
        return self.lasting.setdefault((directory, name), f"{directory}/{name}/_data")

    async def open_volume(self, path: str) -> None: ...

    async def remove_volume(self, directory: str, name: str) -> None:
        self.lasting.pop((directory, name), None)

    async def remove(self, uid: str) -> None:
        self.mounted.pop(uid, None)
        self._pods.pop(uid, None)
        self.shown.pop(uid, None)

    def _show(self, pod: protocol.Pod, content: Content) -> None:
        held = {"config": content.configs, "secret": content.secrets}
        self.shown[pod.uid] = {
            f"{source.kind} {source.name}": held[source.kind][source.name].hash
            for volume in pod.volumes
            for source in volume.sources
            if source.kind in held and source.name in held[source.kind]
        }

    async def uids(self) -> tuple[str, ...]:
        return tuple(sorted(self._pods))


class SimPodman(FakePodman):
    """Remembers which containers the agent ended while they ran and were well."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ended: list[tuple[str, str]] = []

    def add_neighbour(self, cluster: str, uid: str) -> None:
        """A pod of another cluster of sshoal with a running container, which is none of ours either."""
        labels = {LABEL_CLUSTER: cluster, LABEL_UID: uid}
        container = self._containers[self.add_foreign(f"sshoal-{uid}-app-0")]
        container.labels = {**labels, LABEL_CONTAINER: "app"}
        container.pod_id = uid.replace("-", "") * 2  # of an id's length, without asking the dice
        self._pods[container.pod_id] = Pod(container.pod_id, f"sshoal-{uid}", labels, (), host_network=True)

    def ended_healthy(self) -> list[tuple[str, str]]:
        """(pod uid, container's name) of those that were ended since this was last asked."""
        taken, self._ended = self._ended, []
        return taken

    def uid_of(self, process: Process) -> str | None:
        """Of the pod that a process belongs to; None: it runs no more."""
        found = (one for one in self._containers.values() if one.alive and one.life and one.life.process == process)
        return next((one.labels.get(LABEL_UID, "") for one in found), None)

    async def signal(self, container_id: str, process: Process, name: str) -> None:
        container = self._containers.get(container_id)
        if container is not None and container.life is not None and container.life.process == process:
            self._note(container)
        await super().signal(container_id, process, name)

    async def _remove(self, container: Any) -> None:
        self._note(container)
        await super()._remove(container)

    def _note(self, container: Any) -> None:
        if container.alive and container.healthy and container.conmon and not container.is_infra:
            self._ended.append((container.labels.get(LABEL_UID, ""), container.name))


class HostClock:
    """runtime.Clock: the loop's virtual time, a boot counter, and a wall clock that may be wrong."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.boots = 1
        self.booted_s = 0.0
        self.skew_s = 0.0

    def wall_s(self) -> float:
        return WALL_S + asyncio.get_running_loop().time() + self.skew_s

    def boottime_s(self) -> float:
        return asyncio.get_running_loop().time() - self.booted_s + 10.0

    def boot_id(self) -> str:
        return f"{self._name}-boot-{self.boots}"


class HostProber:
    """runtime.Prober: what the containers of the fake engine answer."""

    def __init__(self, podman: FakePodman) -> None:
        self._podman = podman

    async def probe(
        self, handler: protocol.Handler, *, ip: str, sandbox: Process | None, container_id: str, timeout_s: float
    ) -> ProbeOutcome:
        if handler.kind == "sleep":
            await asyncio.sleep(min(handler.seconds, timeout_s))
            return ProbeOutcome(True, "")
        ok = await self._podman.probe(container_id, handler)
        return ProbeOutcome(ok, "" if ok else "connection refused")


@dataclass
class Load:
    """What the pods of one Deployment have to do, shared out among those that run."""

    total_m: int = 0
    _pods: frozenset[str] = frozenset()  # uids

    def share(self, pods: Iterable[str]) -> None:
        self._pods = frozenset(pods)

    def of(self, uid: str) -> float:
        """Millicores."""
        return self.total_m / len(self._pods) if uid in self._pods else 0.0


class SimMeter:
    """usage.Meter: processor time passes as the load says."""

    def __init__(self, load: Load, podman: SimPodman) -> None:
        self._load = load
        self._podman = podman
        self._used: dict[Process, tuple[float, float]] = {}  # when looked at last, nanoseconds until then

    def container(self, process: Process) -> Reading | None:
        uid = self._podman.uid_of(process)
        if uid is None:
            self._used.pop(process, None)
            return None
        now_s = asyncio.get_running_loop().time()
        before_s, used_ns = self._used.get(process, (now_s, 0.0))
        used_ns += self._load.of(uid) * (now_s - before_s) * 1e6
        self._used[process] = now_s, used_ns
        return Reading(round(used_ns), 64 * 2**20)

    def node(self) -> Reading:
        return Reading(0, 2**30)


class SimHost:
    """One host with the production agent. `up`: powered on."""

    def __init__(
        self,
        name: str,
        address: str,
        rng: random.Random,
        registry: Mapping[str, Behaviour],
        capacity: protocol.Capacity,
        load: Load | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.clock = HostClock(name)
        self.faults = Faults()
        self.podman = SimPodman(self.clock, rng, self.faults, registry)
        self.podman.add_foreign("their-database")
        self.podman.add_neighbour(OTHER_CLUSTER, f"7c8f9a53-0000-4000-8000-{int(name[1:]):012d}")
        self.storage = MemoryStorage()
        self.files = MemoryFiles()
        self.up = True
        self.installed = ""  # bundle of the agent that systemd keeps running
        self.agent: Agent | None = None
        self.life: Life | None = None
        self.state_losses = 0
        self.key = f"SHA256:{name}"
        self._capacity = capacity
        self._meter = SimMeter(load, self.podman) if load is not None else None

    async def install(self, bundle: str) -> None:
        """What bootstrap does: put the bundle there and have systemd start it."""
        await asyncio.sleep(1.0)
        if not self.up:
            return  # switched off meanwhile: nothing was put there, and nothing runs there
        if self.life is not None:
            self.kill_agent()
        self.installed = bundle
        await self.start_agent()

    async def start_agent(self) -> None:
        """systemd starts the unit, if it does not run. Returns when its socket answers."""
        if self.life is not None:
            return
        life = self.life = Life()
        runtime, storage = Mortal(life, self.podman), Mortal(life, self.storage)
        agent = Agent(
            runtime,  # type: ignore[arg-type]
            Mortal(life, self.files),  # type: ignore[arg-type]
            storage,  # type: ignore[arg-type]
            self.clock,
            HostProber(self.podman),
            bundle=self.installed,
            logs_dir="/var/lib/sshoal/logs",
            host=self._capacity,
            meter=self._meter,
        )
        await asyncio.wait([life.start(agent.start())])
        if life.alive:
            self.agent = agent

    def kill_agent(self) -> None:
        """SIGKILL of the agent's process; its containers run on."""
        if self.life is not None:
            self.life.kill()
        self.life = self.agent = None

    async def power_off(self) -> None:
        """Everything stops in this instant; the disk keeps what was synced."""
        self.up = False
        self.kill_agent()
        self.podman.reboot()
        await asyncio.sleep(0)

    async def power_on(self) -> None:
        self.clock.boots += 1
        self.clock.booted_s = asyncio.get_running_loop().time()
        self.up = True
        await asyncio.sleep(2.0)
        if self.installed and self.up and self.agent is None:
            await self.start_agent()

    def lose_state(self) -> None:
        """The agent's documents can't be read any more; it must restart to notice."""
        self.state_losses += 1
        self.storage.corrupt |= set(self.storage.documents)

    def converse(self, reader: Any, writer: Any) -> bool:
        """A peer connects to the agent's socket. False when nobody listens."""
        if self.agent is None or self.life is None or not self.life.alive:
            return False
        self.life.start(Conversation(self.agent, reader, writer).run())
        return True
