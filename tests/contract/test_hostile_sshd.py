"""Hosts that can't be reached at all, and servers that send what none should: one HostError each, whatever the library raises."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest

from controller.act.hostkeys import KnownHosts
from controller.act.paramiko_session import Link
from controller.act.transport import LoginRefused
from controller.act.transports import TransportByHost
from controller.model.errors import HostError, HostUnreachable
from controller.model.inventory import Host
from tests.contract.hostile import AtThePassword, Listen, listen, packet, until_the_end  # noqa: F401  (fixture)
from tests.contract.transports import refusal

ENOUGH_BYTES = 64 << 20


def host(library: str, address: str = "127.0.0.1", port: int = 22, **variables: Any) -> Host:
    plain = {"ansible_host": address, "ansible_port": port, "ansible_user": "u", "ansible_connection": library}
    return Host("web1", (), {**plain, **variables}, "test:1")


def refused(target: Host, directory: Path, config: str | None = None) -> HostError:
    """What connecting says, with this ~/.ssh/config."""
    ssh = directory / "ssh"
    ssh.mkdir()
    if config is not None:
        (ssh / "config").write_text(config)

    async def check() -> HostError:
        transport = TransportByHost(KnownHosts(directory / "known_hosts"), ssh_directory=ssh)
        return await refusal(transport, target)

    return asyncio.run(check())


@pytest.mark.parametrize("address", ["a" * 64 + ".example.com", "web..example.com"])
def test_a_name_that_can_be_none_is_an_unreachable_host(address: str, library: str, tmp_path: Path) -> None:
    error = refused(host(library, address), tmp_path)
    assert isinstance(error, HostUnreachable)
    assert address in str(error)


def test_names_of_algorithms_that_are_no_text_are_a_host_error(
    listen: Listen,  # noqa: F811
    library: str,
    tmp_path: Path,
) -> None:
    names = struct.pack(">I", 2) + b"\xff\xfe"

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-x\r\n" + packet(b"\x14" + bytes(16) + names * 10 + b"\0" + bytes(4)))
        until_the_end(connection)

    assert isinstance(refused(host(library, port=listen(talk)), tmp_path), HostUnreachable)


def test_a_packet_of_gigabytes_is_not_taken_in(
    listen: Listen,  # noqa: F811
    library: str,
    tmp_path: Path,
) -> None:
    sent = 0

    def talk(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"SSH-2.0-x\r\n" + struct.pack(">IB", 0x7FFFFFFC, 4) + bytes(3))
        while sent < ENOUGH_BYTES:
            connection.sendall(bytes(1 << 20))
            sent += 1 << 20

    assert isinstance(refused(host(library, port=listen(talk), ansible_timeout=5), tmp_path), HostUnreachable)
    assert sent < ENOUGH_BYTES  # of what the sockets' buffers hold, and no more


def test_a_connection_that_is_reset_at_once_is_closed_and_called_so(listen: Listen) -> None:  # noqa: F811
    has_connected = threading.Event()

    def talk(connection: socket.socket) -> None:
        has_connected.wait(20)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def check() -> None:
        with socket.create_connection(("127.0.0.1", listen(talk))) as client:
            has_connected.set()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            with pytest.raises(ConnectionResetError):
                Link("web1", client, timeout_s=5)
            assert client.fileno() == -1

    asyncio.run(check())


def hang_up(server: paramiko.Transport) -> None:
    server.sock.close()


def say_that_it_was_too_often(server: paramiko.Transport) -> None:
    server.auth_handler._disconnect_no_more_auth()


@pytest.mark.parametrize(("then", "kind"), [(hang_up, HostUnreachable), (say_that_it_was_too_often, LoginRefused)])
def test_only_what_the_server_says_is_a_refused_login(
    then: Callable[[paramiko.Transport], None],
    kind: type[HostError],
    listen: Listen,  # noqa: F811
    library: str,
    tmp_path: Path,
) -> None:
    key = paramiko.ECDSAKey.generate()
    port = listen(lambda connection: AtThePassword(then).talk(connection, key))
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {key.get_name()} {key.get_base64()}\n")
    error = refused(host(library, port=port, ansible_password="right"), tmp_path)
    assert type(error) is kind, error


# ---- ~/.ssh/config ------------------------------------------------------------------------------------------------------


CONFIGS = {
    "Host *\n  Port ssh\n": "Port ssh is no number",
    "CanonicalizeHostname yes\nCanonicalizeFallbackLocal no\nCanonicalDomains example.invalid\n": "nowhere",
}


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_that_cannot_be_followed_is_this_hosts_error(config: str, library: str, tmp_path: Path) -> None:
    said = str(refused(host(library, "nowhere"), tmp_path, config))
    if library == "paramiko":
        assert said.startswith("web1: ~/.ssh/config: ")
        assert CONFIGS[config] in said


@pytest.mark.parametrize("none", ["ProxyJump none", "ProxyJump NONE", "ProxyCommand none"])
def test_a_host_that_a_config_exempts_from_the_proxy_is_reached_without_it(
    none: str, library: str, tmp_path: Path
) -> None:
    kind = none.split()[0]
    config = f"Host 127.0.0.1\n  {none}\nHost *\n  {kind} elsewhere\n"
    error = refused(host(library, port=1), tmp_path, config)
    assert isinstance(error, HostUnreachable)
    assert "proxy" not in str(error)
