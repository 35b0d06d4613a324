"""Which Transport a host gets: by `ansible_connection`. The SSH libraries are imported when the first host asks for one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from controller.act.hops import PLACES, HoppingTransport, ScannedKey
from controller.act.hostkeys import KnownHosts
from controller.act.lastaddresses import LastAddresses
from controller.act.transport import AgentPlaces, Session
from controller.model.inventory import Host


class TransportByHost:
    """The Transport for all hosts: asyncssh's for `ssh` and `smart`, paramiko's for `paramiko`. See HoppingTransport."""

    def __init__(
        self,
        known_hosts: KnownHosts,
        *,
        ssh_directory: Path | None = None,
        agent: AgentPlaces = PLACES,
        addresses: LastAddresses | None = None,
    ) -> None:
        self._known_hosts = known_hosts
        self._addresses = addresses or LastAddresses()
        self._ssh_directory = ssh_directory
        self._agent = agent
        self._made: dict[str, HoppingTransport[Any]] = {}

    async def connect(self, host: Host) -> Session:
        return await self._of(host).connect(host)

    async def scan_host_key(self, host: Host) -> ScannedKey:
        return await self._of(host).scan_host_key(host)

    async def close(self) -> None:
        for transport in self._made.values():
            await transport.close()

    def _of(self, host: Host) -> HoppingTransport[Any]:
        kind = host.connection.kind
        if kind not in self._made:
            self._made[kind] = self._make(kind)
        return self._made[kind]

    def _make(self, kind: str) -> HoppingTransport[Any]:
        return _class_of(kind)(
            self._known_hosts, ssh_directory=self._ssh_directory, agent=self._agent, addresses=self._addresses
        )


def load_transports(hosts: Iterable[Host]) -> None:
    """Imports the SSH libraries that these hosts need; else the first connection does."""
    for kind in {host.connection.kind for host in hosts}:
        _class_of(kind)


def _class_of(kind: str) -> type[HoppingTransport[Any]]:
    if kind == "paramiko":
        from controller.act.paramiko_transport import ParamikoTransport

        return ParamikoTransport
    from controller.act.ssh import AsyncsshTransport

    return AsyncsshTransport
