"""Servers that ban, names that no longer resolve, machines in the middle: against OpenSSH's own server, or one that acts as it does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.act.fleet import Fleet
from controller.act.hostkeys import KnownHosts
from controller.act.lastaddresses import LastAddresses
from controller.act.transport import ATTEMPTS, Throttled
from controller.act.transports import TransportByHost
from controller.cli.wiring import _NoDeployer
from controller.model.errors import HostKeyChanged, HostKeyUnknown, HostUnreachable
from controller.model.inventory import Host
from tests.contract.transports import StartSshd, refusal

NAME = "node.sshoal.test"


class Banning:
    """What sshd since 9.8 does to an address that it penalises: one line, and the end."""

    def __init__(self) -> None:
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"Not allowed at this time\r\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=5)


@pytest.fixture
def banning() -> Iterator[Banning]:
    server = Banning()
    yield server
    server.close()


def test_a_server_that_bans_us_is_named_as_such_and_not_hammered(
    banning: Banning, library: str, tmp_path: Path
) -> None:
    host = Host(
        "web1", (), {"ansible_host": "127.0.0.1", "ansible_port": banning.port, "ansible_connection": library}, "t:1"
    )

    async def check() -> None:
        error = await refusal(TransportByHost(KnownHosts(tmp_path / "known_hosts")), host)
        assert isinstance(error, Throttled)
        assert "PerSourcePenalties" in error.hint
        assert "fail2ban" in error.hint

    asyncio.run(check())
    assert banning.connections <= ATTEMPTS


def test_a_stream_after_a_broken_connection_gets_a_new_one(start_sshd: StartSshd) -> None:
    """A port-forward keeps its connection for days: what it opens after a break must not fail for ever."""
    server = start_sshd()

    async def check() -> None:
        async with Fleet(TransportByHost(server.known_hosts()), _NoDeployer()) as fleet:
            host = server.host()
            first = await fleet.session(host)
            assert await fleet.session(host) is first
            for process in server.processes()[1:]:
                with contextlib.suppress(ProcessLookupError):  # they end with each other
                    os.kill(process, signal.SIGKILL)
            async with asyncio.timeout(4):
                while not first.is_closed:
                    await asyncio.sleep(0.02)
            with pytest.raises(HostUnreachable) as caught:
                await first.run("true", become=False, timeout_s=4)
            assert not isinstance(caught.value, Throttled), (
                "which would be tried again and again, and blame MaxSessions"
            )
            again = await fleet.session(host)
            assert (await again.run("exit 3", become=False, timeout_s=4)).exit_code == 3

    asyncio.run(check())


# ---- names --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names that resolve to this machine; without them there is no name service at all."""
    known = {NAME}
    honest = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == NAME and host not in known:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return honest("127.0.0.1" if host == NAME else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def test_a_name_that_no_longer_resolves_is_reached_where_it_was_last(
    start_sshd: StartSshd, names: set[str], tmp_path: Path
) -> None:
    server = start_sshd()
    known = server.known_hosts()
    known.trust(NAME, server.port, [server.host_key])
    host = server.host(ansible_host=NAME)

    async def check() -> None:
        first = TransportByHost(known, addresses=LastAddresses(tmp_path / "addresses"))
        await (await first.connect(host)).close()
        names.clear()
        later = TransportByHost(known, addresses=LastAddresses(tmp_path / "addresses"))
        session = await later.connect(host)
        assert (await session.run("echo here", become=False, timeout_s=10)).stdout == b"here\n"
        await session.close()
        error = await refusal(TransportByHost(known), host)
        assert isinstance(error, HostUnreachable)
        assert "name resolution" in str(error)

    asyncio.run(check())


def test_at_the_last_address_another_machine_is_told_by_its_key(
    start_sshd: StartSshd, names: set[str], tmp_path: Path
) -> None:
    server, stranger = start_sshd(), start_sshd()
    known = server.known_hosts()
    known.trust(NAME, server.port, [server.host_key])
    addresses = LastAddresses(tmp_path / "addresses")
    addresses.remember(NAME, ("127.0.0.1", stranger.port))
    names.clear()

    async def check() -> None:
        error = await refusal(TransportByHost(known, addresses=addresses), server.host(ansible_host=NAME))
        assert isinstance(error, HostKeyChanged)
        assert str(stranger.host_key) in str(error)

    asyncio.run(check())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"node.sshoal.test": 5}',
        '{"node.sshoal.test": ["$(id)", 22]}',
        '{"node.sshoal.test": ["::1", "x"]}',
    ],
)
def test_a_damaged_memory_of_addresses_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "addresses"
    path.write_text(text)
    assert LastAddresses(path).of(NAME) is None
    memory = LastAddresses(path)
    memory.remember(NAME, ("192.0.2.7", 22))
    assert LastAddresses(path).of(NAME) == ("192.0.2.7", 22)


# ---- a machine in the middle ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", ["nothing", "another key"])
def test_a_machine_in_the_middle_gets_nothing_before_its_key_is_verified(
    start_sshd: StartSshd, known: str, tmp_path: Path
) -> None:
    """sshd's own log at its most talkative: the client left before it asked for anything at all."""
    honest, middle = start_sshd(), start_sshd(LogLevel="DEBUG3")
    trusted = KnownHosts(tmp_path / "known_hosts")
    if known == "another key":
        trusted.trust("127.0.0.1", middle.port, [honest.host_key])

    async def check() -> None:
        host = middle.host(ansible_password="opensesame", ansible_become_password="opensesame")
        error = await refusal(TransportByHost(trusted), host)
        assert type(error) is (HostKeyUnknown if known == "nothing" else HostKeyChanged)

    asyncio.run(check())
    log = (middle.directory / "log").read_text()
    assert "SSH2_MSG_KEXINIT received" in log, "it did talk to us"
    assert "service-request" not in log
    assert "userauth" not in log.lower()
    assert "opensesame" not in log
