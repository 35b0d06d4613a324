"""The agent on a host in memory: pods come up, stay up, and end as in Kubernetes."""

from __future__ import annotations

import asyncio
import errno

import pytest

from nodeagent.protocol import FAILED, RUNNING_PHASE, STOPPED, SUCCEEDED, Handler, Probe
from tests.fakes.podman import BROKEN, DEAF, Behaviour, exits
from tests.simloop import simulate
from tests.unit.agentworld import World, container, is_running, pod

HTTP = Handler(kind="http", port=8080)


def test_a_wanted_pod_comes_up_and_is_ready() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        seen = await world.until_ready("uid-1", within_s=2)
        assert seen.ip.startswith("10.86.3.")
        assert [one.state for one in seen.containers] == ["running"]
        await world.agent.close()

    simulate(run())


def test_a_killed_container_is_replaced_by_a_new_attempt_at_once() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        loop = asyncio.get_running_loop()
        world.podman.kill(world.names("uid-1")[0])
        killed_s = loop.time()
        seen = await world.until("uid-1", lambda p: p.ready and p.containers[0].restarts == 1)
        assert loop.time() - killed_s < 0.3  # create + start of the fake take up to 0.2 s
        seen = await world.until("uid-1", lambda p: p.containers[0].last_reason == "Error")
        assert seen.containers[0].last_exit_code == 137
        await world.agent.close()

    simulate(run())


def test_a_crashing_container_waits_ten_twenty_forty_up_to_three_hundred_seconds() -> None:
    async def run() -> list[float]:
        world = World(images={"crash": exits(1, 0.0)})
        await world.start()
        await world.want(pod(containers=(container(image="crash"),)))
        starts: list[float] = []
        for attempt in range(9):
            await world.until("uid-1", lambda p, n=attempt: p.containers[0].restarts == n, within_s=400)
            starts.append(asyncio.get_running_loop().time())
        await world.agent.close()
        return [starts[number + 1] - starts[number] for number in range(len(starts) - 1)]

    waits = simulate(run())
    assert [pytest.approx(wait, abs=1.0) for wait in waits] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_nothing_changes_in_a_report_while_nothing_happens() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        probe = Probe(HTTP)
        await world.want(pod(containers=(container(readiness=probe, liveness=probe),)))
        await world.until_ready("uid-1")
        await asyncio.sleep(30)
        first = await world.report()
        saves, mutations = world.storage.saves, sum(world.podman.mutations.values())
        await asyncio.sleep(3600)
        later = await world.report(first.cursor)
        assert (later.pods, later.gone, later.events, later.full) == ((), (), (), False)
        assert (world.storage.saves, sum(world.podman.mutations.values())) == (saves, mutations)
        await world.agent.close()

    simulate(run())


def test_a_pod_that_leaves_the_set_ends_and_nothing_of_it_stays() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod(), pod("uid-2"))
        await world.until_ready("uid-1")
        await world.until_ready("uid-2")
        await world.want(pod("uid-2"))
        await world.until_gone("uid-1")
        assert list(world.files.prepared) == ["uid-2"]
        assert {info.labels["sshoal.dev/pod-uid"] for info in (await world.podman.list()).containers} == {"uid-2"}
        assert "pod-uid-1" not in world.storage.documents
        await world.agent.close()

    simulate(run())


def test_a_pod_ordered_to_stop_is_reported_stopped_only_when_nothing_of_it_runs() -> None:
    async def run() -> None:
        world = World(images={"deaf": DEAF})
        await world.start()
        await world.want(pod(containers=(container(image="deaf"),), grace_s=7))
        await world.until_ready("uid-1")
        began_s = asyncio.get_running_loop().time()
        await world.want(pod(containers=(container(image="deaf"),), grace_s=7, stop=True))
        stopping = await world.until("uid-1", lambda p: p.phase == "Stopping")
        assert world.podman.running() and not stopping.ready
        await world.until("uid-1", lambda p: p.phase == STOPPED)
        assert 7 <= asyncio.get_running_loop().time() - began_s < 8
        assert world.podman.running() == ()
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize(
    ("policy", "image", "phase"),
    [("Never", "good", SUCCEEDED), ("Never", "bad", FAILED), ("OnFailure", "good", SUCCEEDED)],
)
def test_a_pod_that_need_not_restart_ends_by_its_exit_codes(policy: str, image: str, phase: str) -> None:
    async def run() -> None:
        world = World(images={"good": exits(0), "bad": exits(3)})
        await world.start()
        await world.want(pod(containers=(container(image=image),), restart=policy))
        seen = await world.until("uid-1", lambda p: p.phase == phase)
        assert seen.containers[0].exit_code == (0 if image == "good" else 3)
        await asyncio.sleep(5)
        assert world.storage.documents["pod-uid-1"]["verdict"] == phase
        assert (await world.podman.list()).containers == ()
        await world.agent.close()

    simulate(run())


def test_init_containers_run_one_by_one_before_the_others() -> None:
    async def run() -> None:
        world = World(images={"done": exits(0, 1.0)})
        await world.start()
        inits = (container("first", "done"), container("second", "done"))
        await world.want(pod(init_containers=inits))
        seen = await world.until("uid-1", lambda p: p.containers[1].state == "running")
        assert [one.state for one in seen.containers] == ["terminated", "running", "waiting"]
        assert seen.phase == "Pending"
        assert seen.containers[2].reason == "PodInitializing"
        seen = await world.until_ready("uid-1")
        assert [one.reason for one in seen.containers] == ["Completed", "Completed", ""]
        await world.agent.close()

    simulate(run())


def test_a_sidecar_starts_before_and_stops_after_the_main_containers() -> None:
    async def run() -> None:
        world = World(images={"done": exits(0, 5.0)})
        await world.start()
        sidecar = container("side", sidecar=True, startup=Probe(HTTP))
        await world.want(pod(init_containers=(sidecar,), containers=(container(image="done"),), restart="Never"))
        await world.until_ready("uid-1")
        names = {name.split("-")[-2] for name in world.podman.running()}
        assert names == {"main", "side"}
        await world.until("uid-1", lambda p: p.phase == SUCCEEDED)
        assert world.podman.running() == ()
        await world.agent.close()

    simulate(run())


def test_sidecars_share_the_grace_of_their_pod_and_have_two_seconds_at_least() -> None:
    async def run() -> None:
        world = World(images={"deaf": DEAF})
        await world.start()
        sidecars = tuple(container(name, image="deaf", sidecar=True) for name in ("first", "second"))
        wanted = pod(init_containers=sidecars, containers=(container(image="deaf"),), grace_s=10)
        await world.want(wanted)
        await world.until_ready("uid-1")
        began_s = asyncio.get_running_loop().time()
        await world.want()
        await world.until_gone("uid-1")
        assert 14 <= asyncio.get_running_loop().time() - began_s < 16
        await world.agent.close()

    simulate(run())


def test_a_sidecar_has_what_the_main_containers_left_of_the_grace() -> None:
    async def run() -> None:
        world = World(images={"deaf": DEAF, "slow": Behaviour(ends_after_term_s=4.0)})
        await world.start()
        sidecar = container("side", image="deaf", sidecar=True)
        await world.want(pod(init_containers=(sidecar,), containers=(container(image="slow"),), grace_s=10))
        await world.until_ready("uid-1")
        began_s = asyncio.get_running_loop().time()
        await world.want()
        await asyncio.sleep(6)
        await world.crash()
        await world.start()
        await world.until_gone("uid-1")
        assert 10 <= asyncio.get_running_loop().time() - began_s < 12
        await world.agent.close()

    simulate(run())


def test_a_failing_liveness_probe_has_the_container_killed_and_restarted() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        live = Probe(HTTP, period_s=1, failure_threshold=3)
        await world.want(pod(containers=(container(liveness=live),)))
        await world.until_ready("uid-1")
        await asyncio.sleep(10)
        world.podman.set_healthy(world.names("uid-1")[0], False)
        failed_s = asyncio.get_running_loop().time()
        seen = await world.until("uid-1", lambda p: p.containers[0].restarts == 1 and p.ready)
        assert 2 <= asyncio.get_running_loop().time() - failed_s < 4
        assert is_running(seen)
        events = world.events(await world.report())
        assert "Unhealthy" in events and "Killing" in events
        await world.agent.close()

    simulate(run())


def test_a_slow_listener_is_ready_a_moment_after_it_listens_not_a_period_later() -> None:
    async def run() -> float:
        world = World(images={"slow": Behaviour(ready_after_s=0.4)})
        await world.start()
        await world.want(pod(containers=(container(image="slow", readiness=Probe(HTTP, period_s=10)),)))
        seen = await world.until("uid-1", is_running)
        assert not seen.ready
        running_s = asyncio.get_running_loop().time()
        await world.until_ready("uid-1")
        await world.agent.close()
        return asyncio.get_running_loop().time() - running_s

    assert simulate(run()) < 0.9


def test_a_readiness_probe_that_fails_makes_the_pod_unready_and_restarts_nothing() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod(containers=(container(readiness=Probe(HTTP, period_s=2)),)))
        await world.until_ready("uid-1")
        name = world.names("uid-1")[0]
        world.podman.set_healthy(name, False)
        await world.until("uid-1", lambda p: not p.ready)
        world.podman.set_healthy(name, True)
        seen = await world.until_ready("uid-1")
        assert seen.containers[0].restarts == 0
        await world.agent.close()

    simulate(run())


def test_a_container_that_cannot_start_backs_off_with_the_engines_words() -> None:
    async def run() -> None:
        world = World(images={"broken": BROKEN})
        await world.start()
        await world.want(pod(containers=(container(image="broken"),)))
        seen = await world.until("uid-1", lambda p: p.containers[0].reason == "CrashLoopBackOff")
        assert (seen.containers[0].last_reason, seen.containers[0].last_exit_code) == ("StartError", 128)
        assert seen.phase == RUNNING_PHASE
        await world.agent.close()

    simulate(run())


def test_an_image_that_cannot_be_pulled_is_reported_and_tried_again() -> None:
    async def run() -> None:
        world = World(images={"remote": Behaviour()}, present={"serve"})
        world.faults.pull_failures["remote"] = "manifest unknown"
        await world.start()
        await world.want(pod(containers=(container(image="remote"),)))
        seen = await world.until("uid-1", lambda p: p.containers[0].reason == "ErrImagePull")
        assert "manifest unknown" in seen.containers[0].message
        await world.until("uid-1", lambda p: p.containers[0].reason == "ImagePullBackOff")
        world.faults.pull_failures.clear()
        await world.until_ready("uid-1")
        await world.agent.close()

    simulate(run())


def test_orders_about_other_pods_try_a_pull_again_and_do_not_lengthen_its_back_off() -> None:
    async def run() -> float:
        world = World(images={"remote": Behaviour()}, present={"serve"})
        world.faults.pull_failures["remote"] = "500 Internal Server Error"
        await world.start()
        waiting = pod(containers=(container(image="remote"),))
        await world.want(waiting)
        await world.until("uid-1", lambda p: p.containers[0].reason == "ErrImagePull")
        for number in range(2, 10):
            await world.want(waiting, pod(f"uid-{number}"))
            await asyncio.sleep(5)  # each order has it tried at once, and it fails
        world.faults.pull_failures.clear()
        well_s = asyncio.get_running_loop().time()
        await world.until_ready("uid-1")
        await world.agent.close()
        return asyncio.get_running_loop().time() - well_s

    assert simulate(run()) < 42  # the third of its own failures gives 40 s; eight more would make it 300 s


def test_an_image_that_is_loaded_by_hand_is_noticed_long_before_the_back_off_ends() -> None:
    async def run() -> float:
        world = World(images={"remote": Behaviour()}, present={"serve"})
        await world.start()
        await world.want(pod(containers=(container(image="remote", pull="Never"),)))
        await world.until("uid-1", lambda p: p.containers[0].reason == "ErrImageNeverPull")
        await asyncio.sleep(400)
        world.podman.present.add("remote")
        loaded_s = asyncio.get_running_loop().time()
        await world.until_ready("uid-1")
        await world.agent.close()
        return asyncio.get_running_loop().time() - loaded_s

    assert simulate(run()) < 11


def test_a_pod_that_is_over_waits_for_no_image_any_more() -> None:
    """While one waits, the engine is asked three times as often. Finished pods of Jobs stay for as long as their Jobs do."""

    async def run() -> None:
        world = World(present=set())
        world.faults.pull_failures["serve"] = "no such host"
        await world.start()
        await world.want(pod(deadline_s=60))
        await world.until("uid-1", lambda p: p.phase == FAILED)
        before = world.podman.calls["list"]
        await asyncio.sleep(3600)
        assert world.podman.calls["list"] - before <= 3600 / 30 + 1
        await world.agent.close()

    simulate(run())


def test_what_the_host_refuses_to_a_pod_is_told_on_its_containers_and_tried_again() -> None:
    async def run() -> None:
        world = World()
        world.files.refusal = OSError(errno.EACCES, "volume v: not within the host paths that this node allows", "/etc")
        await world.start()
        await world.want(pod())
        told = await world.until("uid-1", lambda p: p.containers[0].reason == "CreateContainerConfigError")
        assert told.containers[0].state == "waiting" and told.phase == "Pending"
        assert told.containers[0].message == "volume v: not within the host paths that this node allows: /etc"
        tries_s = asyncio.get_running_loop().time()
        await asyncio.sleep(130)
        world.files.refusal = None
        await world.until_ready("uid-1", within_s=61)
        assert asyncio.get_running_loop().time() > tries_s
        await world.agent.close()

    simulate(run())


def test_trouble_of_the_hosts_disk_is_no_fault_of_the_pods_configuration() -> None:
    async def run() -> None:
        world = World()
        world.files.refusal = OSError(errno.ENOSPC, "No space left on device")
        await world.start()
        await world.want(pod())
        told = await world.until("uid-1", lambda p: bool(p.reason))
        assert (told.reason, told.containers[0].reason) == ("FailedMount", "ContainerCreating")
        await world.agent.close()

    simulate(run())


def test_a_containers_last_words_are_its_message() -> None:
    async def run() -> None:
        world = World(images={"fails": exits(3)})
        world.files.last_words["uid-1", "main", 0] = "out of cheese"
        await world.start()
        await world.want(pod(containers=(container(image="fails"),), restart="Never"))
        ended = await world.until("uid-1", lambda p: p.phase == "Failed")
        one = ended.containers[0]
        assert (one.exit_code, one.reason, one.message) == (3, "Error", "out of cheese")
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize(
    ("policy", "code", "written", "message"),
    [
        ("FallbackToLogsOnError", 3, "", "it was the disk"),
        ("FallbackToLogsOnError", 3, "out of cheese", "out of cheese"),
        ("FallbackToLogsOnError", 0, "", ""),
        ("File", 3, "", ""),
    ],
)
def test_the_end_of_the_log_stands_in_for_last_words_only_where_the_manifest_says_so(
    policy: str, code: int, written: str, message: str
) -> None:
    async def run() -> None:
        world = World(images={"ends": exits(code)})
        world.files.last_words["uid-1", "main", 0] = written
        world.logs.ends["uid-1", "main", 0] = "it was the disk"
        await world.start()
        await world.want(pod(containers=(container(image="ends", termination_message_policy=policy),), restart="Never"))
        ended = await world.until("uid-1", lambda p: p.phase in ("Failed", "Succeeded"))
        assert ended.containers[0].message == message
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize(("in_spec", "sent"), [("", "SIGQUIT"), ("SIGUSR1", "SIGUSR1")])
def test_a_container_is_stopped_by_the_signal_of_its_spec_or_else_of_its_image(in_spec: str, sent: str) -> None:
    async def run() -> None:
        world = World(images={"odd": Behaviour(stop_signal="SIGQUIT")})
        await world.start()
        await world.want(pod(containers=(container(image="odd", stop_signal=in_spec),)))
        await world.until_ready("uid-1")
        await world.want()
        await world.until_gone("uid-1")
        assert world.podman.signals == [sent]
        await world.agent.close()

    simulate(run())
