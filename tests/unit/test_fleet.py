"""The fleet over simulated hosts with the production agent, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from controller.act.fleet import Deadlines, Fleet
from controller.act.transport import LoginRefused, Session
from controller.model.cluster import AGENT_NEWER, Seen, Sighting, Unseen
from controller.model.errors import AgentRefused, HostNotReady, HostUnreachable
from controller.model.inventory import Host
from nodeagent.protocol import Capacity, Cursor, Epoch, Hello, NodeConfig, SecretValue, WantedSet
from tests.fakes.podman import SERVE
from tests.sim.host import SimHost, task_factory
from tests.sim.network import Network, SimSession
from tests.simloop import simulate

T = TypeVar("T")

BUNDLE = "bundle-1"
CLUSTER = "9d0cf2f6-0000-4000-8000-000000000001"
DEADLINES = Deadlines(install_s=0.0, poll_s=2.0, missed_s=0.25)


class Deploys:
    """fleet.Deployer that remembers where it was, and on how many hosts at once."""

    def __init__(self, hosts: dict[str, SimHost], fail: bool = False) -> None:
        self.bundle = BUNDLE
        self.fail = fail
        self.takes_s = 1.0
        self.begun: list[str] = []
        self.at_once_max = 0
        self._under_way = 0
        self._hosts = hosts

    def may_stay(self, hello: Hello) -> bool:
        return hello.bundle == self.bundle

    async def deploy(self, session: Session, host: Host) -> None:
        self.begun.append(host.name)
        self._under_way += 1
        self.at_once_max = max(self.at_once_max, self._under_way)
        try:
            if self.fail:
                await asyncio.sleep(self.takes_s)
                raise HostNotReady(host.name, "no Python")
            await self._hosts[host.name].install(self.bundle)
        finally:
            self._under_way -= 1


class Lab:
    """Three hosts, a network, a fleet."""

    def __init__(self, deadlines: Deadlines = DEADLINES) -> None:
        self.sim = {
            name: SimHost(name, f"10.0.0.{name[1:]}", random.Random(name), {"app:1": SERVE}, Capacity(4000, 2**32))
            for name in ("n1", "n2", "n3")
        }
        self.hosts = {name: Host(name, (), {"ansible_host": host.address}, "test") for name, host in self.sim.items()}
        self.network = Network(self.sim, random.Random(1))
        self.deployer = Deploys(self.sim)
        self.fleet = Fleet(self.network, self.deployer, deadlines)

    async def observe(self) -> dict[str, Sighting]:
        return await self.fleet.observe(self.hosts, {})

    def cut(self, name: str) -> None:
        self.network.links[name].up = False

    def heal(self, name: str) -> None:
        self.network.links[name].heal()


def in_lab(
    deadlines: Deadlines = DEADLINES,
) -> Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Runs a test's body in virtual time with a lab of its own."""

    def decorate(body: Callable[[Lab], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        def test() -> None:
            async def main() -> None:
                asyncio.get_running_loop().set_task_factory(task_factory)  # type: ignore[arg-type]
                lab = Lab(deadlines)
                try:
                    await body(lab)
                finally:
                    await lab.fleet.close()
                    for host in lab.sim.values():
                        host.kill_agent()

            simulate(main())

        test.__name__, test.__doc__ = body.__name__, body.__doc__
        return test

    return decorate


async def until_seen(lab: Lab) -> None:
    while not all(isinstance(one, Seen) for one in (await lab.observe()).values()):
        await asyncio.sleep(1.0)


def kinds(sightings: dict[str, Sighting]) -> dict[str, str]:
    return {name: "seen" if isinstance(one, Seen) else one.kind for name, one in sightings.items()}


def wanted(serial: int = 1, epoch: int = 1) -> WantedSet:
    return WantedSet(
        CLUSTER, Epoch(epoch, f"epoch-{epoch}"), serial, f"digest-{serial}", NodeConfig("n1", "10.88.0.0/24", "c")
    )


@in_lab(Deadlines())
async def test_the_agent_is_installed_on_the_first_poll_and_left_alone_afterwards(lab: Lab) -> None:
    assert kinds(await lab.observe()) == {"n1": "seen", "n2": "seen", "n3": "seen"}
    assert sorted(lab.deployer.begun) == ["n1", "n2", "n3"]
    await lab.observe()
    assert len(lab.deployer.begun) == 3


@in_lab()
async def test_connections_begun_early_are_those_of_the_first_poll(lab: Lab) -> None:
    lab.cut("n2")
    lab.fleet.begin(lab.hosts)
    await asyncio.sleep(1.0)
    assert lab.deployer.begun == []  # nothing is installed before somebody observes

    assert kinds(await lab.observe())["n2"] == "unreachable"
    assert sorted(lab.network.attempts) == ["n1", "n2", "n3"]  # one failed login per host and pass

    lab.heal("n2")
    for _ in range(5):
        await lab.observe()
    assert kinds(await lab.observe()) == {"n1": "seen", "n2": "seen", "n3": "seen"}
    assert lab.network.attempts.count("n1") == 1


@in_lab(Deadlines())
async def test_a_new_agent_that_does_not_come_up_on_the_first_host_goes_nowhere_at_the_same_time(lab: Lab) -> None:
    lab.deployer.fail = True
    await lab.observe()
    assert len(lab.deployer.begun) == 3
    assert lab.deployer.at_once_max == 1


@in_lab(Deadlines())
async def test_a_silent_host_is_unseen_and_the_others_are_seen(lab: Lab) -> None:
    await lab.observe()
    lab.cut("n2")
    assert kinds(await lab.observe()) == {"n1": "seen", "n2": "unreachable", "n3": "seen"}


class Stumbling(Network):
    """A network whose library raises what it never said it would, on the way to `bad`."""

    bad = ""

    async def connect(self, host: Host) -> SimSession:
        if host.name == self.bad:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return await super().connect(host)


@in_lab(Deadlines())
async def test_what_nobody_foresaw_about_one_host_stops_no_other_and_passes_with_its_cause(lab: Lab) -> None:
    network = Stumbling(lab.sim, random.Random(1))
    lab.fleet = Fleet(network, lab.deployer)
    network.bad = "n2"
    for _ in range(2):
        sightings = await lab.observe()
        assert kinds(sightings) == {"n1": "seen", "n2": "nonsense", "n3": "seen"}
        said = sightings["n2"]
        assert isinstance(said, Unseen)
        assert "unexpected UnicodeDecodeError" in said.why
    network.bad = ""
    assert kinds(await lab.observe()) == {"n1": "seen", "n2": "seen", "n3": "seen"}


@in_lab()
async def test_a_host_that_missed_a_poll_delays_the_next_by_little(lab: Lab) -> None:
    await lab.observe()
    await asyncio.sleep(5.0)
    await lab.observe()
    lab.cut("n2")
    await lab.observe()
    before_s = asyncio.get_running_loop().time()
    await lab.observe()
    assert asyncio.get_running_loop().time() - before_s < DEADLINES.poll_s


@in_lab()
async def test_a_host_that_comes_back_between_polls_is_news_once(lab: Lab) -> None:
    """One pass for its return; a loop that asks again then waits."""
    await _all_seen(lab)
    lab.cut("n2")
    await _quiet(lab)
    lab.deployer.bundle = "bundle-2"  # installing it takes longer than a pass waits for a host that missed a poll
    lab.heal("n2")
    for _ in range(20):
        await asyncio.sleep(1.0)
        await lab.observe()
        if "n2" in lab.deployer.begun[3:]:
            break
    assert await lab.fleet.changed(60.0)
    assert kinds(await lab.observe())["n2"] == "seen"
    await _quiet(lab)
    assert not await lab.fleet.changed(5.0)


@in_lab()
async def test_nothing_new_is_no_news(lab: Lab) -> None:
    await _all_seen(lab)
    await _quiet(lab)
    before_s = asyncio.get_running_loop().time()
    assert not await lab.fleet.changed(60.0)
    assert asyncio.get_running_loop().time() - before_s == pytest.approx(60.0)


@in_lab()
async def test_an_attempt_to_connect_that_fails_is_no_news(lab: Lab) -> None:
    await _all_seen(lab)
    lab.cut("n2")
    await lab.observe()
    await lab.observe()
    await _quiet(lab)
    assert not await lab.fleet.changed(30.0)


@in_lab()
async def test_a_refusal_is_no_news_and_its_connection_is_kept(lab: Lab) -> None:
    """A new host whose Podman hangs: its agent answers, but cannot say what runs."""
    await _all_seen(lab)
    host = lab.sim["n2"]
    host.kill_agent()
    host.podman.faults.hang = True
    host.storage.documents.clear()
    await host.start_agent()
    lab.network.attempts.clear()
    await _quiet(lab)
    clock_s = asyncio.get_running_loop().time
    for _ in range(3):
        assert kinds(await lab.observe())["n2"] == "refused"
        began_s = clock_s()
        assert not await lab.fleet.changed(60.0)
        assert clock_s() - began_s == pytest.approx(60.0)
    assert lab.network.attempts == ["n2"]

    host.podman.faults.hang = False  # news, without a poll
    began_s = clock_s()
    assert await lab.fleet.changed(60.0)
    assert clock_s() - began_s < 30.0
    assert kinds(await lab.observe())["n2"] == "seen"


@in_lab()
async def test_a_broken_connection_is_made_anew_within_the_poll(lab: Lab) -> None:
    await _all_seen(lab)
    lab.network.reset("n1")
    assert kinds(await lab.observe())["n1"] == "seen"


@in_lab()
async def test_a_pushed_set_comes_back_as_the_owner_in_the_next_report(lab: Lab) -> None:
    await _all_seen(lab)
    accepted = await lab.fleet.push("n1", wanted(), lambda names: {})
    assert accepted.serial == 1
    seen = (await lab.observe())["n1"]
    assert isinstance(seen, Seen) and seen.owner is not None
    assert (seen.owner.serial, seen.owner.digest) == (1, "digest-1")


@in_lab()
async def test_an_agent_refuses_what_is_older_and_the_fleet_says_so(lab: Lab) -> None:
    await _all_seen(lab)
    await lab.fleet.push("n1", wanted(serial=2, epoch=2), lambda names: {})
    with pytest.raises(AgentRefused):
        await lab.fleet.push("n1", wanted(serial=3, epoch=1), lambda names: {})
    with pytest.raises(AgentRefused):
        await lab.fleet.push("n1", wanted(serial=1, epoch=2), lambda names: {})


@in_lab()
async def test_a_push_to_a_silent_host_ends_at_its_deadline(lab: Lab) -> None:
    await _all_seen(lab)
    lab.cut("n1")
    with pytest.raises(HostUnreachable):
        await lab.fleet.push("n1", wanted(), lambda names: {})


@in_lab(Deadlines())
async def test_a_host_that_is_given_more_time_has_it_for_its_secrets_too(lab: Lab) -> None:
    lab.hosts["n1"] = Host("n1", (), {**lab.hosts["n1"].vars, "ansible_timeout": 30}, "test")
    await _all_seen(lab)
    link = lab.network.links["n1"]
    link.stalls_at = b"b3BlbnNlc2FtZQ=="
    asyncio.get_running_loop().call_later(40.0, link.unstall)
    secret = SecretValue("hash-1", {"password": "b3BlbnNlc2FtZQ=="})
    with_secret = replace(wanted(), secrets={"default/login": "hash-1"})
    await lab.fleet.push("n1", with_secret, lambda names: dict.fromkeys(names, secret))
    assert not link.stalls_at


@in_lab()
async def test_a_host_that_leaves_is_hung_up_on(lab: Lab) -> None:
    await _all_seen(lab)
    left = {name: host for name, host in lab.hosts.items() if name != "n3"}
    assert set(await lab.fleet.observe(left, {})) == {"n1", "n2"}
    assert set(await lab.observe()) == {"n1", "n2", "n3"}


@in_lab()
async def test_hosts_whose_variables_change_leave_no_connection_behind(lab: Lab) -> None:
    await _all_seen(lab)
    sessions: list[Any] = []
    connect = lab.network.connect

    async def remember(host: Host) -> Any:
        sessions.append(Watched(await connect(host)))
        return sessions[-1]

    lab.network.connect = remember  # type: ignore[method-assign,assignment]
    for number in range(5):
        lab.hosts = {name: replace(host, vars={**host.vars, "v": number}) for name, host in lab.hosts.items()}
        assert set(kinds(await lab.observe()).values()) == {"seen"}
        await lab.fleet.changed(0.1)
        assert sum(session.is_open for session in sessions) == 3
    lab.hosts = {name: replace(host, vars={**host.vars, "v": "last"}) for name, host in lab.hosts.items()}
    lab.fleet.begin(lab.hosts)
    await asyncio.sleep(1.0)
    assert sum(session.is_open for session in sessions) == 6
    await lab.fleet.close()
    assert not any(session.is_open for session in sessions)


class Watched:
    """A session that knows whether it was closed."""

    def __init__(self, session: Session) -> None:
        self.is_open = True
        self.host_key = session.host_key
        self.open_channel, self._close = session.open_channel, session.close

    async def close(self) -> None:
        self.is_open = False
        await self._close()


@in_lab()
async def test_an_installation_that_fails_is_told_as_the_hosts_trouble(lab: Lab) -> None:
    lab.deployer.fail = True
    for _ in range(5):
        sightings = await lab.observe()
        await asyncio.sleep(3.0)
    assert kinds(sightings) == {"n1": "not-ready", "n2": "not-ready", "n3": "not-ready"}
    told = sightings["n1"]
    assert isinstance(told, Unseen) and told.why == "no Python"


@in_lab()
async def test_a_host_that_is_getting_its_agent_is_told_apart_from_a_silent_one(lab: Lab) -> None:
    lab.deployer.fail, lab.deployer.takes_s = True, 100.0
    lab.cut("n3")
    assert kinds(await lab.observe()) == {"n1": "installing", "n2": "installing", "n3": "unreachable"}


@in_lab()
async def test_a_second_attempt_to_install_does_not_hide_how_the_first_one_ended(lab: Lab) -> None:
    lab.deployer.fail, lab.deployer.takes_s = True, 10.0
    for _ in range(100):
        if kinds(await lab.observe())["n1"] == "not-ready":
            break
        await asyncio.sleep(0.5)
    for _ in range(40):
        assert kinds(await lab.observe())["n1"] == "not-ready"
        await asyncio.sleep(0.5)


async def _all_seen(lab: Lab) -> None:
    for _ in range(20):
        if set(kinds(await lab.observe()).values()) == {"seen"}:
            return
        await asyncio.sleep(1.0)
    raise AssertionError("the hosts did not come up")


async def _quiet(lab: Lab) -> None:
    """Takes in what agents and networks still have to say."""
    for _ in range(5):
        await asyncio.sleep(2.0)
        await lab.observe()


@in_lab()
async def test_a_refused_login_is_tried_again_after_ever_longer_pauses(lab: Lab) -> None:
    await until_seen(lab)
    lab.network.reset("n2")
    tried: list[float] = []
    clock_s = asyncio.get_running_loop().time

    async def refuse(host: Host) -> Any:
        if host.name == "n2":
            tried.append(clock_s())
            raise LoginRefused("n2", "10.0.0.2 refuses the login as deploy: Permission denied")
        return await connect(host)

    connect, lab.network.connect = lab.network.connect, refuse  # type: ignore[method-assign,assignment]
    while clock_s() < 3600.0:
        seen = await lab.observe()
        assert isinstance(seen["n1"], Seen)
        told = seen["n2"]
        assert isinstance(told, Unseen)
        assert (told.kind, "so that nobody is banned" in told.why) == ("auth", True)
        await asyncio.sleep(5.0)
    pauses = [round(later - earlier, -1) for earlier, later in pairwise(tried)]
    assert pauses[:6] == [10, 20, 40, 80, 160, 320]
    assert set(pauses[6:]) == {600}
    lab.network.connect = connect  # type: ignore[method-assign]
    await asyncio.sleep(600.0)
    assert isinstance((await lab.observe())["n2"], Seen)


@in_lab()
async def test_a_clock_that_differs_is_told(lab: Lab) -> None:
    await until_seen(lab)
    lab.sim["n2"].clock.skew_s = 3600.0
    skews = {name: told.skew_s for name, told in (await lab.observe()).items() if isinstance(told, Seen)}
    assert abs(skews["n2"] - skews["n1"] - 3600.0) < 2.0
    assert abs(skews["n3"] - skews["n1"]) < 2.0


@in_lab()
async def test_events_come_again_until_they_are_taken_over(lab: Lab) -> None:
    async def told(cursors: dict[str, Cursor]) -> tuple[list[str], Cursor]:
        seen = (await lab.fleet.observe(lab.hosts, cursors))["n1"]
        assert isinstance(seen, Seen)
        return [event.message for event in seen.events if event.reason == "Test"], seen.cursor

    await _all_seen(lab)
    _, start = await told({})
    agent = lab.sim["n1"].agent
    assert agent is not None
    agent.ledger.tell_event(0.0, "Test", "one")
    _, first = await told({"n1": start})
    agent.ledger.tell_event(0.0, "Test", "two")
    words, second = await told({"n1": start})  # the store could not be written
    assert words == ["one", "two"]
    assert (await told({"n1": first}))[0] == ["two"]
    assert (await told({"n1": second}))[0] == []
    assert (await told({"n1": start}))[0] == []  # once taken over is for good


@in_lab()
async def test_an_agent_of_a_newer_protocol_is_left_as_it_is(lab: Lab) -> None:
    """It is read, for reports may have more fields; it is neither replaced by an older one nor given orders it might misread."""

    await until_seen(lab)
    agent = lab.sim["n2"].agent
    assert agent is not None
    hello = agent.hello
    agent.hello = lambda: replace(hello(), version=(1, 99), bundle="of tomorrow")  # type: ignore[method-assign]
    lab.network.reset("n2")
    lab.deployer.begun.clear()
    told = (await lab.observe())["n2"]
    assert isinstance(told, Seen)
    assert [one.kind for one in told.conditions] == [AGENT_NEWER]
    assert lab.deployer.begun == []
