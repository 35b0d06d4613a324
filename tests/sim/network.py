"""The simulated network between controllers and hosts: production code talks through Transport, Session and Channel as over SSH.

A link that is down swallows nothing: as TCP does, it delivers late when it comes up again, unless the connection was reset meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from controller.act.transport import Completed
from controller.model.errors import HostNotReady, HostUnreachable
from controller.model.inventory import Host
from tests.sim.host import SimHost

CONNECT_TIMEOUT_S = 10.0


class Pipe:
    """Bytes in one direction."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._news = asyncio.Event()
        self.ended = False
        self.broken = False

    def arrive(self, data: bytes) -> None:
        self._chunks.append(data)
        self._news.set()

    def end(self) -> None:
        self.ended = True
        self._news.set()

    def reset(self) -> None:
        self.broken = True
        self._news.set()

    async def read(self) -> bytes:
        while not self._chunks and not self.ended and not self.broken:
            self._news.clear()
            await self._news.wait()
        if self.broken:
            raise ConnectionResetError("connection reset")
        data = b"".join(self._chunks)
        self._chunks.clear()
        return data


class Link:
    """The way from one controller process to one host."""

    def __init__(self, host: SimHost, rng: random.Random) -> None:
        self._host = host
        self._rng = rng
        self.up = True
        self._stalled = False
        self.stalls_at = b""  # what makes this link stall when it is sent
        self._held: list[Callable[[], None]] = []
        self._last_s = 0.0

    def carry(self, deliver: Callable[[], None]) -> None:
        """Delivers after the latency, in order; held back while the link is down."""
        loop = asyncio.get_running_loop()
        self._last_s = max(self._last_s, loop.time() + self._rng.uniform(0.0005, 0.01))
        loop.call_at(self._last_s, self._deliver, deliver)

    def look_at(self, data: bytes) -> None:
        """Stalls just before the words that it was told to wait for."""
        if self.stalls_at and self.stalls_at in data:
            self._stalled, self.stalls_at = True, b""

    def heal(self) -> None:
        """The network is there again; a way that stalled stays stalled."""
        self.up = True
        self._flush()

    def unstall(self) -> None:
        self._stalled, self.stalls_at = False, b""
        self._flush()

    def _flush(self) -> None:
        if self.up and not self._stalled:
            held, self._held = self._held, []
            for deliver in held:
                deliver()

    def drop(self) -> None:
        """What was under way to or from a host that lost power is gone."""
        self._held.clear()

    def _deliver(self, deliver: Callable[[], None]) -> None:
        if self.up and not self._stalled and self._host.up:
            deliver()
        else:
            self._held.append(deliver)


class SimChannel:
    """act.transport.Channel: the controller's end."""

    def __init__(self, host: str, link: Link, out: Pipe, back: Pipe) -> None:
        self._host, self._link, self._out, self._back = host, link, out, back

    async def read(self) -> bytes:
        try:
            return await self._back.read()
        except ConnectionResetError as error:
            raise HostUnreachable(self._host, str(error)) from None

    async def write(self, data: bytes) -> None:
        if self._out.broken:
            raise HostUnreachable(self._host, "connection reset")
        self._link.look_at(data)
        self._link.carry(lambda: self._out.arrive(data))

    def close(self) -> None:
        self._link.carry(self._out.end)


class _AgentEnd:
    """The agent's end: reader and writer in one."""

    def __init__(self, link: Link, out: Pipe, back: Pipe) -> None:
        self._link, self._out, self._back = link, out, back

    async def read(self, _: int) -> bytes:
        return await self._out.read()

    def write(self, data: bytes) -> None:
        self._link.carry(lambda: self._back.arrive(data))

    async def drain(self) -> None:
        if self._back.broken:
            raise ConnectionResetError

    def close(self) -> None:
        self._link.carry(self._back.end)


class SimSession:
    """act.transport.Session over a link. Every connection of a host dies with the host, and with its agent."""

    def __init__(self, network: Network, host: SimHost) -> None:
        self._network, self._host = network, host
        self._pipes: list[tuple[Link, Pipe, Pipe]] = []

    @property
    def host_key(self) -> str:
        return self._host.key

    @property
    def is_closed(self) -> bool:
        return False  # as long as nobody has noticed

    async def open_channel(self, timeout_s: float) -> SimChannel:
        link = await self._network.reach(self._host, timeout_s)
        out, back = Pipe(), Pipe()
        end: Any = _AgentEnd(link, out, back)
        if not self._host.converse(end, end):
            raise HostNotReady(self._host.name, "no agent answers")
        self._network.pipes.setdefault(self._host.name, []).extend((out, back))
        self._pipes.append((link, out, back))
        return SimChannel(self._host.name, link, out, back)

    async def run(self, script: str, *, stdin: bytes = b"", become: bool, timeout_s: float) -> Completed:
        raise NotImplementedError("the simulation installs agents by its own deployer")

    async def close(self) -> None:
        """What was sent before may still arrive: the host's end hears of the end last."""
        for link, out, back in self._pipes:
            back.reset()
            link.carry(out.end)


class Network:
    """One controller process's view of all hosts; act.transport.Transport."""

    def __init__(self, hosts: dict[str, SimHost], rng: random.Random) -> None:
        self._hosts = hosts
        self._rng = rng
        self.links = {name: Link(host, rng) for name, host in hosts.items()}
        self._former: dict[str, list[Link]] = {name: [] for name in hosts}
        self.pipes: dict[str, list[Pipe]] = {}
        self.attempts: list[str] = []  # a host's name for each attempt to connect to it

    async def connect(self, host: Host) -> SimSession:
        self.attempts.append(host.name)
        target = self._hosts[host.name]
        await self.reach(target, CONNECT_TIMEOUT_S)
        return SimSession(self, target)

    def stall(self, name: str, words: bytes) -> Link:
        """Connections of this moment stall when `words` are sent; new ones take another way. Out: the stalled way, to be healed."""
        link, fresh = self.links[name], Link(self._hosts[name], self._rng)
        fresh.up = link.up
        self.links[name] = fresh
        self._former[name].append(link)
        link.stalls_at = words
        return link

    def ways(self, name: str) -> list[Link]:
        """All links to a host that connections may still use."""
        return [*self._former[name], self.links[name]]

    async def reach(self, host: SimHost, timeout_s: float) -> Link:
        """One round trip. Raises HostUnreachable after the time-out when nothing answers."""
        await asyncio.sleep(self._rng.uniform(0.005, 0.05))
        link = self.links[host.name]
        if not (link.up and host.up):
            await asyncio.sleep(timeout_s)
            raise HostUnreachable(host.name, f"no connection within {timeout_s:g} s")
        return link

    def reset(self, name: str) -> None:
        """All connections to a host are gone, and both ends know it."""
        for way in self.ways(name):
            way.drop()
        for pipe in self.pipes.pop(name, []):
            pipe.reset()
