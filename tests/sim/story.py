"""The usual course of a simulated run: declare, suffer faults amid edits, heal everything, come to rest, stay at rest."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from tests.sim.host import Load
from tests.sim.invariants import Watch, at_rest, mutations, serving
from tests.sim.network import Link
from tests.sim.world import SimWorld, Violated

REST_WITHIN_S = 900.0  # from the last fault healed to the declared state: back-offs of 300 s included
TOLD_S = 130.0  # two passes of cron: one gives orders once all hosts answer again, the next is told what came of them
IDLE_S = 130.0
AUTOSCALERS_LOOK_BACK_S = 480.0  # 300 s after a sample of a minute, told by a pass a minute later

IMAGES = ("app:1", "app:2", "app:3", "deaf:1", "bad:never-ready", "bad:crash")
GOOD_IMAGES = IMAGES[:4]
STATEFUL_EDITS = ((2, "app:1"), (3, "app:2"), (1, "deaf:1"), (3, "bad:never-ready"), (3, "app:3"), (2, "app:1"))
LOADS_M = (0, 60, 130, 190, 290, 500)  # none asks for a whole number of replicas: measuring is never exact


class Ended(Exception):
    """The controller died of something that nobody did to it: there is no use in going on."""


async def usual(world: SimWorld) -> None:
    watch = Watch(world)
    world.watchers.append(watch.passed)
    watching = asyncio.ensure_future(_watch(world, watch))
    course = asyncio.ensure_future(_course(world))
    await asyncio.wait([watching, course], return_when=asyncio.FIRST_COMPLETED)
    for task in (watching, course):
        if task.done() and not isinstance(task.exception(), Ended | Violated):
            task.result()
        task.cancel()


async def _course(world: SimWorld) -> None:
    world.start_controller()
    world.configure("first")
    for number in range(world.rng.randint(1, 3)):
        world.apply(f"web{number}", world.rng.randint(1, 6), world.rng.choice(GOOD_IMAGES))
    editing = None
    if world.outcome.seed % 2:  # without asking the dice: the other half of the seeds stays what it was
        world.apply_job()
        editing = asyncio.ensure_future(_edit_stateful(world))
    elif world.load is not None:
        world.keep_up()
        editing = asyncio.ensure_future(_keep_up(world, world.load))
    await asyncio.sleep(30.0)
    await _suffer(world)
    if editing is not None:
        await editing
    await _heal(world)
    await _come_to_rest(world)
    await _stay_at_rest(world)


async def _edit_stateful(world: SimWorld) -> None:
    """Sizes and versions of the StatefulSet, in the middle of all that happens."""
    for number, (replicas, image) in enumerate(STATEFUL_EDITS):
        world.apply_stateful(replicas, image)
        if number in (2, 4):  # one that is just given up, and one whose pod has to end first
            world.delete_claim(f"data-db-{number // 2}")
        await asyncio.sleep(world.course.faults_s / len(STATEFUL_EDITS))


async def _keep_up(world: SimWorld, load: Load) -> None:
    """The load of web0 changes, and hosts are drained for a while, in the middle of all that happens. With dice of its own."""
    rng = random.Random(f"{world.outcome.seed}/upkeep")
    end_s = asyncio.get_running_loop().time() + world.course.faults_s
    while asyncio.get_running_loop().time() < end_s:
        load.total_m = rng.choice(LOADS_M)
        world.outcome.faults["load changed"] += 1
        await asyncio.sleep(rng.uniform(60.0, world.course.longest_s))
        if rng.random() < 0.7:
            name = rng.choice(sorted(world.hosts))
            world.drain(name)
            world.outcome.faults["node drained"] += 1
            await asyncio.sleep(rng.choice([5.0, 100.0, world.course.longest_s]))
            world.cordon(name, False)


async def _watch(world: SimWorld, watch: Watch) -> None:
    while True:
        await asyncio.sleep(1.0)
        records = world.view()
        if world.load is not None:
            world.load.share(serving(world, records))
        watch.look(records, asyncio.get_running_loop().time())
        if world.controller is not None and world.controller.task.done() and not world.controller.task.cancelled():
            if world.controller.task.exception() is not None:
                world.violate(f"the controller ended: {world.controller.task.exception()!r}")
            raise Ended
        if world.stop_early and world.outcome.violations:
            raise Violated


async def _suffer(world: SimWorld) -> None:
    """One fault after the other, some at the same time, until the time of faults is over."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + world.course.faults_s
    under_way: list[asyncio.Future[None]] = []
    while loop.time() < end_s:
        await asyncio.sleep(world.rng.expovariate(1 / world.course.every_s))
        if world.course.rolling:
            world.outcome.faults["edit"] += 1
            await _edit(world)
            await asyncio.sleep(world.rng.uniform(0.0, 5.0))
        name, fault = world.rng.choice(FAULTS)
        world.outcome.faults[name] += 1
        under_way.append(asyncio.ensure_future(fault(world)))  # type: ignore[arg-type]
    await asyncio.gather(*under_way)


async def _heal(world: SimWorld) -> None:
    """All that is broken is mended; what the user declares last is good."""
    for controller in world.overtaken:
        controller.kill()
    world.unlisted.clear()
    for name in world.hosts:
        world.cordon(name, False)
    for name, host in world.hosts.items():
        host.faults.hang = host.faults.unavailable = host.faults.disk_full = host.storage.full = False
        host.faults.failure_rate = host.faults.busy_rate = 0.0
        host.faults.pull_failures.clear()
        if name in world.cut:
            world.heal(name)
        if not host.up:
            await world.power_on(name)
        if host.installed and host.agent is None:
            await host.start_agent()
    if world.controller is None:
        world.start_controller()
    for name, declared in list(world.declared.items()):
        if declared.image not in GOOD_IMAGES:
            world.apply(name, declared.replicas, "app:1")


async def _come_to_rest(world: SimWorld) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + REST_WITHIN_S
    problems = at_rest(world)
    while problems and loop.time() < end_s:
        await asyncio.sleep(5.0)
        problems = at_rest(world)
    world.outcome.violations += [
        f"not at rest {REST_WITHIN_S:.0f} s after the last fault: {problem}" for problem in problems
    ]


async def _stay_at_rest(world: SimWorld) -> None:
    """At rest nothing moves: no write in the store, no change in any engine (I3, I4)."""
    await asyncio.sleep(TOLD_S if world.load is None else AUTOSCALERS_LOOK_BACK_S)
    counter, changes = world.view().counter, mutations(world.hosts)
    await asyncio.sleep(IDLE_S)
    if world.view().counter != counter:
        world.violate(f"{world.view().counter - counter} writes while nothing happened")
    if mutations(world.hosts) != changes:
        world.violate(f"{mutations(world.hosts) - changes} engine calls that change something while nothing happened")


# ---- faults: each mends itself after a while ----------------------------------------------------------------------------


async def _partition(world: SimWorld) -> None:
    name = _host(world)
    world.partition(name)
    await asyncio.sleep(_short_or_long(world))
    world.heal(name)


async def _partition_all(world: SimWorld) -> None:
    for name in world.hosts:
        world.partition(name)
    await asyncio.sleep(_short_or_long(world))
    for name in world.hosts:
        world.heal(name)


async def _power_cut(world: SimWorld) -> None:
    name = _host(world)
    if world.hosts[name].up:
        await world.power_off(name)
        await asyncio.sleep(_short_or_long(world))
        if not world.hosts[name].up:
            await world.power_on(name)


async def _kill_agent(world: SimWorld) -> None:
    host = world.hosts[_host(world)]
    if host.agent is not None:
        host.kill_agent()
        await asyncio.sleep(world.rng.choice([0.5, 1.0, 20.0]))
        if host.up and host.agent is None and host.life is None:
            await host.start_agent()


async def _lose_agent_state(world: SimWorld) -> None:
    """Not where only a neighbour's pod could say whose the host is: the agent then rightly waits for a person's takeover."""
    host = world.hosts[_host(world)]
    if host.agent is not None and host.podman.live():
        host.lose_state()
        host.kill_agent()
        await asyncio.sleep(1.0)
        if host.up and host.life is None:
            await host.start_agent()


async def _kill_controller(world: SimWorld) -> None:
    world.kill_controller()
    await asyncio.sleep(world.rng.choice([0.0, 1.0, 30.0, world.course.longest_s]))
    if world.controller is None:
        world.start_controller()


async def _kill_controller_soon(world: SimWorld) -> None:
    """A moment after a user's change: in the middle of carrying it out."""
    await _edit(world)
    await asyncio.sleep(world.rng.uniform(0.0, 0.5))
    await _kill_controller(world)


async def _late_orders(world: SimWorld) -> None:
    """A controller dies with orders still on the wire; its successor acts, then the old orders arrive."""
    ways = _stall(world)
    await _edit(world)
    await asyncio.sleep(1.0)
    world.kill_controller()
    world.start_controller()
    await asyncio.sleep(world.rng.uniform(3.0, 20.0))
    for way in ways:
        way.unstall()


async def _payload_dies(world: SimWorld) -> None:
    await _kill_container(world, payload=True, conmon=False)


async def _conmon_dies(world: SimWorld) -> None:
    await _kill_container(world, payload=False, conmon=True)


async def _payload_and_conmon_die(world: SimWorld) -> None:
    await _kill_container(world, payload=True, conmon=True)


async def _kill_container(world: SimWorld, *, payload: bool, conmon: bool) -> None:
    podman = world.hosts[_host(world)].podman
    running = podman.running()
    if running:
        podman.kill(world.rng.choice(running), payload=payload, conmon=conmon)


async def _podman_hangs(world: SimWorld) -> None:
    faults = world.hosts[_host(world)].faults
    faults.hang = True
    await asyncio.sleep(world.rng.choice([5.0, 60.0]))
    faults.hang = False


async def _podman_fails(world: SimWorld) -> None:
    faults = world.hosts[_host(world)].faults
    faults.failure_rate, faults.busy_rate = 0.2, 0.5
    await asyncio.sleep(60.0)
    faults.failure_rate = faults.busy_rate = 0.0


async def _disk_full(world: SimWorld) -> None:
    host = world.hosts[_host(world)]
    host.faults.disk_full = host.storage.full = True
    await asyncio.sleep(world.rng.choice([10.0, 120.0]))
    host.faults.disk_full = host.storage.full = False


async def _unhealthy(world: SimWorld) -> None:
    podman = world.hosts[_host(world)].podman
    running = podman.running()
    if running:
        name = world.rng.choice(running)
        podman.set_healthy(name, False)
        await asyncio.sleep(world.rng.choice([6.0, 40.0]))
        if name in podman.running():
            podman.set_healthy(name, True)


async def _clock_steps(world: SimWorld) -> None:
    world.hosts[_host(world)].clock.skew_s += world.rng.choice([-3600.0, 3600.0, 5.0])


async def _edit(world: SimWorld) -> None:
    name = world.rng.choice(sorted(world.declared))
    declared = world.declared[name]
    if world.rng.random() < 0.5:
        world.scale(name, world.rng.randint(1, 7))
    else:
        world.apply(name, declared.replicas, world.rng.choice(IMAGES))


async def _delete_pod(world: SimWorld) -> None:
    pods = sorted(world.view().pods)
    if pods:
        world.delete_pod(world.rng.choice(pods))


async def _configure(world: SimWorld) -> None:
    world.configure(f"text-{world.rng.randrange(10**6)}")


async def _cordon(world: SimWorld) -> None:
    name = _host(world)
    world.cordon(name, True)
    await asyncio.sleep(_short_or_long(world))
    world.cordon(name, False)


async def _leave_inventory(world: SimWorld) -> None:
    """A host is taken out of the inventory and put back, or was not in it before."""
    name = _host(world)
    world.unlisted.add(name)
    await asyncio.sleep(_short_or_long(world))
    world.unlisted.discard(name)


async def _overtake_controller(world: SimWorld) -> None:
    """A controller is cut off while another takes over; then it goes on with what it knew."""
    old = world.overtake()
    if old is not None:
        old.cut_off(True)
        await asyncio.sleep(min(world.rng.choice([20.0, 300.0]), world.course.longest_s))
        old.cut_off(False)
        await asyncio.sleep(60.0)
        old.kill()


async def _stall_orders(world: SimWorld) -> None:
    """Orders get stuck on the way; newer ones are given over a new connection before the old ones arrive."""
    ways = _stall(world)
    await _edit(world)
    await asyncio.sleep(25.0)
    await _edit(world)
    await asyncio.sleep(15.0)
    for way in ways:
        way.unstall()


def _stall(world: SimWorld) -> list[Link]:
    """The next wanted sets of the present controller get stuck."""
    return [network.stall(name, b'"verb":"want"') for network in world.networks[-1:] for name in world.hosts]


async def _flood_events(world: SimWorld) -> None:
    """More happens on a host between two polls than its ring of events holds."""
    host = world.hosts[_host(world)]
    if host.agent is not None:
        for number in range(600):
            host.agent.ledger.tell_event(host.clock.wall_s(), "Flood", f"event {number % 7}")


async def _upgrade_agent(world: SimWorld) -> None:
    world.bundle = f"bundle-{int(world.bundle.rpartition('-')[2]) + 1}"
    world.kill_controller()
    world.start_controller()


def _host(world: SimWorld) -> str:
    return world.rng.choice(sorted(world.hosts))


def _short_or_long(world: SimWorld) -> float:
    return world.rng.choice([0.5, 3.0, 15.0, 45.0, 100.0, world.course.longest_s])


Fault = Callable[[SimWorld], Awaitable[None]]

FAULTS: tuple[tuple[str, Fault], ...] = (
    ("partition", _partition),
    ("partition of all", _partition_all),
    ("power cut", _power_cut),
    ("agent killed", _kill_agent),
    ("agent state lost", _lose_agent_state),
    ("controller killed", _kill_controller),
    ("controller killed in action", _kill_controller_soon),
    ("late orders", _late_orders),
    ("payload killed", _payload_dies),
    ("conmon killed", _conmon_dies),
    ("payload and conmon killed", _payload_and_conmon_die),
    ("podman hangs", _podman_hangs),
    ("podman fails", _podman_fails),
    ("disk full", _disk_full),
    ("unhealthy", _unhealthy),
    ("clock step", _clock_steps),
    ("edit", _edit),
    ("edit again", _edit),
    ("pod deleted", _delete_pod),
    ("agent upgraded", _upgrade_agent),
    ("config and secret edited", _configure),
    ("node cordoned", _cordon),
    ("host out of the inventory", _leave_inventory),
    ("controller overtaken", _overtake_controller),
    ("flood of events", _flood_events),
    ("orders stalled", _stall_orders),
)
