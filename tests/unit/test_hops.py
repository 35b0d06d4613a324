"""Which hosts share a connection to their jump host: a transport that only notes its logins."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controller.act.hops import Hop, HoppingTransport, ScannedKey, login_refused
from controller.act.hostkeys import KnownHosts
from controller.act.transport import Session
from controller.model.errors import HostError
from controller.model.inventory import Connection, Host, Secret

JUMP = "jump.example"
K = {"private_key_file": "/keys/k"}


class Transport(HoppingTransport[str]):
    """`accepts`: the key with which the jump host lets in; None: any."""

    def __init__(self, directory: Path, accepts: str | None = None) -> None:
        super().__init__(KnownHosts(directory / "known_hosts"))
        self.accepts = accepts
        self.jumps: list[Connection] = []
        self.tunnels: dict[str, str | None] = {}

    async def _attempt(self, host: Host, hop: Hop, tunnel: str | None) -> str:
        await asyncio.sleep(0)
        if hop.name == host.name:
            self.tunnels[host.name] = tunnel
            return host.name
        self.jumps.append(hop.connection)
        if self.accepts not in (None, hop.connection.private_key_file):
            raise login_refused(host, hop, "publickey")
        return f"{hop.address} #{len(self.jumps)}"

    async def _scan(self, host: Host, hop: Hop, tunnel: str | None) -> ScannedKey:
        raise NotImplementedError

    def _session(self, host: Host, opened: str) -> Session:
        return None  # type: ignore[return-value]

    def _is_closed(self, opened: str) -> bool:
        return False

    async def _end(self, opened: str) -> None:
        pass

    def connect_all(self, *hosts: Host) -> dict[str, str]:
        """What went wrong, by host."""

        async def main() -> list[BaseException | Session]:
            return await asyncio.gather(*(self.connect(host) for host in hosts), return_exceptions=True)

        results = zip(hosts, asyncio.run(main()), strict=True)
        return {host.name: str(result) for host, result in results if isinstance(result, HostError)}


def behind(name: str, *jumps: str, **fields: object) -> Host:
    host = Host(name, (), {}, "test:1")
    host.__dict__["connection"] = Connection(name, proxy_jump=jumps or (JUMP,), **fields)  # type: ignore[arg-type]
    return host


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("jumps", [(JUMP,), ("first.example", JUMP)], ids=["one jump host", "two"])
def test_each_host_goes_to_a_shared_jump_host_with_its_own_key(
    order: str, jumps: tuple[str, ...], tmp_path: Path
) -> None:
    """Whoever came first used to decide for all."""
    transport = Transport(tmp_path, accepts="/keys/b")
    failed = transport.connect_all(*(behind(name, *jumps, private_key_file=f"/keys/{name}") for name in order))
    assert list(failed) == ["a"]
    assert "refuses the login" in failed["a"]
    assert set(transport.tunnels) == {"b"}


@pytest.mark.parametrize(
    ("a", "b", "logins"),
    [
        ({}, {}, 1),
        (K, K, 1),
        ({"connect_timeout_s": 5.0}, {"connect_timeout_s": 60.0}, 1),
        ({"user": "x", "port": 23, "password": Secret("p")}, {}, 1),
        ({**K, "private_key_passphrase": Secret("p")}, {**K, "private_key_passphrase": Secret("p")}, 1),
        ({**K, "private_key_passphrase": Secret("p")}, K, 2),
        (K, {}, 2),
        ({"known_hosts_files": ("/a",)}, {"known_hosts_files": ("/b",)}, 2),
    ],
)
def test_hosts_share_a_jump_host_where_they_would_log_in_there_alike(
    a: dict[str, object], b: dict[str, object], logins: int, tmp_path: Path
) -> None:
    transport = Transport(tmp_path)
    assert transport.connect_all(behind("a", **a), behind("b", **b)) == {}
    assert len(transport.jumps) == logins
    assert len(set(transport.tunnels.values())) == logins
