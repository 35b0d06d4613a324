"""Everything at once from one seed: orders, crashes, reboots, kills, meddling, a hanging engine, full disks. Then all faults end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from nodeagent.agent import Refused
from nodeagent.protocol import Handler, Pod, Probe
from tests.fakes.podman import DEAF, exits
from tests.simloop import simulate
from tests.unit.agentworld import World, container, pod

STEPS = 40
HTTP = Probe(Handler(kind="http", port=8080))

SHAPES: tuple[Callable[[str], Pod], ...] = (
    lambda uid: pod(
        uid, containers=(container(readiness=HTTP, liveness=HTTP),), init_containers=(container("init", "done"),)
    ),
    lambda uid: pod(uid, containers=(container("one"), container("two", "deaf")), grace_s=1),
    lambda uid: pod(uid, init_containers=(container("side", sidecar=True),), grace_s=2),
    lambda uid: pod(uid, containers=(container(image="done"),), restart="Never"),
)


class Chaos:
    """Does something to the world at each step; `wanted` is what the last set named."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.wanted: list[Pod] = []
        self._made = 0

    async def step(self) -> None:
        await asyncio.sleep(self.rng.choice([0.01, 0.1, 0.5, 2, 10, 40]) * self.rng.random())
        deeds = [self.order] * 5 + [self.crash] * 3 + [self.kill] * 2 + [self.kill_infra, self.reboot, self.meddle]
        deeds += [self.fail_calls, self.hang, self.fill_disk, self.fill_engine_disk, self.busy]
        await self.rng.choice(deeds)()

    async def heal(self) -> None:
        faults = self.world.faults
        faults.hang = faults.disk_full = self.world.storage.full = False
        faults.busy_rate = faults.failure_rate = 0.0
        await self.world.want(*self.wanted)

    async def order(self) -> None:
        if self.rng.random() < 0.6 or not self.wanted:
            self.wanted.append(self.rng.choice(SHAPES)(f"pod-{self._made}"))
            self._made += 1
        else:
            self.wanted.pop(self.rng.randrange(len(self.wanted)))
        try:
            await self.world.want(*self.wanted)
        except Refused:
            assert self.world.storage.full

    async def crash(self) -> None:
        await self.world.crash()
        await self.world.start()

    async def reboot(self) -> None:
        await self.world.reboot()

    async def kill(self) -> None:
        if self.world.podman.running():
            self.world.podman.kill(self.rng.choice(self.world.podman.running()), conmon=self.rng.random() < 0.3)

    async def kill_infra(self) -> None:
        infra = [one for one in self.world.podman._containers.values() if one.is_infra and one.alive]
        if infra:
            self.world.podman.kill(self.rng.choice(infra).id, conmon=self.rng.random() < 0.3)

    async def meddle(self) -> None:
        ours = [one for one in self.world.podman._containers.values() if not one.foreign]
        if ours and not self.world.faults.hang and not self.world.faults.failure_rate:
            await self.world.podman.remove_container(self.rng.choice(ours).id)

    async def fail_calls(self) -> None:
        self.world.faults.failure_rate = self.rng.choice([0.0, 0.2])

    async def hang(self) -> None:
        self.world.faults.hang = not self.world.faults.hang

    async def fill_disk(self) -> None:
        self.world.storage.full = not self.world.storage.full

    async def fill_engine_disk(self) -> None:
        self.world.faults.disk_full = not self.world.faults.disk_full

    async def busy(self) -> None:
        self.world.faults.busy_rate = self.rng.choice([0.0, 0.3])


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happened_the_host_comes_to_what_is_wanted_and_then_rests(seed: int) -> None:
    async def run() -> None:
        world = World(seed=seed, images={"done": exits(0, 0.3), "deaf": DEAF})
        world.podman.add_foreign("postgres")
        await world.start()
        chaos = Chaos(world, random.Random(seed))
        for _ in range(STEPS):
            await chaos.step()
        await chaos.heal()
        await asyncio.sleep(900)
        report = await world.report()
        assert {one.uid for one in report.pods} == {one.uid for one in chaos.wanted}
        for one in report.pods:
            assert one.ready or one.phase in ("Succeeded", "Failed"), one
        assert report.conditions == ()
        await rests(world)
        await nothing_twice_and_nothing_left(world, chaos)
        await world.agent.close()

    simulate(run())


async def rests(world: World) -> None:
    cursor = (await world.report()).cursor
    saves, mutations = world.storage.saves, sum(world.podman.mutations.values())
    await asyncio.sleep(900)
    later = await world.report(cursor)
    assert (later.pods, later.gone, later.events) == ((), (), ())
    assert (world.storage.saves, sum(world.podman.mutations.values())) == (saves, mutations)


async def nothing_twice_and_nothing_left(world: World, chaos: Chaos) -> None:
    labels = [world.podman._find(name).labels for name in world.podman.running()]
    running = [(one["sshoal.dev/pod-uid"], one["sshoal.dev/container"]) for one in labels]
    assert len(running) == len(set(running))
    await world.want()
    await asyncio.sleep(120)
    assert (await world.podman.list()).containers == ()
    assert world.files.prepared == {}
    assert not [name for name in world.storage.documents if name.startswith("pod-")]
    assert world.podman.violations == 0
