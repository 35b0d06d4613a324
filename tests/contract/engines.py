"""The two engines that the runtime contract is tested on, behind one face: FakePodman in virtual time, and a real Podman."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from nodeagent import protocol
from nodeagent.podman_runtime import PodmanRuntime
from nodeagent.runtime import Content, ImageInfo, Runtime, VolumeInfo
from nodeagent.spec import container_body, pod_body
from tests.contract.private_podman import IMAGE, PrivatePodman
from tests.fakes.podman import BROKEN, DEAF, SERVE, FakePodman, exits
from tests.simloop import simulate

CLUSTER = "5f0c5a4e-9d6b-4a0f-8a7e-3f1d2c4b5a69"
SUBNET = "10.99.0.0/24"
LABELS = {"sshoal.dev/cluster": CLUSTER}
NODE = protocol.NodeConfig(name="n1", subnet=SUBNET, cluster_range="10.99.0.0/16", address="192.0.2.1")
NO_CONTENT = Content({}, {})
LOG_BYTES_MAX = 1_000_000

# what a container does, as the command of the real test image
BEHAVIOURS: Mapping[str, tuple[str, ...]] = {
    "serve": ("sh", "-c", "trap 'exit 143' TERM; httpd -f -p 8080 -h /www & wait"),
    "exits-3": ("sh", "-c", "sleep 0.2; exit 3"),
    "exits-at-once": ("sh", "-c", "exit 4"),
    "deaf": ("sh", "-c", "trap '' TERM; sleep 100000 & wait"),
    "broken": ("/nowhere/to/be/found",),
}


class Engine(Protocol):
    """A runtime, and what the world does to it. Containers are called by id."""

    @property
    def runtime(self) -> Runtime: ...
    @property
    def is_real(self) -> bool: ...

    def image(self, behaviour: str) -> str: ...
    def paths(self) -> Mapping[str, str]: ...
    async def kill(self, container_id: str, *, conmon: bool = False, payload: bool = True) -> None: ...
    async def leave(self, body: Mapping[str, Any], *, stage: str) -> None:
        """What an interrupted create leaves: stage "created" or "external"."""

    async def add_foreign(self, name: str) -> str: ...
    async def foreign_lives(self, container_id: str) -> bool: ...
    async def add_foreign_volume(self, name: str) -> None: ...
    async def foreign_volume_lives(self, name: str) -> bool: ...
    def close(self) -> None: ...


class FakeEngine:
    is_real = False

    def __init__(self) -> None:
        behaviours = {"exits-3": exits(3, 0.2), "exits-at-once": exits(4, 0.0), "deaf": DEAF, "broken": BROKEN}
        self.runtime = self.fake = FakePodman(LoopClock(), random.Random(7), registry={"serve": SERVE, **behaviours})

    def image(self, behaviour: str) -> str:
        return behaviour

    def paths(self) -> Mapping[str, str]:
        return {"/etc/resolv.conf": "/resolv.conf", "/etc/hosts": "/hosts"}

    async def kill(self, container_id: str, *, conmon: bool = False, payload: bool = True) -> None:
        self.fake.kill(container_id, conmon=conmon, payload=payload)

    async def leave(self, body: Mapping[str, Any], *, stage: str) -> None:
        self.fake.interrupt_create(body, stage=stage)

    async def add_foreign(self, name: str) -> str:
        return self.fake.add_foreign(name)

    async def foreign_lives(self, container_id: str) -> bool:
        return self.fake.violations == 0

    async def add_foreign_volume(self, name: str) -> None:
        self.fake.named_volumes[name] = VolumeInfo(name, {}, f"/theirs/{name}")

    async def foreign_volume_lives(self, name: str) -> bool:
        return name in self.fake.named_volumes

    def close(self) -> None:
        """Nothing is open."""


class RealEngine:
    is_real = True

    def __init__(self, podman: PrivatePodman) -> None:
        self.podman = podman
        self.runtime = PodmanRuntime(str(podman.socket))

    def image(self, behaviour: str) -> str:
        return IMAGE

    def paths(self) -> Mapping[str, str]:
        files = {"/etc/resolv.conf": "resolv.conf", "/etc/hosts": "hosts"}
        for name in files.values():
            (self.podman.directory / name).write_text(f"# {name} of the test\n")
        return {place: str(self.podman.directory / name) for place, name in files.items()}

    async def kill(self, container_id: str, *, conmon: bool = False, payload: bool = True) -> None:
        conmon_pid, payload_pid = self.podman.pids(container_id)
        for pid, wanted in ((conmon_pid, conmon), (payload_pid, payload)):
            if wanted:
                os.kill(pid, signal.SIGKILL)
        gone = [pid for pid, wanted in ((conmon_pid, conmon), (payload_pid, payload)) if wanted]
        while any(_runs(pid) for pid in gone):
            await asyncio.sleep(0.01)

    async def leave(self, body: Mapping[str, Any], *, stage: str) -> None:
        if stage == "external":
            self.podman.forget_record_of(body["name"])
        else:
            await self.runtime.create_container(body)

    async def add_foreign(self, name: str) -> str:
        return self.podman.cli("run", "--detach", "--network", "none", "--name", name, IMAGE, "sleep", "1000")

    async def foreign_lives(self, container_id: str) -> bool:
        return _runs(self.podman.pids(container_id)[1])

    async def add_foreign_volume(self, name: str) -> None:
        self.podman.cli("volume", "create", name)

    async def foreign_volume_lives(self, name: str) -> bool:
        return self.podman.cli("volume", "ls", "--quiet", "--filter", f"name={name}") == name

    def close(self) -> None:
        self.runtime.close()


class LoopClock:
    def wall_s(self) -> float:
        return 1_700_000_000.0 + asyncio.get_running_loop().time()

    def boottime_s(self) -> float:
        return asyncio.get_running_loop().time()

    def boot_id(self) -> str:
        return "boot"


def run_on(kind: str, podman: PrivatePodman | None, scenario: Callable[[Engine], Coroutine[Any, Any, None]]) -> None:
    """Runs a scenario on the engine of that kind, with the network made."""

    async def main() -> None:
        engine: Engine = FakeEngine() if podman is None else RealEngine(podman)
        await engine.runtime.ensure_network(SUBNET, LABELS)
        try:
            await scenario(engine)
        finally:
            engine.close()

    if kind == "fake":
        simulate(main())
    else:
        asyncio.run(main())


# ---- builders -------------------------------------------------------------------------------------------------------------


def pod(*containers: protocol.Container, **changes: Any) -> protocol.Pod:
    """A pod with a uid of its own."""
    uid = changes.pop("uid", str(uuid4()))
    name = changes.pop("name", "web-0")
    return protocol.Pod(uid=uid, namespace="default", name=name, hash="h", containers=containers, **changes)


def container(engine: Engine, behaviour: str = "serve", **changes: Any) -> protocol.Container:
    command = changes.pop("command", BEHAVIOURS[behaviour])
    return protocol.Container("app", engine.image(behaviour), command=command, **changes)


async def start_pod(engine: Engine, wanted: protocol.Pod, *, selinux: bool = False) -> str:
    pod_id = await engine.runtime.create_pod(pod_body(CLUSTER, wanted, NODE, engine.paths(), selinux=selinux))
    await engine.runtime.start_pod(pod_id)
    return pod_id


async def body_of(
    engine: Engine, wanted: protocol.Pod, pod_id: str, attempt: int = 0, *, selinux: bool = False
) -> dict[str, Any]:
    found = await engine.runtime.image(wanted.containers[0].image)
    logs = Path("/var/tmp") if not engine.is_real else Path(engine.paths()["/etc/hosts"]).parent
    return container_body(
        cluster=CLUSTER,
        pod=wanted,
        container=wanted.containers[0],
        attempt=attempt,
        pod_id=pod_id,
        ip="",
        node=NODE,
        paths=engine.paths(),
        content=NO_CONTENT,
        image=found or ImageInfo("sha256:" + "0" * 64),
        log_path=str(logs / f"{uuid4().hex}.log"),
        log_bytes_max=LOG_BYTES_MAX,
        selinux=selinux,
    )


async def eventually(condition: Callable[[], Coroutine[Any, Any, Any]], timeout_s: float = 10.0) -> Any:
    """Waits until the condition gives something true, and returns that."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := await condition()):
        assert time.monotonic() < deadline_s, "never came true"
        await asyncio.sleep(0.02)
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
