"""The Transport over paramiko, for hosts of `ansible_connection: paramiko`: servers that asyncssh cannot talk to.

In: a hop and the trusted host keys. Out: a Link, or a HostError. Imported only when a host asks for it. What it shares with
asyncssh's is in hops.py; docs/limits.md says what paramiko does differently. The operator's ssh-agent is never forwarded.

Of ~/.ssh/config it reads HostName, Port, User, IdentityFile and HostKeyAlias; what the inventory says wins.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentSSH

from controller.act import lastaddresses
from controller.act.hops import (
    DEFAULT_KEY_NAMES,
    PLACES,
    SCANNED_ALGORITHMS,
    Hop,
    HoppingTransport,
    ScannedKey,
    host_key_error,
    known_port,
    login_refused,
    not_through_jump,
    os_error,
    throttled,
    unforeseen,
)
from controller.act.hostkeys import SSH_PORT, HostKey, KnownHosts, Trusted
from controller.act.lastaddresses import LastAddresses
from controller.act.paramiko_session import Link, ParamikoSession
from controller.act.transport import AgentPlaces, Session, patiently
from controller.act.userpath import user_path
from controller.model.errors import HostAuthFailed, HostError, HostKeyChanged, HostUnreachable, SshoalError
from controller.model.inventory import Connection, Host
from controller.model.text import printable

# paramiko logs every broken connection with its traceback; what went wrong is in our errors.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class _Place:
    """A hop as ~/.ssh/config completes it."""

    address: str
    port: int
    user: str
    known_as: tuple[str, int]  # the name and port of its line in known_hosts
    identity_files: tuple[str, ...] = ()


@dataclass(slots=True)
class _Progress:
    """How far a connection came, for the words of what went wrong."""

    link: Link | None = None
    trusted: Trusted = field(default_factory=Trusted)
    shown: HostKey | None = None

    @property
    def heard_from_server(self) -> bool:
        return self.link is not None and bool(self.link.ssh.remote_version)


class ParamikoTransport(HoppingTransport[Link]):
    """Transport for all hosts of `ansible_connection: paramiko`."""

    def __init__(
        self,
        known_hosts: KnownHosts,
        *,
        ssh_directory: Path | None = None,
        agent: AgentPlaces = PLACES,
        addresses: LastAddresses | None = None,
    ) -> None:
        super().__init__(known_hosts, ssh_directory=ssh_directory, agent=agent, addresses=addresses)
        self._keys = _ClientKeys(ssh_directory)
        self._read_config: paramiko.SSHConfig | None = None

    def _session(self, host: Host, opened: Link) -> Session:
        return ParamikoSession(host.name, host.connection, opened, self._agent)

    def _is_closed(self, opened: Link) -> bool:
        return opened.is_closed

    async def _end(self, opened: Link) -> None:
        await opened.close()

    async def _attempt(self, host: Host, hop: Hop, tunnel: Link | None) -> Link:
        progress = _Progress()
        try:
            with _errors_of(host, hop, progress):
                place = self._place(host, hop, tunnel)
                offered = self._keys.offered(host.name, hop.connection, place.identity_files)
                async with asyncio.timeout(hop.connection.connect_timeout_s):
                    link = await self._greet(host, hop, place, tunnel, progress)
                    self._verify(host, hop, progress)
                    await link.blocking(lambda: _log_in(host, hop, place, link, offered))
                    # sshd counts a login as under way a little longer than we; once it answers, it no longer does (MaxStartups).
                    await link.sign_of_life()
                    if tunnel is None:
                        self._addresses.remember(place.address, link.peer)
        except BaseException:
            if progress.link is not None:
                await progress.link.close()
            raise
        link.user = place.user
        link.keep_alive()
        return link

    async def _scan(self, host: Host, hop: Hop, tunnel: Link | None) -> ScannedKey:
        with _errors_of(host, hop, _Progress()):
            place = self._place(host, hop, tunnel)

        async def attempt() -> _Progress:
            progress = _Progress()
            try:
                with _errors_of(host, hop, progress):
                    async with asyncio.timeout(hop.connection.connect_timeout_s):
                        await self._greet(host, hop, place, tunnel, progress)
            finally:
                if progress.link is not None:
                    await progress.link.close()
            return progress

        progress = await patiently(attempt)
        if progress.shown is None:
            raise HostUnreachable(host.name, f"{hop.name} shows no host key")
        return ScannedKey(*place.known_as, progress.shown, progress.trusted)

    async def _greet(self, host: Host, hop: Hop, place: _Place, tunnel: Link | None, progress: _Progress) -> Link:
        """Connects and agrees upon keys: the server has proved to have `progress.shown`."""
        timeout_s = hop.connection.connect_timeout_s
        progress.trusted = self._known_hosts.trusted(*place.known_as, hop.connection.known_hosts_files)
        carrier = await self._reach(place, tunnel, timeout_s)
        progress.link = link = Link(host.name, carrier, timeout_s)
        link.ssh.get_security_options().key_types = _asked_for(progress.trusted)
        await link.blocking(link.ssh.start_client)
        key = link.ssh.get_remote_server_key()
        progress.shown = HostKey(key.get_name(), key.get_base64())
        return link

    async def _reach(self, place: _Place, tunnel: Link | None, timeout_s: float) -> socket.socket | paramiko.Channel:
        if tunnel is not None:
            return await tunnel.open_channel("direct-tcpip", timeout_s, (place.address, place.port))
        try:
            return await _connect(place)
        except socket.gaierror:
            last = self._addresses.of(place.address)
            if last is None:
                raise
            return await lastaddresses.connect(last, asyncio.get_running_loop())

    def _verify(self, host: Host, hop: Hop, progress: _Progress) -> None:
        shown, trusted = progress.shown, progress.trusted
        if shown in trusted.revoked:
            raise host_key_error(host, hop, trusted, shown, "revoked")
        if shown not in trusted.keys:
            raise host_key_error(host, hop, trusted, shown)

    def _place(self, host: Host, hop: Hop, tunnel: Link | None) -> _Place:
        said = self._configured(host, hop.address)
        proxies = [said[word] for word in said if word in ("proxyjump", "proxycommand")]  # the first one holds
        if tunnel is None and proxies and proxies[0].lower() != "none":
            raise HostError(
                host.name,
                f"~/.ssh/config has a proxy for {hop.address}, which is not read for ansible_connection=paramiko",
                hint="say it in the inventory: ansible_ssh_common_args='-J …'",
            )
        address = said.get("hostname", hop.address)
        port_said = said.get("port", str(SSH_PORT))
        if not (port_said.isascii() and port_said.isdigit()):
            raise HostError(host.name, f"~/.ssh/config: Port {printable(port_said, 40)} is no number")
        port = hop.port if hop.port != SSH_PORT else int(port_said)
        alias = hop.connection.host_key_alias or said.get("hostkeyalias")
        return _Place(
            address,
            port,
            hop.user or said.get("user") or getpass.getuser(),
            (alias, SSH_PORT) if alias else (address, known_port(hop.connection, port)),
            tuple(said.get("identityfile", ())),
        )

    def _configured(self, host: Host, address: str) -> dict[str, Any]:
        if self._config is None:
            return {}
        try:
            if self._read_config is None:
                self._read_config = paramiko.SSHConfig.from_path(self._config)
            return dict(self._read_config.lookup(address))
        except (paramiko.SSHException, OSError, ImportError, ValueError) as error:
            raise HostError(host.name, f"~/.ssh/config: {printable(str(error))}") from None


def _asked_for(trusted: Trusted) -> tuple[str, ...]:
    """Types of host keys, those that are trusted first. A server that has none of these shows another, and so shows that it changed."""
    types = {key.type for key in trusted.keys}
    if "ssh-rsa" in types:
        types |= {"rsa-sha2-512", "rsa-sha2-256"}
    return tuple(sorted(SCANNED_ALGORITHMS, key=lambda name: name not in types))


async def _connect(place: _Place) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: OSError = OSError(f"{place.address} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        place.address, place.port, type=socket.SOCK_STREAM
    ):
        connecting = socket.socket(family, kind, protocol)
        try:
            connecting.setblocking(False)
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(connecting, address)
            return connecting
        except OSError as error:
            connecting.close()
            failure = error
        except BaseException:
            connecting.close()
            raise
    raise failure


def _log_in(host: Host, hop: Hop, place: _Place, link: Link, offered: _Offered) -> None:
    """In a thread: keys, the agent's keys, then the password; each is tried once. Raises HostAuthFailed, or what paramiko raises."""
    reason = f"Permission denied for user {place.user} on host {place.address}"
    with offered.with_agent(hop.connection.connect_timeout_s) as keys:
        for key in keys:
            if _lets_in(link, lambda key=key: link.ssh.auth_publickey(place.user, key)):  # type: ignore[misc]
                return
            if not link.ssh.is_active():  # MaxAuthTries: too many of our keys were wrong
                raise login_refused(host, hop, "Too many authentication failures")
    password = hop.connection.password
    if password is not None and _lets_in(link, lambda: link.ssh.auth_password(place.user, password.reveal())):
        return
    raise login_refused(host, hop, reason)


def _lets_in(link: Link, attempt: Callable[[], list[str]]) -> bool:
    """Raises EOFError when the connection broke before the server said anything: that is no refusal."""
    try:
        return not attempt()  # what else the server wants
    except paramiko.AuthenticationException:
        if link.ssh.is_active() or link.ssh.has_refused:
            return False
        raise EOFError("the connection broke") from None


@contextlib.contextmanager
def _errors_of(host: Host, hop: Hop, progress: _Progress) -> Iterator[None]:
    """Everything that connecting raises → HostErrors, in one place."""
    where = hop.place(host)
    try:
        yield
    except SshoalError:
        raise
    except TimeoutError:
        raise HostUnreachable(host.name, f"{where}: no answer within {hop.connection.connect_timeout_s:g} s") from None
    except paramiko.IncompatiblePeer as error:
        raise HostUnreachable(host.name, f"{where}: no common algorithm: {printable(str(error))}") from None
    except paramiko.ChannelException as error:
        raise not_through_jump(host, hop, error.text) from None
    except (EOFError, ConnectionResetError, BrokenPipeError, paramiko.SSHException) as error:
        said = str(error)
        if progress.heard_from_server:
            if isinstance(error, paramiko.SSHException) and "signature" in said:
                raise HostKeyChanged(host.name, f"the host key of {hop.name} is not valid: {printable(said)}") from None
            raise HostUnreachable(host.name, f"{where}: connection lost while logging in") from error
        if isinstance(error, paramiko.SSHException) and "protocol banner" not in said:
            raise HostUnreachable(host.name, f"{where}: {printable(said)}") from error
        raise throttled(host, hop) from error
    except OSError as error:
        raise os_error(host, hop, error) from error
    except Exception as error:
        raise unforeseen(host, hop, error) from error


@dataclass(frozen=True, slots=True)
class _Offered:
    """What we may log in with, besides a password."""

    keys: tuple[paramiko.PKey, ...]
    agent_path: str = ""  # of the ssh-agent whose keys are offered too

    @contextlib.contextmanager
    def with_agent(self, timeout_s: float) -> Iterator[tuple[paramiko.PKey, ...]]:
        if not self.agent_path:
            yield self.keys
            return
        with _Agent(self.agent_path, timeout_s) as agents:
            known = {key.asbytes() for key in self.keys}
            yield self.keys + tuple(key for key in agents if key.asbytes() not in known)


class _Agent(AgentSSH):  # type: ignore[misc]  # paramiko has no types
    """The keys of the ssh-agent; none when it does not answer in time. paramiko's own waits for ever."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        self._path = path

    def __enter__(self) -> tuple[paramiko.PKey, ...]:
        try:
            self._socket.connect(self._path)
            self._connect(self._socket)
        except (OSError, paramiko.SSHException):
            return ()
        return tuple(self.get_keys())

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class _ClientKeys:
    """Private keys, each read once. What could not be read is tried again: the next host may have the passphrase."""

    def __init__(self, ssh_directory: Path | None) -> None:
        self._directory = ssh_directory
        self._read: dict[str, tuple[paramiko.PKey, ...]] = {}

    def offered(self, host_name: str, connection: Connection, identity_files: tuple[str, ...]) -> _Offered:
        """A key that the inventory names is the only one offered: servers count failures.

        Raises HostAuthFailed when that key cannot be used.
        """
        agent_path = os.environ.get("SSH_AUTH_SOCK", "") if self._directory else ""
        if connection.private_key_file:
            keys = self._named(host_name, connection, may_use_agent=bool(agent_path))
            return _Offered(keys) if keys else _Offered((), agent_path)
        paths = [user_path(name) for name in identity_files]
        if not paths and self._directory:
            paths = [self._directory / name for name in DEFAULT_KEY_NAMES]
        return _Offered(tuple(key for path in paths if path.is_file() for key in self._read_or_skip(path)), agent_path)

    def _named(self, host_name: str, connection: Connection, *, may_use_agent: bool) -> tuple[paramiko.PKey, ...]:
        path = str(user_path(connection.private_key_file or "").absolute())
        if path in self._read:
            return self._read[path]
        passphrase = connection.private_key_passphrase
        try:
            self._read[path] = _read_key(path, passphrase.reveal() if passphrase else None)
        except OSError as error:
            raise HostAuthFailed(
                host_name, f"{path}: {error.strerror}", hint="ansible_ssh_private_key_file names it"
            ) from None
        except (TypeError, paramiko.PasswordRequiredException):
            if not may_use_agent:
                raise HostAuthFailed(
                    host_name, f"{path} has a passphrase, and no ssh-agent runs", hint=f"ssh-add {path}"
                ) from None
            return ()
        except (ValueError, paramiko.SSHException, paramiko.UnknownKeyType) as error:
            if passphrase is not None and b"PRIVATE KEY" in Path(path).read_bytes():
                raise HostAuthFailed(host_name, f"{path}: the passphrase does not open it") from None
            raise HostAuthFailed(host_name, f"{path} is not a private key: {printable(str(error))}") from None
        return self._read[path]

    def _read_or_skip(self, path: Path) -> tuple[paramiko.PKey, ...]:
        name = str(path)
        if name not in self._read:
            try:
                self._read[name] = _read_key(name, None)
            except (TypeError, ValueError, OSError, paramiko.SSHException, paramiko.UnknownKeyType):
                return ()  # unreadable, or it wants a passphrase: the ssh-agent may have it
        return self._read[name]


def _read_key(path: str, passphrase: str | None) -> tuple[paramiko.PKey, ...]:
    """The key; with its certificate first where one lies beside it. Raises TypeError when it wants a passphrase."""
    password = passphrase.encode() if passphrase is not None else None  # text is refused by what reads it for paramiko
    try:
        key = paramiko.PKey.from_path(path, password)
    except TypeError:
        if password is None:
            raise
        password = None  # it has none
        key = paramiko.PKey.from_path(path)
    if key.public_blob is None:
        return (key,)
    plain = paramiko.PKey.from_path(path, password)
    plain.public_blob = None
    return key, plain
