"""Images whose layers Podman's storage has lost: had anew where that can be, else a condition that keeps new pods away."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.podman import SERVE
from tests.simloop import simulate
from tests.unit.agentworld import World, pod


def kinds(conditions: object) -> list[str]:
    return [condition.kind for condition in conditions]  # type: ignore[attr-defined]


def test_a_damaged_image_is_pulled_again() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        world.faults.damaged.add("serve")
        await world.want(pod())
        await world.until_ready("uid-1")
        assert (world.podman.mutations["remove_image"], world.podman.mutations["pull"]) == (1, 1)
        assert kinds((await world.report()).conditions) == []
        await world.agent.close()

    simulate(run())


def test_a_damaged_image_that_cannot_be_pulled_keeps_new_pods_away() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        world.faults.damaged.add("serve")
        world.faults.pull_failures["serve"] = "no such host"
        await world.want(pod())
        await asyncio.sleep(30)
        report = await world.report()
        assert kinds(report.conditions) == ["StorageCorrupt"]
        assert "serve" in report.conditions[0].message
        assert not world.podman.running()
        world.faults.pull_failures.clear()
        world.podman.present.add("serve")  # somebody pushed it
        await world.until_ready("uid-1", within_s=120)
        assert kinds((await world.report()).conditions) == []
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize("in_use", [False, True])
def test_a_damaged_image_that_was_brought_anew_lets_pods_come_also_when_no_pod_wants_it_any_more(in_use: bool) -> None:
    """Its pods went elsewhere, since it could not be pulled: nobody here would ask for it again."""

    async def run() -> None:
        world = World()
        await world.start()
        world.faults.damaged.add("serve")
        world.faults.in_use = in_use
        world.faults.pull_failures["serve"] = "no such host"
        await world.want(pod())
        await asyncio.sleep(30)
        await world.want()
        await world.until_gone("uid-1")
        if in_use:
            await asyncio.sleep(60)
            world.faults.in_use = False
            await world.podman.remove_image("serve")  # by hand, as the pod's message says
        await asyncio.sleep(60)
        assert kinds((await world.report()).conditions) == ["StorageCorrupt"]
        world.podman.present.add("serve")
        await world.agent.images_changed()
        assert kinds((await world.report()).conditions) == []
        await world.agent.close()

    simulate(run())


def test_a_damaged_image_that_containers_use_is_left_to_a_person() -> None:
    """Nothing is removed by force: that would take the containers along."""

    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod("uid-1"))
        await world.until_ready("uid-1")
        before = world.podman.running()
        world.faults.damaged.add("serve")
        world.faults.in_use = True
        await world.want(pod("uid-1"), pod("uid-2"))
        await asyncio.sleep(60)
        report = await world.report()
        assert kinds(report.conditions) == ["StorageCorrupt"]
        waiting = next(one for one in report.pods if one.uid == "uid-2")
        assert waiting.containers[0].reason == "ErrImageDamaged"
        assert "podman system check" in waiting.containers[0].message
        assert world.podman.running() == before
        await world.agent.close()

    simulate(run())


def test_one_damaged_image_does_not_make_a_new_agent_blind() -> None:
    """Podman then lists no image at all; what runs is known all the same."""

    async def run() -> None:
        world = World(images={"other": SERVE})
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        await asyncio.sleep(1)
        await world.crash()
        world.faults.damaged.add("other")
        await world.start()
        await world.want()
        await world.until_gone("uid-1")
        await world.agent.close()

    simulate(run())
