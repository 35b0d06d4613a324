"""What tests.fakes.podman adds to the contract for the simulation: faults, reboots, counters, determinism."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from nodeagent import protocol
from nodeagent.runtime import LABEL_CLUSTER, Exit, RegistryAuth, RuntimeFault
from tests.fakes.podman import DEADLINE_S, NEVER_READY, SERVE, STALL_S, Behaviour, FakePodman, Faults, exits
from tests.simloop import simulate

LABELS = {LABEL_CLUSTER: "c"}
HTTP = protocol.Handler("http", port=8080)


class LoopClock:
    def wall_s(self) -> float:
        return 1e9 + asyncio.get_running_loop().time()

    def boottime_s(self) -> float:
        return asyncio.get_running_loop().time()

    def boot_id(self) -> str:
        return "boot"


def simulated(scenario: Callable[[FakePodman], Coroutine[Any, Any, Any]], seed: int = 1, **options: Any) -> Any:
    async def main() -> Any:
        podman = FakePodman(LoopClock(), random.Random(seed), **options)
        await podman.ensure_network("10.1.0.0/24", LABELS)
        return await scenario(podman)

    return simulate(main())


async def launch(podman: FakePodman, image: str = "serve", name: str = "sshoal-c") -> tuple[str, str]:
    pod_id = await podman.create_pod({"name": f"{name}-pod", "labels": LABELS})
    await podman.start_pod(pod_id)
    container_id = await podman.create_container({"name": name, "labels": LABELS, "pod": pod_id, "image": image})
    await podman.start_container(container_id)
    return pod_id, container_id


def test_probes_pass_once_the_container_is_ready_and_while_it_is_healthy() -> None:
    async def scenario(podman: FakePodman) -> None:
        _, slow = await launch(podman, "slow")
        _, never = await launch(podman, "never", name="sshoal-n")
        assert not await podman.probe(slow, HTTP)
        await asyncio.sleep(30.0)
        assert await podman.probe(slow, HTTP)
        assert not await podman.probe(never, HTTP)
        podman.set_healthy(slow, False)
        assert not await podman.probe(slow, HTTP)
        podman.set_healthy(slow, True)
        podman.kill(slow)
        assert not await podman.probe(slow, HTTP)

    simulated(scenario, registry={"slow": Behaviour(ready_after_s=20.0), "never": NEVER_READY})


def test_a_reboot_ends_all_processes_and_keeps_all_records() -> None:
    async def scenario(podman: FakePodman) -> None:
        pod_id, container_id = await launch(podman)
        before = (await podman.pod_net(pod_id)).process
        podman.reboot()
        listing = await podman.list()
        assert [item.process for item in listing.containers] == [None, None]
        assert {item.state for item in listing.containers} == {"exited"}
        assert await podman.exit_of(container_id) == Exit(None)
        assert before is not None and not podman.is_alive(before)
        assert podman.running() == ()
        assert (await podman.start_pod(pod_id)).process is not None

    simulated(scenario)


def test_a_hanging_engine_answers_nothing_until_the_deadline() -> None:
    async def scenario(podman: FakePodman) -> None:
        podman.faults.hang = True
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(RuntimeFault) as fault:
            await podman.list()
        assert fault.value.reason == "timeout"
        assert asyncio.get_running_loop().time() - began_s >= DEADLINE_S
        podman.faults.hang = False
        assert (await podman.list()).pods == ()

    simulated(scenario)


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        (Faults(unavailable=True), "unavailable"),
        (Faults(disk_full=True), "no-space"),
        (Faults(failure_rate=1.0), "failed"),
    ],
    ids=["unavailable", "disk-full", "failing"],
)
def test_faults_are_raised_with_their_reason_and_change_nothing(faults: Faults, reason: str) -> None:
    async def scenario(podman: FakePodman) -> None:
        podman.faults = faults
        with pytest.raises(RuntimeFault) as fault:
            await podman.create_pod({"name": "sshoal-p", "labels": LABELS})
        assert fault.value.reason == reason
        podman.faults = Faults()
        assert (await podman.list()).pods == ()

    simulated(scenario)


def test_pulls_fail_stall_and_ask_for_credentials() -> None:
    async def scenario(podman: FakePodman) -> None:
        podman.faults.pull_failures["serve"] = "toomanyrequests"
        with pytest.raises(RuntimeFault, match="serve: toomanyrequests"):
            await podman.pull("serve", None)
        podman.faults.pull_failures.clear()
        podman.faults.pull_stalls.add("serve")
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(RuntimeFault, match="no progress"):
            await podman.pull("serve", None)
        assert asyncio.get_running_loop().time() - began_s >= STALL_S
        podman.faults.pull_stalls.clear()
        podman.credentials["serve"] = ("reader", "sesame")
        for auth in (None, RegistryAuth("reader", "wrong")):
            with pytest.raises(RuntimeFault, match="unauthorized"):
                await podman.pull("serve", auth)
        assert await podman.image("serve") is None
        image_id = await podman.pull("serve", RegistryAuth("reader", "sesame"))
        image = await podman.image("serve")
        assert image is not None and image.id == image_id

    simulated(scenario, present=set())


def test_looking_counts_as_a_call_and_not_as_a_mutation() -> None:
    async def scenario(podman: FakePodman) -> None:
        pod_id, container_id = await launch(podman)
        changed = sum(podman.mutations.values())
        assert changed > 0
        await podman.list()
        await podman.pod_net(pod_id)
        await podman.image("serve")
        await podman.exec(container_id, ("true",), 1.0)
        await podman.ensure_network("10.1.0.0/24", LABELS)
        assert sum(podman.mutations.values()) == changed
        assert podman.calls["list"] == 1

    simulated(scenario)


def test_touching_a_foreign_container_is_counted() -> None:
    async def scenario(podman: FakePodman) -> None:
        foreign = podman.add_foreign("database")
        assert foreign not in {item.id for item in (await podman.list()).containers}
        with pytest.raises(RuntimeFault):
            await podman.create_container({"name": "database", "labels": LABELS, "image": "serve"})
        assert podman.violations == 0
        await podman.remove_container(foreign)
        assert podman.violations == 1

    simulated(scenario)


def test_an_unkillable_process_keeps_its_container() -> None:
    async def scenario(podman: FakePodman) -> None:
        _, container_id = await launch(podman, "stuck")
        with pytest.raises(RuntimeFault, match="does not end when killed"):
            await podman.remove_container(container_id)
        assert podman.running() == ("sshoal-c",)

    simulated(scenario, registry={"stuck": Behaviour(unkillable=True)})


def test_the_same_seed_gives_the_same_world() -> None:
    async def scenario(podman: FakePodman) -> Any:
        for number in range(5):
            await launch(podman, "job", name=f"sshoal-{number}")
        await asyncio.sleep(0.3)
        return await podman.list(), asyncio.get_running_loop().time()

    registry = {"job": exits(0, 0.4), "serve": SERVE}
    assert simulated(scenario, seed=5, registry=registry) == simulated(scenario, seed=5, registry=registry)
    assert simulated(scenario, seed=5, registry=registry) != simulated(scenario, seed=6, registry=registry)
