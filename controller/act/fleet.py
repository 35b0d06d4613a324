"""Stations 3 (observe) and 6 (push): kept connections to all hosts, one report each per pass.

In: hosts of the inventory. Out: a sighting per host; what is wrong with a host is in its sighting and never stops the others.
Knows nothing of SSH: connections come from a Transport, agents are installed by a Deployer. Both are replaced in the simulation.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, TypeVar

from controller.act.agents import EVENTS_MAX, AgentClient, AgentStream, Picture
from controller.act.transport import LoginRefused, Session, Throttled, Transport
from controller.model.cluster import AGENT_NEWER, Seen, Sighting, Unseen
from controller.model.errors import (
    AgentRefused,
    HostAuthFailed,
    HostError,
    HostKeyChanged,
    HostKeyUnknown,
    HostNotReady,
    HostUnreachable,
    SshoalError,
)
from controller.model.inventory import Host
from controller.model.text import printable
from nodeagent.protocol import (
    VERSION,
    Accepted,
    AgentEvent,
    Capacity,
    Condition,
    Cursor,
    Hello,
    ResolveRequest,
    SecretsRequest,
    SecretValue,
    Usage,
    WantedSet,
)

T = TypeVar("T")

_REFUSED_AGAIN_S = 5.0  # how often an agent that refuses to report is asked between polls
_USAGE_FRESH_S = 5.0
_USAGE_SAMPLES_MAX = 40  # of one container: an agent keeps 21
_USAGE_CONTAINERS_MAX = 1024  # of one host


class _TooSlow(HostUnreachable):
    """A deadline has passed."""


class _Installing(HostUnreachable):
    """It is just getting its agent."""


_KINDS: tuple[tuple[type[HostError], str], ...] = (
    (_Installing, "installing"),
    (HostUnreachable, "unreachable"),
    (HostAuthFailed, "auth"),
    (HostKeyUnknown, "key-unknown"),
    (HostKeyChanged, "key-changed"),
    (HostNotReady, "not-ready"),
    (AgentRefused, "refused"),
)

SecretSource = Callable[[tuple[str, ...]], Mapping[str, SecretValue]]


class Deployer(Protocol):
    """Puts the right agent on hosts."""

    def may_stay(self, hello: Hello) -> bool:
        """Whether the agent that said this is to be left as it is: the right one, or one that is not ours to replace."""
        ...

    async def deploy(self, session: Session, host: Host) -> None:
        """Returns when that agent answers. Raises HostError; the former agent then runs on."""
        ...


@dataclass(slots=True)
class _Link:
    """What is kept of one host between polls."""

    host: Host
    picture: Picture
    deadlines: Deadlines
    opening: asyncio.Task[Session] | None = None  # its SSH connection, or the attempt to get one
    client: AgentClient | None = None
    events_read: Cursor | None = None  # how far its events were taken over, by this controller or an earlier one
    told: tuple[AgentEvent, ...] = ()  # events of the last sighting: they are told again until they were taken over
    told_at: Cursor | None = None
    waiter: asyncio.Task[bool] | None = None  # the long poll under way
    connecting: asyncio.Task[AgentClient] | None = None
    missed: bool = False  # the last poll had no answer
    was_silent: bool = False  # earlier controllers had none
    polled: bool = False
    refused: HostError | None = None  # why the last login failed, while logins pause
    refusals: int = 0  # in a row
    next_login_s: float = 0.0  # on the event loop's clock
    host_key: str = ""  # fingerprint of the one by which the present connection was made
    newer: str = ""  # its agent speaks a newer protocol than ours: it is read and told nothing
    skew_s: float = 0.0
    installing: bool = False  # it is getting its agent, or waits for the canary
    usage: Usage | None = None  # what its containers used, as far back as the agent remembers
    usage_asked_s: float = -math.inf  # when, by the loop's clock
    trouble: BaseException | None = None  # what ended the attempt to connect before the present one


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that one host may take."""

    poll_s: float = 10.0
    deploy_s: float = 120.0
    push_s: float = 20.0
    resolve_s: float = 8.0  # to ask a registry what a tag stands for
    install_s: float = 60.0  # how long a pass waits for a host that is just getting its agent
    # Pause after a refused login, doubled with each further one; a refused password must not become a ban
    refused_s: float = 10.0
    refused_max_s: float = 600.0
    silent_s: float = 3.0  # how long the first poll of a process waits for a host that was silent before
    missed_s: float = 1.0  # how long a pass waits for a host that missed the one before; connecting goes on meanwhile

    def of(self, host: Host) -> Deadlines:
        """For one host: those of a host whose inventory gives it three times the usual time (ansible_timeout) are three times as long."""
        factor = host.connection.patience
        if factor == 1.0:
            return self
        return Deadlines(**{name: seconds * factor for name, seconds in asdict(self).items()})


class Fleet:
    """All hosts, by inventory name. Use `async with`, or call close()."""

    def __init__(
        self,
        transport: Transport,
        deployer: Deployer,
        deadlines: Deadlines = Deadlines(),
        connects_max: int = 50,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """`wall_s`: this machine's clock, which those of the hosts are compared with."""
        self._wall_s = wall_s
        self._transport = transport
        self._deployer = deployer
        self._deadlines = deadlines
        self._links: dict[str, _Link] = {}
        self._replaced: list[_Link] = []  # of hosts whose variables have changed: not hung up on yet
        self._connects = asyncio.Semaphore(connects_max)
        self._canary = asyncio.Lock()
        self._canary_lived = False

    async def __aenter__(self) -> Fleet:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all connections; the agents go on."""
        await self._drop_all_but({})

    def begin(self, hosts: Mapping[str, Host]) -> None:
        """Starts SSH connections to hosts that will be observed, and nothing more: what the caller does first runs beside that."""
        for host in hosts.values():
            self._opening(self._link(host))

    async def observe(
        self, hosts: Mapping[str, Host], cursors: Mapping[str, Cursor], silent: Collection[str] = ()
    ) -> dict[str, Sighting]:
        """One report of each host, all at once, each within the deadline.

        Args:
            cursors: how far each host's events were taken over; those after that are told, again if need be.
            silent: hosts that gave earlier controllers no report: a dead one shall not hold up every command.
        """
        for host in hosts.values():
            self._link(host)  # those that are replaced by this are hung up on as well
        await self._drop_all_but(hosts)
        for name in silent:
            if name in hosts and not self._link(hosts[name]).polled:
                self._link(hosts[name]).was_silent = True
        sightings = await asyncio.gather(*(self._sight(host, cursors.get(name)) for name, host in hosts.items()))
        return dict(zip(hosts, sightings, strict=True))

    async def usages(self) -> dict[str, Usage]:
        """What is used on the hosts that answered the last poll. Who does not tell, or is an older agent, is left out."""
        told = await asyncio.gather(*(self._usage(link) for link in self._links.values()))
        return {name: usage for name, usage in zip(self._links, told, strict=True) if usage is not None}

    async def push(self, name: str, wanted: WantedSet, secrets: SecretSource) -> Accepted:
        """Hands over a wanted set, then the secret values that the agent lacks. Raises HostError."""
        link = self._links[name]

        async def hand_over() -> Accepted:
            client = await self._connected(link)
            accepted = await client.want(wanted, timeout_s=link.deadlines.push_s)
            if accepted.missing_secrets:
                await self._send_secrets(link, client, wanted, accepted.missing_secrets, secrets)
            return accepted

        return await self._within(link, link.deadlines.push_s, hand_over())

    async def resolve(self, name: str, request: ResolveRequest) -> str:
        """What a tag stands for in its registry, asked from a host: "sha256:…". Raises HostError."""
        link = self._links[name]
        client = await self._connected(link)
        timeout_s = link.deadlines.resolve_s
        return await self._within(link, timeout_s, client.resolve(request, timeout_s))

    async def changed(self, timeout_s: float) -> bool:
        """Waits until some agent has news, at most `timeout_s`. False: none had."""
        waiters: set[asyncio.Task[Any]] = {
            self._waiter(link) for link in self._links.values() if link.client is not None
        }
        waiters |= {link.connecting for link in self._links.values() if link.connecting is not None}
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        while waiters and loop.time() < end_s:
            done, waiters = await asyncio.wait(
                waiters, timeout=end_s - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
            if any(not task.cancelled() and task.exception() is None and task.result() for task in done):
                return True  # a failed attempt to connect is no news: the next poll will tell
        await asyncio.sleep(max(0.0, end_s - loop.time()))
        return False

    async def stream(self, host: Host, verb: str, body: Any) -> AgentStream:
        """A stream (logs, exec, forward, image-load) to a host's agent, on a channel of its own. Raises HostError."""
        link = self._link(host)
        session = await self._session(link)
        channel = await session.open_channel(link.deadlines.poll_s)
        return await AgentStream.open(host.name, channel, verb, body, timeout_s=link.deadlines.poll_s)

    async def session(self, host: Host) -> Session:
        """The kept connection to a host. Raises HostError."""
        return await self._session(self._link(host))

    # ---- one host ----

    async def _sight(self, host: Host, cursor: Cursor | None) -> Sighting:
        link = self._link(host)
        link.events_read = cursor
        if _covers(cursor, link.told_at):
            link.told = ()  # all of them, whatever numbers the host gave them
        link.polled = True
        try:
            seen = await self._poll(link)
        except HostError as error:
            link.missed = True
            return Unseen(_kind_of(error), error.problem)
        except SshoalError:  # about what the user wrote, such as a vault that does not open
            raise
        except Exception as error:
            # A bug of ours or of a library, met with this host: the others are not to suffer from it.
            link.missed = True
            await _hang_up(link)
            return Unseen("nonsense", f"unexpected {type(error).__name__}: {printable(str(error))}")
        link.missed = link.was_silent = False
        return seen

    async def _poll(self, link: _Link) -> Seen:
        if link.client is not None:
            link.connecting = link.trouble = None  # one that came through between two polls was news once
            try:
                return await self._report(link, link.client)
            except AgentRefused:
                raise  # it speaks: another connection would hear the same
            except _TooSlow:
                await _hang_up(link)
                raise
            except HostError:
                # A kept connection that broke says nothing of the host: connect anew, in this same poll
                await _hang_up(link)
        return await self._report(link, await self._connected(link))

    async def _report(self, link: _Link, client: AgentClient) -> Seen:
        asked_s = self._wall_s()
        answer = await self._within(
            link, link.deadlines.poll_s, client.report(link.picture.cursor, wait_s=0.0, timeout_s=link.deadlines.poll_s)
        )
        heard_s = self._wall_s()
        link.picture.update(answer)
        # It was stamped in between: only what lies outside is the clocks' difference.
        link.skew_s = max(0.0, answer.wall_s - heard_s) + min(0.0, answer.wall_s - asked_s)
        return _seen(link)

    async def _connected(self, link: _Link) -> AgentClient:
        """The client of a link. Connecting goes on over passes, so that a dead host delays a pass by its deadline once, then hardly."""
        if link.client is not None:
            return link.client
        if link.connecting is not None and link.connecting.done() and link.connecting.exception() is not None:
            link.trouble = link.connecting.exception()
            link.connecting = None  # it failed since the last poll: try again
        if link.connecting is None:
            link.connecting = asyncio.ensure_future(self._connect(link))
            link.connecting.add_done_callback(_look_at)
        patience_s = self._patience_s(link)
        done, _ = await asyncio.wait([link.connecting], timeout=patience_s)
        if not done and link.installing:
            done, _ = await asyncio.wait([link.connecting], timeout=link.deadlines.install_s)
        if not done:
            if link.installing and not isinstance(link.trouble, HostNotReady):  # what came before is overcome
                raise _Installing(link.host.name, "its agent is being installed")
            raise link.trouble or _TooSlow(link.host.name, f"no answer within {patience_s:g} s")
        connecting, link.connecting = link.connecting, None
        link.trouble = connecting.exception()
        return await connecting

    def _patience_s(self, link: _Link) -> float:
        deadlines = link.deadlines
        if link.missed:
            return min(deadlines.missed_s, deadlines.poll_s)
        return min(deadlines.silent_s, deadlines.poll_s) if link.was_silent else deadlines.poll_s

    async def _connect(self, link: _Link) -> AgentClient:
        """A conversation with the agent, which is installed or brought up to date first where needed."""
        try:
            session = await self._session(link)
            client = await self._converse(link, session)
            if client is None:
                await self._install(link, session)
                client = await self._converse(link, session)
            if client is None:
                raise HostNotReady(
                    link.host.name,
                    "the agent was installed but does not answer",
                    hint="journalctl -u sshoal-agent there",
                )
        except Exception:
            await _close_session(link)
            raise
        link.client, link.host_key = client, session.host_key
        return client

    async def _session(self, link: _Link) -> Session:
        """The kept connection. An attempt that failed is told to all who wait for it; whoever asks after them makes a new one."""
        if _has_ended(link.opening):
            await _close_session(link)
        opening = self._opening(link)
        try:
            return await asyncio.shield(opening)
        except Exception:
            if link.opening is opening:
                link.opening = None
            raise

    def _opening(self, link: _Link) -> asyncio.Task[Session]:
        if link.opening is None:
            link.opening = asyncio.ensure_future(self._open(link))
            link.opening.add_done_callback(_look_at)
        return link.opening

    async def _open(self, link: _Link) -> Session:
        clock_s = asyncio.get_running_loop().time
        if link.refused is not None and clock_s() < link.next_login_s:
            raise link.refused
        try:
            async with self._connects:
                session = await self._within(link, link.deadlines.poll_s, self._transport.connect(link.host))
        except (LoginRefused, Throttled) as error:
            pause_s = min(link.deadlines.refused_s * 2**link.refusals, link.deadlines.refused_max_s)
            link.refusals += 1
            link.next_login_s = clock_s() + pause_s
            link.refused = type(error)(
                link.host.name,
                f"{error.problem} (tried again after {pause_s:.0f} s, so that nobody is banned)",
                hint=error.hint,
            )
            raise link.refused from None
        link.refused, link.refusals = None, 0
        return session

    async def _converse(self, link: _Link, session: Session) -> AgentClient | None:
        """None when no agent answers, or not the right version."""
        try:
            channel = await session.open_channel(link.deadlines.poll_s)
        except HostNotReady:
            return None
        client = AgentClient(link.host.name, channel)
        try:
            hello = await client.hello(timeout_s=link.deadlines.poll_s)
        except Exception:  # slow or just restarting: no reason to install anything
            client.close()
            raise
        link.newer = _newer(hello)
        if not link.newer and not self._deployer.may_stay(hello):
            client.close()
            return None
        if hello.agent != link.picture.agent:
            link.picture = Picture(link.host.name)  # a reinstalled host, or the wrong one: for the decision to judge
        return client

    async def _install(self, link: _Link, session: Session) -> None:
        """One host first: an agent that does not come up there goes nowhere else."""
        link.installing = True
        try:
            async with contextlib.AsyncExitStack() as stack:
                if not self._canary_lived:
                    await stack.enter_async_context(self._canary)
                if self._canary_lived:
                    await stack.aclose()
                await self._within(link, link.deadlines.deploy_s, self._deployer.deploy(session, link.host))
                self._canary_lived = True
        finally:
            link.installing = False

    async def _send_secrets(
        self, link: _Link, client: AgentClient, wanted: WantedSet, names: tuple[str, ...], secrets: SecretSource
    ) -> None:
        if values := secrets(names):
            request = SecretsRequest(wanted.cluster, wanted.epoch, dict(values))
            await client.secrets(request, timeout_s=link.deadlines.push_s)

    async def _usage(self, link: _Link) -> Usage | None:
        """Only what is new is asked for, and not at each of many passes a second: agents look every 15 s."""
        now_s = asyncio.get_running_loop().time()
        client = link.client
        if client is None or link.missed:
            return None
        if now_s - link.usage_asked_s < _USAGE_FRESH_S:
            return link.usage
        before = link.usage if link.usage is not None and link.usage.boot_id == link.picture.boot_id else None
        since_s = max((one.at_s for one in before.node), default=0.0) if before is not None else 0.0
        try:
            poll_s = link.deadlines.poll_s
            fresh = await self._within(link, poll_s, client.usage(since_s, poll_s))
        except HostError:
            return None
        link.usage, link.usage_asked_s = joined(before, fresh), now_s
        return link.usage

    def _waiter(self, link: _Link) -> asyncio.Task[bool]:
        """The long poll of one agent; kept until it answers, so that at most one is under way."""
        if link.waiter is None or link.waiter.done():
            link.waiter = asyncio.ensure_future(self._news(link))
        return link.waiter

    async def _news(self, link: _Link) -> bool:
        """False: nothing that the last poll has not told."""
        client = link.client
        if client is None:
            return True
        try:
            while link.client is client:
                before = link.picture.cursor
                try:
                    answer = await client.report(before, wait_s=20.0, timeout_s=30.0)
                except AgentRefused:  # at once, unlike a report: polls tell of it, and that it has ended is news
                    await asyncio.sleep(_REFUSED_AGAIN_S)
                    continue
                if answer.cursor != before:
                    link.picture.update(answer)
                    return True
        except HostError:
            # The next poll will say what is wrong; where the last one did, a pass at once would end as it did.
            return not link.missed
        return True

    async def _within(self, link: _Link, timeout_s: float, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await work
        except TimeoutError:
            raise _TooSlow(link.host.name, f"no answer within {timeout_s:g} s") from None

    def _link(self, host: Host) -> _Link:
        link = self._links.get(host.name)
        if link is not None and link.host.vars != host.vars:
            self._replaced.append(link)
            link = None
        if link is None:
            link = self._links[host.name] = _Link(host, Picture(host.name), self._deadlines.of(host))
        return link

    async def _drop_all_but(self, hosts: Mapping[str, Host]) -> None:
        """Hangs up on hosts that have left, and on connections that were made by variables of before."""
        links, self._replaced = self._replaced, []
        links += [self._links.pop(name) for name in [name for name in self._links if name not in hosts]]
        await asyncio.gather(*(_hang_up(link) for link in links))


async def _hang_up(link: _Link) -> None:
    client = link.client
    for task in (link.waiter, link.connecting):
        if task is not None:
            task.cancel()
    link.client = link.waiter = link.connecting = None
    with contextlib.suppress(HostError):
        if client is not None:
            client.close()
        await _close_session(link)


async def _close_session(link: _Link) -> None:
    opening, link.opening = link.opening, None
    if opening is None:
        return
    if not opening.done():
        opening.cancel()
    elif not opening.cancelled() and opening.exception() is None:
        await opening.result().close()


def _has_ended(opening: asyncio.Task[Session] | None) -> bool:
    """Whether this connection was made and has ended since. Streams come by it later than polls do: a port-forward is up for days."""
    if opening is None or not opening.done() or opening.cancelled() or opening.exception() is not None:
        return False
    return opening.result().is_closed


def _look_at(ended: asyncio.Task[Any]) -> None:
    """Nobody may be left to ask how an attempt ended: its host can leave the inventory meanwhile."""
    if not ended.cancelled():
        ended.exception()


def _newer(hello: Hello) -> str:
    """Why this agent is not ours to replace and to command, though we can read it; "" for one of our version or an older one."""
    if tuple(hello.version) <= VERSION:
        return ""
    theirs, ours = (".".join(map(str, version)) for version in (hello.version[:2], VERSION))
    return f"its agent speaks protocol {theirs}, this sshoal {ours}: upgrade sshoal on this machine"


def _kind_of(error: HostError) -> str:
    return next((kind for cls, kind in _KINDS if isinstance(error, cls)), "nonsense")


def _seen(link: _Link) -> Seen:
    """The picture as a sighting, with the events that no controller has taken over yet: what was told before may not be stored."""
    picture, read = link.picture, link.events_read
    assert picture.cursor is not None  # an update came before
    events = (*link.told, *picture.take_events())[-EVENTS_MAX:]
    if read is not None and read.instance == picture.cursor.instance:
        events = tuple(event for event in events if event.sequence > read.sequence)
    link.told, link.told_at = events, picture.cursor
    return Seen(
        picture.agent,
        picture.cursor.instance,
        picture.boot_id,
        picture.boottime_s,
        picture.wall_s,
        picture.version,
        picture.cursor,
        picture.owner,
        dict(picture.pods),
        picture.capacity or Capacity(),
        (*picture.conditions, *([Condition(AGENT_NEWER, "Protocol", link.newer)] if link.newer else ())),
        picture.images,
        events,
        picture.missing_secrets,
        link.skew_s,
        volumes=picture.volumes,
        host_key=link.host_key,
    )


def _covers(read: Cursor | None, told: Cursor | None) -> bool:
    return read is not None and told is not None and read.instance == told.instance and read.sequence >= told.sequence


def joined(before: Usage | None, fresh: Usage) -> Usage:
    """What was known and what came, of containers that are still there; bounded, whatever the agent says."""
    known = {(one.uid, one.container): one.samples for one in before.containers} if before is not None else {}
    node = (*(before.node if before is not None else ()), *fresh.node)[-_USAGE_SAMPLES_MAX:]
    containers = []
    for one in fresh.containers[:_USAGE_CONTAINERS_MAX]:
        samples = (*known.pop((one.uid, one.container), ()), *one.samples)
        containers.append(replace(one, samples=samples[-_USAGE_SAMPLES_MAX:]))
    if not fresh.node and before is not None:  # nobody has looked since
        containers = list(before.containers)
    return replace(fresh, node=node, containers=tuple(containers))
