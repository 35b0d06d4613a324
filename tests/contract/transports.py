"""What the contract tests of the transports share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from controller.act.transport import AgentPlaces, Session
from controller.act.transports import TransportByHost
from controller.model.errors import HostError
from controller.model.inventory import Host
from tests.contract.sshd import Sshd

StartSshd = Callable[..., Sshd]

ONLY_ASYNCSSH = pytest.mark.parametrize("library", ["ssh"], indirect=True)
ONLY_PARAMIKO = pytest.mark.parametrize("library", ["paramiko"], indirect=True)


@contextlib.asynccontextmanager
async def connected(server: Sshd, agent: AgentPlaces | None = None, **variables: Any) -> AsyncIterator[Session]:
    transport = TransportByHost(server.known_hosts(), agent=agent or AgentPlaces())
    session = await transport.connect(server.host(**variables))
    try:
        yield session
    finally:
        await session.close()
        await transport.close()


async def refusal(transport: TransportByHost, host: Host) -> HostError:
    with pytest.raises(HostError) as caught:
        await transport.connect(host)
    return caught.value
