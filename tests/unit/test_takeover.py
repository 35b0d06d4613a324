"""A host changes its cluster: the production agent on a simulated host, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from controller.act.bootstrap import AgentDeployer
from controller.act.fleet import Deadlines, Fleet
from controller.cli.takeover import Holding, look, needless, shown, take
from controller.model.errors import AgentRefused, HostError
from controller.model.inventory import Host
from nodeagent import protocol
from nodeagent.protocol import Capacity, Epoch, Hello, NodeConfig, Owner, Pod, TakeoverRequest, WantedSet
from tests.fakes.podman import SERVE
from tests.sim.host import SimHost, task_factory
from tests.sim.network import Network
from tests.simloop import simulate
from tests.unit.agentworld import container, pod

THEIRS, OURS = "9d0cf2f6-0000-4000-8000-000000000001", "9d0cf2f6-0000-4000-8000-000000000002"
THEIR_EPOCH, OUR_EPOCH = Epoch(7, "their seventh"), Epoch(1, "our first")


class NoDeployer:
    def may_stay(self, hello: Hello) -> bool:
        return True

    async def deploy(self, session: object, host: Host) -> None:
        raise AssertionError("a look installs nothing")


class Scene:
    """A host that runs one pod of another cluster."""

    def __init__(self) -> None:
        self.sim = SimHost("n1", "10.0.0.1", random.Random(1), {"app:1": SERVE}, Capacity(4000, 2**32))
        self.host = Host("n1", (), {"ansible_host": self.sim.address}, "test:1")
        self.network = Network({"n1": self.sim}, random.Random(2))
        self.fleet = Fleet(self.network, NoDeployer(), Deadlines(poll_s=2.0))

    async def want(self, cluster: str, epoch: Epoch, serial: int, *pods: Pod) -> None:
        node = NodeConfig("n1", "10.88.0.0/24", cluster)
        wanted = WantedSet(cluster, epoch, serial, f"digest-{serial}", node, pods)
        await self.fleet.observe({"n1": self.host}, {})
        await self.fleet.push("n1", wanted, lambda names: {})

    async def lose_records(self) -> None:
        self.sim.kill_agent()
        self.sim.storage.corrupt.add("wanted")
        await self.sim.start_agent()
        await asyncio.sleep(30)

    async def settle(self, *uids: str) -> None:
        """Until containers of just these pods run, and a while longer."""
        for _ in range(300):
            if self.running() == set(uids):
                break
            await asyncio.sleep(1.0)
        await asyncio.sleep(60)
        assert self.running() == set(uids)

    def running(self) -> set[str]:
        return {one["sshoal.dev/pod-uid"] for one in self.sim.podman.live()}


def on_a_host(body: Callable[[Scene], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_task_factory(task_factory)  # type: ignore[arg-type]
            scene = Scene()
            await scene.sim.install("")
            try:
                await scene.want(THEIRS, THEIR_EPOCH, 41, app("uid-1"))
                await scene.settle("uid-1")
                await body(scene)
            finally:
                await scene.fleet.close()
                scene.sim.kill_agent()

        simulate(main())

    test.__name__, test.__doc__ = body.__name__, body.__doc__  # type: ignore[attr-defined]
    return test


def app(uid: str) -> Pod:
    return pod(uid, containers=(container(image="app:1"),))


@on_a_host
async def test_the_owner_and_its_pods_are_seen_before_anything_is_asked(scene: Scene) -> None:
    holding = await look(scene.fleet, scene.host)
    assert holding.owner is not None and (holding.owner.cluster, holding.owner.epoch) == (THEIRS, THEIR_EPOCH)
    assert (holding.pods, holding.state_lost) == (("default/pod-uid-1",), False)
    text = "\n".join(shown(holding, "n1", OURS, THEIRS))
    assert all(word in text for word in (THEIRS, "epoch 7", "pods there: 1 (default/pod-uid-1)", OURS))


@on_a_host
async def test_after_a_takeover_the_host_obeys_us_alone_and_our_first_set_says_what_runs(scene: Scene) -> None:
    with pytest.raises(AgentRefused) as caught:
        await scene.want(OURS, OUR_EPOCH, 1, app("uid-9"))
    assert caught.value.code == protocol.OWNED
    await take(scene.fleet, scene.host, TakeoverRequest(THEIRS, OURS, OUR_EPOCH))
    await scene.settle("uid-1")  # nothing stops before our first set
    holding = await look(scene.fleet, scene.host)
    assert holding.owner is not None and (holding.owner.cluster, holding.owner.epoch) == (OURS, OUR_EPOCH)
    await scene.want(OURS, OUR_EPOCH, 1, app("uid-9"))
    await scene.settle("uid-9")
    with pytest.raises(AgentRefused):
        await scene.want(THEIRS, THEIR_EPOCH, 42, app("uid-1"))


@on_a_host
async def test_a_host_that_changed_hands_since_it_was_looked_at_is_not_taken_over(scene: Scene) -> None:
    with pytest.raises(AgentRefused, match=THEIRS):
        await take(scene.fleet, scene.host, TakeoverRequest("somebody else's", OURS, OUR_EPOCH))


@on_a_host
async def test_an_agent_without_records_gives_over_the_pods_of_the_cluster_that_is_named(scene: Scene) -> None:
    await scene.lose_records()
    holding = await look(scene.fleet, scene.host)
    assert (holding.owner, holding.state_lost) == (None, True)
    await take(scene.fleet, scene.host, TakeoverRequest(THEIRS, OURS, OUR_EPOCH))
    await scene.want(OURS, OUR_EPOCH, 1, app("uid-9"))
    await scene.settle("uid-9")


@on_a_host
async def test_an_agent_without_records_leaves_alone_what_nobody_names(scene: Scene) -> None:
    await scene.lose_records()
    await take(scene.fleet, scene.host, TakeoverRequest("", OURS, OUR_EPOCH))
    await scene.want(OURS, OUR_EPOCH, 1, app("uid-9"))
    await scene.settle("uid-1", "uid-9")


@on_a_host
async def test_a_silent_host_is_an_error(scene: Scene) -> None:
    scene.network.links["n1"].up = False
    with pytest.raises(HostError):
        await look(scene.fleet, scene.host)


@pytest.mark.parametrize(
    ("holding", "words"),
    [
        (Holding(Owner(OURS, OUR_EPOCH, 3), False, ()), "belongs to this cluster already"),
        (Holding(None, False, ()), "belongs to no cluster"),
        (Holding(None, True, ()), ""),
        (Holding(Owner(THEIRS, THEIR_EPOCH, 3), False, ()), ""),
    ],
    ids=["ours", "nobody's", "unknown", "theirs"],
)
def test_only_what_is_not_ours_is_taken_over(holding: Holding, words: str) -> None:
    said = needless(holding, "n1", OURS)
    assert words in said and bool(words) == bool(said)


def test_a_host_cannot_write_escapes_to_the_terminal_by_what_it_says_of_its_owner() -> None:
    holding = Holding(Owner("\x1b[2J", THEIR_EPOCH, 3), False, ())
    assert "\x1b" not in "\n".join(shown(holding, "n1", OURS, "\x1b[2J"))


@pytest.mark.parametrize(
    ("owner", "stays"), [("", False), ("ours", False), ("theirs", True)], ids=["nobody", "ours", "theirs"]
)
def test_an_agent_of_another_version_is_replaced_only_where_it_is_ours_to_replace(owner: str, stays: bool) -> None:
    deployer = AgentDeployer(None, lambda: "ours")
    hello = Hello(
        (1, 0),
        "agent",
        "instance",
        "another bundle",
        "boot",
        0.0,
        0.0,
        Owner(owner, OUR_EPOCH, 1, "d") if owner else None,
    )
    assert deployer.may_stay(hello) is stays
