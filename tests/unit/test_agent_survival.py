"""The agent dies, the host reboots, the engine hangs, people meddle: pods stay, and come back when they must."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from nodeagent.agent import Refused
from nodeagent.protocol import FAILED, STOPPED, SUCCEEDED, Handler, Probe
from nodeagent.runtime import RuntimeFault
from tests.fakes.podman import DEAF, Behaviour, exits
from tests.simloop import simulate
from tests.unit.agentworld import CLUSTER, NODE, World, container, is_running, pod

HTTP = Handler(kind="http", port=8080)


def test_a_new_agent_adopts_what_runs_and_nothing_flaps() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        probe = Probe(HTTP, failure_threshold=3)
        await world.want(pod(containers=(container(readiness=probe, startup=probe, liveness=probe),)))
        before = await world.until_ready("uid-1")
        await asyncio.sleep(5)
        await world.crash()
        await asyncio.sleep(20)
        mutations = sum(world.podman.mutations.values())
        await world.start()
        cursor = None
        end_s = asyncio.get_running_loop().time() + 60
        while asyncio.get_running_loop().time() < end_s:
            report = await world.report(cursor, 5)
            cursor = report.cursor
            assert all(one == before for one in report.pods)
        assert sum(world.podman.mutations.values()) == mutations
        await world.agent.close()

    simulate(run())


def test_the_back_off_goes_on_where_the_former_agent_left_it() -> None:
    async def run() -> None:
        world = World(images={"crash": exits(1, 0.0)})
        await world.start()
        await world.want(pod(containers=(container(image="crash"),)))
        await world.until("uid-1", lambda p: p.containers[0].restarts == 4, within_s=200)
        crashed_s = asyncio.get_running_loop().time()
        await asyncio.sleep(1)
        await world.crash()
        await world.start()
        await world.until("uid-1", lambda p: p.containers[0].restarts == 5, within_s=200)
        assert asyncio.get_running_loop().time() - crashed_s == pytest.approx(80, abs=1.0)
        await world.agent.close()

    simulate(run())


def test_ten_minutes_of_running_end_the_back_off() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        for attempt in range(1, 4):
            await world.until_ready("uid-1")
            world.podman.kill(world.names("uid-1")[0])
            await world.until("uid-1", lambda p, n=attempt: p.ready and p.containers[0].restarts == n)
        await asyncio.sleep(601)
        world.podman.kill(world.names("uid-1")[0])
        killed_s = asyncio.get_running_loop().time()
        await world.until("uid-1", lambda p: p.ready and p.containers[0].restarts == 4)
        assert asyncio.get_running_loop().time() - killed_s < 0.5
        await world.agent.close()

    simulate(run())


def test_a_reboot_brings_the_last_set_back_without_a_controller() -> None:
    async def run() -> None:
        world = World(images={"done": exits(0)})
        await world.start()
        await world.want(
            pod(init_containers=(container("init", "done"),)),
            pod("job-done", containers=(container(image="done"),), restart="Never"),
            pod("job-running", restart="Never"),
            pod("held", at_boot="hold"),
        )
        for uid in ("uid-1", "job-running", "held"):
            await world.until_ready(uid)
        await world.until("job-done", lambda p: p.phase == "Succeeded")
        await world.reboot()
        seen = await world.until_ready("uid-1")
        assert seen.containers[1].restarts == 1
        job = await world.until("job-running", lambda p: p.phase == FAILED)
        assert job.containers[0].exit_code is None
        done = await world.pod("job-done")
        assert done is not None and done.phase == "Succeeded"
        await asyncio.sleep(60)
        held = await world.pod("held")
        assert held is not None and held.reason == "HeldAtBoot"
        assert world.names("held") == []
        assert world.wanted is not None
        await world.agent.want(world.wanted)  # the very same set, received in this boot
        await world.until_ready("held")
        await world.agent.close()

    simulate(run())


def test_after_a_reboot_no_more_dead_containers_are_kept_than_before() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        await world.reboot()
        for _ in range(5):
            await world.until("uid-1", lambda p: p.ready)
            world.podman.kill(world.names("uid-1")[0])
            await asyncio.sleep(700)
        containers = [info for info in (await world.podman.list()).containers if not info.is_infra]
        assert len(containers) == 2  # the one that runs, and the one before
        await world.agent.close()

    simulate(run())


def test_a_container_whose_conmon_died_with_it_is_replaced_though_podman_says_running() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        world.podman.kill(world.names("uid-1")[0], conmon=True, payload=True)
        killed_s = asyncio.get_running_loop().time()
        seen = await world.until("uid-1", lambda p: p.ready and p.containers[0].restarts == 1)
        assert asyncio.get_running_loop().time() - killed_s < 0.5
        seen = await world.until("uid-1", lambda p: bool(p.containers[0].last_reason))
        assert (seen.containers[0].last_reason, seen.containers[0].last_exit_code) == ("ContainerStatusUnknown", None)
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize(("policy", "ends"), [("Never", True), ("OnFailure", False)])
def test_an_exit_code_nobody_knows_is_no_success(policy: str, ends: bool) -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod(restart=policy))
        await world.until_ready("uid-1")
        name = world.names("uid-1")[0]
        world.podman.kill(name, conmon=True, payload=False)
        world.podman.exit(name, 0)
        if ends:
            seen = await world.until("uid-1", lambda p: p.phase == FAILED)
            assert seen.containers[0].exit_code is None
        else:
            await world.until("uid-1", lambda p: p.ready and p.containers[0].restarts == 1)
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize("victim", ["container", "pod"])
def test_what_a_person_removed_is_back_within_a_listing(victim: str) -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        before = await world.until_ready("uid-1")
        await asyncio.sleep(3)
        listing = await world.podman.list()
        if victim == "pod":
            await world.podman.remove_pod(listing.pods[0].id)
        else:
            await world.podman.remove_container(next(info.id for info in listing.containers if not info.is_infra))
        removed_s = asyncio.get_running_loop().time()
        await world.until("uid-1", lambda p: p.ready and p.containers[0].restarts == 1)
        assert asyncio.get_running_loop().time() - removed_s < 11
        assert len(world.podman.running()) == 1 and before.ready
        await world.agent.close()

    simulate(run())


def test_a_pod_on_the_hosts_network_has_its_address_also_when_its_start_was_not_written_down() -> None:
    """Its probes go there: without it they would fail for ever."""

    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod(host_network=True))
        while not any(info.is_infra and info.process for info in (await world.podman.list()).containers):
            await asyncio.sleep(0.001)  # its record is saved a moment later
        await world.crash()
        await world.start()
        seen = await world.until_ready("uid-1")
        assert seen.ip == NODE.address
        await world.agent.close()

    simulate(run())


def test_one_dead_container_that_cannot_be_removed_keeps_no_other() -> None:
    async def run() -> None:
        world = World(images={"crash": exits(1, 0.0)})
        await world.start()
        remove, stuck = world.podman.remove_container, []

        async def remove_all_but_the_first(container_id: str) -> None:
            stuck[:] = stuck or [container_id]
            if container_id in stuck:
                raise RuntimeFault("failed", "layer not known")
            await remove(container_id)

        world.podman.remove_container = remove_all_but_the_first  # type: ignore[method-assign]
        await world.want(pod(containers=(container(image="crash"), container("other", image="crash"))))
        await asyncio.sleep(4 * 3600)
        containers = [info for info in (await world.podman.list()).containers if not info.is_infra]
        assert len(containers) <= 2 * 3 + 1  # of each the last two, one on its way out; and that one
        await world.agent.close()

    simulate(run())


def test_a_pod_ends_though_podman_cannot_tell_how_its_container_did() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")

        async def exit_of(container_id: str) -> Any:
            raise RuntimeFault("failed", "getting graph driver info: layer not known")

        world.podman.exit_of = exit_of  # type: ignore[method-assign]
        await world.want(pod(stop=True))
        seen = await world.until("uid-1", lambda p: p.phase == STOPPED)
        assert (seen.containers[0].reason, seen.containers[0].exit_code) == ("ContainerStatusUnknown", None)
        await world.agent.close()

    simulate(run())


def test_a_podman_that_does_not_answer_is_asked_for_as_long_as_it_takes_how_a_container_ended() -> None:
    async def run() -> None:
        world = World(images={"done": exits(0, 5.0)})
        await world.start()
        await world.want(pod(containers=(container(image="done"),), restart="Never"))
        await world.until_ready("uid-1")
        world.faults.unavailable = True
        await asyncio.sleep(1800)
        world.faults.unavailable = False
        await world.until("uid-1", lambda p: p.phase == SUCCEEDED)
        await world.agent.close()

    simulate(run())


def test_an_engine_that_takes_too_long_to_list_its_images_tells_all_the_same_what_runs() -> None:
    async def run() -> None:
        world = World(images={"gone": Behaviour()})
        world.podman.present.discard("gone")
        world.faults.pull_failures["gone"] = "no such host"

        async def images() -> Any:
            await asyncio.sleep(10)
            raise RuntimeFault("timeout", "GET /images/json: no answer from Podman within 10 s")

        world.podman.images = images  # type: ignore[method-assign]
        await world.start()
        await world.want(pod(containers=(container(image="gone"),)))
        await world.until("uid-1", lambda p: p.containers[0].reason == "ImagePullBackOff")
        labels = {"sshoal.dev/cluster": CLUSTER, "sshoal.dev/pod-uid": "leak"}
        leaked = await world.podman.create_pod({"name": "leaked", "labels": labels})
        await asyncio.sleep(60)
        assert leaked not in {info.id for info in (await world.podman.list()).pods}
        await world.agent.close()

    simulate(run())


def test_a_network_that_was_removed_while_no_pod_was_on_it_is_made_again() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        await world.want()
        await world.until_gone("uid-1")
        world.podman.subnet = ""  # `podman system prune`
        await world.want(pod("uid-2"))
        await world.until_ready("uid-2", within_s=10)
        await world.agent.close()

    simulate(run())


def test_a_dead_sandbox_is_made_anew_with_all_its_containers() -> None:
    async def run() -> None:
        world = World(images={"done": exits(0)})
        await world.start()
        await world.want(pod(init_containers=(container("init", "done"),)))
        await world.until_ready("uid-1")
        infra = next(info for info in (await world.podman.list()).containers if info.is_infra)
        world.podman.kill(infra.id)
        seen = await world.until("uid-1", lambda p: p.ready and p.containers[1].restarts == 1)
        assert seen.containers[0].restarts == 1  # init containers run again
        assert len((await world.podman.list()).pods) == 1
        await world.agent.close()

    simulate(run())


def test_an_engine_that_hangs_is_reported_and_pods_stay_and_it_heals_by_itself() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        before = world.podman.running()
        world.faults.hang = True
        await asyncio.sleep(90)
        assert [condition.kind for condition in (await world.report()).conditions] == ["RuntimeUnhealthy"]
        assert world.podman.running() == before
        world.podman.kill(before[0])
        await asyncio.sleep(300)
        calls = sum(world.podman.calls.values())
        await asyncio.sleep(600)
        assert sum(world.podman.calls.values()) - calls < 150  # backs off, no hammering
        world.faults.hang = False
        await world.until_ready("uid-1", within_s=30)
        assert (await world.report()).conditions == ()
        await world.agent.close()

    simulate(run())


def test_the_process_of_ours_that_a_hanging_engine_waits_for_is_ended_after_three_hangs_and_pods_stay() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        await asyncio.sleep(31)  # past a listing
        before = world.podman.running()
        ids = {c.id for c in (await world.podman.list()).containers} | {p.id for p in (await world.podman.list()).pods}
        cursor = (await world.report()).cursor
        world.faults.hang = world.faults.stuck_helper = True
        kinds = []
        while not world.podman.unstuck:
            kinds = [condition.kind for condition in (await world.report()).conditions]
            await asyncio.sleep(1)
        assert kinds == []  # two hangs are no reason for anything
        await asyncio.sleep(20)
        assert world.podman.unstuck == [frozenset(ids)]  # what is ours, and nothing else
        report = await world.report(cursor)
        assert report.conditions == ()
        assert "container cleanup" in next(e.message for e in report.events if e.reason == "RuntimeUnstuck")
        assert world.podman.running() == before
        await world.agent.close()

    simulate(run())


def test_what_does_not_free_a_hanging_engine_is_repeated_ever_more_rarely() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        before = world.podman.running()
        world.faults.hang = world.faults.stuck_helper = world.faults.stuck_for_ever = True
        await asyncio.sleep(3600)
        assert 4 <= len(world.podman.unstuck) <= 10
        assert world.podman.running() == before
        await world.agent.close()

    simulate(run())


def test_an_agent_that_starts_while_the_engine_hangs_says_what_runs_and_touches_nothing() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        await asyncio.sleep(1)
        await world.crash()
        world.faults.hang = True
        await world.start()
        seen = await world.pod("uid-1")
        assert seen is not None and seen.ready
        await world.want()
        await asyncio.sleep(60)
        assert len(world.podman.running()) == 1
        world.faults.hang = False
        await world.until_gone("uid-1")
        await world.agent.close()

    simulate(run())


def test_an_agent_without_records_does_not_claim_that_nothing_runs() -> None:
    async def run() -> None:
        world = World()
        world.faults.hang = True
        await world.start()
        with pytest.raises(Refused):
            await world.report()
        world.faults.hang = False
        await asyncio.sleep(30)
        assert (await world.report()).pods == ()
        await world.agent.close()

    simulate(run())


def test_a_deaf_container_is_killed_after_its_grace_also_by_the_next_agent() -> None:
    async def run() -> None:
        world = World(images={"deaf": DEAF})
        await world.start()
        await world.want(pod(containers=(container(image="deaf"),), grace_s=20))
        await world.until_ready("uid-1")
        began_s = asyncio.get_running_loop().time()
        await world.want()
        await asyncio.sleep(12)
        await world.crash()
        await world.start()
        await world.until_gone("uid-1")
        assert 20 <= asyncio.get_running_loop().time() - began_s < 22
        await world.agent.close()

    simulate(run())


def test_a_shorter_grace_hastens_a_stop_under_way() -> None:
    async def run() -> None:
        world = World(images={"deaf": DEAF})
        await world.start()
        wanted = pod(containers=(container(image="deaf"),), grace_s=600)
        await world.want(wanted)
        await world.until_ready("uid-1")
        await world.want(pod(containers=wanted.containers, grace_s=600, stop=True))
        await asyncio.sleep(5)
        await world.want(pod(containers=wanted.containers, grace_s=600, stop=True, stop_grace_s=3))
        hastened_s = asyncio.get_running_loop().time()
        await world.until("uid-1", lambda p: p.phase == "Stopped")
        assert asyncio.get_running_loop().time() - hastened_s < 4
        await world.agent.close()

    simulate(run())


def test_a_shorter_grace_holds_for_the_next_agent_too() -> None:
    async def run() -> None:
        world = World(images={"deaf": DEAF})
        await world.start()
        containers = (container(image="deaf"),)
        await world.want(pod(containers=containers))
        await world.until_ready("uid-1")
        await world.want(pod(containers=containers, stop=True, stop_grace_s=300))
        await asyncio.sleep(5)
        await world.want(pod(containers=containers, stop=True, stop_grace_s=10))
        await asyncio.sleep(5)
        await world.crash()
        await world.start()
        await world.until("uid-1", lambda p: p.phase == STOPPED, within_s=15)
        await world.agent.close()

    simulate(run())


def test_a_process_that_cannot_be_killed_is_said_to_be_stuck_and_holds_up_no_other_pod() -> None:
    async def run() -> None:
        world = World(images={"stuck": Behaviour(unkillable=True)})
        await world.start()
        await world.want(pod(containers=(container(image="stuck"),), grace_s=1), pod("uid-2"))
        await world.until_ready("uid-1")
        await world.until_ready("uid-2")
        await world.want(pod("uid-2"), pod("uid-3"))
        await world.until_ready("uid-3", within_s=3)
        seen = await world.until("uid-1", lambda p: p.reason == "FailedKillPod")
        assert "does not end" in seen.message and seen.phase == "Stopping"
        await world.agent.close()

    simulate(run())


def test_hooks_run_after_the_start_and_within_the_grace_of_a_stop() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        post, pre = Handler(kind="sleep", seconds=3), Handler(kind="sleep", seconds=5)
        await world.want(pod(containers=(container(post_start=post, pre_stop=pre),), grace_s=30))
        await world.until("uid-1", is_running)
        began_s = asyncio.get_running_loop().time()
        await world.until_ready("uid-1")
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(3, abs=0.5)
        stopped_s = asyncio.get_running_loop().time()
        await world.want()
        await world.until_gone("uid-1")
        assert asyncio.get_running_loop().time() - stopped_s == pytest.approx(5, abs=0.5)
        await world.agent.close()

    simulate(run())


def test_a_prestop_hook_longer_than_the_grace_is_cut_off() -> None:
    async def run() -> None:
        world = World(images={"deaf": DEAF})
        await world.start()
        hook = Handler(kind="sleep", seconds=500)
        await world.want(pod(containers=(container(image="deaf", pre_stop=hook),), grace_s=4))
        await world.until_ready("uid-1")
        stopped_s = asyncio.get_running_loop().time()
        await world.want()
        await world.until_gone("uid-1")
        assert 6 <= asyncio.get_running_loop().time() - stopped_s < 7  # grace, and two seconds for the signal
        await world.agent.close()

    simulate(run())


def test_a_failing_post_start_hook_has_the_container_restarted() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod(containers=(container(post_start=Handler(kind="exec", command=("false",))),)))
        seen = await world.until("uid-1", lambda p: p.containers[0].restarts >= 1)
        assert not seen.ready
        assert "FailedPostStartHook" in world.events(await world.report())
        await world.agent.close()

    simulate(run())


def test_a_pod_past_its_deadline_fails() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod(deadline_s=50))
        await world.until_ready("uid-1")
        seen = await world.until("uid-1", lambda p: p.phase == FAILED)
        assert seen.reason == "DeadlineExceeded"
        assert asyncio.get_running_loop().time() == pytest.approx(50, abs=1)
        await asyncio.sleep(5)
        assert world.podman.running() == ()
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize("seed", range(60))
def test_agents_killed_at_any_moment_lose_nothing_and_repeat_nothing(seed: int) -> None:
    """Agents die after random times, often in the middle of a start or stop; the last one finds or makes what is wanted."""

    async def run() -> None:
        world = World(seed=seed, images={"done": exits(0, 0.3), "deaf": DEAF})
        rng = random.Random(seed)
        await world.start()
        pods = [
            pod("web", containers=(container(readiness=Probe(HTTP)),), init_containers=(container("init", "done"),)),
            pod("two", containers=(container("one"), container("two", "deaf")), grace_s=1),
            pod("job", containers=(container(image="done"),), restart="Never"),
            pod("side", init_containers=(container("side", sidecar=True),)),
        ]
        await world.want(*pods)
        seen: set[str] = set()
        killed: set[str] = set()
        for _ in range(12):
            await asyncio.sleep(rng.choice([0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 2.0]) * rng.random())
            await world.crash()
            await world.start()
            servers = {name for name in world.podman.running() if "-job-" not in name and "-init-" not in name}
            assert seen - killed <= servers, "a healthy container was ended"
            seen |= servers
            if rng.random() < 0.3 and servers:
                killed.add(rng.choice(sorted(servers)))
                world.podman.kill(sorted(killed & servers)[0], conmon=rng.random() < 0.3)
                killed |= seen - set(world.podman.running())
        for uid in ("web", "two", "side"):
            await world.until_ready(uid, within_s=900)
        job = await world.until("job", lambda p: p.phase in ("Succeeded", "Failed"))
        assert job.containers[0].restarts == 0
        await asyncio.sleep(30)
        assert len(world.podman.running()) == 5
        await world.want()
        for uid in ("web", "two", "side", "job"):
            await world.until_gone(uid)
        await asyncio.sleep(15)
        assert (await world.podman.list()).containers == ()
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize("what", ["container", "pod", "infra container"])
def test_what_a_person_removes_is_noticed_by_its_process_long_before_the_next_listing(what: str) -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        before = await world.until_ready("uid-1")
        listing = await world.podman.list()
        lists = world.podman.calls["list"]
        if what == "pod":
            await world.podman.remove_pod(listing.pods[0].id)
        else:
            wanted = next(one for one in listing.containers if one.is_infra == (what == "infra container"))
            await world.podman.remove_container(wanted.id)
        removed_s = asyncio.get_running_loop().time()
        await world.until("uid-1", lambda p: p.ready and p.started_wall_s == before.started_wall_s and p != before, 10)
        assert asyncio.get_running_loop().time() - removed_s < 10
        assert world.podman.calls["list"] == lists
        assert len(world.names("uid-1")) == 1
        await world.agent.close()

    simulate(run())


def test_an_engine_that_hangs_makes_no_healthy_container_be_killed_by_its_exec_probe() -> None:
    async def run() -> None:
        world = World()
        alive = Probe(Handler("exec", command=("true",)), period_s=5, timeout_s=1, failure_threshold=3)
        await world.start()
        await world.want(pod(containers=(container(liveness=alive, readiness=alive),)))
        await world.until_ready("uid-1")
        before = world.podman.running()
        world.faults.hang = True
        await asyncio.sleep(600)
        world.faults.hang = False
        await asyncio.sleep(60)
        assert world.podman.running() == before
        seen = await world.pod("uid-1")
        assert seen is not None
        assert (seen.ready, seen.containers[0].restarts) == (True, 0)
        await world.agent.close()

    simulate(run())


def test_a_probe_that_ends_by_a_defect_of_ours_is_not_the_last_one() -> None:
    async def run() -> None:
        world = World()
        asyncio.get_running_loop().set_exception_handler(lambda *_: told.append(1))
        ask = world.prober.probe

        async def defective(*arguments: Any, **named: Any) -> Any:
            if len(told) < 2:
                raise ZeroDivisionError
            return await ask(*arguments, **named)

        world.prober.probe = defective  # type: ignore[method-assign]
        await world.start()
        await world.want(pod(containers=(container(readiness=Probe(HTTP, period_s=2)),)))
        await world.until_ready("uid-1", within_s=10)
        await world.agent.close()

    told: list[int] = []
    simulate(run())
    assert len(told) == 2


def test_a_host_that_slept_for_hours_restarts_nothing() -> None:
    """A suspended machine: its boot clock has gone on, its timers have not."""

    async def run() -> None:
        world = World()
        probe = Probe(Handler("http", port=80), period_s=5, failure_threshold=3)
        await world.start()
        await world.want(pod(containers=(container(liveness=probe, readiness=probe),)))
        await world.until_ready("uid-1")
        before, asked = world.podman.running(), len(world.prober.calls)
        world.clock.slept(8 * 3600.0)
        await asyncio.sleep(60)
        assert world.podman.running() == before
        seen = await world.pod("uid-1")
        assert seen is not None
        assert (seen.ready, seen.containers[0].restarts) == (True, 0)
        assert len(world.prober.calls) - asked < 40, "what was not probed meanwhile is not made up for"
        await world.agent.close()

    simulate(run())


def test_another_version_of_the_engine_is_told_and_restarts_nothing() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        before, changes = world.podman.running(), sum(world.podman.mutations.values())
        world.podman.version = "5.4.2"
        await asyncio.sleep(600)
        capacity = (await world.report()).capacity
        assert capacity is not None
        assert capacity.podman == "5.4.2"
        assert (world.podman.running(), sum(world.podman.mutations.values())) == (before, changes)
        await world.agent.close()

    simulate(run())
