"""A host in memory for tests of the agent: clock, disk and files of its own, and the engine that fails as Podman does."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nodeagent.agent import Agent
from nodeagent.logfiles import NoLogFiles
from nodeagent.protocol import (
    RUNNING_PHASE,
    Container,
    Cursor,
    Epoch,
    Handler,
    NodeConfig,
    Pod,
    PodReport,
    Report,
    ReportRequest,
    WantedSet,
)
from nodeagent.runtime import Content, MissingContent, ProbeOutcome, Process, RuntimeFault, StorageCorrupt
from tests.fakes.podman import Behaviour, FakePodman, Faults

CLUSTER = "c0ffee00-0000-4000-8000-000000000001"
EPOCH = Epoch(1, "first")
NODE = NodeConfig(name="node-1", subnet="10.86.3.0/24", cluster_range="10.86.0.0/16", address="192.0.2.1")
WALL_START_S = 1_700_000_000.0


class WorldClock:
    """Boot time is the loop's time since the last boot."""

    def __init__(self) -> None:
        self.boots = 1
        self._booted_s = 0.0

    def wall_s(self) -> float:
        return WALL_START_S + asyncio.get_running_loop().time()

    def boottime_s(self) -> float:
        return 100.0 + asyncio.get_running_loop().time() - self._booted_s

    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    def slept(self, for_s: float) -> None:
        self._booted_s -= for_s

    def reboot(self) -> None:
        self.boots += 1
        self._booted_s = asyncio.get_running_loop().time()


class MemoryStorage:
    """Documents in memory. `full`: nothing can be written; `corrupt`: names that can't be read back; `busy`: what reading fails with."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.secret: set[str] = set()
        self.corrupt: set[str] = set()
        self.full = False
        self.busy: OSError | None = None
        self.saves = 0
        self.sealing: bool | None = None
        self.sealing_trouble = ""

    def load(self, name: str) -> dict[str, Any] | None:
        if self.busy is not None:
            raise self.busy
        if name in self.corrupt:
            raise StorageCorrupt(f"{name} is not what was written")
        return copy.deepcopy(self.documents.get(name))

    def save(self, name: str, document: Mapping[str, Any], *, secret: bool = False) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.saves += 1
        self.documents[name] = copy.deepcopy(dict(document))
        self.corrupt.discard(name)
        if secret:
            self.secret.add(name)

    def delete(self, name: str) -> None:
        self.documents.pop(name, None)


class MemoryFiles:
    """Volumes that are only remembered: uid → what content the pod's files were made of."""

    def __init__(self) -> None:
        self.prepared: dict[str, dict[str, str]] = {}
        self.last_words: dict[tuple[str, str, int], str] = {}
        self.refusal: OSError | None = None  # what preparing a pod fails with
        self.refreshes = 0
        self.prepare_s = 0.0
        self.lasting: dict[tuple[str, str], str] = {}  # (directory, name) -> path
        self.opened: list[str] = []
        self.unreadable: set[str] = set()  # directories

    async def volumes(self, directory: str) -> dict[str, str]:
        await asyncio.sleep(0)
        if directory in self.unreadable:
            raise PermissionError(13, "Permission denied", directory)
        return {name: path for (where, name), path in self.lasting.items() if where == directory}

    async def make_volume(self, directory: str, name: str) -> str:
        await asyncio.sleep(0)
        return self.lasting.setdefault((directory, name), f"{directory}/{name}/_data")

    async def open_volume(self, path: str) -> None:
        await asyncio.sleep(0)
        self.opened.append(path)

    async def remove_volume(self, directory: str, name: str) -> None:
        await asyncio.sleep(0)
        self.lasting.pop((directory, name), None)

    async def prepare(self, pod: Pod, content: Content) -> dict[str, str]:
        await asyncio.sleep(self.prepare_s)
        if self.refusal is not None:
            raise self.refusal
        self.prepared[pod.uid] = self._read(pod, content)
        paths = {volume.name: f"/pods/{pod.uid}/{volume.name}" for volume in pod.volumes}
        return {**paths, "/etc/resolv.conf": f"/pods/{pod.uid}/resolv", "/etc/hosts": f"/pods/{pod.uid}/hosts"}

    async def prepare_container(
        self, pod: Pod, container: Container, attempt: int, paths: Mapping[str, str]
    ) -> dict[str, str]:
        return {}

    async def termination_message(self, uid: str, container: str, attempt: int) -> str:
        return self.last_words.get((uid, container, attempt), "")

    async def refresh(self, pod: Pod, content: Content) -> None:
        await asyncio.sleep(0)
        self.refreshes += 1
        self.prepared[pod.uid] = self._read(pod, content)

    async def set_address(self, pod: Pod, ip: str) -> None:
        await asyncio.sleep(0)

    async def remove(self, uid: str) -> None:
        await asyncio.sleep(0)
        self.prepared.pop(uid, None)

    async def uids(self) -> tuple[str, ...]:
        await asyncio.sleep(0)
        return tuple(sorted(self.prepared))

    @staticmethod
    def _read(pod: Pod, content: Content) -> dict[str, str]:
        made = {}
        for volume in pod.volumes:
            if volume.kind == "claim" and volume.claim not in content.volumes:
                raise MissingContent(f"volume {volume.name} is not here")
            for source in volume.sources:
                held = (content.configs if source.kind == "config" else content.secrets).get(source.name)
                if held is None:
                    raise MissingContent(f"{source.kind} {source.name} does not exist")
                made[source.name] = held.hash
        return made


class MemoryLogs(NoLogFiles):
    """No logs but the ends that a test says: by pod, container and attempt."""

    def __init__(self) -> None:
        super().__init__("/var/log/pods")
        self.ends: dict[tuple[str, str, int], str] = {}

    def end(self, uid: str, container: str, attempt: int) -> str:
        return self.ends.get((uid, container, attempt), "")


class WorldProber:
    """Asks the fake engine; hooks take as long as they say. Every call is kept in `calls` as (time, kind)."""

    def __init__(self, podman: FakePodman) -> None:
        self._podman = podman
        self.calls: list[tuple[float, Handler]] = []

    async def probe(
        self, handler: Handler, *, ip: str, sandbox: Process | None, container_id: str, timeout_s: float
    ) -> ProbeOutcome:
        self.calls.append((asyncio.get_running_loop().time(), handler))
        try:
            return await self._ask(handler, container_id, timeout_s)
        except RuntimeFault as fault:
            return ProbeOutcome(False, str(fault), known=False)

    async def _ask(self, handler: Handler, container_id: str, timeout_s: float) -> ProbeOutcome:
        if handler.kind == "sleep":
            await asyncio.sleep(min(handler.seconds, timeout_s))
            return ProbeOutcome(handler.seconds <= timeout_s)
        if handler.kind == "exec":
            result = await self._podman.exec(container_id, handler.command, timeout_s)
            return ProbeOutcome(result.code == 0, f"exit code {result.code}")
        ok = await self._podman.probe(container_id, handler)
        return ProbeOutcome(ok, "" if ok else "connection refused")


class World:
    """One host; `agent` is the present agent on it."""

    def __init__(self, *, seed: int = 1, images: Mapping[str, Behaviour] | None = None, **podman: Any) -> None:
        self.clock = WorldClock()
        self.storage = MemoryStorage()
        self.files = MemoryFiles()
        self.logs = MemoryLogs()
        self.faults = Faults()
        self.podman = FakePodman(
            self.clock, random.Random(seed), self.faults, {"serve": Behaviour(), **(images or {})}, **podman
        )
        self.prober = WorldProber(self.podman)
        self.serial = 0
        self.wanted: WantedSet | None = None
        self.agent = self._new_agent()

    async def start(self) -> Agent:
        """A new agent on this host."""
        self.agent = self._new_agent()
        await self.agent.start()
        return self.agent

    def _new_agent(self) -> Agent:
        return Agent(
            self.podman,
            self.files,
            self.storage,
            self.clock,
            self.prober,
            bundle="bundle-1",
            logs_dir="",
            logs=self.logs,
        )

    async def crash(self) -> None:
        """The agent's process is killed: whatever it was about to do does not happen, and it saves nothing more."""
        agent = self.agent
        frozen, self.storage = self.storage, MemoryStorage()
        self.storage.documents = copy.deepcopy(frozen.documents)
        self.storage.corrupt, self.storage.secret = set(frozen.corrupt), set(frozen.secret)
        frozen.full = True
        await agent.close()

    async def reboot(self) -> None:
        await self.crash()
        self.podman.reboot()
        self.clock.reboot()
        await self.start()

    async def want(self, *pods: Pod, **changes: Any) -> Any:
        """Sends the next wanted set."""
        self.serial += 1
        base = WantedSet(CLUSTER, EPOCH, self.serial, f"digest-{self.serial}", NODE, tuple(pods))
        self.wanted = replace(base, **changes)
        return await self.agent.want(self.wanted)

    async def report(self, cursor: Cursor | None = None, wait_s: float = 0.0) -> Report:
        return await self.agent.report(ReportRequest(cursor, wait_s))

    async def pod(self, uid: str) -> PodReport | None:
        report = await self.report()
        return next((pod for pod in report.pods if pod.uid == uid), None)

    async def until(self, uid: str, holds: Callable[[PodReport], bool], within_s: float = 120.0) -> PodReport:
        """The pod's report as soon as it is as asked; fails when that takes more than `within_s`."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + within_s
        cursor = None
        pod: PodReport | None = None
        while True:
            report = await self.report(cursor, max(0.001, end_s - loop.time()))
            cursor = report.cursor
            pod = next((one for one in report.pods if one.uid == uid), pod)
            if pod is not None and holds(pod):
                return pod
            assert loop.time() < end_s, f"not within {within_s} s; last: {pod}"

    async def until_ready(self, uid: str, within_s: float = 120.0) -> PodReport:
        return await self.until(uid, lambda pod: pod.ready, within_s)

    async def until_gone(self, uid: str, within_s: float = 120.0) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + within_s
        cursor = None
        while True:
            report = await self.report(cursor, max(0.001, end_s - loop.time()))
            if report.full and all(pod.uid != uid for pod in report.pods):
                return
            if uid in report.gone:
                return
            cursor = report.cursor
            assert loop.time() < end_s, f"pod {uid} is still there after {within_s} s"

    def names(self, uid: str, container: str = "main") -> list[str]:
        """Names of the pod's living containers of that name."""
        return [name for name in self.podman.running() if self._is(name, uid, container)]

    def _is(self, name: str, uid: str, container: str) -> bool:
        labels = self.podman._find(name).labels
        return (labels["sshoal.dev/pod-uid"], labels["sshoal.dev/container"]) == (uid, container)

    def events(self, report: Report) -> list[str]:
        return [event.reason for event in report.events]


def container(name: str = "main", image: str = "serve", **fields: Any) -> Container:
    return Container(name=name, image=image, **fields)


def pod(uid: str = "uid-1", **fields: Any) -> Pod:
    fields.setdefault("containers", (container(),))
    fields.setdefault("hash", "h1")
    return Pod(uid=uid, namespace="default", name=f"pod-{uid}", **fields)


def is_running(report: PodReport) -> bool:
    return report.phase == RUNNING_PHASE and all(one.state == "running" for one in report.containers if not one.init)
