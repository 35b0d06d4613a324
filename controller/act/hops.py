"""The way to a host, whichever SSH library goes it: jump hosts, places at a server's door, patience, and the words of what can go wrong.

In: a Host of the inventory and the trusted host keys. Out: Sessions, or a HostError that says what is wrong and what to do.
No retry here but Throttled (transport.patiently); no host key is ever accepted unasked. ssh.py and paramiko_transport.py connect.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from controller.act.hostkeys import SSH_PORT, HostKey, KnownHosts, Trusted
from controller.act.lastaddresses import LastAddresses
from controller.act.transport import AgentPlaces, LoginRefused, Session, Throttled, patiently
from controller.model.errors import HostAuthFailed, HostError, HostKeyChanged, HostKeyUnknown, HostUnreachable
from controller.model.inventory import Connection, Host
from controller.model.text import printable

# Per target address. MaxStartups begins to refuse at 10 (FAULTS, fact 6), and sshd counts a login as under way a little longer than we do.
UNAUTHENTICATED_MAX = 6
CONNECT_DEADLINE_FACTOR = 3  # all attempts together, with the waiting for a place at the target, in connect timeouts
KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT_MAX = 15, 3
PLACES = AgentPlaces()
DEFAULT_KEY_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")

# The key a scan asks for first, in this order; plain keys only, since a certificate is trusted through its authority.
SCANNED_ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)

C = TypeVar("C")  # an authenticated connection of the library


@dataclass(frozen=True, slots=True)
class ScannedKey:
    """The key that a server shows, and what is trusted at its address so far."""

    host: str  # as known_hosts names it
    port: int
    key: HostKey
    trusted: Trusted

    @property
    def is_trusted(self) -> bool:
        return self.key in self.trusted.keys


@dataclass(frozen=True, slots=True)
class SharedJump:
    """Which hosts share a connection to a jump host: those that would log in there alike, see jump_hop. Timeouts apart.

    A passphrase counts by whether there is one: secrets can't be compared, and a key file that one opened is open for all.
    """

    jumps: tuple[str, ...]
    private_key_file: str | None
    has_passphrase: bool
    known_hosts_files: tuple[str, ...]

    @classmethod
    def of(cls, jumps: tuple[str, ...], connection: Connection) -> SharedJump:
        has_passphrase = connection.private_key_passphrase is not None
        return cls(jumps, connection.private_key_file, has_passphrase, connection.known_hosts_files)


@dataclass(frozen=True, slots=True)
class Hop:
    """One server on the way: the host itself or a jump host before it."""

    name: str  # for messages
    address: str
    port: int
    user: str | None
    connection: Connection

    def place(self, host: Host) -> str:
        """Where it is, for messages about `host`."""
        return f"{self.address} port {self.port}" if self.name == host.name else self.name


class HoppingTransport(ABC, Generic[C]):
    """Connects hop by hop. Jump hosts are connected to once for each way to log in there, and shared; close() ends those."""

    def __init__(
        self,
        known_hosts: KnownHosts,
        *,
        ssh_directory: Path | None = None,
        agent: AgentPlaces = PLACES,
        addresses: LastAddresses | None = None,
    ) -> None:
        """`ssh_directory`: where config and default keys are, usually ~/.ssh; None: neither is used."""
        self._known_hosts = known_hosts
        self._addresses = addresses or LastAddresses()
        self._agent = agent
        config = ssh_directory / "config" if ssh_directory else None
        self._config = str(config) if config and config.is_file() else None
        self._gates: dict[tuple[str, int], asyncio.Semaphore] = {}
        self._bastions: dict[SharedJump, asyncio.Task[C]] = {}

    @abstractmethod
    async def _attempt(self, host: Host, hop: Hop, tunnel: C | None) -> C:
        """One login at `hop`, through `tunnel`; within its connect timeout. Raises HostErrors only."""

    @abstractmethod
    async def _scan(self, host: Host, hop: Hop, tunnel: C | None) -> ScannedKey:
        """The key that `hop` shows; no login. Raises HostErrors only."""

    @abstractmethod
    def _session(self, host: Host, opened: C) -> Session: ...

    @abstractmethod
    def _is_closed(self, opened: C) -> bool: ...

    @abstractmethod
    async def _end(self, opened: C) -> None:
        """Ends a connection to a jump host, at once."""

    async def connect(self, host: Host) -> Session:
        connection = host.connection
        tunnel = await self._bastion(host, connection.proxy_jump)
        opened = await self._open(host, target(host, connection), tunnel)
        return self._session(host, opened)

    async def scan_host_key(self, host: Host) -> ScannedKey:
        """The key of the first server on the way to `host` that is not trusted yet (a jump host comes before the host itself).

        One connection and no login: servers penalise more (PerSourcePenalties).
        """
        connection = host.connection
        for position in range(len(connection.proxy_jump)):
            jump = jump_hop(connection.proxy_jump[position], connection)
            scanned = await self._scan(host, jump, await self._bastion(host, connection.proxy_jump[:position]))
            if not scanned.is_trusted:
                return scanned
        return await self._scan(host, target(host, connection), await self._bastion(host, connection.proxy_jump))

    async def close(self) -> None:
        """Ends the connections to jump hosts; may be called twice."""
        openings = [*self._bastions.values()]
        self._bastions.clear()
        for opening in openings:
            if not opening.cancel() and not self._is_lost(opening):
                await self._end(opening.result())
        await asyncio.gather(*openings, return_exceptions=True)

    async def _bastion(self, host: Host, jumps: tuple[str, ...]) -> C | None:
        """The shared connection to the last of `jumps`. One attempt serves all who wait for it: a dead jump host costs one deadline."""
        if not jumps:
            return None
        key = SharedJump.of(jumps, host.connection)
        opening = self._bastions.get(key)
        if opening is None or (opening.done() and self._is_lost(opening)):
            opening = asyncio.create_task(self._open_bastion(host, jumps))
            opening.add_done_callback(self._is_lost)  # its exception is looked at even when nobody waits any more
            self._bastions[key] = opening
        try:
            return await asyncio.shield(opening)
        except HostError as error:
            raise type(error)(host.name, error.problem, hint=error.hint) from None

    async def _open_bastion(self, host: Host, jumps: tuple[str, ...]) -> C:
        before = await self._bastion(host, jumps[:-1])
        return await self._open(host, jump_hop(jumps[-1], host.connection), before)

    async def _open(self, host: Host, hop: Hop, tunnel: C | None) -> C:
        gate = self._gates.setdefault((hop.address, hop.port), asyncio.Semaphore(UNAUTHENTICATED_MAX))

        async def attempt() -> C:
            async with gate:
                return await self._attempt(host, hop, tunnel)

        limit_s = CONNECT_DEADLINE_FACTOR * hop.connection.connect_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await patiently(attempt)
        except TimeoutError:
            raise HostUnreachable(host.name, f"{hop.name}: no login within {limit_s:g} s") from None

    def _is_lost(self, opening: asyncio.Task[C]) -> bool:
        return opening.cancelled() or opening.exception() is not None or self._is_closed(opening.result())


def target(host: Host, connection: Connection) -> Hop:
    return Hop(host.name, connection.address, connection.port, connection.user, connection)


def jump_hop(jump: str, connection: Connection) -> Hop:
    """`[user@]host[:port]`. Keys and timeouts are those of the host behind it; its password is not shown to the jump host."""
    user, _, place = jump.rpartition("@")
    address, port = place, SSH_PORT
    if place.startswith("["):
        address, _, rest = place[1:].partition("]")
        port = int(rest.removeprefix(":") or SSH_PORT)
    elif place.count(":") == 1:
        address, _, digits = place.partition(":")
        port = int(digits)
    plain = Connection(
        address,
        port,
        private_key_file=connection.private_key_file,
        private_key_passphrase=connection.private_key_passphrase,
        known_hosts_files=connection.known_hosts_files,
        connect_timeout_s=connection.connect_timeout_s,
    )
    return Hop(f"jump host {place}", address, port, user or None, plain)


def known_port(inventory: Connection, port: int | None) -> int:
    """The port in known_hosts: an alias stands there alone, whatever the port."""
    return SSH_PORT if inventory.host_key_alias or port is None else port


def login_refused(host: Host, hop: Hop, reason: str) -> HostAuthFailed:
    return LoginRefused(
        host.name,
        f"{hop.place(host)} refuses the login{f' as {hop.user}' if hop.user else ''}: {printable(reason)}",
        hint="check ansible_user and ansible_ssh_private_key_file, and that the public key is in authorized_keys there",
    )


def throttled(host: Host, hop: Hop) -> Throttled:
    return Throttled(
        host.name,
        f"{hop.place(host)} hangs up before the login",
        hint="its sshd limits or bans new connections (MaxStartups, PerSourcePenalties, fail2ban); it passes by itself",
    )


def not_through_jump(host: Host, hop: Hop, reason: str) -> HostUnreachable:
    return HostUnreachable(
        host.name, f"{hop.address} port {hop.port} is not reachable from its jump host: {printable(reason)}"
    )


def os_error(host: Host, hop: Hop, error: OSError) -> HostError:
    """Of the network, or, if it names a file, of this machine's: known hosts, ~/.ssh/config, the program of a ProxyCommand."""
    if error.filename is not None:
        return HostError(host.name, f"{error.filename}, on this machine: {error.strerror}")
    return HostUnreachable(host.name, f"{hop.place(host)}: {printable(error.strerror or str(error))}")


def unforeseen(host: Host, hop: Hop, error: Exception) -> HostUnreachable:
    """What no library says it raises: of a name that can't be one, or of bytes that no server should send."""
    return HostUnreachable(host.name, f"{hop.place(host)}: {type(error).__name__}: {printable(str(error))}")


def host_key_error(host: Host, hop: Hop, trusted: Trusted, shown: HostKey | None, reason: str = "") -> HostError:
    """`shown`: the key that is not trusted; None when the server showed nothing that is a key."""
    if "revoked" in reason:
        return HostKeyChanged(host.name, f"{hop.name} shows a host key that is revoked here")
    if trusted.keys and shown:
        known = ", ".join(map(str, trusted.keys))
        return HostKeyChanged(
            host.name,
            f"the host key of {hop.name} has changed: trusted is {known}; it shows {shown}",
            hint="no command was sent. Was it reinstalled? Compare on its console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
            f"then: sshoal node trust {host.name}",
        )
    if shown is None:
        return HostKeyChanged(host.name, f"the host key of {hop.name} is not valid: {printable(reason)}")
    return HostKeyUnknown(
        host.name,
        f"the host key of {hop.name} is not trusted yet: {shown}",
        hint=f"compare it with the host's own, then: sshoal node trust {host.name}",
    )
