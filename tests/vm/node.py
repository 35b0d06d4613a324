"""The virtual machine as the one node of a cluster: the real agent, driven by the `sshoal` program. For all tests of this directory.

In: the machine, a context directory. Out: what commands say, and containers as the machine's own Podman lists them. Deadlines are those of
an emulated machine: a command there takes seconds where a host takes a tenth of one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.act import bootstrap, bundle
from controller.act.agents import AgentClient
from controller.act.bundle import Bundle
from controller.act.hostkeys import KnownHosts
from controller.act.inventory import load_inventory
from controller.act.ssh import AsyncsshTransport
from controller.act.transport import Session
from controller.model.inventory import Host
from lab.vm import Vm
from nodeagent.protocol import Hello
from tests.lab.cluster import Cluster, Object, Running, deployment, shell, single, wait_for

PATIENCE_S = 240.0
NAMESPACE = "vm"


@dataclass(frozen=True, slots=True)
class OneHost:
    """What Cluster asks of a lab, for the one machine."""

    vm: Vm

    @property
    def hosts(self) -> tuple[Vm, ...]:
        return (self.vm,)

    @property
    def inventory(self) -> Path:
        return self.vm.inventory

    def host(self, name: str) -> Vm:
        assert name == self.vm.name
        return self.vm


class VmNode(Cluster):
    """A cluster of one node, with workloads on it that stay for all tests."""

    def __init__(self, vm: Vm, directory: Path) -> None:
        super().__init__(OneHost(vm), directory)  # type: ignore[arg-type]  # as much of a lab as is needed
        self.vm = vm
        self.bundle = bundle.build(directory / "cache")
        self.is_up = False

    def bring_up(self) -> None:
        """The agent in charge and all workloads Ready, unless they are."""
        if self.is_up:
            return
        self.declare(*WORKLOADS)  # the first pass installs the agent
        self.is_up = True

    def declare(self, *objects: Object) -> None:
        """Applies objects and returns when they are as declared."""
        self.apply(NAMESPACE, *objects, flags=("--timeout", f"{PATIENCE_S:g}s"))

    # ---- the agent ----

    def push(self, built: Bundle) -> bootstrap.Pushed:
        async def work(session: Session, host: Host) -> bootstrap.Pushed:
            return await bootstrap.push(session, built, host)

        return self._with_session(work)

    def hello(self) -> Hello:
        async def work(session: Session, _: Host) -> Hello:
            client = AgentClient(session.host_name, await session.open_channel(60))
            try:
                return await client.hello(60)
            finally:
                client.close()

        return self._with_session(work)

    def agent_pid(self) -> int:
        """0 while it does not run."""
        return self.main_pid("sshoal-agent")

    def main_pid(self, unit: str) -> int:
        return int(self.vm.run(f"systemctl show --property MainPID --value {unit}"))

    # ---- pods ----

    def running(self, namespace: str, hosts: Sequence[str] = ()) -> list[Running]:
        """Those that do run: of a container whose conmon was killed with it Podman says so for ever."""
        alive = frozenset(self.vm.run("ls /proc").split())
        return [one for one in super().running(namespace, hosts) if str(one.pid) in alive]

    def one(self, app: str) -> Running:
        """The running container of a workload that has one."""
        found = self.of(app)
        assert len(found) == 1, found
        return found[0]

    def of(self, app: str) -> list[Running]:
        return [one for one in self.running(NAMESPACE) if one.pod.startswith(app)]

    def status(self, app: str) -> list[Object]:
        """Status of each container of a workload's pods, as `get pods -o json` has it."""
        pods = [pod for pod in self.pods(NAMESPACE) if pod["metadata"]["name"].startswith(app)]
        return [container for pod in pods for container in pod["status"].get("containerStatuses", ())]

    def inspect(self, one: Running) -> Object:
        """All that Podman knows of a container."""
        found: Object = json.loads(self.vm.run(f"podman inspect {one.id}"))[0]
        return found

    def wait(self, condition: Callable[[], object], what: str) -> None:
        wait_for(condition, what, PATIENCE_S)

    def _with_session(self, work: Callable[[Session, Host], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            host = load_inventory((str(self.inventory),)).hosts[self.vm.name]
            transport = AsyncsshTransport(KnownHosts(self.directory / "known_hosts", [self.vm.known_hosts]))
            session = await transport.connect(host)
            try:
                return await work(session, host)
            finally:
                await session.close()
                await transport.close()

        return asyncio.run(main())


# ---- what runs there -------------------------------------------------------------------------------------------------

PAGE = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 2, "timeoutSeconds": 20, "failureThreshold": 10}
LIMITS = {"requests": {"cpu": "100m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}

WORKLOADS: tuple[Object, ...] = (
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "blue"}},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {"password": "opensesame"}},
    deployment(
        "web",
        replicas=2,
        container={
            "readinessProbe": PAGE,
            "livenessProbe": PAGE,
            "resources": LIMITS,
            "volumeMounts": [
                {"name": "settings", "mountPath": "/etc/settings"},
                {"name": "login", "mountPath": "/etc/login"},
            ],
        },
        pod={
            "volumes": [
                {"name": "settings", "configMap": {"name": "settings"}},
                {"name": "login", "secret": {"secretName": "login"}},
            ]
        },
    ),
    single(
        "front",
        container={
            "ports": [{"containerPort": 8080, "hostPort": 8088}],
            "readinessProbe": {"exec": {"command": ["test", "-d", "/www"]}, "periodSeconds": 2, "timeoutSeconds": 30},
        },
    ),
    single("spare"),
)


def measured(cluster: Cluster, namespace: str) -> tuple[float, int]:
    """What `top` tells of a pod that holds 12 MiB and never rests, but may have 300m: thousandths of a cpu, MiB."""
    hold = "dd if=/dev/zero of=/dev/shm/held bs=1048576 count=12 2>/dev/null; while :; do :; done"
    container = shell(hold, resources={"limits": {"cpu": "300m", "memory": "64Mi"}})
    pod = single("busy", container=container, pod={"terminationGracePeriodSeconds": 0})
    cluster.apply(namespace, pod, flags=("--timeout", f"{PATIENCE_S:g}s"))

    def figures() -> list[tuple[float, int]]:
        done = cluster.call("top", "pods", "-n", namespace, "-l", "app=busy", "-o", "json")
        items = json.loads(done.out)["items"] if done.exit_code == 0 else []
        usages = [container["usage"] for item in items for container in item["containers"]]
        return [
            (int(one["cpu"].removesuffix("u")) / 1000, int(one["memory"].removesuffix("Ki")) // 1024) for one in usages
        ]

    found: list[tuple[float, int]] = []

    def it_works() -> bool:
        found[:] = figures()
        return any(cpu_m > 100 for cpu_m, _ in found)  # the first samples may be of its start

    wait_for(it_works, "top to tell of its load", PATIENCE_S)
    cluster.run("delete", "pod/busy", "-n", namespace)
    return found[0]
