"""Volumes of claims on the host: made once, never again, removed only when ordered and unused; what is not ours is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from nodeagent import protocol
from nodeagent.agent import Refused
from nodeagent.protocol import (
    VOLUME_HELD,
    VOLUME_MISSING,
    VOLUME_REMOVED,
    VOLUME_UNUSABLE,
    ClaimVolume,
    Mount,
    Pod,
    Volume,
    VolumeReport,
)
from nodeagent.runtime import RuntimeFault, VolumeInfo
from tests.simloop import simulate
from tests.unit.agentworld import CLUSTER, NODE, World, container, pod

NAME = f"sshoal-{CLUSTER}-0d6c3a52-0000-4000-8000-000000000001-1"
OTHER = f"sshoal-{CLUSTER}-0d6c3a52-0000-4000-8000-000000000002-1"
THEIRS = NAME.replace(CLUSTER, "deadbeef-0000-4000-8000-000000000009")
ORDER = ClaimVolume(NAME, "default/data", make=True)
KEPT = replace(ORDER, make=False)
REMOVAL = replace(KEPT, remove=True)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    simulate(scenario)


def test_a_volume_is_made_before_the_pod_that_mounts_it_starts() -> None:
    async def scenario() -> None:
        world = World()
        await world.start()
        await world.want(_mounting(), volumes=(ORDER,))
        await world.until_ready("uid-1")
        info = world.podman.named_volumes[NAME]
        assert info.labels == {"sshoal.dev/cluster": CLUSTER, "sshoal.dev/claim": "default/data"}
        assert await _report(world, NAME) == VolumeReport(NAME, VOLUME_HELD, info.path)
        assert world.files.opened == [info.path]

    run(scenario())


def test_one_that_was_there_before_and_is_missing_is_told_and_not_made() -> None:
    async def scenario() -> None:
        world = World()
        await world.start()
        await world.want(_mounting(), volumes=(KEPT,))
        held_back = await world.until("uid-1", lambda one: bool(one.reason))
        assert "volume data is not here" in held_back.message
        assert (await _report(world, NAME)).state == VOLUME_MISSING
        assert world.podman.named_volumes == {}

    run(scenario())


def test_absence_from_the_set_removes_nothing_nor_do_restarts_reboots_or_lost_records() -> None:
    async def scenario() -> None:
        world = World()
        await world.start()
        await world.want(_mounting(), volumes=(ORDER,))
        await world.until_ready("uid-1")
        await world.crash()
        await world.start()
        await world.reboot()
        await world.until_ready("uid-1")
        await world.want()
        await world.until_gone("uid-1")
        world.storage.corrupt = set(world.storage.documents)
        await world.crash()
        await world.start()
        await world.want()
        assert (await _report(world, NAME)).state == VOLUME_HELD, "it is found again by its labels"
        assert NAME in world.podman.named_volumes

    run(scenario())


def test_pods_of_a_cluster_that_was_taken_over_keep_their_volumes_until_the_next_set() -> None:
    async def scenario() -> None:
        world = World()
        await world.start()
        await world.want(_mounting(), volumes=(ORDER,))
        await world.until_ready("uid-1")
        await world.want(_mounting(), volumes=(KEPT,))
        held = await _report(world, NAME)
        new = "deadbeef-0000-4000-8000-000000000009"
        await world.agent.takeover(protocol.TakeoverRequest(CLUSTER, new, protocol.Epoch(1, "theirs")))
        await asyncio.sleep(10)
        assert await _report(world, NAME) == held
        world.podman.kill((await world.podman.list()).pods[0].infra_id)
        await world.until("uid-1", lambda one: not one.ready)
        await world.until_ready("uid-1")
        await world.agent.close()

    run(scenario())


def test_a_removal_waits_for_the_pod_that_mounts_the_volume() -> None:
    async def scenario() -> None:
        world = World()
        await world.start()
        await world.want(_mounting(), volumes=(ORDER,))
        await world.until_ready("uid-1")
        await world.want(_mounting(), volumes=(REMOVAL,))
        waiting = await _report(world, NAME, lambda one: bool(one.message))
        assert waiting.message == "it is removed once pod default/pod-uid-1 has ended"
        assert NAME in world.podman.named_volumes
        await world.want(replace(_mounting(), stop=True), volumes=(REMOVAL,))
        await world.want(volumes=(REMOVAL,))
        assert (await _report(world, NAME, lambda one: one.state == VOLUME_REMOVED)).path == ""
        assert NAME not in world.podman.named_volumes

    run(scenario())


def test_a_slow_removal_keeps_no_other_volume_waiting() -> None:
    async def scenario() -> None:
        world = World()
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def slowly(directory: str, name: str) -> None:
            begun.set()
            await may_end.wait()

        world.files.remove_volume = slowly  # type: ignore[method-assign]
        await world.start()
        slow = replace(REMOVAL, directory="/srv/slow")
        await world.want(volumes=(slow,))
        await begun.wait()
        await world.want(volumes=(slow, ClaimVolume(OTHER, "default/other", make=True)))
        assert (await _report(world, OTHER)).state == VOLUME_HELD
        assert (await _report(world, NAME)).message == "it is being removed"
        may_end.set()
        await _report(world, NAME, lambda one: one.state == VOLUME_REMOVED)

    run(scenario())


def test_a_removal_that_fails_is_told_and_tried_again() -> None:
    async def scenario() -> None:
        world = World()
        await world.start()
        await world.want(volumes=(ORDER,))
        await _report(world, NAME)
        remove, attempts = world.podman.remove_volume, 0

        async def stubborn(name: str) -> None:
            nonlocal attempts
            attempts += 1
            if attempts < 3:
                raise RuntimeFault("failed", "device or resource busy")
            await remove(name)

        world.podman.remove_volume = stubborn  # type: ignore[method-assign]
        await world.want(volumes=(REMOVAL,))
        assert (
            await _report(world, NAME, lambda one: one.state == VOLUME_UNUSABLE)
        ).message == "device or resource busy"
        await _report(world, NAME, lambda one: one.state == VOLUME_REMOVED)
        assert attempts == 3

    run(scenario())


def test_an_order_to_remove_what_is_gone_already_is_done() -> None:
    async def scenario() -> None:
        world = World()
        await world.start()
        await world.want(volumes=(REMOVAL,))
        assert (await _report(world, NAME, lambda one: one.state == VOLUME_REMOVED)).state == VOLUME_REMOVED

    run(scenario())


def test_before_the_first_look_nothing_is_said_of_volumes() -> None:
    async def scenario() -> None:
        world = World()
        world.faults.unavailable = True
        await world.start()
        await world.want(volumes=(KEPT,))
        assert (await world.report()).volumes is None
        world.faults.unavailable = False
        assert (await _report(world, NAME)).state == VOLUME_MISSING

    run(scenario())


def test_foreign_volumes_are_neither_touched_nor_told() -> None:
    async def scenario() -> None:
        world = World()
        labels = {"sshoal.dev/cluster": "deadbeef-0000-4000-8000-000000000009"}
        theirs = [
            VolumeInfo("pgdata", {}, "/theirs"),
            VolumeInfo(THEIRS, labels, "/others"),
            VolumeInfo(NAME, {}, "/x"),
        ]
        world.podman.named_volumes = {info.name: info for info in theirs}
        await world.start()
        await world.want(volumes=(REMOVAL, ClaimVolume(OTHER, "default/other", make=True)))
        assert (await _report(world, OTHER)).state == VOLUME_HELD
        told = await _report(world, NAME, lambda one: one.state != VOLUME_HELD)
        assert told.state == VOLUME_UNUSABLE, "its name is ours, its labels are not"
        assert set(world.podman.named_volumes) == {"pgdata", THEIRS, NAME, OTHER}
        assert {one.name for one in (await world.report()).volumes or ()} == {NAME, OTHER}
        with pytest.raises(Refused, match="not well-formed"):
            await world.want(volumes=(ClaimVolume(THEIRS, "default/data", remove=True),))

    run(scenario())


@pytest.mark.parametrize("bad", ["pgdata", f"{NAME}/../x", f"sshoal-{CLUSTER}-../../etc-1", ""])
def test_names_that_are_not_ours_are_refused(bad: str) -> None:
    async def scenario() -> None:
        world = World()
        await world.start()
        with pytest.raises(Refused) as refused:
            await world.want(volumes=(ClaimVolume(bad, "default/data", make=True),))
        assert refused.value.code == protocol.BAD_REQUEST

    run(scenario())


def test_volumes_in_a_declared_directory_are_found_made_and_removed_there() -> None:
    async def scenario() -> None:
        world = World()
        node = replace(NODE, storage=("/srv/fast",))
        world.files.lasting["/srv/fast", OTHER] = "/old"
        await world.start()
        await world.want(node=node, volumes=(replace(ORDER, directory="/srv/fast"),))
        made = await _report(world, NAME)
        assert made == VolumeReport(NAME, VOLUME_HELD, f"/srv/fast/{NAME}/_data", directory="/srv/fast")
        assert (await _report(world, OTHER)).directory == "/srv/fast", "what nobody orders is told, and kept"
        await world.want(node=node, volumes=(replace(REMOVAL, directory="/srv/fast"),))
        await _report(world, NAME, lambda one: one.state == VOLUME_REMOVED)
        assert list(world.files.lasting) == [("/srv/fast", OTHER)]

    run(scenario())


def test_a_directory_that_cannot_be_read_holds_up_its_own_volumes_only_and_is_tried_again() -> None:
    async def scenario() -> None:
        world = World()
        world.files.unreadable.add("/srv/fast")
        await world.start()
        fast = ClaimVolume(OTHER, "default/other", "/srv/fast", make=True)
        await world.want(volumes=(fast, ORDER))
        assert (await _report(world, NAME)).state == VOLUME_HELD
        assert (await _report(world, OTHER)).message == "Permission denied: /srv/fast"
        world.files.unreadable.clear()
        assert (await _report(world, OTHER, lambda one: one.state == VOLUME_HELD)).state == VOLUME_HELD

    run(scenario())


def test_an_engine_that_fails_is_tried_again_and_nothing_is_said_missing_meanwhile() -> None:
    async def scenario() -> None:
        world = World()
        await world.start()
        await world.want(_mounting(), volumes=(ORDER,))
        await world.until_ready("uid-1")
        world.faults.unavailable = True
        await world.want(_mounting(), volumes=(KEPT,))
        assert (await _report(world, NAME)).state == VOLUME_HELD
        world.faults.unavailable = False
        await world.want(_mounting(), volumes=(REMOVAL,))
        await _report(world, NAME, lambda one: bool(one.message))

    run(scenario())


def test_a_fixed_address_is_the_pods() -> None:
    async def scenario() -> None:
        world = World()
        await world.start()
        await world.want(pod(address="10.86.3.200"))
        assert (await world.until_ready("uid-1")).ip == "10.86.3.200"

    run(scenario())


def _mounting() -> Pod:
    mounts = (Mount("data", "/data"),)
    return pod(containers=(container(mounts=mounts),), volumes=(Volume("data", "claim", claim=NAME),))


async def _report(world: World, name: str, holds: Any = lambda one: True) -> VolumeReport:
    """What is told of one volume, as soon as it is as asked."""
    report = await world.report()
    known = {one.name: one for one in report.volumes or ()}
    for _ in range(50):
        if name in known and holds(known[name]):
            return known[name]
        report = await world.report(report.cursor, 60.0)
        known = {one.name: one for one in report.volumes} if report.volumes is not None else known
    raise AssertionError(f"{name} is not so: {known}")
