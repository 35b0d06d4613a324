"""The Transport over asyncssh. The only importer of asyncssh, with ssh_session.py. What it shares with paramiko's is in hops.py.

In: a hop and the trusted host keys. Out: a connection of asyncssh, or a HostError. The operator's ssh-agent is never forwarded.

~/.ssh/config is read where it exists (HostName, Port, User, IdentityFile, IdentityAgent, ciphers …); what the inventory says wins.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from controller.act import lastaddresses
from controller.act.asyncssh_import import asyncssh
from controller.act.hops import (
    DEFAULT_KEY_NAMES,
    KEEPALIVE_COUNT_MAX,
    KEEPALIVE_INTERVAL_S,
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
from controller.act.ssh_session import AsyncsshSession
from controller.act.transport import AgentPlaces, Session, patiently
from controller.act.userpath import user_path
from controller.model.errors import HostAuthFailed, HostError, HostKeyUnknown, HostUnreachable, SshoalError
from controller.model.inventory import Connection, Host
from controller.model.text import printable

DEFAULTS = Path(__file__).with_name("ssh_defaults.conf")


class AsyncsshTransport(HoppingTransport[asyncssh.SSHClientConnection]):
    """Transport for all hosts of `ansible_connection: ssh`."""

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
        self._configs = [*([self._config] if self._config else []), str(DEFAULTS)]

    def _session(self, host: Host, opened: asyncssh.SSHClientConnection) -> Session:
        return AsyncsshSession(host.name, host.connection, opened, self._agent)

    def _is_closed(self, opened: asyncssh.SSHClientConnection) -> bool:
        return opened.is_closed()

    async def _end(self, opened: asyncssh.SSHClientConnection) -> None:
        opened.abort()

    async def _attempt(
        self, host: Host, hop: Hop, tunnel: asyncssh.SSHClientConnection | None
    ) -> asyncssh.SSHClientConnection:
        client = _Client(self._known_hosts, hop.connection)
        options = self._options(host, hop)
        try:
            with _errors_of(host, hop, client):
                async with asyncio.timeout(hop.connection.connect_timeout_s):
                    return await self._log_in(hop, tunnel, client, options)
        except HostUnreachable:
            if client.key_was_refused:
                scanned = await self._scan(host, hop, tunnel)
                if not scanned.is_trusted:
                    client.shown = scanned.key
                    raise host_key_error(host, hop, client.trusted, client.shown) from None
            raise

    async def _log_in(
        self, hop: Hop, tunnel: asyncssh.SSHClientConnection | None, client: _Client, options: dict[str, Any]
    ) -> asyncssh.SSHClientConnection:
        connect = partial(
            asyncssh.connect,
            hop.address,
            hop.port if hop.port != SSH_PORT else (),  # the default leaves ~/.ssh/config its say
            client_factory=lambda: client,
            known_hosts=client.trusted_keys,
            tunnel=tunnel if tunnel is not None else (),
            config=self._configs,
            **options,
        )
        try:
            opened = await connect()
        except socket.gaierror:
            place = self._addresses.of(hop.address) if tunnel is None else None
            if place is None:
                raise
            opened = await connect(sock=await lastaddresses.connect(place, asyncio.get_running_loop()))
        if tunnel is None:
            self._addresses.remember(hop.address, opened.get_extra_info("peername"))
        return opened

    def _options(self, host: Host, hop: Hop) -> dict[str, Any]:
        connection = hop.connection
        options: dict[str, Any] = {
            "username": hop.user or (),
            **self._keys.options(host.name, connection, self._config is not None),
            "agent_forwarding": False,
            "x11_forwarding": False,
            "gss_kex": False,
            "gss_auth": False,
            "host_based_auth": False,
            "keepalive_interval": KEEPALIVE_INTERVAL_S,
            "keepalive_count_max": KEEPALIVE_COUNT_MAX,
            "login_timeout": connection.connect_timeout_s,
            "x509_trusted_certs": None,
            "x509_trusted_cert_paths": None,
            "password_auth": connection.password is not None,
            "kbdint_auth": connection.password is not None,
        }
        if connection.password is not None:
            options["password"] = connection.password.reveal()
        if connection.host_key_alias:
            options["host_key_alias"] = connection.host_key_alias
        return options

    async def _scan(self, host: Host, hop: Hop, tunnel: asyncssh.SSHClientConnection | None) -> ScannedKey:
        seen: list[tuple[str, int]] = []

        def remember(name: str, address: str, port: int | None) -> tuple[list[bytes], list[bytes], list[bytes]]:
            seen.append((name, known_port(hop.connection, port)))
            return [], [], []

        client = _Client(self._known_hosts, hop.connection)

        async def attempt() -> None:
            with _errors_of(host, hop, client):
                async with asyncio.timeout(hop.connection.connect_timeout_s):
                    refused = await asyncssh.connect(
                        hop.address,
                        hop.port if hop.port != SSH_PORT else (),
                        client_factory=lambda: client,
                        known_hosts=remember,
                        tunnel=tunnel if tunnel is not None else (),
                        config=self._configs,
                        client_keys=None,
                        host_key_alias=hop.connection.host_key_alias or (),
                        server_host_key_algs=[*SCANNED_ALGORITHMS],
                    )
                    refused.abort()  # not reached: an empty list of trusted keys refuses every server

        with contextlib.suppress(HostKeyUnknown):
            await patiently(attempt)
        if client.shown is None:
            raise HostUnreachable(host.name, f"{hop.name} shows no host key")
        name, port = seen[-1]
        with _errors_of(host, hop, client):
            trusted = self._known_hosts.trusted(name, port, hop.connection.known_hosts_files)
        return ScannedKey(name, port, client.shown, trusted)


class _Client(asyncssh.SSHClient):
    """What one connection attempt learns: whether the server said who it is, which key it showed, what is trusted there."""

    def __init__(self, known_hosts: KnownHosts, inventory: Connection) -> None:
        self._known_hosts = known_hosts
        self._inventory = inventory
        self._connection: asyncssh.SSHClientConnection | None = None
        self.trusted = Trusted()
        self.shown: HostKey | None = None
        self.hung_up = False

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn

    @property
    def heard_from_server(self) -> bool:
        return self._connection is not None and bool(self._connection.get_extra_info("server_version"))

    @property
    def key_was_refused(self) -> bool:
        """The server hung up while keys were agreed upon: perhaps it has no key of the types that are trusted, and just went."""
        verified = self._connection is not None and self._connection.get_server_host_key() is not None
        return self.hung_up and self.heard_from_server and bool(self.trusted.keys) and not verified

    def trusted_keys(
        self, name: str, address: str, port: int | None
    ) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
        """asyncssh's known_hosts callable: trusted keys, authorities, revoked keys."""
        self.trusted = self._known_hosts.trusted(
            name, known_port(self._inventory, port), self._inventory.known_hosts_files
        )
        return _readable(self.trusted.keys), _readable(self.trusted.authorities), _readable(self.trusted.revoked)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Asked only for keys that are not trusted: remembered for the message, and refused."""
        type_, blob = key.export_public_key("openssh").decode().split()[:2]
        self.shown = HostKey(type_, blob)
        return False


def _readable(keys: Sequence[HostKey]) -> list[asyncssh.SSHKey]:
    """As asyncssh takes them. One that it can't read, a damaged line or a type of the future, is passed over, as ssh does it."""
    found = []
    for key in keys:
        with contextlib.suppress(asyncssh.KeyImportError):
            found.append(asyncssh.import_public_key(f"{key.type} {key.base64}"))
    return found


@contextlib.contextmanager
def _errors_of(host: Host, hop: Hop, client: _Client) -> Iterator[None]:
    """Everything that connecting raises → HostErrors, in one place."""
    where = hop.place(host)
    try:
        yield
    except SshoalError:
        raise
    except TimeoutError:
        raise HostUnreachable(host.name, f"{where}: no answer within {hop.connection.connect_timeout_s:g} s") from None
    except asyncssh.HostKeyNotVerifiable as error:
        raise host_key_error(host, hop, client.trusted, client.shown, str(error)) from None
    except asyncssh.PermissionDenied as error:
        raise login_refused(host, hop, error.reason) from None
    except asyncssh.KeyExchangeFailed as error:
        client.hung_up = True
        raise HostUnreachable(host.name, f"{where}: no common algorithm: {printable(error.reason)}") from None
    except asyncssh.ChannelOpenError as error:
        raise not_through_jump(host, hop, error.reason) from None
    except (asyncssh.ConnectionLost, ConnectionResetError, BrokenPipeError) as error:
        client.hung_up = True
        if client.heard_from_server:
            raise HostUnreachable(host.name, f"{where}: connection lost while logging in") from error
        raise throttled(host, hop) from error
    except asyncssh.ConfigParseError as error:
        raise HostError(host.name, f"~/.ssh/config: {printable(str(error))}") from None
    except asyncssh.Error as error:
        if "authentication failures" in error.reason:  # MaxAuthTries: too many of our keys were wrong
            raise login_refused(host, hop, error.reason) from None
        raise HostUnreachable(host.name, f"{where}: {printable(error.reason)}") from error
    except OSError as error:
        raise os_error(host, hop, error) from error
    except Exception as error:
        raise unforeseen(host, hop, error) from error


class _ClientKeys:
    """Private keys, each read once; what was not opened is tried again with the next host's passphrase.

    SSHKey rather than key pairs are kept: pairs carry the state of one login.
    """

    def __init__(self, ssh_directory: Path | None) -> None:
        self._directory = ssh_directory
        self._read: dict[str, list[Any]] = {}
        self._defaults: list[Any] | None = None

    def options(self, host_name: str, connection: Connection, config_decides: bool) -> dict[str, Any]:
        """asyncssh's options. A key that the inventory names is the only one offered: servers count failures.

        Raises HostAuthFailed when that key cannot be used.
        """
        agent_path = os.environ.get("SSH_AUTH_SOCK", "") if self._directory else ""
        if connection.private_key_file:
            keys = self._named(host_name, connection, may_use_agent=bool(agent_path))
            return {"client_keys": keys, "agent_path": ""} if keys else {"client_keys": (), "agent_path": agent_path}
        if config_decides:
            return {}
        if self._defaults is None:
            paths = [self._directory / name for name in DEFAULT_KEY_NAMES] if self._directory else []
            self._defaults = [key for path in paths if path.is_file() for key in _read_or_skip(path)]
        return {"client_keys": self._defaults or (() if agent_path else None), "agent_path": agent_path}

    def _named(self, host_name: str, connection: Connection, *, may_use_agent: bool) -> list[Any]:
        path = str(user_path(connection.private_key_file or "").absolute())
        if path in self._read:
            return self._read[path]
        passphrase = connection.private_key_passphrase
        try:
            self._read[path] = _read_key(Path(path), passphrase.reveal() if passphrase else None)
        except asyncssh.KeyEncryptionError as error:
            raise HostAuthFailed(host_name, f"{path}: the passphrase does not open it: {error}") from None
        except asyncssh.KeyImportError as error:
            if passphrase is None and "passphrase" in str(error).lower():
                if not may_use_agent:
                    raise HostAuthFailed(
                        host_name, f"{path} has a passphrase, and no ssh-agent runs", hint=f"ssh-add {path}"
                    ) from None
                return []
            raise HostAuthFailed(host_name, f"{path} is not a private key: {error}") from None
        except OSError as error:
            raise HostAuthFailed(
                host_name, f"{path}: {error.strerror}", hint="ansible_ssh_private_key_file names it"
            ) from None
        return self._read[path]


def _read_or_skip(path: Path) -> list[Any]:
    try:
        return _read_key(path, None)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError):
        return []  # a default key that is unreadable or wants a passphrase: the ssh-agent may have it


def _read_key(path: Path, passphrase: str | None) -> list[Any]:
    key = asyncssh.read_private_key(path, passphrase)
    certificate = path.with_name(f"{path.name}-cert.pub")
    return [(key, asyncssh.read_certificate(certificate)), key] if certificate.is_file() else [key]
