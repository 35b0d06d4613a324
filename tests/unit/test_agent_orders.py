"""Who may give the agent orders, what it keeps, and what it does when its records are gone."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
from dataclasses import replace
from typing import Any

import pytest

from nodeagent import protocol
from nodeagent.agent import RELIST_S, Agent, Refused
from nodeagent.protocol import (
    Config,
    Cursor,
    EnvVar,
    Epoch,
    ForgetRequest,
    Mount,
    SecretsRequest,
    SecretValue,
    Source,
    TakeoverRequest,
    Volume,
    WantedSet,
)
from nodeagent.runtime import RuntimeInfo
from tests.fakes.podman import Behaviour
from tests.simloop import simulate
from tests.unit.agentworld import CLUSTER, EPOCH, NODE, World, container, is_running, pod

OTHER = "c0ffee00-0000-4000-8000-000000000002"


async def refusal(world: World, wanted: WantedSet) -> str:
    """The code with which the set is refused."""
    with pytest.raises(Refused) as caught:
        await world.agent.want(wanted)
    return caught.value.code


def a_set(serial: int, digest: str = "", *pods: Any, cluster: str = CLUSTER, epoch: Epoch = EPOCH) -> WantedSet:
    return WantedSet(cluster, epoch, serial, digest or f"digest-{serial}", NODE, tuple(pods))


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (a_set(6, cluster=OTHER), protocol.OWNED),
        (a_set(6, epoch=Epoch(4, "e4")), protocol.OLD_EPOCH),
        (a_set(6, epoch=Epoch(5, "another")), protocol.FORKED),
        (a_set(4, epoch=Epoch(5, "e5")), protocol.OLD_SERIAL),
        (a_set(4, epoch=Epoch(9, "e9")), protocol.OLD_SERIAL),
        (a_set(5, "other content", epoch=Epoch(5, "e5")), protocol.CONFLICT),
    ],
    ids=[
        "other-cluster",
        "older-epoch",
        "same-epoch-other-id",
        "older-serial",
        "older-serial-newer-epoch",
        "other-content",
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_set_that_is_not_newer_is_refused_also_by_the_next_agent(sent: WantedSet, code: str, restarted: bool) -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.agent.want(a_set(5, "", pod(), epoch=Epoch(5, "e5")))
        await world.until_ready("uid-1")
        if restarted:
            await world.crash()
            await world.start()
        assert await refusal(world, sent) == code
        await asyncio.sleep(60)
        assert len(world.podman.running()) == 1
        owner = (await world.report()).owner
        assert owner is not None and (owner.epoch, owner.serial) == (Epoch(5, "e5"), 5)
        await world.agent.close()

    simulate(run())


def test_the_same_set_again_is_accepted_again_and_does_nothing() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        await asyncio.sleep(20)
        assert world.wanted is not None
        before, saves = sum(world.podman.mutations.values()), world.storage.saves
        accepted = await world.agent.want(world.wanted)
        await asyncio.sleep(60)
        assert accepted.serial == world.wanted.serial
        assert (sum(world.podman.mutations.values()), world.storage.saves) == (before, saves)
        await world.agent.close()

    simulate(run())


def test_a_set_that_was_stored_and_not_put_in_force_is_when_it_comes_again() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        world.storage.busy = OSError(errno.EMFILE, "Too many open files")
        with pytest.raises(OSError, match="Too many"):
            await world.want(pod())
        world.storage.busy = None
        assert world.wanted is not None
        await world.agent.want(world.wanted)
        await world.until_ready("uid-1")
        await world.agent.close()

    simulate(run())


def test_a_set_that_cannot_be_stored_is_refused_and_the_former_one_stays_in_force() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        world.storage.full = True
        assert await refusal(world, a_set(2, "", pod("uid-2"))) == protocol.FAILED_CODE
        await asyncio.sleep(60)
        report = await world.report()
        assert [one.uid for one in report.pods] == ["uid-1"] and report.pods[0].ready
        assert [condition.kind for condition in report.conditions] == ["StateNotSaved"]
        world.podman.kill(world.names("uid-1")[0])
        await world.until("uid-1", lambda p: p.ready and p.containers[0].restarts == 1)
        world.storage.full = False
        await world.agent.want(a_set(2, "", pod("uid-2")))
        await world.until_ready("uid-2")
        assert (await world.report()).conditions == ()
        await world.agent.close()

    simulate(run())


def test_a_pod_that_must_not_run_twice_does_not_start_while_that_cannot_be_written_down() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod(restart="Never"))
        world.storage.full = True
        seen = await world.until("uid-1", lambda p: p.containers[0].reason == "StateNotSaved")
        assert world.podman.running() == () and not seen.ready
        world.storage.full = False
        await world.until_ready("uid-1")
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize("broken", [("wanted",), ("wanted", "agent", "pod-uid-1", "secrets")])
def test_records_that_cannot_be_read_stop_nothing(broken: tuple[str, ...]) -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod(), pod("uid-2"))
        await world.until_ready("uid-1")
        await world.until_ready("uid-2")
        await world.crash()
        world.storage.corrupt.update(broken)
        before = world.podman.running()
        await world.start()
        await asyncio.sleep(120)
        report = await world.report()
        assert world.podman.running() == before
        assert report.owner is None
        assert [condition.kind for condition in report.conditions] == ["StateLost"]
        assert [(one.uid, one.ready) for one in report.pods] == [("uid-1", True), ("uid-2", True)]
        assert await refusal(world, a_set(1, "", cluster=OTHER)) == protocol.OWNED
        await world.want(pod())
        await world.until_gone("uid-2")
        assert world.podman.running() == tuple(name for name in before if "uid-1" in name)
        assert (await world.report()).conditions == ()
        await world.agent.close()

    simulate(run())


def test_an_empty_directory_with_running_containers_means_no_set_not_an_empty_one() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        await world.crash()
        world.storage.documents.clear()
        world.files.prepared.clear()
        before = world.podman.running()
        await world.start()
        await asyncio.sleep(120)
        assert world.podman.running() == before
        seen = await world.pod("uid-1")
        assert seen is not None and seen.ready and is_running(seen)
        await world.want(pod())
        await asyncio.sleep(60)
        assert world.podman.running() == before
        await world.want()
        await world.until_gone("uid-1")
        await world.agent.close()

    simulate(run())


def test_what_is_foreign_or_another_clusters_is_never_touched() -> None:
    async def run() -> None:
        world = World()
        world.podman.add_foreign("postgres")
        await world.start()
        labels = {"sshoal.dev/cluster": OTHER, "sshoal.dev/pod-uid": "theirs", "sshoal.dev/container": "main"}
        theirs = await world.podman.create_container({"name": "theirs-main-0", "image": "serve", "labels": labels})
        await world.podman.start_container(theirs)
        await world.want(pod())
        await world.until_ready("uid-1")
        await world.want()
        await world.until_gone("uid-1")
        await asyncio.sleep(60)
        assert world.podman.running() == ("theirs-main-0",)
        assert world.podman.violations == 0
        await world.agent.close()

    simulate(run())


def test_what_a_person_runs_of_an_image_committed_from_a_pod_is_foreign() -> None:
    """`podman commit` writes the container's labels, ours, into the image, and `podman run` gives them to what it makes of it."""

    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        (ours,) = world.podman.running()
        labels = dict(world.podman._find(ours).labels)
        for number in range(8):  # ids are random, and one after ours in the alphabet once took its place
            body = {"name": f"debug-{number}", "labels": labels, "image": "serve"}
            await world.podman.start_container(await world.podman.create_container(body))
        everything = world.podman.running()
        await asyncio.sleep(120)
        await world.crash()
        await world.start()
        await asyncio.sleep(120)
        assert world.podman.running() == everything
        await world.want()
        await world.until_gone("uid-1")
        assert world.podman.running() == tuple(name for name in everything if name != ours)
        await world.agent.close()

    simulate(run())


def test_a_leftover_of_ours_is_removed_once_a_set_is_in_force() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want()
        await world.podman.ensure_network(NODE.subnet, {})
        labels = {"sshoal.dev/cluster": CLUSTER, "sshoal.dev/pod-uid": "leak", "sshoal.dev/container": "main"}
        pod_id = await world.podman.create_pod({"name": "leaked", "labels": labels})
        leaked = await world.podman.create_container(
            {"name": "leaked-main-0", "image": "serve", "labels": labels, "pod": pod_id}
        )
        await world.podman.start_pod(pod_id)
        await world.podman.start_container(leaked)
        await asyncio.sleep(30)
        assert (await world.podman.list()).containers == ()
        await world.agent.close()

    simulate(run())


def test_a_takeover_keeps_pods_running_until_the_new_clusters_first_set() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        theirs = Epoch(1, "their first")
        with pytest.raises(Refused):
            await world.agent.takeover(TakeoverRequest("somebody", OTHER, theirs))
        await world.agent.takeover(TakeoverRequest(CLUSTER, OTHER, theirs))
        await asyncio.sleep(60)
        assert len(world.podman.running()) == 1
        assert await refusal(world, a_set(2, "", pod())) == protocol.OWNED
        await world.agent.want(a_set(1, "", pod("uid-9"), cluster=OTHER, epoch=theirs))
        await world.until_ready("uid-9")
        await world.until_gone("uid-1")
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize("crash_after_s", [None, 0.5, 3.0])
def test_forget_removes_all_that_is_ours_even_if_the_agent_dies_meanwhile(crash_after_s: float | None) -> None:
    async def run() -> None:
        world = World()
        world.podman.add_foreign("postgres")
        await world.start()
        await world.want(pod(), pod("uid-2"))
        await world.until_ready("uid-1")
        request = ForgetRequest(CLUSTER, EPOCH)
        if crash_after_s is None:
            await world.agent.forget(request)
        else:
            asyncio.get_running_loop().create_task(world.agent.forget(request))
            await asyncio.sleep(crash_after_s)
            await world.crash()
            await world.start()
            await asyncio.sleep(60)
        assert (await world.podman.list()).containers == () and world.files.prepared == {}
        assert set(world.storage.documents) == {"agent"} and world.podman.subnet == ""
        assert world.agent.hello().owner is None and world.podman.violations == 0
        await world.agent.close()

    simulate(run())


def test_secrets_that_cannot_be_sealed_are_told_of_as_long_as_there_are_any() -> None:
    async def run() -> None:
        world = World()
        world.storage.sealing, world.storage.sealing_trouble = False, "systemd-creds is missing"
        await world.start()
        await world.want(secrets={"default/db": "v1"})
        assert (await world.report()).conditions == ()
        value = SecretValue("v1", {"password": "czNjcjN0"})
        await world.agent.secrets(SecretsRequest(CLUSTER, EPOCH, {"default/db": value}))
        [told] = (await world.report()).conditions
        assert told.kind == "SecretsUnsealed" and "systemd-creds is missing" in told.message
        await world.want()
        assert (await world.report()).conditions == ()
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize(
    ("cgroups", "controllers", "lacking", "kept"),
    [
        ("v1", ("cpu", "memory"), "cpu and memory", set()),
        ("v2", ("memory", "pids"), "cpu", {"memory"}),
        ("v2", ("cpu", "memory", "pids"), "", {"cpu", "memory"}),
    ],
)
def test_a_rootless_engine_is_not_asked_for_limits_that_it_cannot_set_and_the_node_says_so(
    cgroups: str, controllers: tuple[str, ...], lacking: str, kept: set[str]
) -> None:
    async def run() -> None:
        world = World()
        world.podman.engine = RuntimeInfo("4.3.1", cgroups, rootless=True, graph_root="/", controllers=controllers)
        await world.start()
        limited = container(cpu_limit_m=100, cpu_request_m=100, memory_limit_bytes=1 << 20)
        await world.want(pod(containers=(limited,)))
        await world.until_ready("uid-1")
        report = await world.report()
        told = [condition.message for condition in report.conditions if condition.kind == "LimitsIgnored"]
        message = f"requests and limits of {lacking} are not enforced: a rootless node with control groups {cgroups}"
        assert told == [message] * bool(lacking)
        assert report.capacity is not None and report.capacity.rootless
        assert set(world.podman.created_last["resource_limits"]) == kept
        await world.agent.close()

    simulate(run())


def test_secrets_that_lie_there_unsealed_are_sealed_when_a_new_agent_can() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(secrets={"default/db": "v1"})
        value = SecretValue("v1", {"password": "czNjcjN0"})
        await world.agent.secrets(SecretsRequest(CLUSTER, EPOCH, {"default/db": value}))
        await world.crash()
        world.storage.secret.clear()
        await world.start()
        assert "secrets" in world.storage.secret
        await world.agent.close()

    simulate(run())


def login(hash_: str, password: str) -> SecretValue:
    entry = {"auths": {"registry.example:5000": {"username": "puller", "password": password}}}
    return SecretValue(hash_, {".dockerconfigjson": base64.b64encode(json.dumps(entry).encode()).decode()})


def test_a_pull_waits_for_the_value_of_its_pull_secret_and_uses_no_former_one() -> None:
    async def run() -> None:
        image = "registry.example:5000/app"
        world = World(images={image: Behaviour()}, present={"serve"})
        world.podman.credentials[image] = ("puller", "new")
        await world.start()
        wanted = pod(containers=(container(image=image),), pull_secrets=("default/login",))

        async def send(value: SecretValue) -> None:
            await world.agent.secrets(SecretsRequest(CLUSTER, EPOCH, {"default/login": value}))

        await world.want(wanted, secrets={"default/login": "v1"})
        await world.until("uid-1", lambda p: p.reason == "WaitingForSecrets")
        assert world.podman.calls["pull"] == 0
        await send(login("v1", "old"))
        await world.until("uid-1", lambda p: p.containers[0].reason in ("ErrImagePull", "ImagePullBackOff"))
        pulls = world.podman.calls["pull"]
        await world.want(wanted, secrets={"default/login": "v2"})
        seen = await world.until("uid-1", lambda p: p.containers[0].reason == "FailedToRetrieveImagePullSecret")
        assert "default/login" in seen.containers[0].message
        assert world.podman.calls["pull"] == pulls
        await send(login("v2", "new"))
        await world.until_ready("uid-1", within_s=10)
        await world.agent.close()

    simulate(run())


def test_a_pod_waits_for_its_secret_and_says_so() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        variables = (EnvVar("PASSWORD", secret="default/db", key="password"),)
        wanted = pod(containers=(container(env=variables),))
        accepted = await world.want(wanted, secrets={"default/db": "v1", "default/late": "v1"})
        assert accepted.missing_secrets == ("default/db", "default/late")
        seen = await world.until("uid-1", lambda p: p.reason == "WaitingForSecrets")
        assert "default/db" in seen.message
        value = SecretValue("v1", {"password": "czNjcjN0"})
        await world.agent.secrets(SecretsRequest(CLUSTER, EPOCH, {"default/db": value, "default/unasked": value}))
        await world.until_ready("uid-1", within_s=2)
        assert (await world.report()).missing_secrets == ("default/late",)
        assert set(world.storage.documents["secrets"]) == {"default/db"} and "secrets" in world.storage.secret
        await world.crash()
        await world.start()
        assert (await world.report()).missing_secrets == ("default/late",)
        await world.want(wanted, secrets={})
        assert world.storage.documents["secrets"] == {}
        await world.agent.close()

    simulate(run())


def test_mounted_config_is_refreshed_in_place_and_nothing_restarts() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        volume = Volume("conf", "files", sources=(Source("config", "default/app"),))
        wanted = pod(volumes=(volume,), containers=(container(mounts=(Mount("conf", "/etc/app"),)),))
        await world.want(wanted)
        seen = await world.until("uid-1", lambda p: p.reason == "FailedMount")
        assert "default/app" in seen.message
        await world.want(wanted, configs={"default/app": Config("v1")})
        await world.until_ready("uid-1", within_s=2)
        mutations = sum(world.podman.mutations.values())
        await world.want(wanted, configs={"default/app": Config("v2")})
        await asyncio.sleep(1)
        assert world.files.prepared["uid-1"] == {"default/app": "v2"}
        assert sum(world.podman.mutations.values()) == mutations
        await world.agent.close()

    simulate(run())


def test_what_comes_while_a_pod_is_about_to_fail_for_lack_of_it_is_tried_with_at_once() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        volume = Volume("conf", "files", sources=(Source("config", "default/app"),))
        wanted = pod(volumes=(volume,))
        world.files.prepare_s = 0.5
        await world.want(wanted)
        await asyncio.sleep(0.2)
        await world.want(wanted, configs={"default/app": Config("v1")})
        await world.until("uid-1", lambda p: p.phase == "Running", within_s=1.2)
        await world.agent.close()

    simulate(run())


def test_what_a_pod_lacked_is_not_told_any_more_while_its_sandbox_is_being_made() -> None:
    """On a slow host that takes long, and whoever waits for the pod would take it for lost."""

    async def run() -> None:
        world = World()
        await world.start()
        volume = Volume("conf", "files", sources=(Source("config", "default/app"),))
        wanted = pod(volumes=(volume,))
        await world.want(wanted)
        await world.until("uid-1", lambda p: p.reason == "FailedMount")
        world.podman.faults.hang = True
        await world.want(wanted, configs={"default/app": Config("v1")})
        told = await world.until("uid-1", lambda p: p.reason != "FailedMount")
        assert (told.reason, told.containers[0].reason) == ("", "ContainerCreating")
        assert world.podman.faults.hang
        world.podman.faults.hang = False
        await world.until_ready("uid-1", within_s=60)
        await world.agent.close()

    simulate(run())


def test_a_pod_that_uses_a_port_of_a_leaving_one_waits_until_it_is_free() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        port = (protocol.Port(80, host_port=8080),)
        old = pod("old", containers=(container(ports=port),))
        await world.want(old)
        await world.until_ready("old")
        await world.want(pod("new", containers=(container(ports=port),)))
        seen = await world.until("new", lambda p: bool(p.reason))
        assert seen.reason == "WaitingForPort"
        await world.until_ready("new", within_s=3)
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize(
    "bad",
    [
        (pod("../../etc"),),
        (pod(), pod()),
        (pod(containers=()),),
        (pod(containers=tuple(container(f"c{n}") for n in range(65))),),
        (pod(containers=(container(), container())),),
    ],
    ids=["path-as-uid", "uid-twice", "no-container", "too-many-containers", "name-twice"],
)
def test_a_malformed_set_is_refused_whole(bad: Any) -> None:
    async def run() -> None:
        world = World()
        await world.start()
        assert await refusal(world, a_set(1, "", *bad)) == protocol.BAD_REQUEST
        assert (await world.report()).owner is None
        await world.agent.close()

    simulate(run())


def test_a_pod_whose_template_is_gone_is_stopped_all_the_same() -> None:
    """Its Job was deleted while this host was silent. A refusal would hold up every other pod of the set."""

    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        await world.want(pod(containers=(), stop=True, grace_s=2), pod("uid-2"))
        await world.until("uid-1", lambda p: p.phase == protocol.STOPPED)
        await world.until_ready("uid-2")
        await world.agent.close()

    simulate(run())


def test_pods_that_are_to_stop_do_not_count_as_pods_of_the_host() -> None:
    """Else a set that is too large could not even be made smaller."""
    stopping = tuple(pod(f"old-{number}", stop=True) for number in range(600))

    async def run() -> None:
        world = World()
        await world.start()
        many = tuple(pod(f"new-{number}") for number in range(513))
        assert await refusal(world, a_set(1, "", *many)) == protocol.BAD_REQUEST
        await world.agent.want(a_set(1, "", *stopping, pod()))
        await world.until_ready("uid-1")
        assert (
            await refusal(world, a_set(2, "", *(pod(f"o{n}", stop=True) for n in range(2001)))) == protocol.BAD_REQUEST
        )
        await world.agent.close()

    simulate(run())


@pytest.mark.parametrize("full_s", [0.5, 20.0])
def test_what_could_not_be_written_down_is_done_once_there_is_space(full_s: float) -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod(grace_s=5))
        await world.until_ready("uid-1")
        await world.want(pod(grace_s=5, stop=True))
        world.storage.full = True
        await asyncio.sleep(full_s)
        world.storage.full = False
        await world.until("uid-1", lambda p: p.phase == protocol.STOPPED, within_s=60)
        await world.agent.close()

    simulate(run())


def test_a_pod_that_is_wanted_again_while_its_last_files_go_comes_up() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        remove = world.files.remove

        async def remove_slowly(uid: str) -> None:
            await asyncio.sleep(5)
            await remove(uid)

        world.files.remove = remove_slowly  # type: ignore[method-assign]
        await world.want()
        await asyncio.sleep(3)
        await world.want(pod())
        await world.until("uid-1", is_running)
        assert len(world.names("uid-1")) == 1
        await world.agent.close()

    simulate(run())


def test_a_pod_never_changes_under_its_uid() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        assert await refusal(world, a_set(2, "", replace(pod(), hash="other"))) == protocol.BAD_REQUEST
        await world.agent.close()

    simulate(run())


def test_a_reader_gets_changes_only_and_all_again_from_another_instance() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod(), pod("uid-2"))
        await world.until_ready("uid-1")
        await world.until_ready("uid-2")
        await asyncio.sleep(30)
        full = await world.report()
        assert full.full and full.images is not None and full.capacity is not None
        await world.want(pod("uid-2"))
        await world.until_gone("uid-1")
        delta = await world.report(full.cursor)
        assert (delta.full, [one.uid for one in delta.pods], delta.gone) == (False, [], ("uid-1",))
        assert delta.images is None and delta.capacity is None
        ahead = await world.report(Cursor(full.cursor.instance, 10**6))
        assert ahead.full
        await world.crash()
        await world.start()
        again = await world.report(delta.cursor)
        assert again.full and again.agent == full.agent and again.cursor.instance != full.cursor.instance
        await world.agent.close()

    simulate(run())


def test_a_long_poll_answers_when_something_changes_and_not_before() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        await asyncio.sleep(30)
        cursor = (await world.report()).cursor
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        nothing = await world.report(cursor, 5.0)
        assert (loop.time() - asked_s, nothing.pods) == (pytest.approx(5.0), ())
        poll = loop.create_task(world.report(cursor, 100.0))
        await asyncio.sleep(1)
        world.podman.kill(world.names("uid-1")[0])
        killed_s = loop.time()
        changed = await poll
        assert changed.pods and loop.time() - killed_s < 0.05
        await world.agent.close()

    simulate(run())


def test_labels_that_nobody_of_ours_wrote_are_foreign() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want()
        for number, (uid, name) in enumerate([("../../etc", "main"), ("ok", "../x"), ("", "main"), ("A" * 99, "main")]):
            labels = {"sshoal.dev/cluster": CLUSTER, "sshoal.dev/pod-uid": uid, "sshoal.dev/container": name}
            made = await world.podman.create_container({"name": f"odd-{number}", "image": "serve", "labels": labels})
            await world.podman.start_container(made)
        await asyncio.sleep(60)
        assert len(world.podman.running()) == 4
        await world.agent.close()

    simulate(run())


def test_streams_find_containers_and_logs_of_the_present_and_the_former_attempt() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        first, log = world.agent.find_container("uid-1", "main")
        assert log == "/var/log/pods/uid-1/main/0.log"
        assert world.agent.find_container("uid-1", "main", previous=True) == (None, None)
        assert world.podman.is_alive(world.agent.pod_process("uid-1"))
        for attempt in (1, 2):
            world.podman.kill(world.names("uid-1")[0])
            await world.until("uid-1", lambda p, n=attempt: p.ready and p.containers[0].restarts == n)
            before, log = world.agent.find_container("uid-1", "main", previous=True)
            assert log == f"/var/log/pods/uid-1/main/{attempt - 1}.log"
            assert attempt == 2 or before == first
        await asyncio.sleep(30)
        kept = {
            info.labels["sshoal.dev/attempt"] for info in (await world.podman.list()).containers if not info.is_infra
        }
        assert kept == {"1", "2"}
        for uid, name in (("unknown", "main"), ("uid-1", "unknown")):
            with pytest.raises(Refused) as caught:
                world.agent.find_container(uid, name)
            assert caught.value.code == protocol.NOT_FOUND
        await world.agent.close()

    simulate(run())


def test_a_container_has_ended_for_its_followers_once_the_engine_has_told_how() -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await world.want(pod())
        await world.until_ready("uid-1")
        first, _ = world.agent.find_container("uid-1", "main")
        assert not world.agent.has_ended("uid-1", "main", first)
        world.podman.kill(world.names("uid-1")[0])
        while not world.agent.has_ended("uid-1", "main", first):
            assert world.agent.find_container("uid-1", "main")[0] == first
            await asyncio.sleep(0.001)
        await world.until("uid-1", lambda p: p.ready and p.containers[0].restarts == 1)
        second, _ = world.agent.find_container("uid-1", "main")
        assert (world.agent.has_ended("uid-1", "main", first), world.agent.has_ended("uid-1", "main", second)) == (
            True,
            False,
        )
        assert world.agent.has_ended("gone", "main", "c1")
        await world.agent.close()

    simulate(run())


def test_a_full_disk_is_a_condition_that_goes_when_there_is_space_again() -> None:
    async def run() -> None:
        free_bytes = [10**9]
        world = World()
        world.agent = Agent(
            world.podman,
            world.files,
            world.storage,
            world.clock,
            world.prober,
            bundle="b",
            logs_dir="/logs",
            free_bytes=lambda: free_bytes[0],
        )
        await world.agent.start()
        report = await world.report()
        assert report.capacity is not None and report.capacity.disk_free_bytes == 10**9
        free_bytes[0] = 1000
        await asyncio.sleep(RELIST_S + 5)
        assert [condition.kind for condition in (await world.report(report.cursor)).conditions] == ["DiskPressure"]
        free_bytes[0] = 10**9
        await asyncio.sleep(RELIST_S + 5)
        assert (await world.report()).conditions == ()
        await world.agent.close()

    simulate(run())
