"""The loop over simulated hosts: what a pass does, what it must not do, and what wakes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.act.fleet import Deadlines, Fleet
from controller.act.secrets import Sealer
from controller.act.store import Store
from controller.act.store.backup import restore_backup, write_backup
from controller.loop import Controller, Pass
from controller.model.cluster import Moment, Settings, Sighting
from controller.model.errors import AnotherController, InventoryError, SshoalError, StoreError
from controller.model.inventory import Inventory
from controller.model.plan import Change
from nodeagent.agent import Agent, Refused
from nodeagent.protocol import BAD_REQUEST, WantedSet
from tests.sim.host import task_factory
from tests.sim.network import Link
from tests.sim.world import SimDeployer, SimWorld
from tests.simloop import simulate


class Run:
    """A simulated world without faults, and a controller over it."""

    def __init__(self, directory: Path) -> None:
        self.world = SimWorld(1, directory)
        self.world.unlisted.clear()
        self.path = directory / "store.db"
        self.store = Store(self.path)
        self.connect()
        self.controller = self.another(self.store)
        self.world.configure("text")

    def connect(self) -> None:
        """New connections to all hosts, for controllers that are made from now on."""
        self.network = self.world.network()
        self.fleet = Fleet(self.network, SimDeployer(self.world), Deadlines(poll_s=2.0, missed_s=0.25))

    def another(self, store: Store, now: Callable[[], Moment] | None = None) -> Controller:
        world = self.world
        return Controller(
            store, self.fleet, Sealer(b"k" * 32), lambda: world.inventory, now or world.now, Settings(period_s=10.0)
        )

    def fill_disk(self, *, full: bool) -> None:
        """A disk that holds what is there and no page more."""
        database = self.store._database
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages if full else 10**6}")

    async def converge(self) -> Pass:
        """Until the declared state is reached."""
        return await self.controller.settle(120.0)

    @property
    def mutations(self) -> int:
        return sum(host.podman.mutations.total() for host in self.world.hosts.values())

    @property
    def running(self) -> int:
        return sum(len(host.podman.running()) for host in self.world.hosts.values())


Body = Callable[[Run], Awaitable[None]]


def player(directory: Path) -> Callable[[Body], None]:
    """Runs a test's body in virtual time over a world of its own."""

    def play(body: Body) -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_task_factory(task_factory)  # type: ignore[arg-type]
            run = Run(directory)
            try:
                await body(run)
            finally:
                await run.fleet.close()
                for host in run.world.hosts.values():
                    host.kill_agent()
                run.store.close()
                run.world.store.close()

        simulate(main())

    return play


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Body], None]:
    return player(tmp_path)


def test_what_is_declared_runs_and_settle_says_so(play: Callable[[Body], None]) -> None:
    async def body(run: Run) -> None:
        run.world.apply("web", 4, "app:1")
        done = await run.converge()
        assert done.settled
        assert run.running == 4

    play(body)


def test_settle_ends_with_its_budget_and_says_that_it_is_not_done(play: Callable[[Body], None]) -> None:
    async def body(run: Run) -> None:
        run.world.apply("web", 2, "bad:never-ready")
        begun_s = asyncio.get_running_loop().time()
        done = await run.controller.settle(20.0)
        assert not done.settled
        assert asyncio.get_running_loop().time() - begun_s < 30.0

    play(body)


def test_a_pass_over_a_converged_world_writes_nothing_and_changes_nothing(play: Callable[[Body], None]) -> None:
    async def body(run: Run) -> None:
        run.world.apply("web", 4, "app:1")
        await run.converge()
        await asyncio.sleep(30.0)
        await run.controller.one_pass()
        counter, changes = run.store.load().counter, run.mutations
        done = await run.controller.one_pass()
        assert (done.plan.changes, dict(done.pushed)) == ((), {})
        assert (run.store.load().counter, run.mutations) == (counter, changes)

    play(body)


def test_a_preview_tells_what_would_happen_and_does_nothing(play: Callable[[Body], None]) -> None:
    async def body(run: Run) -> None:
        run.world.apply("web", 2, "app:1")
        await run.converge()
        counter, changes = run.store.load().counter, run.mutations
        web = next(iter(run.store.load().deployments.values()))
        spec = {**web.source["spec"], "replicas": 5}
        more = replace(web, source={**web.source, "spec": spec})
        done = await run.controller.preview([Change("scale", more, "asked")])
        assert sum(change.verb == "bind" for change in done.plan.changes) == 3
        assert (run.store.load().counter, run.mutations) == (counter, changes)

    play(body)


def test_a_preview_beside_an_active_controller_does_not_take_its_orders_for_those_of_a_lost_store(
    play: Callable[[Body], None],
) -> None:
    """Agents may tell of orders that were recorded after the preview began."""

    async def body(run: Run) -> None:
        run.world.apply("web", 2, "app:1")
        await run.converge()
        looking = Store(run.path)
        onlooker = run.another(looking)
        run.world.scale("web", 5)
        observe = run.fleet.observe

        async def meanwhile(*given: Any) -> Mapping[str, Sighting]:
            run.fleet.observe = observe  # type: ignore[method-assign]
            await run.controller.one_pass()
            return await observe(*given)

        run.fleet.observe = meanwhile  # type: ignore[method-assign]
        done = await onlooker.preview()
        assert done.behind == ()
        assert len(done.world.pods) == 5
        looking.close()

    play(body)


def test_a_registry_is_asked_once_per_revision_and_all_nodes_are_told_the_same_bytes(
    play: Callable[[Body], None],
) -> None:
    async def body(run: Run) -> None:
        hosts = run.world.hosts.values()
        for host in hosts:
            host.podman.present.discard("app:1")
        run.world.apply("web", 4, "app:1")
        done = await run.converge()
        assert done.settled
        assert sum(host.podman.calls["resolve"] for host in hosts) == 1
        [revision] = run.store.load().replica_sets.values()
        [pin] = (revision.images or {}).values()
        assert pin.startswith("manifest:sha256:")
        told = [
            container.pin for wanted in done.plan.wanted.values() for pod in wanted.pods for container in pod.containers
        ]
        assert told == [pin] * 4
        run.world.scale("web", 6)
        await run.converge()
        assert sum(host.podman.calls["resolve"] for host in hosts) == 1

    play(body)


def test_a_registry_that_does_not_answer_holds_up_nothing_and_is_told(play: Callable[[Body], None]) -> None:
    async def body(run: Run) -> None:
        first = next(iter(run.world.hosts.values()))
        first.podman.present.discard("app:1")
        for host in run.world.hosts.values():
            host.faults.pull_failures["app:1"] = "429 too many requests"
        run.world.apply("web", 4, "app:1")
        await run.controller.settle(10.0)
        [revision] = run.store.load().replica_sets.values()
        assert [pin.partition(":")[0] for pin in (revision.images or {}).values()] == [
            "image"
        ]  # as the other nodes have it

    play(body)


def test_the_intent_is_stored_before_an_agent_hears_of_it(play: Callable[[Body], None]) -> None:
    """A controller that dies in the push leaves records of all that it may have started."""

    async def body(run: Run) -> None:
        await run.controller.one_pass()
        run.world.apply("web", 4, "app:1")
        for name in run.world.hosts:
            run.network.stall(name, b'"verb":"want"')
        dying = asyncio.ensure_future(run.controller.one_pass())
        await asyncio.sleep(1.0)
        assert not dying.done()
        assert [pod.node != "" for pod in run.store.load().pods.values()] == [True] * 4
        dying.cancel()
        await asyncio.wait([dying])

    play(body)


def test_a_secret_that_cannot_be_opened_is_told_of_the_hosts_that_wait_for_it_and_stops_nothing_else(
    play: Callable[[Body], None],
) -> None:
    """Its key was lost. The pass goes on, and other orders are given."""

    async def body(run: Run) -> None:
        run.world.apply("web", 1, "app:1")
        await run.converge()
        [first] = [name for name, host in run.world.hosts.items() if host.podman.running()]
        run.world.cordon(first, True)
        run.world.scale("web", 2)
        another_key = Sealer(b"x" * 32)
        controller = Controller(
            run.store, run.fleet, another_key, lambda: run.world.inventory, run.world.now, Settings(period_s=10.0)
        )
        done = await controller.settle(30.0)
        assert [why for why in done.pushed.values() if why] == [
            "secret default/login cannot be unsealed with this context's key"
        ]
        run.world.scale("web", 0)
        await controller.settle(30.0)
        assert run.running == 0

    play(body)


def test_a_silent_host_is_told_in_the_pass_and_stops_nothing_else(play: Callable[[Body], None]) -> None:
    async def body(run: Run) -> None:
        run.world.apply("web", 4, "app:1")
        await run.converge()
        await run.world.power_off("n1")
        done = await run.controller.one_pass()
        assert set(done.unseen) == {"n1"}
        assert done.behind == ()

    play(body)


def test_a_store_that_is_behind_its_agents_is_only_observed(play: Callable[[Body], None]) -> None:
    """It was restored from a backup: what it would order is out of date."""

    async def body(run: Run) -> None:
        run.world.apply("web", 2, "app:1")
        await run.converge()
        with run.store._transaction():
            run.store._set_meta("serial", "0")
        run.store.close()
        run.store = Store(run.path)
        run.controller = run.another(run.store)
        run.world.scale("web", 5)
        changes = run.mutations
        done = await run.controller.one_pass()
        assert done.behind
        assert not done.settled
        assert run.mutations == changes
        assert len(run.store.load().pods) == 2

    play(body)


def test_an_old_backup_is_noticed_also_by_a_host_that_comes_back_late(play: Callable[[Body], None]) -> None:
    """Others were given orders meanwhile, so that no serial is new to the store; but this host was never given its own by it."""

    async def body(run: Run) -> None:
        run.world.apply("web", 3, "app:1")
        await run.converge()
        backup = run.path.with_name("backup.db")
        write_backup(run.path, backup, key=None, now_s=1.0)
        for name in list(run.world.hosts)[1:]:
            run.world.cordon(name, True)
        run.world.scale("web", 5)
        await run.converge()
        await run.world.power_off("n1")
        restore_backup(backup, run.path, run.path.with_name("key"), now_s=1.0)
        run.store.close()
        run.store = Store(run.path)
        run.controller = run.another(run.store)
        run.world.apply("more", 4, "app:1")
        done = await run.controller.settle(30.0)
        assert done.behind == ()
        await run.world.power_on("n1")
        await asyncio.sleep(20.0)
        done = await run.controller.one_pass()
        assert done.behind == ("n1",)

    play(body)


def test_a_controller_that_was_replaced_stops_at_its_next_intent(play: Callable[[Body], None]) -> None:
    async def body(run: Run) -> None:
        run.world.apply("web", 2, "app:1")
        await run.converge()
        newer = Store(run.path)
        newer.commit(())
        newer.close()
        run.world.scale("web", 5)
        with pytest.raises(AnotherController):
            await run.controller.one_pass()
        assert run.running == 2

    play(body)


async def _dies_in_its_push(run: Run, controller: Controller) -> list[Link]:
    """Its orders are on record, and no agent has heard of them. Out: the ways on which they are held up."""
    ways = [run.network.stall(name, b'"verb":"want"') for name in run.world.hosts]
    dying = asyncio.ensure_future(controller.one_pass())
    await asyncio.sleep(1.0)
    dying.cancel()
    await asyncio.wait([dying])
    await run.fleet.close()
    run.connect()
    return ways


def test_a_controller_that_was_replaced_does_not_repeat_the_newer_ones_orders(play: Callable[[Body], None]) -> None:
    async def body(run: Run) -> None:
        run.world.apply("web", 2, "app:1")
        await run.converge()
        run.world.scale("web", 5)
        newer = Store(run.path)
        await _dies_in_its_push(run, run.another(newer))
        newer.close()
        with pytest.raises(AnotherController):
            await run.another(run.store).one_pass()
        assert run.running == 2

    play(body)


def test_an_order_goes_out_under_the_serial_of_the_records_it_was_decided_on(play: Callable[[Body], None]) -> None:
    """Another controller that changes a wanted set meanwhile must not lend its serial to the older set: agents know a set by it."""

    async def body(run: Run) -> None:
        await run.controller.one_pass()
        run.world.apply("web", 4, "app:1")
        await _dies_in_its_push(run, run.controller)
        ours, other = Store(run.path), Store(run.path)
        decided = ours.load().nodes["n1"]

        def moment_later() -> Moment:
            node = other.load().nodes["n1"]
            if node == decided:
                newer = replace(node, digest="another set")
                other.commit([Change("report", newer, "another controller", quiet=True)], new_serials=["n1"])
            return run.world.now()

        controller = run.another(ours, moment_later)
        done = await controller.one_pass()
        assert done.pushed["n1"] == ""
        agent = run.world.hosts["n1"].agent
        assert agent is not None
        owner = agent.hello().owner
        assert owner is not None
        assert (owner.serial, owner.digest) == (decided.serial, decided.digest)
        ours.close()
        other.close()

    play(body)


def test_a_pod_that_its_host_may_still_hear_of_is_not_taken_for_stopped(play: Callable[[Body], None]) -> None:
    """Its order is under way. A report that does not know of it says nothing: it must not run beside the next one of its name."""

    async def body(run: Run) -> None:
        run.world.outcome.seed = 0  # its StatefulSet has no volumes
        await run.controller.one_pass()
        run.world.apply_stateful(1, "app:1")
        late = await _dies_in_its_push(run, run.controller)
        [first] = run.store.load().pods.values()
        run.world.delete_pod(first.meta.uid)
        run.world.cordon(first.node, True)
        run.controller = run.another(run.store)
        await run.controller.preview()
        run.network.stall(first.node, b'"verb":"want"')
        going_on = asyncio.ensure_future(run.controller.settle(120.0))
        await asyncio.sleep(5.0)
        for way in late:
            way.unstall()
        for _ in range(10):
            await asyncio.sleep(1.0)
            assert run.running <= 1
        await going_on
        await run.converge()
        [second] = run.store.load().pods.values()
        assert (run.running, second.meta.name) == (1, first.meta.name)
        assert second.node != first.node

    play(body)


def test_a_pod_for_which_its_host_refuses_every_set_can_be_deleted(
    play: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order to stop it names it too, and its record goes only once the host has taken that."""
    check = Agent._check_pods

    def refuse(agent: Agent, wanted: WantedSet) -> None:
        if any(container.image == "odd:1" for pod in wanted.pods for container in pod.containers):
            raise Refused(BAD_REQUEST, "what is this?")
        check(agent, wanted)

    async def body(run: Run) -> None:
        monkeypatch.setattr(Agent, "_check_pods", refuse)
        run.world.apply("web", 2, "odd:1")
        done = await run.controller.settle(10.0)
        assert "what is this?" in done.pushed.values()
        run.world.scale("web", 0)
        done = await run.converge()
        assert (done.settled, run.store.load().pods) == (True, {})

    play(body)


def test_a_user_who_changes_what_a_pass_decides_on_again_and_again_ends_no_settling(
    play: Callable[[Body], None],
) -> None:
    async def body(run: Run) -> None:
        run.world.apply("web", 2, "app:1")
        replicas = iter([3, 4] * 10)

        def scaled_meanwhile() -> Moment:
            if (wanted := next(replicas, 0)) != 0:
                run.world.scale("web", wanted)
            return run.world.now()

        done = await run.another(run.store, scaled_meanwhile).settle(60.0)
        assert done.settled
        assert run.running == 4

    play(body)


def test_a_machine_that_was_put_in_a_nodes_place_is_known_by_the_key_that_it_showed(
    play: Callable[[Body], None],
) -> None:
    """As when ansible_host names another trusted machine: the former one may run the node's pods on."""

    async def body(run: Run) -> None:
        run.world.apply("web", 4, "app:1")
        await run.converge()
        host = run.world.hosts["n1"]
        host.lose_state()
        host.kill_agent()
        host.key = "SHA256:other"
        await host.start_agent()
        await run.fleet.close()
        run.connect()
        done = await run.another(run.store).one_pass()
        assert "another machine answers as n1" in run.store.load().nodes["n1"].quarantined
        assert "n1" not in done.pushed

    play(body)


def test_watch_notices_a_users_change_long_before_its_period_is_over(play: Callable[[Body], None]) -> None:
    async def body(run: Run) -> None:
        await run.converge()
        passes: list[float] = []
        loop = asyncio.get_running_loop()
        watching = asyncio.ensure_future(run.controller.watch(lambda done: passes.append(loop.time())))
        await asyncio.sleep(60.0)
        begun_s = loop.time()
        run.world.apply("web", 1, "app:1")
        while run.running < 1:
            await asyncio.sleep(0.01)
        assert loop.time() - begun_s < 1.0
        watching.cancel()

    play(body)


def test_watch_over_a_quiet_world_makes_a_pass_a_period(play: Callable[[Body], None]) -> None:
    """No storm of passes, whatever the long polls say."""

    async def body(run: Run) -> None:
        run.world.apply("web", 4, "app:1")
        await run.converge()
        passes: list[Pass] = []
        watching = asyncio.ensure_future(run.controller.watch(passes.append))
        await asyncio.sleep(60.0)
        before = len(passes)
        await asyncio.sleep(100.0)
        assert 8 <= len(passes) - before <= 12
        watching.cancel()

    play(body)


class Watch:
    """`watch` under way: when its passes ended, and what it could not do."""

    def __init__(self, controller: Controller) -> None:
        self.ended: list[float] = []
        self.failures: list[SshoalError] = []
        clock_s = asyncio.get_running_loop().time
        self.task = asyncio.ensure_future(
            controller.watch(lambda _: self.ended.append(clock_s()), self.failures.append)
        )

    async def __aenter__(self) -> Watch:
        await asyncio.sleep(15.0)
        assert self.ended
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


def test_watch_outlives_a_full_disk(play: Callable[[Body], None]) -> None:
    """FAULTS A6."""

    async def body(run: Run) -> None:
        await run.converge()
        async with Watch(run.controller) as watch:
            run.fill_disk(full=True)
            run.world.apply("web", 40, "app:1")
            await asyncio.sleep(30.0)
            assert 2 <= len(watch.failures) <= 4  # one a period, not a storm
            assert all(isinstance(error, StoreError) for error in watch.failures)
            assert run.running == 0
            run.fill_disk(full=False)
            await asyncio.sleep(30.0)
            assert run.running == 40

    play(body)


def test_what_agents_tell_while_the_disk_is_full_is_taken_over_afterwards_and_once(
    play: Callable[[Body], None],
) -> None:
    """A pass takes events from its hosts before it writes: they must come again when it cannot."""

    async def body(run: Run) -> None:
        run.world.apply("web", 4, "app:1")
        await run.converge()
        agent = run.world.hosts["n1"].agent
        assert agent is not None
        async with Watch(run.controller) as watch:
            run.fill_disk(full=True)
            for number in range(300):
                agent.ledger.tell_event(run.world.wall_s(), "Full", f"event {number} " + "x" * 200)
            await asyncio.sleep(30.0)
            assert watch.failures
            run.fill_disk(full=False)
            await asyncio.sleep(60.0)
        told = [event.message for event in run.store.events(limit=10_000) if event.reason == "Full"]
        assert (len(told), len(set(told))) == (300, 300)

    play(body)


def test_watch_outlives_an_inventory_that_is_half_saved(play: Callable[[Body], None]) -> None:
    async def body(run: Run) -> None:
        broken: list[InventoryError] = []

        def inventory() -> Inventory:
            if broken:
                raise broken[0]
            return run.world.inventory

        controller = Controller(
            run.store, run.fleet, Sealer(b"k" * 32), inventory, run.world.now, Settings(period_s=10.0)
        )
        async with Watch(controller) as watch:
            broken.append(InventoryError("not YAML", file="hosts.yaml"))
            await asyncio.sleep(15.0)
            assert set(watch.failures) == set(broken)
            broken.clear()
            run.world.apply("web", 2, "app:1")
            await asyncio.sleep(30.0)
            assert run.running == 2

    play(body)


def test_what_fails_the_first_pass_ends_watch(play: Callable[[Body], None]) -> None:
    """An inventory that is wrong from the start is told by the command's exit code."""

    async def body(run: Run) -> None:
        def inventory() -> Inventory:
            raise InventoryError("not YAML", file="hosts.yaml")

        controller = Controller(run.store, run.fleet, Sealer(b"k" * 32), inventory, run.world.now, Settings())
        with pytest.raises(InventoryError):
            await controller.watch()

    play(body)


def test_a_controller_that_was_replaced_does_not_watch_on(play: Callable[[Body], None]) -> None:
    async def body(run: Run) -> None:
        await run.converge()
        async with Watch(run.controller) as watch:
            newer = Store(run.path)
            newer.commit(())
            newer.close()
            run.world.apply("web", 1, "app:1")
            await asyncio.sleep(15.0)
            assert isinstance(watch.task.exception(), AnotherController)
            assert watch.failures == []

    play(body)


def test_a_host_that_says_what_no_record_knows_changes_no_record(play: Callable[[Body], None]) -> None:
    """A host speaks of its own pods only."""

    async def body(run: Run) -> None:
        run.world.apply("web", 3, "app:1")
        await run.converge()
        pods = {uid: pod.node for uid, pod in run.store.load().pods.items()}
        liar = next(name for name in run.world.hosts if name in pods.values())
        other = next(uid for uid, node_name in pods.items() if node_name != liar)
        agent = run.world.hosts[liar].agent
        assert agent is not None
        told = next(iter(agent.ledger.since(None).pods))
        agent.ledger.tell_pod(replace(told, uid=other, phase="Stopped", ready=False))
        agent.ledger.tell_pod(replace(told, uid="made-up"))
        before = run.store.load().pods[other]
        await run.controller.one_pass()
        assert run.store.load().pods[other] == before
        assert set(run.store.load().pods) == set(pods)

    play(body)
