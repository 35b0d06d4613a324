"""The simulated world: hosts with the production agent, a controller with the production loop, a user, and one seed for all chance.

`run(seed)` lives through faults and edits (`course_of`), then heals everything and demands that the world comes to rest in the state that
was declared last.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from controller.act.fleet import Deadlines, Fleet
from controller.act.secrets import Sealer
from controller.act.store import Store
from controller.act.transport import Session
from controller.decide import verbs
from controller.decide.drain import order_drain
from controller.loop import Controller, Pass
from controller.model import manifest
from controller.model.cluster import Cluster, Drain, Moment, Settings, World
from controller.model.errors import AnotherController, SshoalError, StoreConflict
from controller.model.inventory import Host, Inventory
from controller.model.plan import Change
from nodeagent.protocol import Capacity, Hello
from tests.fakes.podman import NEVER_READY, SERVE, Behaviour, exits
from tests.sim.course import course_of
from tests.sim.host import OWNER, WALL_S, Life, Load, SimHost, task_factory
from tests.sim.network import Network
from tests.simloop import simulate

TOLERATION_S = 30
REGISTRY: dict[str, Behaviour] = {
    "app:1": SERVE,
    "app:2": SERVE,
    "app:3": Behaviour(ready_after_s=3.0),
    "deaf:1": Behaviour(ignores_term=True),
    "bad:never-ready": NEVER_READY,
    "bad:crash": exits(1, 0.5),
    "task:1": exits(0, 4.0),
}


@dataclass(frozen=True)
class Declared:
    """What the user asked for last, and was told is accepted."""

    replicas: int
    image: str


@dataclass
class Outcome:
    """What a run was like; `violations` empty: all was well."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    passes: int = 0
    simulated_s: float = 0.0


class Violated(Exception):
    """The first violation ends a run that was started with `stop_early`."""


class SimWorld:
    """Everything of one run."""

    def __init__(self, seed: int, directory: Path, stop_early: bool = False) -> None:
        self.stop_early = stop_early
        self.rng = random.Random(seed)
        self.outcome = Outcome(seed)
        self.course = course_of(seed)
        self.load = Load() if seed % 4 == 2 else None  # of web0, in the runs that have autoscalers, budgets and drains
        self.hosts = {
            f"n{number}": SimHost(
                f"n{number}",
                f"10.0.0.{number}",
                random.Random(f"{seed}/{number}"),
                REGISTRY,
                _capacity(self.rng),
                self.load,
            )
            for number in range(1, self.rng.randint(3, 5) + 1)
        }
        self.unlisted: set[str] = set()  # hosts that the inventory does not name (yet, or for a while)
        if len(self.hosts) > 3:
            self.unlisted.add(max(self.hosts))
        self.networks: list[Network] = []
        self.cut: set[str] = set()  # hosts that the controllers can't reach
        self.bundle = "bundle-1"
        self.declared: dict[str, Declared] = {}
        self.stateful = 0  # replicas of the StatefulSet db; half of the runs have one, and a Job
        self.deleted_claims: set[str] = set()  # uids: by an explicit verb
        self.watchers: list[Callable[[Pass], None]] = []
        self.controller: ControllerProcess | None = None
        self.overtaken: list[ControllerProcess] = []  # they still run though another has taken over
        self._path = directory / "store.db"
        self._sealer = Sealer(b"k" * 32)
        Store(self._path, create=True).close()
        self.store = Store(self._path, clock=self.wall_s)  # the user's own connection

    def violate(self, text: str) -> None:
        self.outcome.violations.append(text)

    @property
    def inventory(self) -> Inventory:
        """As read at this moment."""
        listed = {name: _inventory_host(host) for name, host in self.hosts.items() if name not in self.unlisted}
        return Inventory(listed, {})

    # ---- processes ----

    def start_controller(self) -> None:
        """A new controller process, as `watch` or as cron's passes."""
        style = self.rng.choice(["watch", "cron"])
        self.controller = ControllerProcess(self, self._path, self._sealer, style)

    def kill_controller(self) -> None:
        if self.controller is not None:
            self.controller.kill()
            self.controller = None

    def overtake(self) -> ControllerProcess | None:
        """Starts a controller beside the present one, which does not notice. Out: the one that was overtaken."""
        old = self.controller
        if old is not None:
            old.overtaken = True
            self.overtaken.append(old)
        self.start_controller()
        return old

    def now(self) -> Moment:
        seconds = asyncio.get_running_loop().time()
        return Moment(WALL_S + seconds, "controller-boot", seconds)

    def wall_s(self) -> float:
        return self.now().wall_s

    def network(self) -> Network:
        network = Network(self.hosts, self.rng)
        for name in self.cut:
            network.links[name].up = False
        self.networks.append(network)
        return network

    # ---- what the network and the hosts suffer ----

    def partition(self, name: str) -> None:
        self.cut.add(name)
        for network in self.networks:
            for way in network.ways(name):
                way.up = False

    def heal(self, name: str) -> None:
        self.cut.discard(name)
        for network in self.networks:
            if self.rng.random() < 0.5:
                network.reset(name)
            for way in network.ways(name):
                way.heal()

    async def power_off(self, name: str) -> None:
        await self.hosts[name].power_off()

    async def power_on(self, name: str) -> None:
        for network in self.networks:
            network.reset(name)
        await self.hosts[name].power_on()

    # ---- the user ----

    def view(self) -> World:
        return self.store.load().world(Cluster(self.store.cluster_id, Settings()))

    def apply(self, name: str, replicas: int, image: str) -> None:
        """`sshoal apply`: what it acknowledges must hold whatever happens later."""
        loaded = manifest.load(_deployment(name, replicas, image), f"{name}.yaml")
        self._user(
            lambda world: [
                one.change for one in verbs.apply(world, loaded.manifests, self._sealer.hash, self.now()) if one.change
            ]
        )
        self.declared[name] = Declared(replicas, image)

    def apply_stateful(self, replicas: int, image: str) -> None:
        """`sshoal apply` of a StatefulSet, whose identities must never run twice."""
        claims = _CLAIMS if self.outcome.seed % 4 == 1 else ""
        self._apply_text(_STATEFUL.format(replicas=replicas, image=image) + claims)
        self.stateful = replicas

    def apply_job(self) -> None:
        """`sshoal apply` of a Job, whose completions must be counted once each."""
        self._apply_text(_JOB)

    def _apply_text(self, text: str) -> None:
        loaded = manifest.load(text, "workload.yaml")
        self._user(
            lambda world: [
                one.change for one in verbs.apply(world, loaded.manifests, self._sealer.hash, self.now()) if one.change
            ]
        )

    def scale(self, name: str, replicas: int) -> None:
        self._user(lambda world: list(verbs.scale(world, verbs.find(world, "Deployment", "default", name), replicas)))
        self.declared[name] = Declared(replicas, self.declared[name].image)

    def configure(self, text: str) -> None:
        """Applies the config map and the secret that every pod mounts, with a new content."""
        loaded = manifest.load(_CONTENT.format(text=text), "content.yaml")
        sealed = {
            f"default/{one.object.metadata.name}": self._sealer.seal(
                f"default/{one.object.metadata.name}", verbs.secret_values(one.source)
            )
            for one in loaded.manifests
            if one.object.kind == "Secret"
        }
        self._user(
            lambda world: [
                one.change for one in verbs.apply(world, loaded.manifests, self._sealer.hash, self.now()) if one.change
            ],
            sealed,
        )

    def cordon(self, name: str, cordoned: bool) -> None:
        self._user(lambda world: list(verbs.cordon(world.nodes[name], cordoned)) if name in world.nodes else [])

    def drain(self, name: str) -> None:
        """`sshoal node drain`, without waiting."""

        def verb(world: World) -> list[Change]:
            intent = Drain(self.now(), force=True, empty_dirs=True)
            return list(order_drain(world, world.nodes[name], intent, ignore_daemon_sets=True)[0])

        self._user(lambda world: verb(world) if name in world.nodes else [])

    def keep_up(self) -> None:
        """`sshoal apply` of an autoscaler of web0, and of a budget for every Deployment."""
        self._apply_text(_AUTOSCALER + "".join(_BUDGET.format(name=name) for name in self.declared))

    def delete_claim(self, name: str) -> None:
        """`sshoal delete pvc/NAME`: from now on, and no sooner, its volume may go."""

        def verb(world: World) -> list[Change]:
            claims = [claim for claim in world.claims.values() if claim.meta.name == name]
            return [change for claim in claims for change in verbs.delete(world, claim, self.now())]

        for claim in self.view().claims.values():
            if claim.meta.name == name:
                self.deleted_claims.add(claim.meta.uid)
        self._user(verb)

    def delete_pod(self, uid: str) -> None:
        self._user(lambda world: list(verbs.delete(world, world.pods[uid], self.now())) if uid in world.pods else [])

    def _user(
        self, verb: Callable[[World], list[Change]], secrets: Mapping[str, tuple[str, bytes]] | None = None
    ) -> None:
        for _ in range(10):
            changes = verb(self.view())
            try:
                self.store.edit([change.record for change in changes], secrets=secrets)
                return
            except StoreConflict:
                continue
        raise StoreConflict("a user's verb met a conflict ten times in a row")


class ControllerProcess:
    """One run of the production controller."""

    def __init__(self, world: SimWorld, path: Path, sealer: Sealer, style: str) -> None:
        self._world = world
        self._path = path
        self._sealer = sealer
        self._style = style
        self._store: Store | None = None
        self._networks: list[Network] = []
        self.overtaken = False
        self.life = Life()
        self.task = self.life.start(self._run())

    def kill(self) -> None:
        self.life.kill()
        if self._store is not None:
            self._store.close()  # the kernel does that; an open transaction is rolled back

    def cut_off(self, cut: bool) -> None:
        """This controller alone loses its network, or gets it back where nothing else cuts it off."""
        for network in self._networks:
            for name in network.links:
                for way in network.ways(name):
                    if cut:
                        way.up = False
                    elif name not in self._world.cut:
                        way.heal()

    async def _run(self) -> None:
        while not self.overtaken or not self._networks:
            try:
                if self._style == "watch":
                    await self._watch()
                else:
                    await self._one_shot()
                    await asyncio.sleep(40.0)
            except AnotherController:
                await asyncio.sleep(5.0)  # as systemd or cron start it again
            except SshoalError as error:
                self._world.violate(f"the controller ended with {type(error).__name__}: {error}")
                return

    async def _watch(self) -> None:
        async with self._fleet(Deadlines(poll_s=2.0, missed_s=0.25)) as fleet:
            await self._controller(fleet, period_s=10.0).watch(self._seen, self._failed)

    async def _one_shot(self) -> None:
        async with self._fleet(Deadlines()) as fleet:
            await self._controller(fleet, period_s=60.0).settle(20.0, self._seen)
        self._close()

    def _fleet(self, deadlines: Deadlines) -> Fleet:
        self._networks.append(self._world.network())
        return Fleet(self._networks[-1], SimDeployer(self._world), deadlines, wall_s=lambda: self._world.now().wall_s)

    def _controller(self, fleet: Fleet, period_s: float) -> Controller:
        self._close()
        world = self._world
        self._store = Store(self._path, clock=world.wall_s)
        settings = Settings(period_s=period_s)
        return Controller(self._store, fleet, self._sealer, lambda: world.inventory, world.now, settings)

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _failed(self, error: SshoalError) -> None:
        """No fault of these worlds is a reason for it."""
        self._world.violate(f"a pass of watch ended with {type(error).__name__}: {error}")

    def _seen(self, done: Pass) -> None:
        self._world.outcome.passes += 1
        for watcher in self._world.watchers:
            watcher(done)


class SimDeployer:
    """act.fleet.Deployer."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def may_stay(self, hello: Hello) -> bool:
        return hello.bundle == self._world.bundle

    async def deploy(self, session: Session, host: Host) -> None:
        # What systemd runs on the host outlives this controller: it belongs to nobody here.
        token = OWNER.set(None)
        installing = asyncio.ensure_future(self._world.hosts[host.name].install(self._world.bundle))
        OWNER.reset(token)
        await asyncio.shield(installing)


def run(seed: int, *, stop_early: bool = False) -> Outcome:
    """One seed from its beginning to its verdict. `stop_early`: ends with the first violation."""
    from tests.sim.story import usual

    with tempfile.TemporaryDirectory(dir=_fast_directory()) as directory:

        async def main() -> Outcome:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(task_factory)  # type: ignore[arg-type]
            world = SimWorld(seed, Path(directory), stop_early)
            loop.set_exception_handler(lambda _, context: _mishap(world.outcome, context))
            try:
                await usual(world)
            finally:
                for controller in world.overtaken:
                    controller.kill()
                world.kill_controller()
                for host in world.hosts.values():
                    host.kill_agent()
                world.outcome.simulated_s = loop.time()
                world.store.close()
            return world.outcome

        with _seeded_ids(seed):
            return simulate(main())


@contextlib.contextmanager
def _seeded_ids(seed: int) -> Iterator[None]:
    """Random ids (of clusters and epochs) come from the seed as well, so that a run can be repeated."""
    rng = random.Random(f"{seed}/ids")
    with mock.patch("uuid.uuid4", lambda: uuid.UUID(int=rng.getrandbits(128), version=4)):
        yield


def _mishap(outcome: Outcome, context: dict[str, Any]) -> None:
    """An exception that nobody caught is a bug, unless it is the death of a killed process."""
    error = context.get("exception")
    if not isinstance(error, asyncio.CancelledError):
        outcome.violations.append(f"unhandled: {context['message']}: {error!r}")


def _fast_directory() -> str | None:
    """Memory where there is one: crashes of processes are simulated, not those of disks."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _capacity(rng: random.Random) -> Capacity:
    return Capacity(
        cpu_m=4000, memory_bytes=rng.choice([2, 4, 8]) * 2**30, disk_free_bytes=50 * 2**30, arch="x86_64", os="linux"
    )


def _inventory_host(host: SimHost) -> Host:
    return Host(host.name, (), {"ansible_host": host.address}, "sim")


# What some say of where they run. Nothing that a healed world could not give.
_WISHES = {
    "web1": """\
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector: {matchLabels: {app: web1}}
""",
    "web2": """\
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 100
            podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web2}}}
""",
}


_STATEFUL = """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: app
        image: "{image}"
        imagePullPolicy: IfNotPresent
"""
_CLAIMS = """\
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
COMPLETIONS = 4
_JOB = f"""\
apiVersion: batch/v1
kind: Job
metadata: {{name: sum}}
spec:
  completions: {COMPLETIONS}
  parallelism: 2
  backoffLimit: 1000
  template:
    spec:
      restartPolicy: Never
      containers:
      - {{name: app, image: "task:1", imagePullPolicy: IfNotPresent}}
"""


REPLICAS_MIN, REPLICAS_MAX = 2, 6
REPLICA_M = 50  # half of what a pod asks for
_AUTOSCALER = f"""\
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: web0}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web0}}
  minReplicas: {REPLICAS_MIN}
  maxReplicas: {REPLICAS_MAX}
  metrics:
  - type: Resource
    resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 50}}}}
"""
_BUDGET = """\
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: {name}}}
spec:
  maxUnavailable: 1
  selector: {{matchLabels: {{app: {name}}}}}
"""


def _deployment(name: str, replicas: int, image: str) -> str:
    return f"""\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 1}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 5
{_WISHES.get(name, "")}      tolerations:
      - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: {TOLERATION_S}}}
      containers:
      - name: app
        image: {image}
        imagePullPolicy: IfNotPresent
        resources: {{requests: {{cpu: 100m, memory: 256Mi}}}}
        readinessProbe: {{httpGet: {{port: 8080}}, periodSeconds: 5}}
        volumeMounts: [{{name: settings, mountPath: /settings}}, {{name: login, mountPath: /login}}]
      volumes:
      - {{name: settings, configMap: {{name: settings}}}}
      - {{name: login, secret: {{secretName: login}}}}
"""


_CONTENT = """\
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{text: {text}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: login}}
stringData: {{password: {text}}}
"""
